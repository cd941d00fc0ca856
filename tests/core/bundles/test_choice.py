"""Which engine of a bundle computes, in which precision, and that it computes in that one alone."""

import dataclasses

import numpy as np
import pytest

from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.choice import (
    EngineChoice,
    check_engine,
    load_engine,
    possible_choices,
    settle_engine,
)
from pneumonia_core.bundles.engines import INT8_ENGINE, EngineReport
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy


def with_engines(bundle, **engines):
    """The bundle with this one report of each of these engines."""
    return dataclasses.replace(
        bundle, reports={name: {report.precision: report} for name, report in engines.items()}
    )


def test_engines_agree_at_float32(tiny_bundle):
    images = np.random.default_rng(1).integers(0, 255, (40, 64, 64)).astype(np.uint8)
    scores = [load_engine(tiny_bundle, name, "float32")(images) for name in ("openvino", "tensorflow")]
    np.testing.assert_allclose(scores[0].probabilities, scores[1].probabilities, atol=1e-4)
    np.testing.assert_allclose(scores[0].probabilities.sum(axis=1), 1, atol=1e-5)
    assert scores[0].domain is None


def test_score_does_not_depend_on_the_other_images_of_a_batch(tiny_bundle):
    images = np.random.default_rng(2).integers(0, 255, (37, 64, 64)).astype(np.uint8)
    engine = load_engine(tiny_bundle, "openvino")
    together = engine(images).probabilities
    alone = np.concatenate([engine(image[None]).probabilities for image in images])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_score_is_the_same_in_batches_of_any_size(tiny_bundle, name):
    images = np.random.default_rng(3).integers(0, 255, (37, 64, 64)).astype(np.uint8)
    scores = load_engine(tiny_bundle, name, "float32")(images).probabilities
    for batch_size in (1, 16, 64):
        engine = load_engine(tiny_bundle, name, "float32", batch_size=batch_size)
        np.testing.assert_allclose(engine(images).probabilities, scores, atol=1e-5)


def test_no_images_give_no_scores(tiny_bundle):
    assert load_engine(tiny_bundle, "openvino")(np.zeros((0, 64, 64), np.uint8)).probabilities.shape == (0, 3)


def test_unknown_engine_names_those_that_the_bundle_has(tiny_bundle):
    with pytest.raises(InvalidInput, match="openvino, tensorflow"):
        check_engine(tiny_bundle, "onnx")


@pytest.mark.parametrize(
    ("failed", "gpu", "chosen"),
    [
        ((), True, "tensorflow"),
        (("tensorflow",), True, "openvino"),
        (("tensorflow",), False, "openvino"),
        (("openvino",), False, "tensorflow"),
    ],
)
def test_engine_chosen_by_itself_has_passed_parity_on_a_gpu_as_well(tiny_bundle, failed, gpu, chosen):
    engines = {
        name: dataclasses.replace(
            report, auroc_difference=0.0, findings_agreement=0.5 if name in failed else 1.0
        )
        for name, report in tiny_bundle.engines.items()
    }
    bundle = with_engines(tiny_bundle, **engines)
    assert settle_engine(bundle, "auto", "auto", [VOLTA], gpu).engine == chosen


def test_no_engine_is_chosen_by_itself_where_none_passed_parity(tiny_bundle):
    engines = {
        name: dataclasses.replace(report, findings_agreement=0.5)
        for name, report in tiny_bundle.engines.items()
    }
    bundle = with_engines(tiny_bundle, **engines)
    for gpu in (False, True):
        with pytest.raises(InvalidInput) as refused:
            settle_engine(bundle, "auto", "auto", [VOLTA], gpu)
        assert refused.value.remedy == Remedy.NAME_ENGINE
    with pytest.raises(InvalidInput, match="agreed"):
        check_engine(bundle, "auto")
    assert settle_engine(bundle, "tensorflow", "auto", [VOLTA], True).engine == "tensorflow"


FAST_CPU = Capabilities(bfloat16=True)
OLD_CPU = Capabilities()
INT8_CPU = Capabilities(bfloat16=True, int8=True)
AMX_CPU = Capabilities(bfloat16=True, int8=True, bfloat16_tiles=True)
VOLTA, PASCAL = Capabilities(gpus=((7, 0), (8, 0))), Capabilities(gpus=((6, 1),))


def passing(bundle, precision):
    """The bundle with engines that passed parity in this precision."""
    engines = {
        name: dataclasses.replace(
            report, precision=precision, auroc_difference=0.0, findings_agreement=1.0, domain_agreement=None
        )
        for name, report in bundle.engines.items()
    }
    return with_engines(bundle, **engines)


