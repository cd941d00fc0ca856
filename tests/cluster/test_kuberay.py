"""The image, the `ray up` file and the KubeRay manifests: what can be checked without a cluster."""

import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from support.paths import REPOSITORY

from jobs.console.options import parse_duration_s
from pneumonia_core import __version__

KUBERAY = sorted((REPOSITORY / "cluster" / "kuberay").glob("*.yaml"))
RAYCLUSTER = REPOSITORY / "cluster" / "kuberay" / "raycluster.yaml"
AWS = REPOSITORY / "cluster" / "ray-up" / "aws.yaml"
# What a namespace with the standard `restricted` asks of every container.
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def ray_cluster(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"].get("jobTemplate", document["spec"])
    return spec.get("rayClusterSpec", spec)


def ray_job(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"].get("jobTemplate", document["spec"])


def nodes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods that Ray runs in."""
    cluster = ray_cluster(document)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes, and the pod that submits a RayJob's command."""
    yield from nodes(document)
    if document["kind"] != "RayCluster":
        yield ray_job(document)["submitterPodTemplate"]["spec"]


def test_every_kind_is_there_once():
    assert {path.name: load(path)["kind"] for path in KUBERAY} == {
        "raycluster.yaml": "RayCluster",
        "raycronjob-nightly.yaml": "RayCronJob",
        "rayjob-score.yaml": "RayJob",
        "rayjob-train.yaml": "RayJob",
    }


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_manifest_has_the_pinned_ray_and_this_versions_image(path):
    pins = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = next(re.search(r"==(\d+\.\d+)\.", pin).group(1) for pin in pins if pin.startswith("ray["))
    assert ray_cluster(load(path))["rayVersion"].startswith(f"{pinned}.")
    for pod in pods(load(path)):
        for container in pod["containers"]:
            gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert container["image"] == f"pneumonia:{__version__}" + ("-gpu" if gpu else "")


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_manifest_asks_for_a_token_and_holds_no_secret(path):
    assert ray_cluster(load(path))["authOptions"] == {"mode": "token"}
    text = path.read_text().lower()
    assert "kind: secret" not in text
    assert not re.search(r"(password|access_key|auth_token|hash_key)\s*:", text)


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_pod_gets_the_memory_it_counts_on_and_no_rights_it_does_not_need(path):
    for pod in pods(load(path)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["serviceAccountName"] == "pneumonia"
        assert "tolerations" not in pod or "-gpu" in pod["containers"][0]["image"]
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
            assert container["securityContext"] == UNPRIVILEGED


def test_autoscaler_beside_the_head_has_no_rights_it_does_not_need():
    assert ray_cluster(load(RAYCLUSTER))["autoscalerOptions"]["securityContext"] == UNPRIVILEGED


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_every_node_has_the_secrets_and_the_data(path):
    for node in nodes(load(path)):
        (container,) = node["containers"]
        (source,) = container["envFrom"]
        assert source["secretRef"] == {"name": "pneumonia-environment", "optional": True}
        assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]


@pytest.mark.parametrize("path", [p for p in KUBERAY if p != RAYCLUSTER], ids=lambda path: path.stem)
def test_job_is_a_real_command_that_a_new_cluster_resumes(path):
    job = ray_job(load(path))
    assert job["shutdownAfterJobFinishes"] is True
    assert job["backoffLimit"] > 0
    python, dash_m, module, *words = shlex.split(job["entrypoint"])
    assert (python, dash_m) == ("python", "-m")
    command = importlib.import_module(module).command
    with command.make_context(command.name, words) as context:
        assert all(
            context.params[name].startswith("/data/") for name in ("data", "model") if name in context.params
        )
        assert context.params.get("resume", True)  # a training resumes only when asked to


def test_three_tries_of_a_night_end_before_the_next_begins():
    night = ray_job(load(REPOSITORY / "cluster" / "kuberay" / "raycronjob-nightly.yaml"))
    words = shlex.split(night["entrypoint"])
    deadline_s = parse_duration_s(words[words.index("--deadline") + 1])
    assert deadline_s < night["activeDeadlineSeconds"]
    assert (night["backoffLimit"] + 1) * night["activeDeadlineSeconds"] <= 24 * 3600


def test_head_on_aws_may_start_workers_with_a_profile_of_their_own():
    profiles = {
        name: node["node_config"]["IamInstanceProfile"]["Name"]
        for name, node in load(AWS)["available_node_types"].items()
    }
    # Ray's own profile for heads lacks iam:PassRole.
    assert profiles == {"head": "pneumonia-head", "cpu": "pneumonia-worker", "gpu": "pneumonia-worker"}
    assert "iam:PassRole" in AWS.read_text()


def test_ray_up_file_is_valid_and_brings_the_token_to_every_node():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    document = load(AWS)
    jsonschema.validate(document, schema)
    assert document["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in document["docker"]["run_options"]
    assert document["docker"]["image"] == f"pneumonia:{__version__}"
    assert document["available_node_types"]["gpu"]["docker"]["worker_image"] == f"pneumonia:{__version__}-gpu"
    # Where these are left out, Ray's defaults install packages on every node.
    assert [document[f"{kind}setup_commands"] for kind in ("", "head_", "worker_")] == [[], [], []]
    assert "--dashboard-host=127.0.0.1" in document["head_start_ray_commands"][-1]


def test_image_takes_hashed_versions_only_and_does_not_run_as_root():
    text = (REPOSITORY / "cluster" / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert "--no-index" in text
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert re.search(r"^USER ray$", text, re.MULTILINE)
    assert f"pneumonia:{__version__}" in text
    allowed = (REPOSITORY / "cluster" / "Dockerfile.dockerignore").read_text().split()
    assert allowed[0] == "*"
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all(f"!{name.split('/')[0]}" in allowed for name in source.split())
