"""What `auto` takes: the fastest of what passed parity, on the nodes that there are, measured there once."""

from dataclasses import replace

import pytest

from jobs.ray_runtime.resources import present_nodes
from jobs.scoring.execution.computation import ComputationOptions, settle_computation
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.rates.cluster_rates import RateSource, sum_rates
from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.choice import EngineChoice, possible_choices
from pneumonia_core.bundles.rates.memory import NodeKind, remember_rates
from pneumonia_core.bundles.rates.workload import Workload
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


@pytest.fixture
def other_machine(tiny_bundle):
    """The bundle as a machine wrote it on which TensorFlow was a hundred times as fast as anything else.

    All of its engines passed parity.
    """
    reports = {
        name: {
            precision: replace(
                report,
                images_per_s=1e6 if (name, precision) == ("tensorflow", "float32") else 1e4,
                auroc_difference=0.0,
                auroc_bacterial_difference=0.0,
                findings_agreement=1.0,
                domain_agreement=None,
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

    def ship(engine, precision):
        shipped.append(engine)
        return ship_bundle(other_machine, engine, precision)

    results = open_location(str(tmp_path))
    options = ComputationOptions(shape="cpu")

    def settle(images, **changes):
        """The computation of a run of so many images, and the engines that were opened to settle it."""
        shipped.clear()
        source = RateSource(results, ship, Workload(images))
        settled = settle_computation(other_machine, replace(options, **changes), present_nodes(), source)
        return settled, set(shipped)

    choices = possible_choices(other_machine, "auto", "auto", [measure_capabilities(look_for_gpus=False)])
    quick = [choice for choice in choices if choice.engine == "openvino"]
    few, opened = settle(20)
    assert (few.choice, few.rates, opened) == (choices[0], None, set())
    assert few.reason.endswith(": mostly the fastest; nothing was measured (few images)")

    # On a processor without bfloat16 there is only one that opens soon.
    some, opened = settle(5_000)
    assert opened == ({"openvino"} if len(quick) > 1 else set())
    if opened:
        assert some.rates.origin == "measured"
        assert some.rates.rates.keys() == set(quick)
        assert "images/s on 1 node, measured now; openvino " in some.reason

    many, opened = settle(50_000)
    assert opened == {"openvino", "tensorflow"}
    assert many.rates.origin == "measured"
    assert many.rates.rates.keys() == set(choices)
    assert many.choice.engine == "openvino"
    assert f"openvino computes in {many.choice.precision}: " in many.reason
    assert "images/s on 1 node, measured now; " in many.reason
    assert "tensorflow float32 " in many.reason
    if some.rates is not None:
        again = {choice: many.rates.rates[choice] for choice in quick}
        assert again == pytest.approx(some.rates.rates, abs=0.1)

    for images in (20, 5_000, 50_000):
        later, opened = settle(images)
        assert not opened
        assert (later.rates.origin, later.choice) == ("remembered", many.choice)
        assert later.rates.rates == pytest.approx(many.rates.rates, abs=0.1)
        assert "as an earlier run measured" in later.reason

    named, opened = settle(50_000, engine="tensorflow", precision="float32")
    assert (named.choice.engine, named.rates, named.reason, opened) == ("tensorflow", None, "", set())
    (file,) = (tmp_path / "rates").iterdir()
    file.write_text(file.read_text()[:50])
    few, opened = settle(20)
    assert (few.choice, few.rates, opened) == (choices[0], None, set())


def test_engine_that_starts_late_is_not_taken_for_few_images(ray_here, tiny_bundle, tmp_path):
    """Nor does what an earlier run did not measure hide behind what it did."""
    here = measure_capabilities(look_for_gpus=False)
    choices = possible_choices(tiny_bundle, "auto", "auto", [here])
    (node,) = present_nodes()
    kind = NodeKind(here.processor, node.cpus, node.gpus, threads=2)
    results = open_location(str(tmp_path))

    def settle(images, rates):
        remember_rates(results, tiny_bundle.model_id, {kind: rates})
        source = RateSource(results, lambda *engine: pytest.fail(str(engine)), Workload(images))
        return settle_computation(tiny_bundle, ComputationOptions(shape="cpu"), present_nodes(), source)

    rates = {choice: 66.0 if choice.engine == "tensorflow" else 60.0 for choice in choices}
    few = settle(200, rates)
    assert few.choice == choices[0]
    assert "60.0 images/s on 1 node, as an earlier run measured, and it starts sooner; " in few.reason
    assert settle(10_000, rates).choice.engine == "tensorflow"
    unmeasured = settle(200, {choice: rate for choice, rate in rates.items() if choice != choices[0]})
    assert (unmeasured.choice, unmeasured.rates) == (choices[0], None)


def test_engine_that_missed_parity_is_not_taken_and_the_run_says_so(ray_here, tiny_bundle, tmp_path):
    failed = {
        precision: replace(report, auroc_bacterial_difference=0.0021)
        for precision, report in tiny_bundle.reports["tensorflow"].items()
    }
    exact = {"float32": tiny_bundle.reports["openvino"]["float32"]}
    bundle = replace(tiny_bundle, reports={"openvino": exact, "tensorflow": failed})
    source = RateSource(
        open_location(str(tmp_path)), lambda *engine: pytest.fail(str(engine)), Workload(50_000)
    )
    computation = settle_computation(bundle, ComputationOptions(shape="cpu"), present_nodes(), source)
    assert computation.choice == EXACT
    assert computation.reason.startswith("openvino computes in float32: nothing else ")
    assert "missed parity: tensorflow " in computation.reason
