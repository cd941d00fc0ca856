import keras
import numpy as np
import pytest

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.networks.catalog import check_source
from pneumonia_core.networks.classifier import build_classifier, stage_output
from pneumonia_core.networks.pretrained import load_weights

SIZE = 64


@pytest.fixture(scope="module")
def images():
    """Smooth random pictures."""
    coarse = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 1))
    return np.asarray(keras.ops.image.resize(coarse, (SIZE, SIZE)))[..., 0].astype(np.uint8)


@pytest.fixture(scope="module")
def made_up_trunk(tmp_path_factory):
    """Folded weights of conv1 to layer3 under torchvision's names, random."""
    rng = np.random.default_rng(3)
    weights = {}
    for layer in build_classifier("resnet18", SIZE).layers:
        if isinstance(layer, keras.layers.Conv2D) and not layer.name.startswith("layer4"):
            weights[f"{layer.name}.weight"] = rng.normal(
                0, np.sqrt(2 / np.prod(layer.kernel.shape[:3])), layer.kernel.shape
            ).astype(np.float32)
            weights[f"{layer.name}.bias"] = rng.normal(0, 0.1, layer.filters).astype(np.float32)
    path = tmp_path_factory.mktemp("weights") / "trunk.npz"
    np.savez(path, **weights)
    return path


@pytest.fixture(params=["made up", "torchvision"])
def trunk(request):
    if request.param == "made up":
        return request.getfixturevalue("made_up_trunk")
    return request.getfixturevalue("shared_data") / "weights" / "resnet18_imagenet_trunk.npz"


def folded_layer3(path, images):
    """conv1 to layer3 of the folded network, computed plainly: convolution, bias, ReLU."""
    with np.load(path) as file:
        weights = dict(file)

    def convolve(x, name, stride=1):
        kernel = weights[f"{name}.weight"]
        margin = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        return np.asarray(keras.ops.conv(x, kernel, stride, "valid")) + weights[f"{name}.bias"]

    def relu(x):
        return np.maximum(x, 0)

    x = np.repeat(images[..., None], 3, axis=-1) / np.float32(255)
    x = ((x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
    x = relu(convolve(x, "conv1", 2))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = np.asarray(keras.ops.max_pool(x, 3, 2, "valid"))
    for stage in (1, 2, 3):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shortcut = convolve(x, f"{name}.downsample.0", stride) if stride == 2 else x
            x = relu(convolve(x, f"{name}.conv1", stride))
            x = relu(convolve(x, f"{name}.conv2") + shortcut)
    return x


def test_folded_weights_give_the_folded_networks_function(trunk, images):
    classifier = build_classifier("resnet18", SIZE)
    loaded = load_weights(classifier, str(trunk), images)
    probe = keras.Model(classifier.input, stage_output(classifier, "layer3"))
    expected = folded_layer3(trunk, images)
    np.testing.assert_allclose(np.asarray(probe(images)), expected, atol=2e-4 * expected.max())
    assert loaded.stages == ("conv1", "layer1", "layer2", "layer3")


def test_folded_weights_give_the_same_function_in_training_mode(trunk, images):
    """Batch normalisation got back the statistics of these images, so normalising by the batch changes
    nothing but rounding."""
    classifier = build_classifier("resnet18", SIZE)
    load_weights(classifier, str(trunk), images)
    probe = keras.Model(classifier.input, stage_output(classifier, "layer3"))
    inference, training = np.asarray(probe(images)), np.asarray(probe(images, training=True))
    np.testing.assert_allclose(training, inference, atol=5e-3 * inference.max())


def test_layers_that_the_file_lacks_stay_as_they_were_initialised(made_up_trunk, images):
    classifier = build_classifier("resnet18", SIZE)
    before = classifier.get_layer("layer4.0.conv1").get_weights()[0]
    loaded = load_weights(classifier, str(made_up_trunk), images)
    np.testing.assert_array_equal(before, classifier.get_layer("layer4.0.conv1").get_weights()[0])
    assert "layer4.0.conv1" not in loaded.layers
    assert "layer2.0.downsample.1" in loaded.layers


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_saved_classifier_is_loaded_whole(suffix, images, tmp_path):
    trained = build_classifier("resnet18", SIZE)
    file = tmp_path / f"trained{suffix}"
    trained.save(file) if suffix == ".keras" else trained.save_weights(file)
    fresh = build_classifier("resnet18", SIZE, precision="mixed_bfloat16")
    loaded = load_weights(fresh, str(file), images)
    assert "head" in loaded.stages
    for ours, theirs in zip(fresh.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_none_loads_nothing():
    assert load_weights(build_classifier("resnet18", SIZE), "none").layers == ()


def test_files_that_do_not_fit_are_refused_in_one_line(made_up_trunk, tmp_path):
    fits_nothing, damaged, pickled = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npz"
    np.savez(fits_nothing, something=np.zeros(3))
    damaged.write_bytes(made_up_trunk.read_bytes()[:1000])
    np.savez(pickled, **{"conv1.weight": np.array([object()]), "conv1.bias": np.zeros(64)})
    broken_keras, other_network = tmp_path / "d.keras", tmp_path / "e.weights.h5"
    broken_keras.write_bytes(b"no model")
    build_classifier("resnet34", SIZE).save_weights(other_network)
    classifier = build_classifier("resnet18", SIZE)
    for file in (fits_nothing, damaged, pickled, broken_keras, other_network, tmp_path / "absent.npz"):
        with pytest.raises(InvalidInput) as refused:
            load_weights(classifier, str(file))
        assert str(file) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_networks_without_a_download_ask_for_a_file():
    with pytest.raises(InvalidInput, match="resnet18") as refused:
        check_source("resnet18", "imagenet")
    assert refused.value.remedy == Remedy.LOCAL_WEIGHTS
    check_source("resnet50", "imagenet")


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    """The download is pointed at a server that does not exist, and at an empty cache."""
    module = __import__("keras.src.applications.resnet", fromlist=["resnet"])
    monkeypatch.setattr(module, "BASE_WEIGHTS_PATH", "http://127.0.0.1:9/")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path), raising=False)
    with pytest.raises(InvalidInput, match="resnet50") as refused:
        load_weights(build_classifier("resnet50", SIZE), "imagenet")
    assert "\n" not in str(refused.value)
    assert refused.value.remedy == Remedy.LOCAL_WEIGHTS
