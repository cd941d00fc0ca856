"""A merge that fails on one node is tried on another, and the run ends as if nothing had happened."""

import os
import subprocess
import sys

import pytest
from support.paths import REPOSITORY
from support.scoring import rows

from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.system.failpoints import VARIABLE

CHUNKS, CHUNK = 6, 2
# Ray in the test's own process is another one.
SCORE = f"""
import sys
from pathlib import Path
from support.scoring import score, scoring_request
from jobs.scoring.ending import merging
from pneumonia_core.bundles.bundle import open_bundle

merging.ROWS_PER_FILE = {CHUNK}
results, archive, bundle, address = sys.argv[1:]
request = scoring_request(open_bundle(bundle), archive, chunk_size={CHUNK})
score(Path(results), request, merge_here_rows=0, address=address)
"""


@pytest.fixture
def node_with_a_full_disk(ray_here, monkeypatch, tmp_path):
    """A cluster of two nodes; on one, workers log the data files that they begin, and can write none.

    The other is slow, so that it does not merge all before the first one is free.
    """
    from ray.cluster_utils import Cluster

    log = tmp_path / "failed merges"
    monkeypatch.setenv(VARIABLE, "merge.before=sleep:1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        monkeypatch.setenv(VARIABLE, f"write@run_date=log:{log};write@run_date=enospc")
        cluster.add_node(num_cpus=1)
        monkeypatch.delenv(VARIABLE)
        cluster.wait_for_nodes()
        yield cluster.address, log
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_merge_that_meets_a_full_disk_is_tried_on_another_node(node_with_a_full_disk, tiny_bundle, tmp_path):
    address, log = node_with_a_full_disk
    write_archive(tmp_path / "archive", CHUNKS * CHUNK, seed=1)
    done = subprocess.run(
        [sys.executable, "-c", SCORE, tmp_path / "r", tmp_path / "archive", tiny_bundle.path, address],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed = log.read_text().splitlines()
    # Each try has a name of its own, of which only the end differs.
    assert 0 < len(failed) == len({name.rpartition("-")[0] for name in failed})
    assert len(set(rows(tmp_path / "r")["image_uri"].to_pylist())) == CHUNKS * CHUNK
    assert len(list((tmp_path / "r" / "scores").rglob("run_date=*/*.parquet"))) == CHUNKS
