"""The domain guard: what is like the training data, and what is not."""

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from support.images.strangers import strangers

from pneumonia_core.bundles.bundle import compute_model_id, open_bundle
from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.calibration import Calibration
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.domain import Domain, in_domain
from pneumonia_core.imaging.decode import decode
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.domain_guard import choose_threshold, domain_scores, fit_guard
from pneumonia_core.networks.prefilter import smooth
from pneumonia_core.networks.pretrained import load_weights
from pneumonia_core.networks.scoring_model import domain_features, scoring_model
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.storage.ranges import read_file
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.release import Provenance, release

CALIBRATION = Calibration(1.5, 0.2, 0.5, -0.1)


@pytest.fixture(scope="module")
def unseen():
    """Synthetic X-rays that the guard was not fitted on."""
    return np.stack([phantom(n % 3, 5000 + n, 1, (64, 64)) for n in range(60)])


def auroc(familiar, strange):
    truth = np.concatenate([np.zeros(len(familiar)), np.ones(len(strange))])
    return roc_auc_score(truth, np.concatenate([familiar, strange]))


def reencoded(images, quality):
    def once(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([once(image) for image in images])


def test_threshold_flags_at_most_its_share_of_validation():
    scores = np.random.default_rng(0).gamma(9, size=504)
    flagged = np.mean(scores > choose_threshold(scores))
    assert 0.03 <= flagged <= 0.035
    few = scores[:20]
    assert not (few > choose_threshold(few)).any()
    # Many equal scores are all familiar or all strange.
    assert not (np.ones(100) > choose_threshold(np.ones(100))).any()


def test_scores_of_a_guard_are_one_on_average_and_grow_with_the_distance():
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(20, 20))
    guard = fit_guard(rng.normal(size=(4000, 20)) @ mixing + 3)
    fresh = rng.normal(size=(1000, 20))
    assert np.mean(np.square(domain_scores(guard, fresh @ mixing + 3))) == pytest.approx(1, abs=0.2)
    assert domain_scores(guard, 5 * fresh @ mixing + 3).min() > 2


def test_guard_of_fewer_images_than_features_and_of_features_that_never_change_is_finite():
    rng = np.random.default_rng(2)
    features = np.concatenate([rng.normal(size=(30, 100)), np.zeros((30, 5))], axis=1)
    scores = domain_scores(fit_guard(features), np.concatenate([features, features + 1000]))
    assert np.isfinite(scores).all()
    assert scores[30:].min() > scores[:30].max()


@pytest.mark.parametrize(
    ("age_years", "familiar"),
    [
        (None, True),
        (1.0, True),
        (52 / 52.1775, True),
        (18 / 12, True),
        (5.0, True),
        (71 / 12, True),
        (6.0, False),
        (72 / 12, False),
        (62.0, False),
        (6 / 12, False),
        (0.0, False),
    ],
)
def test_age_is_compared_in_completed_years(age_years, familiar):
    assert in_domain(Domain(2.0, (1.0, 5.0)), np.array([1.0]), [age_years]).tolist() == [familiar]
    assert in_domain(Domain(2.0, None), np.array([1.0]), [age_years]).tolist() == [True]
    assert in_domain(Domain(0.5, (1.0, 5.0)), np.array([1.0]), [age_years]).tolist() == [False]


def test_scoring_model_computes_the_score_of_the_guard_and_is_read_back_without_custom_objects(tmp_path):
    keras.utils.set_random_seed(3)
    classifier = build_classifier("resnet18", 64)
    images = np.random.default_rng(3).integers(0, 256, (24, 64, 64), dtype=np.uint8)
    features = np.asarray(keras.Model(classifier.input, domain_features(classifier))(smooth(images)))
    guard = fit_guard(features[:16])
    scoring_model([classifier], CALIBRATION, guard).save(tmp_path / "model.keras")
    scorer = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    outputs = scorer(images)
    np.testing.assert_allclose(outputs["domain"], domain_scores(guard, features), rtol=1e-4)
    np.testing.assert_array_equal(
        outputs["probabilities"], scoring_model([classifier], CALIBRATION)(images)["probabilities"]
    )


@pytest.mark.parametrize("network", ["resnet50", "resnet50v2"])
def test_other_networks_have_domain_features(network):
    model = build_classifier(network, 64)
    assert domain_features(model).shape == (None, 512 + 1024)


