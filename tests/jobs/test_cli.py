"""The command itself: instant help, options from a file, one JSON line."""

import datetime
import logging
import os
import subprocess
import sys
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from support.scoring import REPOSITORY, last_json, pneumonia

from jobs.cli import COMMANDS, main
from jobs.console.output import core_warnings_shown, show
from jobs.scoring.request import parse_date

HEAVY = {"ray", "tensorflow", "keras", "matplotlib", "duckdb", "deltalake", "openvino", "sklearn", "tqdm"}


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint()\nprint(*sys.modules)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def call_of(*words: str) -> str:
    return (
        "from jobs.cli import main\n"
        f"try: main({list(words)!r})\n"
        "except SystemExit as end: assert not end.code, end.code"
    )


def test_help_imports_nothing_beyond_click():
    modules = modules_after(call_of("--help"))
    assert not modules & {*HEAVY, "pyarrow", "numpy", "PIL", "boto3", "pydicom"}
    assert {name for name in modules if name.startswith("jobs.")} == {"jobs.cli"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_imports_no_heavy_library(name):
    assert not modules_after(call_of(name, "--help")) & HEAVY


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("submit", "jobs")])
def test_help_of_a_job_as_a_module_imports_no_heavy_library(name):
    code = (
        "import runpy\n"
        "sys.argv = ['job', '--help']\n"
        f"try: runpy.run_module('jobs.{name}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code"
    )
    assert not modules_after(code) & HEAVY


# What no run needs that reads a disk and computes with OpenVINO.
UNUSED = {"tensorflow", "keras", "matplotlib", "sklearn", "scipy", "boto3", "botocore", "pydicom", "nncf"}


@pytest.mark.parametrize(
    ("module", "also_unused"),
    [
        ("jobs.scoring.run", {"ray", "openvino", "PIL", "tqdm"}),
        ("jobs.scoring.start", {"openvino", "aiohttp"}),
        ("jobs.scoring.execution.actors", {"ray.data", "openvino", "duckdb", "jinja2"}),
        ("jobs.scoring.execution.blocks", {"ray", "openvino", "duckdb", "jinja2", "deltalake", "PIL"}),
        ("jobs.scoring.execution.queue", {"ray", "openvino", "duckdb", "jinja2", "deltalake", "PIL"}),
    ],
    ids=["driver", "driver with Ray", "actor", "source", "queue"],
)
def test_process_of_a_scoring_run_imports_nothing_that_it_does_not_use(module, also_unused):
    assert not modules_after(f"import {module}") & {*UNUSED, *also_unused}


def test_name_with_a_line_break_forges_no_line(tmp_path, capsys):
    """Neither in an error, nor in a warning, nor in a table."""
    forged = "a\n2026-01-01: all 100 images scored\x1b[31m\u2028error: none"
    shown = "a\\n2026-01-01: all 100 images scored\\x1b[31m\\u2028error: none"
    failed = CliRunner().invoke(main, ["inspect", f"{tmp_path}/{forged}"])
    assert failed.exit_code == 2
    (line,) = failed.stderr.splitlines()
    assert line.startswith("error: ")
    assert shown in line
    with core_warnings_shown():
        logging.getLogger("pneumonia_core.storage").warning(forged)
    show([forged, "the next line"])
    assert capsys.readouterr() == (f"{shown}\nthe next line\n", f"{shown}\n")


def test_options_come_from_a_file_and_the_command_line_wins(tmp_path):
    config = tmp_path / "nightly.toml"
    config.write_text('archive = ["/data/{date}"]\nmodel = "m"\nresults = "r"\nmax-reject-rate = 0.5\n')
    done = pneumonia("score", "--config", config, "--results", "elsewhere", "--print-config")
    assert done.returncode == 0, done.stderr
    assert 'results = "elsewhere"  # command line' in done.stdout
    assert f"max-reject-rate = 0.5  # {config}" in done.stdout
    assert 'engine = "auto"  # default' in done.stdout
    assert "{date}" not in done.stdout


def configured(tmp_path, text, *options):
    (tmp_path / "nightly.toml").write_text(text)
    return CliRunner().invoke(
        main, ["score", "--config", str(tmp_path / "nightly.toml"), "--print-config", *options]
    )


# At any time, the dates of the first and the last of these differ, and one of them is not UTC's.
ZONES = ("Pacific/Kiritimati", "Europe/Berlin", "Etc/GMT+12")


