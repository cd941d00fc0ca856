"""A run with a cache of decoded squares: a new model scores the same images without reading one of them."""

import dataclasses

from support.scoring import rows, score, scoring_request
from support.tiny_bundles import write_tiny_bundle

from jobs.scoring.cache.squares import index_squares, usable_squares
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import execution_options
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.storage.location import open_location

# What a row says of its image, whatever the model.
_OF_IMAGE = ("image_uri", "image_version", "image_sha256", "size_bytes", "source_format", "width", "height")
_OF_SCORE = ("status", "p_normal", "p_bacterial", "p_viral", "reject_reason", "reject_detail")


def test_new_model_reads_no_image_that_the_cache_has(ray_here, cluster, tiny_bundle, tmp_path):
    archive, log = tmp_path / "archive", tmp_path / "decoded"
    write_archive(archive, 24, seed=1, broken=True)
    cache = open_location(str(tmp_path / "cache"))
    # Each shape adds its squares.
    for shape, limit in (("gpu", 12), ("cpu", None)):
        request = scoring_request(tiny_bundle, archive, chunk_size=8, limit=limit)
        score(tmp_path / "r", request, shape=shape, cache=cache)
    first = rows(tmp_path / "r").sort_by("image_uri")

    other = write_tiny_bundle(tmp_path / "models", pneumonia_threshold=0.4)
    cluster.workers_do(f"decode=log:{log}")
    again = dataclasses.replace(
        scoring_request(other, archive, chunk_size=8), rescore="all", run_date="2026-02-01"
    )
    result = score(tmp_path / "r", again, shape="gpu", cache=cache)
    table = rows(tmp_path / "r")
    second = table.filter([run == result["run_id"] for run in table["run_id"].to_pylist()])
    second = second.sort_by("image_uri")
    # The two models differ in a threshold alone.
    for name in (*_OF_IMAGE, *_OF_SCORE):
        assert second[name].to_pylist() == first[name].to_pylist(), name
    scored = set(first.filter([s == "scored" for s in first["status"].to_pylist()])["image_uri"].to_pylist())
    # Those that are rejected are read again.
    read = set(log.read_text().split())
    assert len(scored) == result["scored"] > 0
    assert not scored & read


def test_failures_of_the_cache_are_told(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    nowhere = open_location(str(tmp_path / "file" / "cache"))
    assert usable_squares(nowhere) is None
    (said,) = capsys.readouterr().err.splitlines()
    assert "warning: the cache" in said
    assert "The run goes on without it." in said
    index_squares(nowhere, "run")
    (said,) = capsys.readouterr().err.splitlines()
    assert "Later runs may not find the squares of this one." in said


def test_run_with_a_cache_that_cannot_be_written_says_so_once(ray_here, tiny_bundle, tmp_path, capsys):
    archive = tmp_path / "archive"
    write_archive(archive, 2, seed=1)
    (tmp_path / "file").write_bytes(b"")
    nowhere = open_location(str(tmp_path / "file" / "cache"))
    result = score(tmp_path / "r", scoring_request(tiny_bundle, archive), cache=nowhere)
    assert result["scored"] == 2
    assert capsys.readouterr().err.count("the cache") == 1


def test_place_of_the_cache_is_an_option_of_the_execution(tmp_path):
    options = ScoreOptions((str(tmp_path),), "bundle", cache=str(tmp_path / "c"))
    assert execution_options(options).cache == open_location(str(tmp_path / "c"))
    assert execution_options(dataclasses.replace(options, cache=None)).cache is None
