"""Scoring: one row for every image, once, and errors that say what to do."""

import dataclasses
import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from PIL import Image
from support.clusters import DECLARED_GPU
from support.paths import REPOSITORY
from support.scoring import pneumonia, rows, score, scoring_request

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.gates import DEFAULT_GATES
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.schema import SCHEMA


@pytest.fixture(params=["cpu", "gpu"])
def shape(request):
    return request.param


def test_every_image_has_one_row_in_both_shapes(ray_here, tiny_bundle, broken_archive, tmp_path, shape):
    folder, expected = broken_archive
    result = score(tmp_path, scoring_request(tiny_bundle, folder), shape=shape)
    table = rows(tmp_path)
    listed = {f"file://{path}" for path in folder.rglob("*") if path.is_file()}
    assert sorted(table["image_uri"].to_pylist()) == sorted(listed)
    assert (result["listed"], result["scored"], result["rejected"]) == (40, 35, len(expected.rejected))
    assert result["reject_reasons"] == dict.fromkeys(sorted(expected.rejected.values()), 1)
    assert result["exit_code"] == 0
    assert_seconds_are_divided(result["timings"], shape)
    (record,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["timings"] == result["timings"]


def assert_seconds_are_divided(timings, shape):
    stages, tasks, steps = timings["stages"], timings["tasks"], timings["steps"]
    assert timings["images"] == 40
    assert timings["limit"] is not None
    assert min([*stages.values(), *tasks.values(), *steps.values()]) >= 0
    assert stages["infer"] > 0
    assert stages["write"] > 0
    decoding = stages if shape == "cpu" else tasks
    assert decoding["read"] > 0
    assert decoding["decode"] > 0
    # Neither an actor nor the steps take longer than the run; all are rounded.
    assert sum(stages.values()) <= timings["actors"] * timings["seconds"] + 0.01
    assert sum(steps.values()) <= timings["seconds"] + 0.01


def test_rows_keep_the_contract(ray_here, tiny_bundle, broken_archive, tmp_path):
    score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    table = rows(tmp_path)
    assert table.schema.names == [field.name for field in SCHEMA.fields]
    scored = table.filter(table["status"].to_numpy(False) == "scored")
    p = np.stack([scored[f"p_{name}"].to_numpy() for name in ("normal", "bacterial", "viral")], axis=1)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(scored["p_pneumonia"].to_numpy(), p[:, 1] + p[:, 2])
    assert scored["reject_reason"].null_count == scored.num_rows
    rejected = table.filter(table["status"].to_numpy(False) == "rejected")
    assert rejected["finding"].null_count == rejected["p_normal"].null_count == rejected.num_rows
    assert rejected["reject_detail"].null_count == 0
    assert set(table["run_date"].to_pylist()) == {datetime.date(2026, 1, 31)}


def test_both_shapes_give_the_same_probabilities(ray_here, tiny_bundle, broken_archive, tmp_path):
    tables = []
    for kind in ("cpu", "gpu"):
        score(tmp_path / kind, scoring_request(tiny_bundle, broken_archive[0]), shape=kind)
        tables.append(rows(tmp_path / kind).sort_by("image_uri"))
    columns = [
        "image_uri",
        "image_sha256",
        "width",
        "status",
        "p_normal",
        "p_bacterial",
        "finding",
        "reject_reason",
    ]
    assert tables[0].select(columns).equals(tables[1].select(columns))


def test_duckdb_and_polars_read_the_table(ray_here, tiny_bundle, broken_archive, tmp_path):
    score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    count = rows(tmp_path).num_rows
    # The log says which files count: a glob would also see those of a run that was never committed.
    files = DeltaTable(str(tmp_path / "scores")).file_uris()
    query = f"SELECT count(*), count(DISTINCT image_uri) FROM read_parquet({files}, hive_partitioning=true)"
    with duckdb.connect() as database:
        assert database.execute(query).fetchall() == [(count, count)]
    assert polars.read_delta(str(tmp_path / "scores")).height == count


def test_same_command_again_scores_nothing_and_returns_the_run(
    ray_here, tiny_bundle, broken_archive, tmp_path
):
    first = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    again = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    assert again["nothing_new"]
    assert (again["run_id"], again["scored"], again["unchanged"]) == (first["run_id"], 0, first["listed"])
    assert again["images_per_s"] == 0.0
    assert rows(tmp_path).num_rows == first["listed"]
    dated = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0], date_is_given=True))
    assert {**dated, "nothing_new": None} == {**first, "nothing_new": None}


