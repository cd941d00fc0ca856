"""The units for one machine: what can be checked without systemd."""

import configparser
import shlex

from support.paths import REPOSITORY

from jobs.scoring.context import STOP_WITHIN_S

FOLDER = REPOSITORY / "cluster" / "systemd"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string((FOLDER / name).read_text())
    return parser


def test_stopped_service_lets_the_command_finish_its_current_chunks():
    service = unit("pneumonia.service")["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > STOP_WITHIN_S + 5


def test_only_a_failure_that_another_try_may_fix_is_tried_again():
    service = unit("pneumonia.service")["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["2", "3", "4"]


def test_service_runs_the_command_and_the_timer_starts_it():
    _, job, *options = shlex.split(unit("pneumonia.service")["Service"]["ExecStart"])
    assert (job, options) == ("score", ["--config", "/etc/pneumonia/nightly.toml"])
    assert unit("pneumonia.timer")["Timer"]["OnCalendar"]
