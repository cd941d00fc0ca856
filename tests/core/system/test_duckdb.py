"""DuckDB as every part of the program opens it."""

from pneumonia_core.system.bounded_duckdb import open_duckdb


def test_folder_with_an_apostrophe_is_spilled_into(tmp_path):
    spill = tmp_path / "it's"
    with open_duckdb(spill, memory_mb=24, threads=1) as database:
        database.execute(
            "CREATE TABLE numbers AS SELECT range AS n, md5(range::VARCHAR) AS t FROM range(300_000)"
        )
        assert database.execute("SELECT count(*) FROM (SELECT DISTINCT n, t FROM numbers)").fetchone() == (
            300_000,
        )
        settings = "SELECT current_setting('temp_directory'), current_setting('threads')"
        assert database.execute(settings).fetchone() == (str(spill), 1)
        assert spill.exists()
