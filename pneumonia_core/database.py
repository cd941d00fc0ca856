"""DuckDB in bounded memory: what does not fit goes to a folder on the disk."""

from pathlib import Path

import duckdb


def open_database(spill_folder: Path, memory_mb: int) -> duckdb.DuckDBPyConnection:
    """A database of its own that takes no more memory than that, and spills into the folder."""
    database = duckdb.connect()
    database.execute(f"SET memory_limit='{memory_mb}MB'")
    database.execute(f"SET temp_directory={sql_text(str(spill_folder))}")
    return database


def sql_text(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
