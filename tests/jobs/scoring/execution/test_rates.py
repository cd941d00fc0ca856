"""What `auto` takes: the fastest of what passed parity, on the nodes that there are, measured there once."""

import math
from dataclasses import replace

import pytest

from jobs.ray_runtime.resources import present_nodes
from jobs.scoring.execution.computation import ComputationOptions, settle_computation
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.rates import RateSource, sum_rates, worth_measuring
from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.choice import EngineChoice, possible_choices
from pneumonia_core.storage.location import open_location

EXACT = EngineChoice("openvino", "float32", False)
HALF = EngineChoice("openvino", "bfloat16", False)
INT8 = EngineChoice("openvino-int8", "int8", False)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        pytest.param([({EXACT: 30.0, HALF: 20.0}, 1)], {EXACT: 30.0, HALF: 20.0}, id="bfloat16 is slower"),
        pytest.param([({EXACT: 30.0, HALF: 60.0}, 2)], {HALF: 120.0, EXACT: 60.0}, id="bfloat16 is faster"),
        pytest.param(
            [({EXACT: 30.0, HALF: 20.0}, 3), ({EXACT: 30.0, HALF: 70.0}, 1)],
            {HALF: 130.0, EXACT: 120.0},
            id="one fast node outweighs three",
        ),
        pytest.param(
            [({EXACT: 30.0, HALF: 20.0}, 5), ({EXACT: 30.0, HALF: 70.0}, 1)],
            {EXACT: 180.0, HALF: 170.0},
            id="but not five",
        ),
        pytest.param(
            [({EXACT: 30.0, INT8: 140.0}, 9), ({EXACT: 30.0, INT8: 0.0}, 1)],
            {EXACT: 300.0},
            id="one kind cannot compute it",
        ),
        pytest.param(
            [({EXACT: 30.0, INT8: 140.0}, 9), ({EXACT: 30.0}, 1)], {EXACT: 300.0}, id="nor was it measured"
        ),
        pytest.param([], {}, id="no kind was measured"),
    ],
)
def test_choice_has_the_highest_sum_over_all_nodes(kinds, expected):
    assert list(sum_rates([EXACT, HALF, INT8], kinds).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("to_score", "listing_complete", "left_s", "worth"),
    [
        (20, True, math.inf, False),
        (256, True, math.inf, False),
        (257, True, math.inf, True),
        (20, False, math.inf, True),
        (10_000, True, 500.0, False),
    ],
)
def test_few_images_and_short_deadlines_are_not_worth_measuring(to_score, listing_complete, left_s, worth):
    assert worth_measuring(to_score, listing_complete, left_s) is worth


@pytest.fixture
def other_machine(tiny_bundle):
    """The bundle as a machine wrote it on which TensorFlow was a hundred times as fast as anything else."""
    reports = {
        name: {
            precision: replace(
                report, images_per_s=1e6 if (name, precision) == ("tensorflow", "float32") else 1e4
            )
            for precision, report in each.items()
        }
        for name, each in tiny_bundle.reports.items()
    }
    return replace(tiny_bundle, reports=reports)


def test_engines_are_measured_once_on_the_node_and_the_rate_in_the_bundle_counts_no_more(
    ray_here, other_machine, tmp_path
):
    """Of a network as small as this one, OpenVINO scores several times as many images as TensorFlow."""
    shipped = []

    def ship(engine):
        shipped.append(engine)
        return ship_bundle(other_machine, engine)

    results = open_location(str(tmp_path))
    options = ComputationOptions(shape="cpu")
    settle = lambda **changes: settle_computation(  # noqa: E731
        other_machine, replace(options, **changes), present_nodes(), RateSource(results, ship, True)
    )
    first = settle()
    assert first.rates.origin == "measured"
    here = [measure_capabilities(look_for_gpus=False)]
    assert first.rates.rates.keys() == set(possible_choices(other_machine, "auto", "auto", here))
    assert first.choice.engine == "openvino"
    assert set(shipped) == {"openvino", "tensorflow"}
    assert f"openvino computes in {first.choice.precision}: " in first.reason
    assert "images/s on 1 node, measured now; " in first.reason
    assert "tensorflow float32 " in first.reason

    shipped.clear()
    second = settle()
    assert not shipped
    assert (second.rates.origin, second.choice) == ("remembered", first.choice)
    assert second.rates.rates == pytest.approx(first.rates.rates, abs=0.1)
    assert "as an earlier run measured" in second.reason

    named = settle(engine="tensorflow", precision="float32")
    assert (named.choice.engine, named.rates, named.reason) == ("tensorflow", None, "")
    (file,) = (tmp_path / "rates").iterdir()
    file.write_text(file.read_text()[:50])
    few = settle_computation(other_machine, options, present_nodes(), RateSource(results, ship, False))
    assert few.choice == EngineChoice("tensorflow", "float32", False)
    assert "nothing was measured" in few.reason
    assert not shipped


def test_engine_that_missed_parity_is_not_taken_and_the_run_says_so(ray_here, tiny_bundle, tmp_path):
    failed = {
        precision: replace(report, auroc_bacterial_difference=0.0021)
        for precision, report in tiny_bundle.reports["tensorflow"].items()
    }
    exact = {"float32": tiny_bundle.reports["openvino"]["float32"]}
    bundle = replace(tiny_bundle, reports={"openvino": exact, "tensorflow": failed})
    source = RateSource(open_location(str(tmp_path)), lambda engine: pytest.fail(engine), True)
    computation = settle_computation(bundle, ComputationOptions(shape="cpu"), present_nodes(), source)
    assert computation.choice == EXACT
    assert computation.reason.startswith("openvino computes in float32: nothing else ")
    assert "missed parity: tensorflow " in computation.reason
