"""One way for every command: options from a TOML file, errors as one line, the result as one JSON line."""

from pneumonia_core.errors import InvalidInput


def parse_duration_s(text: str) -> float:
    """Seconds of a duration such as `90`, `45s`, `30m`, `6h` or `7d`. Raises InvalidInput."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidInput(f"{text!r} is no duration. Write 90, 45s, 30m, 6h or 7d.")
    return seconds