@pytest.mark.parametrize(
    ("passed", "machines", "gpu", "engine", "precision"),
    [
        pytest.param("bfloat16", [AMX_CPU, AMX_CPU], False, "openvino", "bfloat16", id="every CPU has it"),
        pytest.param("bfloat16", [FAST_CPU], False, "openvino", "float32", id="it may be slower"),
        pytest.param("bfloat16", [FAST_CPU, OLD_CPU], False, "openvino", "float32", id="one CPU lacks it"),
        pytest.param("float32", [FAST_CPU], False, "openvino", "float32", id="it did not pass parity"),
        pytest.param("bfloat16", [], False, "openvino", "float32", id="no machine yet"),
        pytest.param("float16", [OLD_CPU, VOLTA], True, "tensorflow", "float16", id="GPUs that have it"),
        pytest.param("float16", [VOLTA, PASCAL], True, "tensorflow", "float32", id="an older GPU"),
        pytest.param("bfloat16", [AMX_CPU], True, "openvino", "bfloat16", id="an engine for CPUs"),
        pytest.param("bfloat16", [VOLTA], False, "tensorflow", "float32", id="GPUs that are not used"),
    ],
)
def test_precision_is_one_that_every_machine_computes_in(
    tiny_bundle, passed, machines, gpu, engine, precision
):
    choice = settle_engine(passing(tiny_bundle, passed), engine, "auto", machines, gpu)
    assert choice == EngineChoice(engine, precision, gpu and engine == "tensorflow")


def test_every_engine_and_precision_that_passed_and_runs_everywhere_may_be_taken(tiny_bundle):
    exact = tiny_bundle.reports["openvino"]["float32"]
    half = dataclasses.replace(exact, precision="bfloat16")
    failed = dataclasses.replace(half, auroc_bacterial_difference=0.0021)
    reports = {
        "openvino": {"float32": dataclasses.replace(exact, images_per_s=1.0), "bfloat16": half},
        "tensorflow": {"float32": exact, "bfloat16": failed},
        INT8_ENGINE: {"int8": dataclasses.replace(exact, precision="int8")},
    }
    bundle = dataclasses.replace(tiny_bundle, reports=reports)

    def names(engine, precision, *machines):
        choices = possible_choices(bundle, engine, precision, machines)
        return {f"{choice.engine} {choice.precision}" for choice in choices}

    slow = {"openvino float32", "tensorflow float32"}
    assert names("auto", "auto", INT8_CPU) == {"openvino bfloat16", f"{INT8_ENGINE} int8", *slow}
    assert names("auto", "auto", INT8_CPU, FAST_CPU) == {"openvino bfloat16", *slow}
    assert names("auto", "auto", INT8_CPU, OLD_CPU) == slow
    assert names("auto", "float32", INT8_CPU) == slow
    assert names("auto", "bfloat16", INT8_CPU) == {"openvino bfloat16"}
    assert names("openvino", "auto", INT8_CPU) == {"openvino bfloat16", "openvino float32"}
    assert names("tensorflow", "auto", INT8_CPU) == {"tensorflow float32"}
    # As a run that is resumed asks.
    assert names("tensorflow", "bfloat16", INT8_CPU) == {"tensorflow bfloat16"}


@pytest.mark.parametrize(
    ("rates", "machines", "likely"),
    [
        pytest.param({}, [OLD_CPU], ["openvino", "onnxruntime", "tensorflow"], id="float32 alone"),
        pytest.param(
            {},
            [INT8_CPU, INT8_CPU],
            ["int8", "openvino", "openvino bfloat16", "onnxruntime", "tensorflow", "tensorflow bfloat16"],
            id="int8, and no tiles",
        ),
        pytest.param(
            {"openvino float32": 1e9},
            [AMX_CPU, AMX_CPU],
            ["int8", "openvino bfloat16", "openvino", "onnxruntime", "tensorflow bfloat16", "tensorflow"],
            id="tiles",
        ),
        pytest.param(
            {"openvino bfloat16": 2.0, "tensorflow float32": 2.0},
            [INT8_CPU, AMX_CPU],
            ["int8", "openvino bfloat16", "openvino", "onnxruntime", "tensorflow", "tensorflow bfloat16"],
            id="tiles of some machines: as the bundle was measured",
        ),
    ],
)
def test_the_likely_fastest_comes_first_whatever_the_machine_that_wrote_the_bundle_measured(
    tiny_bundle, rates, machines, likely
):
    exact = dataclasses.replace(
        tiny_bundle.reports["openvino"]["float32"], auroc_difference=0.0, findings_agreement=1.0
    )
    precisions = {"tensorflow": ("bfloat16", "float32"), "onnxruntime": ("float32",)}
    precisions |= {"openvino": ("float32", "bfloat16"), INT8_ENGINE: ("int8",)}
    # There, TensorFlow was the fastest.
    reports = {
        name: {
            each: dataclasses.replace(
                exact,
                precision=each,
                images_per_s=rates.get(f"{name} {each}", 1.0) + 1e6 * (name == "tensorflow"),
            )
            for each in names
        }
        for name, names in precisions.items()
    }
    bundle = dataclasses.replace(tiny_bundle, reports=reports)
    machines = [dataclasses.replace(machine, onnxruntime=True) for machine in machines]
    choices = possible_choices(bundle, "auto", "auto", machines)
    named = [f"{choice.engine} {choice.precision}".removesuffix(" float32") for choice in choices]
    assert [name.replace("openvino-int8 int8", "int8") for name in named] == likely


