"""The classifiers: a ResNet from grey image to three logits, and the scoring model made of it."""

from typing import Any, Final

import keras
from keras import layers, ops

from pneumonia_core.networks.classifier import _logits, copy_weights, dtype_policy, stage_output
from pneumonia_core.networks.domain_guard import LARGEST_DEVIATION, DomainGuard
from pneumonia_core.networks.prefilter import smooth_about

# What the domain guard looks at: early stages see mostly brightness and grain, the last one only what tells
# the classes apart.
DOMAIN_STAGES: Final = ("layer2", "layer3")
MIDDLE_GREY: Final = 128.0


def scoring_model(
    classifier: keras.Model, temperature: float, guard: DomainGuard | None = None
) -> keras.Model:
    """The float32 model that a bundle holds: `image` uint8 [B, H, W] to {"probabilities": float32 [B, 3]}
    and, with a guard, {"domain": float32 [B]}, see domain.domain_scores.

    Images are smoothed as scoring does it (smoothing.smooth), then classified. Probabilities are
    softmax(logits / temperature) (Guo et al. 2017). A classifier trained in mixed
    precision is rebuilt under float32; its weights are float32 already.
    """
    network, image_size = classifier.name, classifier.input_shape[1]
    with dtype_policy("float32"):
        images = keras.Input((image_size, image_size), dtype="uint8", name="image")
        logits = _logits(smooth_about(images, MIDDLE_GREY), network, dropout=0.0, black=-MIDDLE_GREY)
        scaled = layers.Rescaling(1 / temperature, name="temperature")(logits)
        outputs = {"probabilities": layers.Softmax(name="probabilities")(scaled)}
        if guard is not None:
            features = domain_features(keras.Model(images, logits, name=network))
            outputs["domain"] = _domain_output(features)
        scorer = keras.Model(images, outputs, name=network)
    copy_weights(classifier, scorer)
    if guard is not None:
        scorer.get_layer("domain.standard").set_weights([guard.mean, guard.variance])
        scorer.get_layer("domain.white").set_weights([guard.whitening])
    scorer.trainable = False
    return scorer


def domain_features(model: keras.Model) -> Any:
    """The symbolic features float32 [B, D] of a classifier that the domain guard judges: the means over the
    picture of the channels of DOMAIN_STAGES."""
    pooled = [
        layers.GlobalAveragePooling2D(dtype="float32", name=f"domain.{stage}")(stage_output(model, stage))
        for stage in DOMAIN_STAGES
    ]
    return layers.Concatenate(dtype="float32", name="domain.features")(pooled)


def _domain_output(features: Any) -> Any:
    """domain.domain_scores as layers."""
    standard = layers.BatchNormalization(center=False, scale=False, epsilon=0.0, name="domain.standard")
    white = layers.Dense(features.shape[-1], use_bias=False, name="domain.white")(standard(features))
    white = ops.clip(white, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    return layers.Identity(name="domain")(ops.sqrt(ops.mean(ops.square(white), axis=-1)))
