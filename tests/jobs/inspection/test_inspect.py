"""`pneumonia inspect` over real Ray: data sets, archives, broken files, and what it shows of them."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli import main
from jobs.inspection.inspect import inspection_lines
from jobs.inspection.survey import Surveyor
from pneumonia_core.archives.lister import Lister
from pneumonia_core.datasets.audit import audit
from pneumonia_core.datasets.image_facts import IMAGE_FACTS
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.system.failpoints import VARIABLE


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inspected")
    write_labelled(folder, 24, 1, seed=4)
    return folder


def inspect(*arguments: object, exit_code: int = 0) -> tuple[dict, str]:
    done = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert done.exit_code == exit_code, done.output
    *table, result = done.stdout.strip().splitlines()
    return json.loads(result), "\n".join(table)


def test_data_set_is_counted_by_split_and_class_and_its_leaks_are_named(ray_here, labelled, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(labelled, folder)
    first = sorted((folder / "train" / "NORMAL").iterdir())[0]
    shutil.copy(first, folder / "test" / "NORMAL" / first.name)
    (folder / "train" / "PNEUMONIA" / "person9_virus_1\x1b[31m.jpeg").write_bytes(b"no picture")
    result, table = inspect(folder, "--output", tmp_path / "all.json")
    assert result["classes"]["train"].keys() == {"bacterial", "normal", "pneumonia", "viral"}
    assert result["duplicates"]["across_splits"] == 1
    assert result["patients"]["across_splits"] == 1
    assert result["rejected"] == {"not_an_image": 1}
    assert "\x1b" not in table
    assert "person9_virus_1\\x1b[31m.jpeg" in table
    assert "! 1 patients are in more than one split." in table
    details = json.loads((tmp_path / "all.json").read_text())["details"]
    assert [Path(uri).name for uri in details["duplicates"][0]] == [first.name] * 2


def test_archive_is_inspected_in_its_zip_and_without_classes(ray_here, broken_archive, tmp_path):
    folder, _ = broken_archive
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(folder))
    zipped, table = inspect(archive)
    plain, _ = inspect(folder)
    assert zipped["rejected"] == plain["rejected"] != {}
    assert zipped["images"] == plain["images"] > zipped["readable"]
    assert zipped["classes"] is None
    assert "AUROC" not in table


def test_labels_table_says_class_and_patient(ray_here, labelled, tmp_path):
    files = sorted((labelled / "train" / "PNEUMONIA").iterdir())[:4]
    with (labelled / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["uri", "label", "patient_id", "split"])
        for n, file in enumerate(files):
            rows.writerow([f"train/PNEUMONIA/{file.name}", "viral", n // 2, "train" if n % 2 else "val"])
    result, _ = inspect(labelled / "labels.csv")
    assert result["classes"] == {"train": {"viral": 2}, "val": {"viral": 2}}
    assert result["patients"] == {"known": 2, "across_splits": 2}


def test_image_on_which_its_decoder_dies_costs_one_row(labelled, monkeypatch):
    with Lister([f"file://{labelled}/train/NORMAL"]) as lister:
        while not lister.wait(60):
            continue
        rows = pa.concat_tables(pq.read_table(segment) for segment in lister.take())
    files = [uri.rpartition("/")[2] for uri in rows["image_uri"].to_pylist()]
    monkeypatch.setenv(VARIABLE, f"decode@{files[1]}=abort")
    surveyed = Surveyor()(rows)
    assert surveyed["reason"].to_pylist() == [None, "crashed_decoder", *[None] * (len(files) - 2)]
    assert surveyed["size_bytes"].to_pylist() == rows["size_bytes"].to_pylist()


def test_concerns_fit_a_terminal_and_a_group_says_how_many_files_it_has():
    schema = pa.schema([*((name, pa.string()) for name in ("image_uri", "archive", "carried")), *IMAGE_FACTS])
    files = [
        *((f"PNEUMONIA/person{n}_bacteria_{n}", "a digest", "q99") for n in range(30)),
        *((f"NORMAL/IM-{n}-0001", str(n), "q50") for n in range(30)),
    ]
    rows = [
        {"image_uri": f"file:///a/train/{name}.jpeg", "archive": "file:///a", "sha256": digest,
         "quantisation": table, "width": 99, "height": 99, "size_bytes": 9}
        for name, digest, table in files
    ]  # fmt: skip
    summary, details = audit(pa.Table.from_pylist(rows, schema=schema))
    lines = inspection_lines(summary, details, {})
    concerns = lines[next(n for n, line in enumerate(lines) if line.startswith("!")) :]
    assert max(map(len, concerns)) <= 80 < len(summary["concerns"][0])
    assert any(line.endswith("person1_bacteria_1.jpeg and 28 more") for line in lines)


def test_wrong_input_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([tmp_path / "absent"], "no such file or folder"),
        ([tmp_path / "empty"], "no images found"),
        ([tmp_path / "empty", "--output", "x.txt"], "end the name in .json"),
    ):
        result, _ = inspect(*words, exit_code=2)
        assert said in result["error"]


def test_compression_trap_of_the_original_files_shows(ray_here, shared_data):
    result, table = inspect(shared_data / "originals")
    flagged = {cue["cue"]: cue["auroc"] for cue in result["cues"]["no split"] if cue["flagged"]}
    assert flagged["JPEG table"] > 0.99
    assert flagged["bytes per pixel"] < 0.01
    assert flagged["pixels"] < 0.1
    assert flagged["aspect (width / height)"] > 0.85
    assert "told apart without looking at the lung" in table
    assert (result["images"], result["duplicates"]["groups"], result["lookalikes"]["groups"]) == (252, 0, 0)


@pytest.mark.slow
def test_real_training_set_has_equal_files_and_none_across_classes(ray_here, shared_data):
    result, _ = inspect(shared_data / "kermany224")
    assert result["images"] == result["readable"] == 5232
    assert result["duplicates"] == {
        "groups": 24, "images": 50, "pairs": 28, "across_classes": 0, "across_splits": 0,
    }  # fmt: skip
    assert result["lookalikes"]["across_classes"] == 0
    assert result["patients"]["across_splits"] == 0
