"""A clock that is wrong by more than a day dates no row."""

import datetime

import pytest

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.results.clock import check_clock
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def written(tmp_path):
    location = open_location(str(tmp_path / "run.json"))
    write_bytes(location, b"")
    return location


@pytest.mark.parametrize("error", [2 * DAY, -2 * DAY, 2 * 365 * DAY])
def test_clock_that_differs_from_the_storage_by_more_than_a_day_is_refused(written, error):
    now = datetime.datetime.now(datetime.UTC)
    with pytest.raises(PneumoniaError) as caught:
        check_clock(written, None, now + error)
    assert caught.value.remedy is Remedy.SET_CLOCK
    assert f"{now + error:%Y-%m-%d %H:%M}" in str(caught.value)


@pytest.mark.parametrize(("behind", "is_refused"), [(DAY - HOUR, False), (DAY + HOUR, True)])
def test_clock_more_than_a_day_behind_the_newest_row_is_refused(written, behind, is_refused):
    newest = datetime.datetime.now(datetime.UTC) + behind
    if not is_refused:
        check_clock(written, newest)
        return
    with pytest.raises(PneumoniaError, match="restore the table"):
        check_clock(written, newest)
