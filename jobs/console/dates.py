"""Today's date in a time zone, for the default date of a run and for `{date}` in a configuration."""

import datetime
import zoneinfo
from typing import Final

from pneumonia_core.errors import InvalidInput

UTC: Final = "UTC"


def today(timezone: str = UTC) -> str:
    """Today's ISO date in a time zone of the IANA database. Raises InvalidInput for an unknown name."""
    if timezone == UTC:
        zone: datetime.tzinfo = datetime.UTC
    else:
        try:
            zone = zoneinfo.ZoneInfo(timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InvalidInput(
                f"{timezone!r} is not a time zone that this machine knows. Write it as Europe/Berlin; if it "
                "is right, install the system's package tzdata."
            ) from error
    return datetime.datetime.now(zone).date().isoformat()
