"""Jobs on a real head with token authentication, through the command as a person uses it."""

import json
import signal
import subprocess

import pytest

from pneumonia_core.phantoms.data_sets import write_archive

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("data") / "archive", 12, seed=3, broken=True)


def last_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


def test_submitted_job_sees_the_users_files_and_ends_with_its_own_result(head, archive, tiny_bundle):
    folder = archive.folder.parent
    (folder / "nightly.toml").write_text(
        f'model = "{tiny_bundle.path}"\nresults = "results"\nchunk-size = 5\n'
    )
    ran = head.pneumonia("submit", "--", "score", "archive", "--config", "nightly.toml", PWD=str(folder))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = last_json(ran.stdout)
    assert result["state"] == "committed"
    assert (result["listed"], result["rejected"]) == (archive.files, len(archive.rejected))
    assert result["results"] == f"file://{folder}/results"
    assert (folder / "results" / "scores" / "_delta_log").is_dir()
    assert result["job"] in ran.stderr
    assert "rejected: " in ran.stdout  # the job's own lines, followed
    assert ran.stdout.count('"state"') == 1


def test_exit_code_of_the_job_is_passed_on(head, archive):
    ran = head.pneumonia(
        "submit", "--", "score", str(archive.folder), "--model", "/nowhere", "--results", "/tmp/r"
    )
    assert ran.returncode == 2
    assert last_json(ran.stdout)["exit_code"] == 2
    assert "/nowhere" in last_json(ran.stdout)["error"]


def test_interrupted_submit_leaves_the_job_running_and_stop_ends_it(head, archive, tiny_bundle, tmp_path):
    write_archive(tmp_path / "long", 60, seed=4, broken=False)
    score = [
        "score",
        str(tmp_path / "long"),
        "--model",
        str(tiny_bundle.path),
        "--results",
        str(tmp_path / "r"),
    ]
    following = subprocess.Popen(
        head.command("submit", "--", *score, "--chunk-size", "1", "--actors", "1"),
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not following.stdout.readline().startswith("run ") and following.poll() is None:
        pass
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=30)
    assert following.returncode == 130, out + err
    job = last_json(out)["job"]
    assert f"pneumonia jobs stop {job}" in err
    assert "Traceback" not in out + err

    listed = {job["id"]: job for job in last_json(head.pneumonia("jobs", "list", "--json").stdout)["jobs"]}
    assert listed[job]["state"] == "running"
    stopped = head.pneumonia("jobs", "stop", job)
    assert stopped.returncode == 0, stopped.stderr
    assert last_json(stopped.stdout)["state"] == "stopped"
    # Ray would kill it after three seconds, with its current chunks unfinished.
    assert '"RAY_JOB_STOP_WAIT_TIME_S": "30"' in head.api(f"/api/jobs/{job}")


def test_wrong_or_missing_token_says_where_a_token_comes_from(head):
    for changes, words in (
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses the token of RAY_AUTH_TOKEN"),
        ({"HOME": "/nowhere"}, "asks for a token and there is none here"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "/nowhere/token, which cannot be read"),
    ):
        ran = head.pneumonia("jobs", "list", **changes)
        assert ran.returncode == 2
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr
    assert "ray get-auth-token --generate" in head.pneumonia("jobs", "list", HOME="/nowhere").stderr


def test_token_is_in_no_job_and_in_nothing_printed(head):
    submitted = head.pneumonia("submit", "--no-wait", "--", "runs", "/nowhere")
    assert submitted.returncode == 0
    job = last_json(submitted.stdout)["job"]
    assert job in head.pneumonia("jobs", "list").stdout
    known = head.api("/api/jobs/")
    assert job in known
    assert head.token not in known + submitted.stdout + submitted.stderr


def test_unknown_job_cannot_be_stopped(head):
    ran = head.pneumonia("jobs", "stop", "raysubmit_unknown")
    assert ran.returncode == 2
    assert "has no job raysubmit_unknown" in ran.stderr


def test_plain_ray_job_submit_runs_the_same_command(head):
    ran = subprocess.run(
        ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs.cli", "--help"],
        env={**head.environment, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Exit codes: 0 done" in ran.stdout
