"""Fixtures of the tests of kills, races and full disks: a cluster, an archive, the table it must end as."""

import pytest
from support.clusters import SharedCluster
from support.runs_killed import COLUMNS, IMAGES, SoakReport, command
from support.scoring import pneumonia_here, rows

from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.phantoms.data_sets import write_archive

_REPORT = pytest.StashKey[SoakReport]()


@pytest.fixture
def cluster(ray_here, worker_rules):
    shared = SharedCluster(ray_here.get_runtime_context().gcs_address, worker_rules)
    yield shared
    shared.workers_do()


@pytest.fixture
def unseen_gpu(ray_here):
    """The session's Ray, whose node declares a GPU that TensorFlow does not see."""
    if measure_capabilities(look_for_gpus=True).gpus:
        pytest.skip("TensorFlow sees a GPU on this machine")
    return ray_here


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    write_archive(folder, IMAGES, seed=8, broken=True)
    return folder


@pytest.fixture(scope="session")
def undisturbed(ray_here, archive, tiny_bundle, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    address = ray_here.get_runtime_context().gcs_address
    done = pneumonia_here(*command(archive, tiny_bundle, results, "--address", address))
    assert done.returncode == 0, done.stderr
    return rows(results).select(COLUMNS).sort_by("image_uri")


@pytest.fixture
def report(request):
    """The record of a soak, printed at the end of the session."""
    return request.config.stash.setdefault(_REPORT, SoakReport())


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_REPORT, SoakReport()).lines():
        terminalreporter.write_line(line)
