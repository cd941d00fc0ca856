"""Types of option values: locations and durations."""

import click
import pytest
from click.testing import CliRunner

from jobs.console.options import DurationType, LocationType, parse_duration_s
from pneumonia_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("30m", 1800), ("6h", 21600), ("7d", 604800)]
)
def test_duration_is_in_seconds(text, seconds):
    assert parse_duration_s(text) == seconds
    assert DurationType()(seconds) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "1y", "inf", "nan"])
def test_text_that_is_not_a_duration_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_duration_s(text)
    with pytest.raises(click.BadParameter):
        DurationType().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("xrays", True),
        ("../xrays", True),
        ("/xrays", False),
        ("s3://bucket/xrays", False),
        ("file:/x", False),
        ("none", False),
    ],
)
def test_location_knows_whether_it_is_relative(text, relative):
    assert LocationType("none").is_relative(text) is relative


def test_file_in_place_of_a_folder_is_wrong_usage(tmp_path):
    (tmp_path / "models").write_text("")

    @click.command()
    @click.option("--models", type=LocationType(folder=True))
    def command(models: str) -> None:
        click.echo(models)

    assert CliRunner().invoke(command, ["--models", str(tmp_path / "new")]).output.strip() == str(
        tmp_path / "new"
    )
    refused = CliRunner().invoke(command, ["--models", str(tmp_path / "models")])
    assert refused.exit_code == 2
    assert "is a file, not a folder" in refused.stderr