def test_second_night_scores_only_what_is_new_or_changed(ray_here, tiny_bundle, tmp_path):
    archive = tmp_path / "archive"
    write_archive(archive, 12, seed=1)
    files = sorted(path for path in archive.rglob("*") if path.is_file())
    score(tmp_path / "r", scoring_request(tiny_bundle, archive))
    shutil.copy(files[0], files[0].with_name("new.jpeg"))
    Image.open(files[1]).rotate(90).save(files[1])
    files[2].unlink()
    second = scoring_request(tiny_bundle, archive, run_date="2026-02-01")
    night = score(tmp_path / "r", second, gates=DEFAULT_GATES)
    counts = (night["listed"], night["scored"], night["unchanged"], night["gone"])
    assert counts == (12, 2, 10, 1)
    assert rows(tmp_path / "r").num_rows == 14
    assert night["drift"] is not None
    third = dataclasses.replace(second, run_date="2026-02-02")
    quiet = score(tmp_path / "r", third, gates=DEFAULT_GATES)
    assert (quiet["nothing_new"], quiet["drift"], quiet["gates"]) == (True, None, ())


def test_another_image_that_is_gone_is_news(ray_here, tiny_bundle, tmp_path):
    archive = tmp_path / "archive"
    write_archive(archive, 6, seed=1)
    first, second = sorted(path for path in archive.rglob("*") if path.is_file())[:2]
    score(tmp_path / "r", scoring_request(tiny_bundle, archive))
    first.rename(tmp_path / "first")
    assert score(tmp_path / "r", scoring_request(tiny_bundle, archive))["gone"] == 1
    assert score(tmp_path / "r", scoring_request(tiny_bundle, archive))["nothing_new"]
    (tmp_path / "first").rename(first)
    second.unlink()
    night = score(tmp_path / "r", scoring_request(tiny_bundle, archive))
    assert "nothing_new" not in night
    gone = pq.read_table(tmp_path / "r" / "runs" / night["run_id"] / "gone.parquet")
    assert gone["image_uri"].to_pylist() == [f"file://{second}"]


def test_listing_that_the_deadline_cut_short_is_not_called_unchanged(ray_here, tiny_bundle, tmp_path):
    archive = tmp_path / "archive"
    write_archive(archive, 6, seed=1)
    score(tmp_path / "r", scoring_request(tiny_bundle, archive))
    for _ in range(2):
        night = score(tmp_path / "r", scoring_request(tiny_bundle, archive), deadline_s=0)
        assert "nothing_new" not in night
        assert (night["version"], night["gone"]) == (None, None)
    # A whole listing is news once.
    assert score(tmp_path / "r", scoring_request(tiny_bundle, archive))["gone"] == 0
    assert score(tmp_path / "r", scoring_request(tiny_bundle, archive))["nothing_new"]


def test_parts_are_merged_on_the_cluster_where_they_are_many(ray_here, tiny_bundle, tmp_path):
    archive = tmp_path / "archive"
    write_archive(archive, 12, seed=1)
    assert (
        score(tmp_path / "r", scoring_request(tiny_bundle, archive, chunk_size=4), merge_here_rows=3)[
            "scored"
        ]
        == 12
    )
    assert len(set(rows(tmp_path / "r")["image_uri"].to_pylist())) == 12


def test_hostile_folder_gives_one_row_each_with_the_right_reason(ray_here, tiny_bundle, tmp_path):
    from support.images.pictures import encoded, picture, png_header

    archive = tmp_path / "archive"
    archive.mkdir()
    jpeg = encoded(Image.fromarray(picture(600, 500)), "JPEG", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "empty.jpeg": (b"", "empty"),
        "truncated.jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "text.jpeg": (b"not a picture at all", "not_an_image"),
        "huge.png": (png_header(60_000, 60_000), "too_many_pixels"),
        "black.jpeg": (encoded(Image.new("L", (300, 300)), "JPEG"), "blank"),
        "pixel.png": (encoded(Image.new("L", (1, 1)), "PNG"), "too_small"),
        "deep.png": (encoded(Image.fromarray(picture().astype(np.uint16) * 257), "PNG"), None),
        "rotated.jpeg": (encoded(Image.fromarray(picture(300, 200)), "JPEG", exif=exif), None),
        "a b\nc#?%.jpeg": (jpeg, None),
    }
    for name, (data, _) in files.items():
        (archive / name).write_bytes(data)
    result = score(tmp_path / "r", scoring_request(tiny_bundle, archive))
    table = rows(tmp_path / "r")
    found = dict(zip(table["image_uri"].to_pylist(), table["reject_reason"].to_pylist(), strict=True))
    assert found == {f"file://{archive / name}": reason for name, (_, reason) in files.items()}
    assert result["exit_code"] == 0


def test_more_rejects_than_allowed_commit_and_exit_3(ray_here, tiny_bundle, broken_archive, tmp_path):
    result = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]), max_reject_rate=0.05)
    assert result["exit_code"] == 3
    assert rows(tmp_path).num_rows == result["listed"]
    assert (
        score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]), max_reject_rate=0.05)["exit_code"]
        == 3
    )


