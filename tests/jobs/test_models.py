"""`pneumonia models`: what a person and a program read of it."""

import json
import shutil

import pytest
from click.testing import CliRunner

from jobs import models as job


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    for name in ("old", "new"):
        shutil.copytree(tiny_bundle.path, tmp_path / "models" / name)
    return tmp_path / "models"


def run(*arguments):
    return CliRunner().invoke(job.command, [str(argument) for argument in arguments])


def result(*arguments) -> dict:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_bundle_is_promoted_listed_and_rolled_back(folder, tiny_bundle):
    assert result("list", folder)["production"] is None
    first = result("promote", folder, "old")
    assert (first["bundle"], first["before"], first["model_id"]) == ("old", None, tiny_bundle.model_id)
    assert result("promote", folder, "new")["before"] == "old"
    listed = run("list", folder)
    assert "production  new " in listed.stdout
    bundles = json.loads(listed.stdout.splitlines()[-1])["bundles"]
    assert [(each["bundle"], each["in_production"]) for each in bundles] == [("new", True), ("old", False)]
    back = result("rollback", folder)
    assert (back["bundle"], back["before"]) == ("old", "new")


def test_broken_bundle_is_a_warning_in_the_list(folder):
    (folder / "old" / "bundle.json").write_text("{")
    done = run("list", folder)
    assert "warning:" in done.stderr
    assert "new" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["bundles"][1]["problem"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote",), "takes DIR and a bundle in it"),
        (("rollback", "old"), "takes DIR."),
        (("promote", "absent"), "does not exist"),
        (("rollback",), "Choose one with `pneumonia models promote`."),
    ],
)
def test_wrong_use_says_what_to_do(folder, arguments, said):
    action, *rest = arguments
    done = run(action, folder, *rest)
    assert done.exit_code == 2
    assert said in done.output
