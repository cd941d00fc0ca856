"""DuckDB in bounded memory, which spills into a folder."""

from pathlib import Path

import duckdb


def open_duckdb(spill_folder: Path, memory_mb: int, **settings: str | int) -> duckdb.DuckDBPyConnection:
    """A DuckDB database of its own in at most `memory_mb`; what does not fit goes to files in `spill_folder`.

    `settings` are further options of DuckDB, such as `threads`.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(spill_folder),
        **settings,
    }
    return duckdb.connect(config=config)