def test_limit_defers_the_rest_to_the_next_run(ray_here, tiny_bundle, broken_archive, tmp_path):
    first = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0], limit=10))
    assert first["scored"] + first["rejected"] == 10
    assert first["deferred"] == first["listed"] - 10
    second = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    assert second["unchanged"] == 10
    uris = rows(tmp_path)["image_uri"].to_pylist()
    assert len(uris) == len(set(uris)) == first["listed"]


def test_new_model_asks_what_to_do_with_old_rows(ray_here, tiny_bundle, broken_archive, tmp_path):
    first = score(tmp_path, scoring_request(tiny_bundle, broken_archive[0]))
    renamed = scoring_request(tiny_bundle, broken_archive[0], model_id="0" * 16)
    with pytest.raises(InvalidInput) as caught:
        score(tmp_path, renamed)
    assert caught.value.remedy is Remedy.SAY_RESCORE
    none = score(
        tmp_path,
        scoring_request(tiny_bundle, broken_archive[0], model_id="0" * 16, rescore="none", limit=None),
    )
    assert none["scored"] == 0
    assert rows(tmp_path).num_rows == first["listed"]


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 4])
def test_clusters_of_any_size_finish(tiny_bundle, broken_archive, tmp_path, cpus):
    """In both shapes, one after the other in one Ray. None of its processes looks for TensorFlow."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "tensorflow.py").write_text(f"open({str(trap / 'imported')!r}, 'w'); raise SystemExit(9)")
    script = (
        "from jobs.ray_runtime.session import ray_session\n"
        "from support.scoring import pneumonia_here\n"
        f"arguments = ['score', {str(broken_archive[0])!r}, '--model', {str(tiny_bundle.path)!r}, "
        "'--chunk-size', 8]\n"
        f"with ray_session('local', num_cpus={cpus}):\n"
        "    ended = [\n"
        "        pneumonia_here(*arguments, '--shape', shape, '--engine', engine, '--results', "
        f"f'{tmp_path}/{{shape}}')\n"
        "        for shape, engine in (('cpu', 'auto'), ('gpu', 'openvino'))\n"
        "    ]\n"
        "assert [done.returncode for done in ended] == [0, 0], ended\n"
        "print(*(done.stdout.splitlines()[-1] for done in ended), sep='\\n')"
    )
    environment = {**os.environ, **DECLARED_GPU, "PYTHONPATH": f"{trap}:{REPOSITORY}:{REPOSITORY / 'tests'}"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert not (trap / "imported").exists()
    results = map(json.loads, done.stdout.splitlines()[-2:])
    for shape, result in zip(("cpu", "gpu"), results, strict=True):
        assert result["listed"] == rows(tmp_path / shape).num_rows


class TestWrongInput:
    """Exit code 2, one clear message, no traceback."""

    @pytest.fixture
    def arguments(self, tiny_bundle, broken_archive, tmp_path):
        return {"archive": broken_archive[0], "--model": tiny_bundle.path, "--results": tmp_path / "r"}

    def refused(self, arguments: dict, message: str, *more: str) -> None:
        archive, *options = arguments.items()
        flat = [text for pair in options for text in pair]
        done = pneumonia("score", archive[1], *flat, *more)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 4

    def test_misspelt_archive(self, arguments, tmp_path):
        self.refused({**arguments, "archive": tmp_path / "absent"}, "no such file or folder")

    def test_folder_that_is_no_bundle(self, arguments, tmp_path):
        self.refused({**arguments, "--model": tmp_path}, "is not a bundle")

    def test_bundle_with_one_byte_changed(self, arguments, tiny_bundle, tmp_path):
        copy = Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy"))
        file = copy / "model.keras"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        self.refused({**arguments, "--model": copy}, "the file model.keras differs")

    def test_results_folder_that_cannot_be_written(self, arguments, tmp_path):
        (tmp_path / "file").write_text("a file")
        self.refused({**arguments, "--results": tmp_path / "file" / "r"}, "cannot create this folder")

    def test_results_folder_of_another_program(self, arguments, tmp_path):
        (tmp_path / "r" / "scores").mkdir(parents=True)
        (tmp_path / "r" / "scores" / "data.csv").write_text("a,b")
        self.refused(arguments, "another program made it")

    def test_archive_without_images(self, arguments, tmp_path, cluster):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "notes.txt").write_text("no image")
        self.refused({**arguments, "archive": tmp_path / "empty"}, "no images found", *cluster.options)

    def test_unknown_key_in_the_configuration(self, arguments, tmp_path):
        (tmp_path / "nightly.toml").write_text('modle = "x"\n')
        self.refused(arguments, "unknown key 'modle'", "--config", str(tmp_path / "nightly.toml"))
