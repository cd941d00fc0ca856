"""Whether the clock of this machine can date rows: readers take the row of the latest date for the newest."""

import datetime
from typing import Final

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import written_at_s
from pneumonia_core.storage.location import Location

MAX_CLOCK_ERROR: Final = datetime.timedelta(days=1)


def check_clock(
    just_written: Location, newest_row: datetime.datetime | None, now: datetime.datetime | None = None
) -> None:
    """Raise PneumoniaError where the clock is wrong by more than a day.

    The clock of the storage tells, by the time of a file that was `just_written`. A disk of this machine has
    the same clock: there only the time of the table's newest row tells, of a clock that is behind.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    written_at = datetime.datetime.fromtimestamp(written_at_s(just_written), datetime.UTC)
    if abs(written_at - now) > MAX_CLOCK_ERROR:
        raise PneumoniaError(
            f"the clock of this machine says {_minute(now)}, that of the storage {_minute(written_at)} "
            f"({just_written.uri}).",
            Remedy.SET_CLOCK,
        )
    if just_written.is_local and newest_row is not None and newest_row - now > MAX_CLOCK_ERROR:
        raise PneumoniaError(
            f"the clock of this machine says {_minute(now)}, but the table has rows of "
            f"{_minute(newest_row)}. If the clock is right, a run with a wrong one wrote them: restore the "
            "table to the version before that run.",
            Remedy.SET_CLOCK,
        )


def _minute(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