def date_in(zone):
    return datetime.datetime.now(ZoneInfo(zone)).date().isoformat()


@pytest.mark.parametrize("zone", ZONES)
def test_date_is_that_of_the_time_zone(tmp_path, zone):
    text = 'archive = "/{date}"\nmodel = "m"\nresults = "r"\n'
    before = date_in(zone)
    in_file = configured(tmp_path, f'timezone = "{zone}"\n{text}').stdout
    given = configured(tmp_path, f'timezone = "Asia/Tokyo"\n{text}', "--timezone", zone).stdout
    default = parse_date(None, zone)
    if before == date_in(zone):
        assert f'archive = ["/{before}"]' in in_file
        assert f'archive = ["/{before}"]' in given
        assert default == before


@pytest.mark.parametrize("zone", ["Europe", "CEST", "../../etc/passwd", "/etc/localtime"])
def test_time_zone_that_does_not_exist_is_wrong_usage(tmp_path, zone):
    text = 'archive = "/{date}"\nmodel = "m"\nresults = "r"\n'
    for refused in (
        configured(tmp_path, text, "--timezone", zone),
        configured(tmp_path, f'timezone = "{zone}"\n{text}'),
    ):
        assert refused.exit_code == 2
        assert "is not a time zone that this machine knows" in refused.stderr


def test_one_text_of_a_file_is_one_archive_whatever_its_name(tmp_path):
    shown = configured(
        tmp_path, 'archive = "/my xrays"\nmodel = "m"\nresults = "r"\nallow-prefix = "s3://b"\n'
    )
    assert shown.exit_code == 0, shown.output
    assert 'archive = ["/my xrays"]' in shown.stdout
    assert 'allow-prefix = ["s3://b"]' in shown.stdout


def test_several_values_of_a_file_for_an_option_of_one_are_refused(tmp_path):
    refused = configured(tmp_path, 'archive = "a"\nmodel = "m"\nresults = "r"\ncarry = ["study", "site"]\n')
    assert refused.exit_code == 2
    assert "carry in " in refused.stderr
    assert "takes one value" in refused.stderr


def test_runs_of_a_folder_without_runs_is_refused(tmp_path):
    done = pneumonia("runs", tmp_path)
    assert done.returncode == 2
    assert "has no runs" in done.stderr
    assert last_json(done)["exit_code"] == 2


@pytest.mark.parametrize(("typed", "meant"), [(["scor"], "score"), (["jobs", "stpo"], "stop")])
def test_misspelt_command_gets_a_suggestion(typed, meant):
    done = CliRunner().invoke(main, typed)
    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in done.stderr


@pytest.mark.parametrize("typed", [[], ["jobs"]])
def test_every_command_of_a_list_is_described_in_whole_on_80_columns(typed):
    shown = CliRunner().invoke(main, [*typed, "--help"], terminal_width=80).stdout
    commands = shown.partition("Commands:")[2]
    assert commands.strip()
    assert "..." not in commands
    assert max(map(len, shown.splitlines())) <= 80


def test_home_that_ray_cannot_write_to_is_one_clear_message():
    code = (
        "from jobs.ray_runtime.session import ray_session\n"
        "from pneumonia_core.errors import InvalidInput\n"
        "try:\n"
        "    with ray_session(): pass\n"
        "except InvalidInput as error: print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**environment, "HOME": "/dev/null/home"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot start on this machine" in done.stdout
    assert "HOME=/dev/null/home" in done.stdout


def test_ray_that_does_not_start_in_time_may_be_started_again(monkeypatch):
    import ray

    from jobs.ray_runtime.session import ray_session
    from pneumonia_core.errors import PneumoniaError

    def time_out(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", time_out)
    monkeypatch.setattr(
        ray, "is_initialized", lambda: False
    )  # another test of this process may have started it
    with pytest.raises(PneumoniaError, match=r"timed out during startup") as error, ray_session("local"):
        pass
    assert error.value.exit_code == 1


def test_chunk_size_of_the_command_is_the_one_of_a_request():
    from jobs.score import command
    from jobs.scoring.options import CHUNK_SIZE

    (chunk_size,) = (p for p in command.params if p.name == "chunk_size")
    assert chunk_size.default == CHUNK_SIZE
