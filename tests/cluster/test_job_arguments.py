"""A job's command line, as the cluster must see it."""

import click
import pytest

from cluster.job_arguments import NOT_JOBS, job_arguments, read_command
from jobs.cli import main
from pneumonia_core.errors import InvalidInput

TEXTS_THAT_ARE_NOT_LOCATIONS = {
    "accept",
    "actors",
    "address",
    "ages",
    "by",
    "carry",
    "date",
    "engine",
    "model",
    "name",
    "run",
}
SCORE = ["score", "archive", "/other", "--model", "m@sha256:00", "--results", "../results"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    return tmp_path


def test_relative_locations_become_absolute_on_this_machine(folder):
    assert job_arguments(read_command(SCORE), here=True) == [
        "score",
        f"--model={folder}/job/m@sha256:00",
        f"--results={folder}/results",
        f"{folder}/job/archive",
        "/other",
    ]


def test_relative_location_is_refused_where_the_cluster_is_elsewhere():
    with pytest.raises(InvalidInput, match="archive is a path on this machine"):
        job_arguments(read_command(SCORE), here=False)
    away = ["score", "s3://bucket/xrays", "--model", "/mnt/models/m", "--results", "/mnt/results"]
    assert "s3://bucket/xrays" in job_arguments(read_command(away), here=False)


def test_configuration_file_is_merged_so_that_it_need_not_travel(folder):
    (folder / "job" / "nightly.toml").write_text(
        'archive = ["a", "b"]\nresults = "r"\nmodel = "old"\nlimit = 7\nretry-rejected = true\n'
    )
    words = ["score", "--config", "nightly.toml", "--model", "new"]
    assert job_arguments(read_command(words), here=True) == [
        "score",
        f"--model={folder}/job/new",
        f"--results={folder}/job/r",
        "--retry-rejected",
        "--limit=7",
        f"{folder}/job/a",
        f"{folder}/job/b",
    ]


def test_command_read_twice_is_the_same_command():
    words = [*SCORE, "--retry-rejected", "--limit", "5", "--actors", "1,2", "--max-reject-rate", "0.25"]
    once = job_arguments(read_command(words), here=True)
    assert job_arguments(read_command(once), here=False) == once


def test_argument_that_looks_like_an_option_stays_an_argument(folder):
    words = ["score", "--model", "/m", "--results", "/r", "--", "s3://b/x", "--odd"]
    assert job_arguments(read_command(words), here=True)[-1] == f"{folder}/job/--odd"


def test_wrong_usage_ends_before_any_cluster_is_asked():
    with pytest.raises(click.UsageError, match="--modle"):
        read_command(["score", "/a", "--modle", "/m"])
    with pytest.raises(click.UsageError, match="results"):
        read_command(["score", "/a", "--model", "/m"])
    for words in ([], ["submit", "--", "score"], ["jobs", "list"], ["rm"]):
        with pytest.raises(InvalidInput, match="is not a job"):
            read_command(words)


def test_address_of_the_inner_job_is_refused():
    with pytest.raises(InvalidInput, match="drop --address"):
        read_command([*SCORE, "--address", "auto"])


def test_every_text_that_a_job_takes_is_known_not_to_be_a_location():
    group = click.Context(main)
    for name in set(main.list_commands(group)) - NOT_JOBS:
        for parameter in main.get_command(group, name).params:
            if isinstance(parameter.type, click.types.StringParamType):
                assert parameter.name in TEXTS_THAT_ARE_NOT_LOCATIONS, (
                    f"is {parameter.name} of {name} a path? Then its type is LocationType; else name it here."
                )


def test_word_instead_of_a_file_travels_as_it_is(folder):
    words = ["train", "--data", "/d", "--models", "models", "--weights", "none"]
    arguments = job_arguments(read_command(words), here=True)
    assert "--weights=none" in arguments
    assert f"--models={folder}/job/models" in arguments


def test_duration_travels_in_seconds():
    words = [*SCORE, "--deadline", "6h"]
    assert "--deadline=21600.0" in job_arguments(read_command(words), here=True)


def test_location_by_default_is_sent_to_the_cluster_too(folder):
    assert job_arguments(read_command(["demo"]), here=True) == [
        "demo",
        f"--workdir={folder}/job/pneumonia-demo",
    ]


def test_bundle_to_promote_is_named_by_its_folder_on_the_cluster(folder):
    words = job_arguments(read_command(["models", "promote", "models", "resnet18-1"]), here=True)
    assert words == ["models", "promote", f"{folder}/job/models", "resnet18-1"]
