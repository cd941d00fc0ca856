import keras
import numpy as np
import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.networks.catalog import NETWORKS, STAGES
from pneumonia_core.networks.classifier import (
    ARCHITECTURES,
    build_classifier,
    stage_of,
    stage_output,
    stages_of_layers,
    train_from,
)

pytestmark = pytest.mark.usefixtures("exact_float32")
SIZE = 64


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier(images):
    keras.utils.set_random_seed(1)
    model = build_classifier("resnet18", SIZE, dropout=0.3)
    for _ in range(5):  # statistics of batch normalisation that are not the initial ones
        model(images, training=True)
    return model


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "resnet50", "resnet50v2"])
def test_every_stage_of_a_network_can_be_reached_and_shrinks_the_picture(network):
    model = build_classifier(network, SIZE)
    sides = [stage_output(model, stage).shape[1] for stage in STAGES[:-1]]
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == SIZE // 32
    assert {of for layer, of in stages_of_layers(model) if layer.weights} == set(STAGES)
    assert model.name == network


def test_resnet18_has_the_parameters_of_torchvisions():
    """torchvision's resnet18 has 11,689,512 parameters, 513,000 of them in a head for 1,000 classes."""
    model = build_classifier("resnet18", SIZE)
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert parameters == 11_689_512 - 513_000 + 3 * 513


def test_resnet34_has_the_parameters_of_torchvisions():
    model = build_classifier("resnet34", SIZE)
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    assert parameters == 21_797_672 - 513_000 + 3 * 513


def test_pixels_reach_each_backbone_as_its_published_weights_expect(images):
    grey = images.astype(np.float64)[..., None]
    expected = {
        "resnet18": (grey / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "resnet50": keras.applications.resnet.preprocess_input(np.repeat(grey, 3, axis=-1)),
        "resnet50v2": keras.applications.resnet_v2.preprocess_input(np.repeat(grey, 3, axis=-1)),
    }
    for network, pixels in expected.items():
        model = build_classifier(network, SIZE)
        probe = keras.Model(model.input, model.get_layer("normalised").output)
        np.testing.assert_allclose(np.asarray(probe(images)), pixels, rtol=1e-5, atol=1e-4)


def test_image_batches_with_and_without_a_channel_give_the_same_logits(classifier, images):
    np.testing.assert_array_equal(classifier(images), classifier(images.astype("float32")[..., None]))


def test_stages_before_the_first_trained_one_are_frozen_with_their_statistics(images):
    model = build_classifier("resnet18", SIZE)
    assert train_from(model, "layer3") == ["layer3", "layer4", "head"]
    frozen = model.get_layer("layer2.0.bn1").get_weights()
    trained = model.get_layer("layer3.0.bn1").get_weights()
    model(images, training=True)
    for before, after in zip(frozen, model.get_layer("layer2.0.bn1").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(trained[2], model.get_layer("layer3.0.bn1").get_weights()[2])
    assert {stage_of("resnet18", v.path.split("/")[0]) for v in model.trainable_variables} == {
        "layer3",
        "layer4",
        "head",
    }


def test_unknown_network_and_tiny_images_are_refused_with_the_choices():
    with pytest.raises(InvalidInput, match="resnet50v2"):
        build_classifier("resnet19", SIZE)
    with pytest.raises(InvalidInput, match="32"):
        build_classifier("resnet18", 16)
    assert set(ARCHITECTURES) == set(NETWORKS)
