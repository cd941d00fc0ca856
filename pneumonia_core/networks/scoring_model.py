"""The scoring model: the graph that a bundle holds, from uint8 image to probabilities and domain score."""

from collections.abc import Sequence
from typing import Final

import keras
from keras import layers, ops

from pneumonia_core.calibration import Calibration
from pneumonia_core.imaging.contract import SMOOTHING
from pneumonia_core.networks.classifier import (
    build_classifier,
    copy_weights,
    dtype_policy,
    logits_of,
    stage_output,
)
from pneumonia_core.networks.domain_guard import LARGEST_DEVIATION, DomainGuard
from pneumonia_core.networks.prefilter import smooth_about
from pneumonia_core.system.scratch import ScratchFolder

# The domain guard sees the features of these stages. Earlier stages encode mostly brightness and grain, the
# last one only what separates the classes.
DOMAIN_STAGES: Final = ("layer2", "layer3")
MIDDLE_GREY: Final = 128.0


def scoring_model(
    members: Sequence[keras.Model],
    calibration: Calibration,
    guard: DomainGuard | None = None,
    mirror: bool = False,
    smoothing: float = SMOOTHING,
) -> keras.Model:
    """The float32 model that a bundle holds: `image` uint8 [B, H, W] to {"probabilities": float32 [B, 3]}.

    The model smooths images by `smoothing` (`prefilter.smooth`) and classifies them with each of the
    `members`, classifiers of one network. With `mirror` it also classifies mirrored images, at twice the
    cost. It averages the log-odds of all these logits and calibrates the mean. It averages log-odds and not
    probabilities, because float32 cannot rank probabilities near 1.

    With a guard, fitted to features of the first member, it also gives {"domain": float32 [B]}, see
    `domain_guard.domain_scores`. A classifier trained in mixed precision is rebuilt under float32; its
    weights are float32 already.
    """
    network, image_size = members[0].name, members[0].input_shape[1]
    with dtype_policy("float32"):
        images = keras.Input((image_size, image_size), dtype="uint8", name="image")
        smoothed = smooth_about(images, MIDDLE_GREY, smoothing)
        seen = ops.concatenate([smoothed, ops.flip(smoothed, axis=2)], axis=0) if mirror else smoothed
        logits, features = _classify(images, seen, members)
        odds = _mean_log_odds(logits, mirror)
        outputs = {"probabilities": _probabilities(odds, calibration)}
        if guard is not None:
            outputs["domain"] = _domain_output(_first_half(features) if mirror else features, guard)
        scorer = keras.Model(images, outputs, name=network)
    scorer.trainable = False
    return scorer


def load_scoring_model(content: bytes) -> keras.Model:
    """The scoring model in the `content` of a bundle's model.keras; no code in it is run."""
    with ScratchFolder("keras") as folder:
        file = folder / "model.keras"
        file.write_bytes(content)
        return keras.saving.load_model(file, compile=False, safe_mode=True)


def members_of(scorer: keras.Model) -> list[keras.Model]:
    """The models in a scoring model that hold its members' layers by name: itself where there is one."""
    return [layer for layer in scorer.layers if isinstance(layer, keras.Model)] or [scorer]


def classifiers_of(scorer: keras.Model) -> list[keras.Model]:
    """The members of a scoring model as classifiers like those it was made of (`build_classifier`).

    In bundles of version 0.1.0 the logits are divided by a temperature; it goes into the classifier's head.
    """
    classifiers = []
    for member in members_of(scorer):
        classifier = build_classifier(scorer.name, scorer.input_shape[1])
        copy_weights(member, classifier)
        for layer in scorer.layers:
            if layer.name == "temperature":
                head = classifier.get_layer("logits")
                head.set_weights([weight * layer.scale for weight in head.get_weights()])
        classifiers.append(classifier)
    return classifiers


def guard_of(scorer: keras.Model) -> DomainGuard | None:
    """The domain guard in a scoring model; None where it has none."""
    if all(layer.name != "domain.white" for layer in scorer.layers):
        return None
    mean, variance = scorer.get_layer("domain.standard").get_weights()
    (whitening,) = scorer.get_layer("domain.white").get_weights()
    return DomainGuard(mean, variance, whitening)


