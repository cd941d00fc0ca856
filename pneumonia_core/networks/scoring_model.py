"""The scoring model: the graph that a bundle holds, from uint8 image to probabilities and domain score."""

from typing import Final

import keras
from keras import layers, ops

from pneumonia_core.networks.classifier import copy_weights, dtype_policy, logits_of, stage_output
from pneumonia_core.networks.domain_guard import LARGEST_DEVIATION, DomainGuard
from pneumonia_core.networks.prefilter import smooth_about

# The domain guard sees the features of these stages. Earlier stages encode mostly brightness and grain, the
# last one only what separates the classes.
DOMAIN_STAGES: Final = ("layer2", "layer3")
MIDDLE_GREY: Final = 128.0


def scoring_model(
    classifier: keras.Model, temperature: float, guard: DomainGuard | None = None
) -> keras.Model:
    """The float32 model that a bundle holds: `image` uint8 [B, H, W] to {"probabilities": float32 [B, 3]}.

    With a guard it also gives {"domain": float32 [B]}, see `domain_guard.domain_scores`. The model smooths
    images (`prefilter.smooth`), then classifies them. Probabilities are softmax(logits / temperature) (Guo et
    al. 2017). A classifier trained in mixed precision is rebuilt under float32; its weights are float32
    already.
    """
    network, image_size = classifier.name, classifier.input_shape[1]
    with dtype_policy("float32"):
        images = keras.Input((image_size, image_size), dtype="uint8", name="image")
        logits = logits_of(smooth_about(images, MIDDLE_GREY), network, dropout=0.0, black=-MIDDLE_GREY)
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


def domain_features(model: keras.Model) -> keras.KerasTensor:
    """The symbolic features float32 [B, D] that the domain guard sees.

    They are the means over the picture of the classifier's channels at the end of each of DOMAIN_STAGES.
    """
    pooled = [
        layers.GlobalAveragePooling2D(dtype="float32", name=f"domain.{stage}")(stage_output(model, stage))
        for stage in DOMAIN_STAGES
    ]
    return layers.Concatenate(dtype="float32", name="domain.features")(pooled)


def _domain_output(features: keras.KerasTensor) -> keras.KerasTensor:
    """`domain_guard.domain_scores` as layers."""
    standard = layers.BatchNormalization(center=False, scale=False, epsilon=0.0, name="domain.standard")
    white = layers.Dense(features.shape[-1], use_bias=False, name="domain.white")(standard(features))
    white = ops.clip(white, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    return layers.Identity(name="domain")(ops.sqrt(ops.mean(ops.square(white), axis=-1)))