def test_engines_agree_on_domain_scores_and_probabilities(guarded_bundle, unseen):
    model = keras.saving.load_model(guarded_bundle.path / "model.keras", safe_mode=True)
    reference = {name: np.asarray(value) for name, value in model(unseen).items()}
    for name in ("openvino", "tensorflow"):
        scores = load_engine(guarded_bundle, name, "float32")(unseen)
        np.testing.assert_allclose(scores.domain, reference["domain"], rtol=1e-3)
        np.testing.assert_allclose(scores.probabilities, reference["probabilities"], atol=1e-5)
        assert scores.domain.dtype == np.float32
        assert guarded_bundle.engines[name].domain_agreement >= 0.98


def test_bundle_tells_its_domain_and_flags_few_of_validation(guarded_bundle):
    opened = open_bundle(guarded_bundle.path)
    assert opened.domain.ages_years == (1.0, 5.0)
    evaluation = json.loads((opened.path / "evaluation.json").read_text())
    assert 0 < evaluation["domain"]["flagged_share"] <= 0.05
    assert evaluation["domain"]["threshold"] == opened.domain.threshold
    card = (opened.path / "MODEL_CARD.md").read_text()
    assert "out of domain" in card
    assert "1 to 5 years" in card


def test_what_changes_in_domain_changes_the_model_id(guarded_bundle):
    model = keras.saving.load_model(guarded_bundle.path / "model.keras", safe_mode=True)
    spec = guarded_bundle.spec
    others = [None, Domain(spec.domain.threshold, None), Domain(9.0, spec.domain.ages_years)]
    ids = {compute_model_id(model, dataclasses.replace(spec, domain=other)) for other in others}
    assert len(ids | {compute_model_id(model, spec)}) == 4


def test_what_is_no_upright_chest_stands_out_even_to_random_weights(guarded_bundle, unseen):
    engine = load_engine(guarded_bundle, "openvino", "float32")
    familiar = engine(unseen).domain
    strange = {
        **strangers(64, 20),
        "inverted": 255 - unseen,
        "upside down": unseen[:, ::-1],
    }
    figures = {name: auroc(familiar, engine(images).domain) for name, images in strange.items()}
    assert min(figures.values()) >= 0.95, figures


def test_encoding_and_mirroring_hardly_change_how_many_are_flagged(guarded_bundle, unseen):
    engine = load_engine(guarded_bundle, "openvino", "float32")
    threshold = guarded_bundle.domain.threshold
    as_it_is = np.mean(engine(unseen).domain > threshold)
    for other in (reencoded(unseen, 50), reencoded(unseen, 75), unseen[:, :, ::-1]):
        assert np.mean(engine(other).domain > threshold) <= as_it_is + 0.07


@pytest.mark.slow
def test_films_of_adults_and_what_is_no_chest_are_out_of_domain_of_childrens(shared_data, tmp_path):
    """On ImageNet's features alone, before any training. The films of adults are used for nothing else."""
    training, validation = split_training(read_labelled(str(shared_data / "kermany224")))
    training = [training[i] for i in np.random.default_rng(0).permutation(len(training))[:400]]
    validation = validation[::3]
    seen, held_back = (
        np.stack([decode(read_file(image.uri), 224) for image in images]) for images in (training, validation)
    )
    films = sorted((shared_data / "adult_nih").glob("*.jpg"))
    adults = np.stack([decode(film.read_bytes(), 224) for film in films])
    keras.utils.set_random_seed(0)
    classifier = build_classifier("resnet18", 224)
    load_weights(classifier, str(shared_data / "weights" / "resnet18_imagenet_trunk.npz"), seen[:32])
    released = release(
        tmp_path,
        [classifier],
        seen,
        ValidationSet(
            ImageParts.of(held_back),
            np.array([i.label for i in validation]),
            np.array([i.patient_id for i in validation]),
        ),
        Provenance("none", "kermany", "trunk", {}, (1.0, 5.0)),
    )
    assert released.evaluation["domain"]["flagged_share"] <= 0.05
    engine = load_engine(released.bundle, "openvino")
    familiar = engine(held_back).domain
    some = held_back[::3]
    strange = {
        **strangers(224, 20),
        "synthetic": np.stack([phantom(n % 3, n, 1, (224, 224)) for n in range(40)]),
        "inverted": 255 - some,
        "upside down": some[:, ::-1],
    }
    figures = {name: auroc(familiar, engine(images).domain) for name, images in strange.items()}
    assert min(figures.values()) >= 0.95, figures
    for quality in (75, 90):
        own, foreign = (engine(reencoded(images, quality)).domain for images in (held_back, adults))
        assert auroc(own, foreign) >= 0.97
        assert np.mean(own > released.bundle.domain.threshold) <= 0.05
        assert np.mean(foreign > released.bundle.domain.threshold) >= 0.9
