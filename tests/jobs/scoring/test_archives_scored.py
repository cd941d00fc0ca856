"""Every kind of archive through the scoring pipeline, and the commands that the README gives for them."""

import json
import re
import shutil

import boto3
import pytest
from click.testing import CliRunner
from support.buckets import BUCKET, s3_server, using
from support.images.archived import jpeg, pictures, tar_bytes, write_kinds, zip_bytes
from support.scoring import REPOSITORY, rows, score, scoring_request

from jobs.score import command
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import make_request
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.errors import InvalidInput, Remedy

README_TABLE = re.compile(r"^\| .* \| `pneumonia (score .*) …` \|$", re.MULTILINE)


@pytest.fixture
def hospital(tmp_path):
    """What the README's commands name, for real: pictures in a folder, in archives, and in a bucket."""
    files = pictures(5)
    for kind, path in write_kinds(tmp_path, files).items():
        path.rename(tmp_path / {"folder": "xrays"}.get(kind, kind.replace("a.", "2026.")))
    with s3_server() as endpoint, using(endpoint):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        for name, data in files.items():
            client.put_object(Bucket=BUCKET, Key=f"xrays/{name}", Body=data)
        lines = [f"s3://{BUCKET}/xrays/{name},{number},north" for number, name in enumerate(files)]
        (tmp_path / "studies.csv").write_text("\n".join(["uri,study_id,site", *lines]) + "\n")
        yield tmp_path


def test_every_command_of_the_readme_lists_its_archive(hospital, tiny_bundle):
    commands = README_TABLE.findall((REPOSITORY / "README.md").read_text())
    assert len(commands) == 5
    for text in commands:
        _, *arguments = text.replace("/archive", str(hospital)).split()
        common = ["--model", str(tiny_bundle.path), "--results", str(hospital / "results"), "--dry-run"]
        done = CliRunner().invoke(command, [*arguments, *common])
        archives = sum(str(hospital) in argument or argument.startswith("s3") for argument in arguments)
        if "--allow-prefix" in arguments:
            archives -= 1
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1])["to_score"] == 5 * archives, text


@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_tar_gz_and_zip_give_the_rows_of_the_folder_in_both_shapes(ray_here, tiny_bundle, tmp_path, shape):
    kinds = write_kinds(tmp_path, pictures(40) | {"broken.jpeg": jpeg(99)[:300]})
    score(tmp_path / "r", scoring_request(tiny_bundle, *kinds.values(), chunk_size=8), shape=shape)
    by_archive: dict[str, set] = {}
    for row in rows(tmp_path / "r").to_pylist():
        facts = tuple(row[name] for name in ("image_sha256", "p_normal", "finding", "reject_reason"))
        by_archive.setdefault(row["archive"], set()).add(facts)
    assert len(by_archive) == 5
    assert all(facts == next(iter(by_archive.values())) for facts in by_archive.values())


def test_second_night_scores_only_the_members_that_are_new(ray_here, tiny_bundle, tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_bytes(pictures(4)))
    score(tmp_path / "r", scoring_request(tiny_bundle, tmp_path / "a.zip"))
    (tmp_path / "a.zip").write_bytes(zip_bytes({"first.jpeg": jpeg(77)} | pictures(4)))
    night = score(tmp_path / "r", scoring_request(tiny_bundle, tmp_path / "a.zip", run_date="2026-02-01"))
    assert (night["listed"], night["scored"], night["unchanged"]) == (5, 1, 4)


def test_cut_archive_scores_what_is_before_the_cut(ray_here, tiny_bundle, tmp_path):
    whole = tar_bytes(pictures(10))
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    result = score(tmp_path / "r", scoring_request(tiny_bundle, tmp_path / "a.tar"))
    assert result["scored"] >= 4
    assert result["reject_reasons"] in ({}, {"truncated": 1})
    (run,) = (tmp_path / "r" / "runs").glob("*/run.json")
    assert json.loads(run.read_text())["skipped"] == {"truncated_archive": 1}


def test_carried_columns_go_through_to_the_table_and_others_join_later(ray_here, tiny_bundle, tmp_path):
    for name, data in pictures(3).items():
        (tmp_path / name.rpartition("/")[2]).write_bytes(data)
    path = tmp_path / "m.csv"
    path.write_text("uri,study_id,site\nxr_0000.jpeg,007,north\nxr_0001.jpeg,,south\n../x.jpeg,9,east\n")
    rules = ListingRules(carry=("study_id",))
    result = score(tmp_path / "r", scoring_request(tiny_bundle, path, rules=rules))
    assert result["reject_reasons"] == {"forbidden": 1}
    carried = {row["image_uri"][-8:]: row["study_id"] for row in rows(tmp_path / "r").to_pylist()}
    assert carried == {"000.jpeg": "007", "001.jpeg": "", "/x.jpeg": "9"} or carried["000.jpeg"] == "007"
    path.write_text(path.read_text() + "xr_0002.jpeg,8,west\n")
    both = ListingRules(carry=("study_id", "site"))
    night = score(tmp_path / "r", scoring_request(tiny_bundle, path, rules=both, run_date="2026-02-01"))
    assert night["scored"] == 1
    sites = {row["image_uri"][-9:]: row["site"] for row in rows(tmp_path / "r").to_pylist()}
    assert (sites["0000.jpeg"], sites["0002.jpeg"]) == (None, "west")


def test_carrying_without_a_manifest_or_over_columns_of_the_table_is_refused(tiny_bundle, tmp_path):
    shutil.copy(REPOSITORY / "README.md", tmp_path)

    def ask(archive: object, *carry: str) -> None:
        rules = ListingRules(carry=carry)
        make_request(ScoreOptions((str(archive),), str(tiny_bundle.path)), tiny_bundle, rules)

    with pytest.raises(InvalidInput) as caught:
        ask(tmp_path, "site")
    assert caught.value.remedy is Remedy.NAME_MANIFEST
    with pytest.raises(InvalidInput, match="'finding'"):
        ask(tmp_path, "finding")
