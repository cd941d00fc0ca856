"""What is worth measuring for a run, and what is taken: by the time until all of its images are scored."""

import pytest

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.workload import Workload, soonest_done, why_unmeasured, worth_measuring

INT8 = EngineChoice("openvino-int8", "int8", False)
EXACT = EngineChoice("openvino", "float32", False)
HALF = EngineChoice("openvino", "bfloat16", False)
ONNX = EngineChoice("onnxruntime", "float32", False)
TENSORFLOW = EngineChoice("tensorflow", "float32", False)
TENSORFLOW_HALF = EngineChoice("tensorflow", "bfloat16", False)
ALL = (INT8, EXACT, HALF, ONNX, TENSORFLOW, TENSORFLOW_HALF)
QUICK = (INT8, EXACT, HALF)
GPU = tuple(
    EngineChoice(*each, on_gpu=True) for each in (("tensorflow", "float16"), ("onnxruntime", "float16"))
)


@pytest.mark.parametrize(
    ("workload", "choices", "worth"),
    [
        pytest.param(Workload(20), ALL, (), id="few images"),
        pytest.param(Workload(256), ALL, (), id="still few images"),
        pytest.param(Workload(257), ALL, QUICK, id="a short run"),
        pytest.param(Workload(20, listing_complete=False), ALL, QUICK, id="few so far"),
        pytest.param(Workload(19_999), ALL, QUICK, id="not long enough"),
        pytest.param(Workload(20_000), ALL, ALL, id="a long run"),
        pytest.param(Workload(20_000, listing_complete=False), ALL, ALL, id="many so far"),
        pytest.param(Workload(20_000, left_s=500.0), ALL, (), id="a deadline"),
        pytest.param(Workload(5_000), (EXACT, ONNX, TENSORFLOW), (), id="one alone opens soon"),
        pytest.param(Workload(50_000), (EXACT, TENSORFLOW), (EXACT, TENSORFLOW), id="but the run is long"),
        pytest.param(Workload(5_000), (ONNX, TENSORFLOW), (ONNX, TENSORFLOW), id="none opens soon"),
        pytest.param(Workload(256), (ONNX, TENSORFLOW), (), id="none does, and few images"),
        pytest.param(Workload(19_999), GPU, (), id="a GPU has them scored sooner"),
        pytest.param(Workload(20_000), GPU, GPU, id="many images, on GPUs"),
    ],
)
def test_what_takes_long_to_open_is_measured_for_long_runs_alone(workload, choices, worth):
    assert worth_measuring(choices, workload) == worth


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        (Workload(20), "few images"),
        (Workload(50_000, left_s=60.0), "the deadline is near"),
        (Workload(5_000), "the others take longer to try than they would save"),
        (Workload(50_000), "no node could be measured"),
    ],
)
def test_run_without_rates_says_why(workload, why):
    assert why_unmeasured((EXACT, TENSORFLOW), workload) == why


@pytest.mark.parametrize(
    ("rates", "workload", "taken"),
    [
        pytest.param({TENSORFLOW: 66.0, EXACT: 60.0}, Workload(20), EXACT, id="few images"),
        pytest.param({TENSORFLOW: 66.0, EXACT: 60.0}, Workload(3_000), EXACT, id="not enough images"),
        pytest.param({TENSORFLOW: 66.0, EXACT: 60.0}, Workload(4_000), TENSORFLOW, id="enough images"),
        pytest.param({TENSORFLOW: 66.0, EXACT: 60.0}, Workload(20, False), TENSORFLOW, id="without number"),
        pytest.param({INT8: 270.0, EXACT: 77.0}, Workload(1), INT8, id="both start alike"),
        pytest.param({EXACT: 29.0, HALF: 20.0}, Workload(10**6), EXACT, id="the faster one"),
    ],
)
def test_the_choice_is_the_one_that_is_done_soonest_its_start_included(rates, workload, taken):
    assert soonest_done(rates, workload) == taken
