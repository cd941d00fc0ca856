"""`pneumonia submit` and `pneumonia jobs` where there is no cluster."""

import json
import subprocess
import sys

import pytest
from support.paths import REPOSITORY


def pneumonia(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "--address", "127.0.0.1:9", "--", "score", "/a", "--model", "/m", "--results", "/r"),
        ("jobs", "list", "--address", "127.0.0.1:9"),
        ("jobs", "stop", "some-id", "--address", "http://127.0.0.1:9"),
    ],
)
def test_cluster_out_of_reach_is_wrong_input_and_one_message(words):
    ran = pneumonia(*words)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "no cluster answers at http://127.0.0.1:9" in ran.stderr
    assert json.loads(ran.stdout)["exit_code"] == 2


def test_options_of_the_job_are_the_jobs_also_without_the_dashes():
    with_dashes, without = (
        pneumonia("submit", "--address", "127.0.0.1:9", *dashes, "score", "/a", "--modle", "/m")
        for dashes in (["--"], [])
    )
    assert with_dashes.returncode == without.returncode == 2
    assert "--modle" in with_dashes.stderr
    assert with_dashes.stderr == without.stderr


def test_help_and_configuration_of_the_job_are_shown_here():
    ran = pneumonia("submit", "--", "score", "--help")
    assert ran.returncode == 0
    assert "--max-reject-rate" in ran.stdout
    ran = pneumonia("submit", "--", "score", "/a", "--model", "/m", "--results", "/r", "--print-config")
    assert ran.returncode == 0
    assert 'model = "/m"  # command line' in ran.stdout


def test_word_that_is_not_a_job_is_wrong_usage():
    ran = pneumonia("submit", "--", "jobs", "list")
    assert ran.returncode == 2
    assert "'jobs' is not a job" in ran.stderr
    assert pneumonia("submit").returncode == 2


def test_help_of_the_commands_imports_neither_ray_nor_tensorflow():
    code = (
        "import sys, cluster.commands, cluster.submit, cluster.follow, cluster.job_list;"
        "print(sorted({'ray', 'tensorflow', 'keras', 'aiohttp'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
