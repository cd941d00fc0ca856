"""Archives of every kind in one run, results in a bucket, and a bucket that fails: the same rows."""

import json

import boto3
import duckdb
import polars
import pyarrow.compute as pc
import pytest
from archived import jpeg, tar_bytes, write_kinds
from buckets import BUCKET, Proxy, environment, s3_server, using
from deltalake import DeltaTable
from scoring import last_json, pneumonia

from pneumonia_core.phantoms import write_archive
from pneumonia_core.places import list_names, open_place, storage_options

IMAGES = 200
SAME = ["image_sha256", "size_bytes", "source_format", "width", "height", "status", "p_normal", "p_bacterial",
        "p_viral", "p_pneumonia", "finding", "reject_reason", "reject_detail", "attempt"]  # fmt: skip


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint, using(endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, endpoint):
    """The same pictures as a folder, as every kind of archive, and in a bucket."""
    root = tmp_path_factory.mktemp("kinds")
    write_archive(root / "made", IMAGES, seed=4, broken=True)
    files = {
        str(path.relative_to(root / "made")): path.read_bytes()
        for path in sorted((root / "made").rglob("*"))
        if path.is_file()
    }
    client = boto3.client("s3", endpoint_url=endpoint)
    for name, data in files.items():
        client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=data)
    kinds = {name: str(path) for name, path in write_kinds(root, files).items()}
    for name in ("a.tar", "a.zip"):
        client.upload_file(kinds[name], BUCKET, f"archives/{name}")
    return {**kinds, "bucket": f"s3://{BUCKET}/in", "tars in a bucket": f"s3://{BUCKET}/archives"}


def rows_in_bucket(results: str):
    place = open_place(f"{results}/scores")
    return DeltaTable(place.uri, storage_options=storage_options(place)).to_pyarrow_table()


def score(archives: list[str], bundle, results: object, *more: object, **variables: str):
    return pneumonia(
        "score", *archives, "--model", bundle.path, "--results", results, "--num-cpus", 2, *more, **variables
    )


def test_every_kind_of_archive_gives_the_same_rows_and_results_may_be_in_a_bucket(
    kinds, tiny_bundle, endpoint
):
    results = f"s3://{BUCKET}/results"
    done = score(list(kinds.values()), tiny_bundle, results, "--precision", "float32")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["listed"] == 8 * IMAGES
    table = rows_in_bucket(results)
    by_kind = []
    for name, archive in kinds.items():
        rows = table.filter(pc.equal(table["archive"], open_place(archive).uri))
        assert rows.num_rows == (2 if name == "tars in a bucket" else 1) * IMAGES, name
        by_kind.append(set(map(str, rows.select(SAME).to_pylist())))
    assert all(rows == by_kind[0] for rows in by_kind)
    read_by_others(results, endpoint, table.num_rows)
    latest = pneumonia("latest", results)
    assert last_json(latest)["rows"] == 8 * IMAGES, latest.stderr
    runs = pneumonia("runs", results, "--json")
    assert [run["state"] for run in last_json(runs)["runs"]] == ["committed"], runs.stderr
    again = score(list(kinds.values()), tiny_bundle, results, "--precision", "float32")
    assert last_json(again)["nothing_new"], again.stderr


def read_by_others(results: str, endpoint: str, count: int) -> None:
    options = storage_options(open_place(results))
    assert polars.read_delta(f"{results}/scores", storage_options=options).height == count
    files = DeltaTable(f"{results}/scores", storage_options=options).file_uris()
    database = duckdb.connect()
    try:
        database.execute("LOAD httpfs")
    except duckdb.Error:
        return  # an extension that is downloaded; there may be no network
    host = endpoint.removeprefix("http://")
    database.execute(f"SET s3_endpoint='{host}'; SET s3_use_ssl=false; SET s3_url_style='path'")
    database.execute("SET s3_access_key_id='nobody'; SET s3_secret_access_key='nothing'")
    assert database.execute(f"SELECT count(*) FROM read_parquet({files})").fetchall() == [(count,)]


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["part.after@2", "merge.after", "commit.before", "commit.after"])
def test_killed_run_in_a_failing_bucket_ends_with_the_rows_of_an_undisturbed_one(
    kinds, tiny_bundle, endpoint, tmp_path, failpoint
):
    results = f"s3://{BUCKET}/killed-{failpoint.replace('@', '-')}"
    archive = [kinds["bucket"]]
    done = score(archive, tiny_bundle, tmp_path / "undisturbed", "--precision", "float32")
    assert done.returncode == 0, done.stderr
    with Proxy(endpoint, r"^(GET|PUT|HEAD) /", rate=0.05, most=2) as proxy:
        variables = environment(proxy.endpoint)
        arguments = (archive, tiny_bundle, results, "--precision", "float32", "--chunk-size", 32)
        score(*arguments, **variables, PNEUMONIA_FAILPOINTS=f"{failpoint}=kill,once:{tmp_path / 'once'}")
        for _ in range(3):
            done = score(*arguments, **variables)
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stderr
        assert proxy.injected
    expected = DeltaTable(str(tmp_path / "undisturbed" / "scores")).to_pyarrow_table()
    columns = ["image_uri", *SAME]
    actual = rows_in_bucket(results).select(columns).sort_by("image_uri")
    assert actual.equals(expected.select(columns).sort_by("image_uri"))
    assert list_names(open_place(f"{results}/runs/.unfinished")) == []


def test_bucket_that_fails_for_good_gives_rows_that_say_so(tiny_bundle, endpoint, tmp_path):
    client = boto3.client("s3", endpoint_url=endpoint)
    for number in range(8):
        client.put_object(Bucket=BUCKET, Key=f"few/{number}.jpeg", Body=jpeg(number))
    with Proxy(endpoint, "GET .*few/3.jpeg") as proxy:
        done = score([f"s3://{BUCKET}/few"], tiny_bundle, tmp_path, **environment(proxy.endpoint))
    assert done.returncode == 0, done.stderr
    table = DeltaTable(str(tmp_path / "scores")).to_pyarrow_table().to_pylist()
    rejected = {row["image_uri"]: row["reject_reason"] for row in table if row["status"] == "rejected"}
    assert rejected == {f"s3://{BUCKET}/few/3.jpeg": "unreadable"}
    assert len(table) == 8


def test_secrets_of_the_bucket_stand_nowhere_in_the_results(endpoint, tiny_bundle):
    client = boto3.client("s3", endpoint_url=endpoint)
    client.put_object(Bucket=BUCKET, Key="secret/a.tar", Body=tar_bytes({"x.jpeg": jpeg(1)}))
    results = f"s3://{BUCKET}/secretless"
    secret = {**environment(endpoint), "AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}
    done = score([f"s3://{BUCKET}/secret"], tiny_bundle, results, **secret)
    assert done.returncode == 0, done.stderr
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="secretless/")["Contents"]
    for entry in listed:
        body = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        assert b"hunter2" not in body, entry["Key"]
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(last_json(done))
