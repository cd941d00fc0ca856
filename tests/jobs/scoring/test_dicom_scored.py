"""A hospital's folder of DICOM, scored as a user does: every file has a row, no patient's name appears."""

import hashlib
import hmac
from pathlib import Path

import pytest
from support.images.dicom_files import INSTANCE, LOSSLESS, dicom_file, exposed_phantom
from support.scoring import last_json, pneumonia, rows

NAME, IDENTIFIER, BIRTH_DATE = "Zebra^Quagga", "PLANTED-ID-0815", "19010203"
PERSONAL = (NAME.encode(), b"Zebra", b"Quagga", IDENTIFIER.encode(), BIRTH_DATE.encode(), INSTANCE.encode())


def write_hospital(folder) -> dict[str, str | None]:
    """Writes files that all carry the planted person; the reason to reject each, None for a good one."""
    picture = exposed_phantom()
    person = {"PatientName": NAME, "PatientID": IDENTIFIER, "PatientBirthDate": BIRTH_DATE}
    good = dicom_file(picture, **person)
    files = {
        "window": (good, None),
        "lut.dcm": (dicom_file(picture, 12, look="voi lut", syntax=LOSSLESS["jpeg 2000"], **person), None),
        "rle.dcm": (dicom_file(picture, 16, "MONOCHROME1", LOSSLESS["rle"], **person), None),
        "charset.dcm": (
            dicom_file(picture, SpecificCharacterSet="ISO_IR 100", **person).replace(
                b"ISO_IR 100", b"Zebra^Quag"
            ),
            None,
        ),
        "view.dcm": (dicom_file(picture, ViewPosition="LL", **person), "not_chest_radiograph"),
        "part.dcm": (dicom_file(picture, BodyPartExamined=NAME, **person), "not_chest_radiograph"),
        "rows.dcm": (dicom_file(picture, remove=("Rows",), **person), "too_small"),
        "cut.dcm": (good[: good.index(b"Quagga") + 3], "truncated"),
        "half.dcm": (good[: len(good) // 2], "truncated"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in files.items()}


def test_folder_of_dicom_is_scored_and_names_nobody(tmp_path, tiny_bundle, cluster, ray_here):
    archive, results = tmp_path / "pacs", tmp_path / "results"
    archive.mkdir()
    expected = write_hospital(archive)
    # The workers of the session's Ray have the key.
    command = ("score", archive, "--model", tiny_bundle.path, "--results", results, *cluster.options)
    done = pneumonia(*command)
    assert done.returncode == 0, done.stderr
    assert last_json(done)["scored"] == sum(reason is None for reason in expected.values())

    table = {row["image_uri"].rpartition("/")[2]: row for row in rows(results).to_pylist()}
    assert {name: row["reject_reason"] for name, row in table.items()} == expected
    key = hmac.new(b"pepper", INSTANCE.encode(), hashlib.sha256).hexdigest()
    scored = [row for row in table.values() if row["status"] == "scored"]
    assert {row["study_key"] for row in scored} == {key}
    assert {row["source_format"] for row in table.values()} == {"dicom"}
    first = [row["p_pneumonia"] for row in scored]
    assert first == pytest.approx([first[0]] * len(first), abs=0.02)

    trusting = pneumonia(*command, "--trust-chest", "--retry-rejected")
    assert trusting.returncode == 0, trusting.stderr
    again = last_json(trusting)
    assert (again["scored"], again["reject_reasons"].get("not_chest_radiograph")) == (1, 1)

    logs = Path(ray_here._private.worker.global_worker.node.get_logs_dir_path())
    written = [path for folder in (results, logs) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker-") for path in written)
    shown = (done.stdout + done.stderr + repr(table)).encode()
    for text in (shown, *(path.read_bytes() for path in written)):
        for personal in PERSONAL:
            assert personal not in text