def test_precision_that_parity_refused_is_not_taken_where_the_engine_is_named(tiny_bundle):
    bundle = passing(tiny_bundle, "bfloat16")
    engines = {n: dataclasses.replace(each, findings_agreement=0.5) for n, each in bundle.engines.items()}
    failed = with_engines(bundle, **engines)
    assert settle_engine(failed, "openvino", "auto", [FAST_CPU]).precision == "float32"


@pytest.mark.parametrize(
    ("precision", "machines", "gpu"),
    [("bfloat16", [OLD_CPU], False), ("float16", [FAST_CPU], False), ("float16", [PASCAL], True)],
)
def test_resumed_run_is_refused_where_no_machine_has_its_precision(tiny_bundle, precision, machines, gpu):
    with pytest.raises(InvalidInput, match=precision) as refused:
        settle_engine(tiny_bundle, "tensorflow", precision, machines, gpu)
    assert refused.value.remedy is Remedy.START_OVER
    assert settle_engine(tiny_bundle, "tensorflow", "float32", machines, gpu).precision == "float32"


def test_engine_computes_in_the_precision_of_the_run_or_not_at_all(tiny_bundle):
    assert load_engine(tiny_bundle, "openvino", "float32").precision == "float32"
    if measure_capabilities(look_for_gpus=False).bfloat16:
        assert load_engine(tiny_bundle, "openvino", "bfloat16").precision == "bfloat16"
    with pytest.raises(PneumoniaError, match="cannot compute in float16"):
        load_engine(tiny_bundle, "openvino", "float16")


def test_engine_on_a_gpu_that_tensorflow_does_not_see_is_refused(tiny_bundle):
    if measure_capabilities(look_for_gpus=True).gpus:
        pytest.skip("TensorFlow sees a GPU on this machine")
    with pytest.raises(PneumoniaError) as refused:
        load_engine(tiny_bundle, "tensorflow", "float32", gpu=True)
    assert refused.value.remedy is Remedy.INSTALL_GPU


def quantised(bundle, images_per_s=1e9, findings_agreement=1.0, auroc_bacterial_difference=0.0):
    """A bundle whose engines passed parity, and which has the int8 engine too."""
    report = EngineReport(
        "int8", images_per_s, 0.0, findings_agreement, 0.1, None, auroc_bacterial_difference
    )
    bundle = passing(bundle, "float32")
    return with_engines(bundle, **bundle.engines, **{INT8_ENGINE: report})


@pytest.mark.parametrize(
    ("changes", "precision", "machines", "gpu", "chosen"),
    [
        pytest.param({}, "auto", [INT8_CPU], False, (INT8_ENGINE, "int8"), id="every CPU has it"),
        pytest.param({"images_per_s": 0.1}, "auto", [INT8_CPU], False, (INT8_ENGINE, "int8"), id="slow"),
        pytest.param(
            {"findings_agreement": 0.994}, "auto", [INT8_CPU], False, ("openvino", "float32"), id="failed",
        ),
        pytest.param(
            {"auroc_bacterial_difference": 0.003}, "auto", [INT8_CPU], False, ("openvino", "float32"),
            id="failed for the kind",
        ),
        pytest.param({}, "auto", [INT8_CPU, FAST_CPU], False, ("openvino", "float32"), id="one CPU lacks it"),
        pytest.param({}, "auto", [], False, ("openvino", "float32"), id="no machine yet"),
        pytest.param({}, "float32", [INT8_CPU], False, ("openvino", "float32"), id="float32 is asked for"),
        pytest.param({}, "auto", [VOLTA], True, ("tensorflow", "float32"), id="GPUs"),
    ],
)  # fmt: skip
def test_int8_is_taken_where_it_passed_and_runs_everywhere(
    tiny_bundle, changes, precision, machines, gpu, chosen
):
    engines = {"openvino": 2.0, "tensorflow": 1.0}
    bundle = quantised(tiny_bundle, **changes)
    rated = {
        name: dataclasses.replace(report, images_per_s=engines.get(name, report.images_per_s))
        for name, report in bundle.engines.items()
    }
    choice = settle_engine(with_engines(bundle, **rated), "auto", precision, machines, gpu)
    assert (choice.engine, choice.precision) == chosen


def test_int8_engine_that_is_named_computes_in_int8_or_not_at_all(tiny_bundle):
    bundle = quantised(tiny_bundle, findings_agreement=0.5)
    assert settle_engine(bundle, INT8_ENGINE, "auto", [INT8_CPU]) == EngineChoice(INT8_ENGINE, "int8", False)
    # As a run that is resumed asks.
    assert settle_engine(bundle, INT8_ENGINE, "int8", [INT8_CPU, OLD_CPU]).precision == "int8"
    for precision, machines in (("auto", [INT8_CPU, OLD_CPU]), ("float32", [INT8_CPU])):
        with pytest.raises(InvalidInput, match=INT8_ENGINE) as refused:
            settle_engine(bundle, INT8_ENGINE, precision, machines)
        assert refused.value.remedy is Remedy.OTHER_ENGINE
    with pytest.raises(InvalidInput, match="openvino does not compute in int8"):
        settle_engine(bundle, "openvino", "int8", [INT8_CPU])
