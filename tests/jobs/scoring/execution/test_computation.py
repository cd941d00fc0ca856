"""What a run computes with: one engine and one precision, GPUs only where TensorFlow sees them."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from support.clusters import DECLARED_GPU
from support.scoring import last_json, pneumonia, pneumonia_here, rows, score, scoring_request

from jobs.ray_runtime.capabilities import node_capabilities
from jobs.ray_runtime.resources import present_nodes
from jobs.scoring.execution.computation import (
    ComputationOptions,
    absent_float16,
    settle_computation,
)
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import make_request
from jobs.scoring.start import settled_batch_size
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.choice import EngineChoice, possible_choices
from pneumonia_core.bundles.engines import BATCH_SIZE, GPU_BATCH_SIZE, ONNX_ENGINE
from pneumonia_core.bundles.rates.memory import NodeKind, as_json, remember_actors, remember_rates
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.runs.record import RunConfiguration, RunRecord
from pneumonia_core.storage.location import open_location
from pneumonia_core.system.failpoints import VARIABLE


@pytest.mark.parametrize("engine", ["auto", "tensorflow"])
def test_gpu_that_tensorflow_does_not_see_is_reported_and_cpus_compute(
    unseen_gpu, tiny_bundle, capsys, engine
):
    computation = settle_computation(tiny_bundle, ComputationOptions(engine), present_nodes())
    assert (computation.placement.kind, computation.choice.on_gpu) == ("cpu", False)
    (said,) = capsys.readouterr().err.splitlines()
    assert "warning: Ray counts GPUs on 1 of 1 nodes" in said
    assert "pip install '.[gpu]'" in said


@pytest.mark.parametrize("engine", ["auto", "tensorflow"])
def test_gpu_that_is_asked_for_and_that_tensorflow_does_not_see_is_refused(unseen_gpu, tiny_bundle, engine):
    with pytest.raises(InvalidInput) as refused:
        settle_computation(tiny_bundle, ComputationOptions(engine, shape="gpu"), present_nodes())
    assert refused.value.remedy is Remedy.INSTALL_GPU


def test_gpu_that_onnxruntime_does_not_see_is_reported_too(unseen_gpu, tiny_bundle, capsys):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    if measure_capabilities(look_for_gpus=True, engine=ONNX_ENGINE).gpus:
        pytest.skip("ONNX Runtime sees a GPU on this machine")
    reports = {ONNX_ENGINE: {"float32": tiny_bundle.reports["openvino"]["float32"]}}
    bundle = dataclasses.replace(tiny_bundle, reports=reports)
    computation = settle_computation(bundle, ComputationOptions(ONNX_ENGINE), present_nodes())
    assert (computation.placement.kind, computation.choice.on_gpu) == ("cpu", False)
    said = capsys.readouterr().err
    assert "that ONNX Runtime does not see. The run computes on CPUs." in said
    assert "pip install '.[onnx-gpu]'" in said
    with pytest.raises(InvalidInput) as refused:
        settle_computation(bundle, ComputationOptions(ONNX_ENGINE, shape="gpu"), present_nodes())
    assert refused.value.remedy is Remedy.INSTALL_ONNX_GPU


def test_engine_for_cpus_takes_the_cpu_shape_beside_gpus(ray_here, tiny_bundle, capsys):
    computation = settle_computation(tiny_bundle, ComputationOptions("openvino"), present_nodes())
    assert computation.placement.kind == "cpu"
    assert not capsys.readouterr().err


def test_rows_and_record_say_what_was_computed_with(
    unseen_gpu, tiny_bundle, broken_archive, tmp_path, capsys
):
    """They are what was fastest on such nodes in an earlier run."""
    here = measure_capabilities(look_for_gpus=False)
    choices = possible_choices(tiny_bundle, "auto", "auto", [here])
    rates = {choice: 4.0 if choice.engine == "tensorflow" else 9.0 for choice in choices}
    (node,) = present_nodes()
    kind = NodeKind(here.processor, node.cpus, 0.0, threads=2)
    remember_rates(open_location(str(tmp_path)), tiny_bundle.model_id, {kind: rates})
    asked = {"engine": "auto", "precision": "auto", "batch_size": 5}
    request = scoring_request(tiny_bundle, broken_archive[0], **asked)
    result = score(tmp_path, request)
    settled = next(choice.precision for choice in choices if choice.engine == "openvino")
    assert (result["engine"], result["precision"]) == ("openvino", settled)
    said = capsys.readouterr().err
    assert f"openvino computes in {settled}: 9.0 images/s on 1 node, as an earlier run measured; " in said
    table = rows(tmp_path)
    for name in ("engine", "precision"):
        assert set(table[name].to_pylist()) == {result[name]}
    record = json.loads((tmp_path / "runs" / result["run_id"] / "run.json").read_text())
    assert (record["engine"], record["precision"], record["batch_size"]) == ("openvino", settled, 5)
    assert (record["rates"], record["rates_origin"]) == (as_json(rates), "remembered")
    assert record["engine_reason"] in said
    page = (tmp_path / "runs" / result["run_id"] / "run.html").read_text()
    assert "9.0 images/s on 1 node, as an earlier run measured" in page


def test_run_says_how_its_gpus_would_compute_in_float16_where_they_could(tiny_bundle):
    exact = EngineChoice("tensorflow", "float32", on_gpu=True)
    machines = [Capabilities(), Capabilities(gpus=((8, 0),))]
    said = "; `pneumonia export --engine tensorflow-float16` adds float16 to the bundle"
    assert absent_float16(tiny_bundle, exact, machines) == said
    assert not absent_float16(tiny_bundle, exact, [*machines, Capabilities(gpus=((6, 1),))])
    assert not absent_float16(tiny_bundle, dataclasses.replace(exact, on_gpu=False), machines)
    reports = {**tiny_bundle.reports["tensorflow"]}
    reports["float16"] = reports["float32"]
    bundle = dataclasses.replace(tiny_bundle, reports={**tiny_bundle.reports, "tensorflow": reports})
    assert not absent_float16(bundle, exact, machines)


def test_batches_are_of_the_size_that_was_asked_for_or_that_suits_the_devices():
    fields = dict.fromkeys(("run_id", "run_date", "created_at", "model"), "")
    configuration = RunConfiguration(("a",), "m", "auto", "auto", None, False, None, 256)
    asked = dataclasses.replace(configuration, batch_size=7)
    new = RunRecord(**fields, state="listing", configuration=configuration, versions={}, planned_version=0)
    assert [settled_batch_size(new, on_gpu) for on_gpu in (False, True)] == [BATCH_SIZE, GPU_BATCH_SIZE]
    assert settled_batch_size(dataclasses.replace(new, configuration=asked), on_gpu=True) == 7
    # A run that is resumed keeps its own; the version that recorded none had one size.
    begun = dataclasses.replace(new, engine="tensorflow")
    assert settled_batch_size(begun, on_gpu=True) == BATCH_SIZE
    assert settled_batch_size(dataclasses.replace(begun, batch_size=128), on_gpu=False) == 128


def test_batch_larger_than_a_chunk_is_refused(tiny_bundle, tmp_path):
    options = ScoreOptions((str(tmp_path),), "bundle", chunk_size=16, batch_size=17)
    with pytest.raises(InvalidInput, match="a batch is never of more than one chunk, which has 16 images"):
        make_request(options, tiny_bundle)
    assert make_request(dataclasses.replace(options, batch_size=16), tiny_bundle).batch_size == 16


def test_a_gpu_has_as_many_actors_as_compute_most_and_each_holds_its_share(
    ray_here, cluster, tiny_bundle, tmp_path
):
    archive = tmp_path / "archive"
    write_archive(archive, 24, seed=1)
    cluster.workers_do("decode=sleep:0.1")
    request = scoring_request(tiny_bundle, archive, chunk_size=4)
    (node,) = present_nodes()
    kind = NodeKind(measure_capabilities(look_for_gpus=False).processor, node.cpus, node.gpus, threads=1)
    choice = EngineChoice(request.engine, request.precision, on_gpu=False)
    rates = {kind: {choice: (90.0, 150.0)}}
    remember_actors(open_location(str(tmp_path / "r")), tiny_bundle.model_id, rates)
    options = {"shape": "gpu"}
    run = threading.Thread(target=score, args=(tmp_path / "r", request), kwargs=options)
    run.start()
    held, actors = set(), set()
    while run.is_alive():
        named = ray_here.util.list_named_actors(all_namespaces=True)
        actors |= {each["name"] for each in named if each["name"].startswith("score-")}
        held.add(1 - ray_here.available_resources().get("GPU", 0.0))
        time.sleep(0.05)
    run.join()
    assert held <= {0.0, 0.5, 1.0}
    assert 1.0 in held
    assert len(actors) == 2
    assert rows(tmp_path / "r").num_rows == 24
    (file,) = (tmp_path / "r" / "runs").glob("*/run.json")
    record = json.loads(file.read_text())
    assert record["actors_per_gpu"] == 2
    why = "with 1 all GPUs compute 90.0 images/s, with 2 150.0, as an earlier run measured"
    assert record["actors_per_gpu_reason"] == f"2 actors on each GPU: {why}"
    assert why in file.with_name("run.html").read_text()


@pytest.fixture
def two_kinds_of_nodes(ray_here):
    """A cluster of its own: a node that declares a GPU, and one without."""
    from ray.cluster_utils import Cluster

    os.environ.pop(next(iter(DECLARED_GPU)), None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_nodes_of_a_cluster_agree_on_engine_and_precision(
    two_kinds_of_nodes, tiny_bundle, broken_archive, tmp_path
):
    arguments = ["score", broken_archive[0], "--model", tiny_bundle.path, "--results", tmp_path / "r"]
    arguments += ["--address", two_kinds_of_nodes.address, "--chunk-size", 4]
    done = pneumonia(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Ray counts GPUs on 1 of 2 nodes") == 1
    result = last_json(done)
    table = rows(tmp_path / "r")
    assert table.num_rows == result["listed"]
    for name in ("engine", "precision"):
        assert set(table[name].to_pylist()) == {result[name]}
    refused = pneumonia(*arguments, "--shape", "gpu", "--rescore", "all", "--retry-rejected")
    assert refused.returncode == 2, refused.stderr
    assert "--shape cpu" in refused.stderr


def test_each_node_says_what_it_can_compute_with(ray_here):
    (node,) = present_nodes()
    found = node_capabilities([node], look_for_gpus=True)
    assert found == {node.node_id: measure_capabilities(look_for_gpus=True)}


@pytest.mark.slow
def test_resumed_run_keeps_the_precision_it_was_started_with(cluster, tiny_bundle, broken_archive, tmp_path):
    """Its own choice would be that of the machines of today."""
    arguments = ["score", broken_archive[0], "--model", tiny_bundle.path, "--results", tmp_path]
    arguments += ["--engine", "openvino", "--chunk-size", 8, *cluster.options]
    died = pneumonia(*arguments, **{VARIABLE: "merge.before=kill"})
    assert died.returncode == -signal.SIGKILL
    (run,) = (tmp_path / "runs").glob("*/run.json")
    record = json.loads(run.read_text())
    run.write_text(json.dumps({**record, "precision": "float32"}))
    for part in sorted((run.parent / "parts").glob("*.parquet"))[1:]:
        part.unlink()
    resumed = pneumonia_here(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert last_json(resumed)["precision"] == "float32"
    counts = Counter(rows(tmp_path)["precision"].to_pylist())
    assert counts["float32"] >= 40 - 8
