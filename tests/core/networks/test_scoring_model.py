"""The graph of a bundle: what it computes, and that every engine computes the same."""

import keras
import numpy as np
import pytest

from pneumonia_core.bundles.openvino_runtime.engine import EXACT
from pneumonia_core.bundles.openvino_runtime.export import export_openvino
from pneumonia_core.calibration import UNCALIBRATED, Calibration, log_odds
from pneumonia_core.networks.classifier import build_classifier, dtype_policy, logits_of
from pneumonia_core.networks.domain_guard import domain_scores, fit_guard
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.networks.pretrained import load_weights
from pneumonia_core.networks.scoring_model import classifiers_of, domain_features, scoring_model

pytestmark = pytest.mark.usefixtures("exact_float32")
SIZE = 64
CALIBRATION = Calibration(1.7, 0.4, 0.3, -0.2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def members(images):
    return [classifier(seed, images) for seed in (1, 2)]


def classifier(seed, images, network="resnet18"):
    keras.utils.set_random_seed(seed)
    model = build_classifier(network, SIZE, dropout=0.3)
    for _ in range(5):  # statistics of batch normalisation that are not the initial ones
        model(images, training=True)
    return model


def odds_of(member, images):
    return log_odds(member(smooth(images)))


def test_scoring_model_calibrates_the_log_odds_of_a_smoothed_image(members, images):
    scorer = scoring_model(members[:1], CALIBRATION)
    expected = CALIBRATION.probabilities(odds_of(members[0], images))
    np.testing.assert_allclose(scorer(images)["probabilities"], expected, atol=1e-6)
    assert scorer.input.dtype == "uint8"
    assert list(scorer.output) == ["probabilities"]


def test_scoring_model_of_a_network_that_trained_without_the_filter_has_none(members, images):
    scorer = scoring_model(members[:1], CALIBRATION, smoothing=0.0)
    expected = CALIBRATION.probabilities(log_odds(members[0](images.astype(np.float32))))
    np.testing.assert_allclose(scorer(images)["probabilities"], expected, atol=1e-6)


def test_scoring_model_of_a_mixed_precision_classifier_computes_in_float32(members, images):
    mixed = build_classifier("resnet18", SIZE, precision="mixed_bfloat16")
    mixed.set_weights(members[0].get_weights())
    scores = scoring_model([mixed], CALIBRATION)(images)["probabilities"]
    expected = scoring_model(members[:1], CALIBRATION)(images)["probabilities"]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_members_and_mirror_images_are_averaged_before_calibration(members, images, mirror):
    scorer = scoring_model(members, CALIBRATION, mirror=mirror)
    seen = [images, images[:, :, ::-1]] if mirror else [images]
    mean = np.mean([odds_of(member, some) for member in members for some in seen], axis=0)
    np.testing.assert_allclose(scorer(images)["probabilities"], CALIBRATION.probabilities(mean), atol=1e-6)
    if mirror:
        mirrored = scorer(np.ascontiguousarray(images[:, :, ::-1]))["probabilities"]
        np.testing.assert_allclose(mirrored, scorer(images)["probabilities"], atol=1e-6)


@pytest.mark.parametrize(
    ("network", "count", "mirror"),
    [
        ("resnet18", 2, True),
        pytest.param("resnet50v2", 1, False, marks=pytest.mark.slow),
        pytest.param("resnet50", 2, True, marks=pytest.mark.slow),
    ],
)
def test_exported_models_score_as_the_keras_model(network, count, mirror, images, tmp_path):
    import openvino
    import tensorflow as tf

    some = [classifier(seed, images, network) for seed in range(count)]
    features = np.asarray(keras.Model(some[0].input, domain_features(some[0]))(smooth(images)))
    guard = fit_guard(features)
    scorer = scoring_model(some, CALIBRATION, guard, mirror)
    scorer.save(tmp_path / "model.keras")
    scorer = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    reference = {name: np.asarray(value) for name, value in scorer(images).items()}
    # The guard looks at the image as it is, and at the first member.
    np.testing.assert_allclose(reference["domain"], domain_scores(guard, features), rtol=1e-3)
    scorer.export(str(tmp_path / "saved"), format="tf_saved_model", verbose=False)
    export_openvino(scorer, tmp_path / "model.xml")
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    read = openvino.Core().read_model(tmp_path / "model.xml")
    kernels = [
        node.input_value(1).get_partial_shape()
        for node in read.get_ordered_ops()
        if node.get_type_name() == "Convolution"
    ]
    assert all(kernel[1] != 3 for kernel in kernels), "a first convolution reads the grey picture itself"
    compiled = openvino.compile_model(read, "CPU", EXACT)
    for scores in (saved.serve(images), compiled(images)):
        np.testing.assert_allclose(scores["probabilities"], reference["probabilities"], atol=1e-5)
        np.testing.assert_allclose(scores["domain"], reference["domain"], rtol=1e-3)


def test_saturated_logits_give_finite_probabilities(members, images):
    sure = keras.models.clone_model(members[0])
    sure.set_weights(members[0].get_weights())
    head = sure.get_layer("logits")
    head.set_weights([weight * 1e30 for weight in head.get_weights()])
    probabilities = np.asarray(scoring_model([sure], CALIBRATION)(images)["probabilities"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        probabilities, CALIBRATION.probabilities(odds_of(sure, images)), rtol=1e-3, atol=1e-6
    )


def test_classifiers_of_a_bundle_are_those_it_was_made_of(members, images, tmp_path):
    scoring_model(members, CALIBRATION, mirror=True).save(tmp_path / "model.keras")
    scorer = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    found = classifiers_of(scorer)
    assert len(found) == 2
    for classifier, original in zip(found, members, strict=True):
        np.testing.assert_allclose(classifier(images), original(images), atol=1e-5)
    fresh = build_classifier("resnet18", SIZE)
    assert "head" in load_weights(fresh, str(tmp_path / "model.keras")).stages
    np.testing.assert_allclose(fresh(images), members[0](images), atol=1e-5)


def test_temperature_of_version_0_1_0_goes_into_the_head(members, images):
    with dtype_policy("float32"):
        pixels = keras.Input((SIZE, SIZE), dtype="uint8", name="image")
        logits = logits_of(pixels, "resnet18", dropout=0.0)
        scaled = keras.layers.Rescaling(1 / 1.7, name="temperature")(logits)
        scorer = keras.Model(pixels, {"probabilities": keras.layers.Softmax()(scaled)}, name="resnet18")
    (found,) = classifiers_of(scorer)
    expected = scorer(images)["probabilities"]
    np.testing.assert_allclose(UNCALIBRATED.probabilities(log_odds(found(images))), expected, atol=1e-6)