def domain_features(model: keras.Model) -> keras.KerasTensor:
    """The symbolic features float32 [B, D] that the domain guard sees.

    They are the means over the picture of the classifier's channels at the end of each of DOMAIN_STAGES.
    """
    pooled = [
        layers.GlobalAveragePooling2D(dtype="float32", name=f"domain.{stage}")(stage_output(model, stage))
        for stage in DOMAIN_STAGES
    ]
    return layers.Concatenate(dtype="float32", name="domain.features")(pooled)


def _classify(
    images: keras.KerasTensor, seen: keras.KerasTensor, members: Sequence[keras.Model]
) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    """The logits [B, 3] of each member for the `seen` images, and the first one's domain features [B, D]."""
    if len(members) == 1:
        rebuilt = _rebuild(images, seen, members[0])
        return [rebuilt.output], domain_features(rebuilt)
    outputs = []
    for number, member in enumerate(members):
        # Members have the same names of layers, so each is a model of its own in the graph.
        pixels = keras.Input(seen.shape[1:], dtype="float32", name="smoothed")
        rebuilt = _rebuild(pixels, pixels, member)
        nested = keras.Model(pixels, [rebuilt.output, domain_features(rebuilt)], name=f"member{number}")
        outputs.append(nested(seen))
    return [logits for logits, _ in outputs], outputs[0][1]


def _rebuild(images: keras.KerasTensor, seen: keras.KerasTensor, member: keras.Model) -> keras.Model:
    """The member in float32 and without dropout, from `images` to its logits for the `seen` images."""
    logits = logits_of(seen, member.name, dropout=0.0, black=-MIDDLE_GREY)
    rebuilt = keras.Model(images, logits, name=member.name)
    copy_weights(member, rebuilt)
    return rebuilt


def _mean_log_odds(logits: list[keras.KerasTensor], mirrored: bool) -> keras.KerasTensor:
    """The mean float32 [B, 2] over all members, and both halves of a mirrored batch, of `log_odds`."""
    odds = [_log_odds(each) for each in logits]
    mean = ops.mean(ops.stack(odds), axis=0) if len(odds) > 1 else odds[0]
    return ops.mean(_halves(mean), axis=0) if mirrored else mean


def _log_odds(logits: keras.KerasTensor) -> keras.KerasTensor:
    """`calibration.log_odds` as layers."""
    normal, bacterial, viral = ops.split(logits, 3, axis=-1)
    kind = bacterial - viral
    # The logarithm of exp(bacterial) + exp(viral), without the overflow of either.
    ill = ops.maximum(bacterial, viral) + ops.softplus(-ops.abs(kind))
    return ops.concatenate([ill - normal, kind], axis=-1)


def _probabilities(odds: keras.KerasTensor, calibration: Calibration) -> keras.KerasTensor:
    """`Calibration.probabilities` as layers."""
    odds = layers.Identity(name="log_odds")(odds)
    calibrated = layers.Rescaling(calibration.scales, calibration.offsets, name="calibration")(odds)
    ill, bacterial = ops.split(ops.sigmoid(calibrated), 2, axis=-1)
    # Not 1 - sigmoid(x), which is 0 in float32 from x = 17 on.
    well, viral = ops.split(ops.sigmoid(-calibrated), 2, axis=-1)
    return layers.Identity(name="probabilities")(
        ops.concatenate([well, ill * bacterial, ill * viral], axis=-1)
    )


def _domain_output(features: keras.KerasTensor, guard: DomainGuard) -> keras.KerasTensor:
    """`domain_guard.domain_scores` as layers."""
    standard = layers.BatchNormalization(center=False, scale=False, epsilon=0.0, name="domain.standard")
    white = layers.Dense(features.shape[-1], use_bias=False, name="domain.white")
    x = ops.clip(white(standard(features)), -LARGEST_DEVIATION, LARGEST_DEVIATION)
    standard.set_weights([guard.mean, guard.variance])
    white.set_weights([guard.whitening])
    return layers.Identity(name="domain")(ops.sqrt(ops.mean(ops.square(x), axis=-1)))


def _halves(batch: keras.KerasTensor) -> keras.KerasTensor:
    """A mirrored batch [2 B, D] as [2, B, D]: the images as they are, and mirrored."""
    return ops.reshape(batch, (2, -1, batch.shape[-1]))


def _first_half(batch: keras.KerasTensor) -> keras.KerasTensor:
    return ops.take(_halves(batch), 0, axis=0)
