"""The code that travels with a job."""

import shutil
import subprocess
import sys

from support.paths import REPOSITORY

from cluster.source_package import copy_code


def test_only_the_projects_packages_travel(tmp_path):
    copy_code(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "pneumonia_core",
        "jobs",
        "cluster",
        "pyproject.toml",
    }
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".html", ".css", ".md", ".toml"}


def test_what_lies_beside_and_within_the_packages_by_accident_stays(tmp_path):
    project = tmp_path / "project"
    for package in ("pneumonia_core", "jobs", "cluster"):
        shutil.copytree(REPOSITORY / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".env").write_text("SECRET=1")
    (project / "jobs" / ".env").write_text("SECRET=1")
    (project / "jobs" / "patient.jpeg").write_bytes(b"x")
    (project / "jobs" / "link.py").symlink_to(project / ".env")
    target = str(tmp_path / "to")
    code = (
        f"from pathlib import Path; from cluster.source_package import copy_code; copy_code(Path({target!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
    names = {path.name for path in (tmp_path / "to").rglob("*")}
    assert "cli.py" in names
    assert not names & {".env", "patient.jpeg", "link.py", "pyproject.toml"}


def test_copied_code_runs(tmp_path):
    copy_code(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0
    assert "Exit codes" in ran.stdout
