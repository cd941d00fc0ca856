"""Archives of every kind in one run, results in a bucket, and a bucket that fails: the same rows."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import duckdb
import polars
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from support.buckets import BUCKET, SLOW_DOWN, Proxy, s3_server, using
from support.clusters import Rules
from support.images.archived import jpeg, tar_bytes, write_kinds
from support.scoring import last_json, pneumonia

from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.table import storage_options
from pneumonia_core.storage.files import list_names
from pneumonia_core.storage.location import open_location
from pneumonia_core.system.failpoints import VARIABLE

IMAGES = 80
FEW = 48
SAME = ["image_sha256", "size_bytes", "source_format", "width", "height", "status", "p_normal", "p_bacterial",
        "p_viral", "p_pneumonia", "finding", "reject_reason", "reject_detail", "attempt"]  # fmt: skip


SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def proxy():
    """The S3 endpoint of this module's commands and workers: it forwards requests and injects failures."""
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        os.environ["AWS_SECRET_ACCESS_KEY"] = SECRET
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield proxy


@pytest.fixture(autouse=True)
def without_faults(proxy):
    yield
    proxy.fail(None)


@pytest.fixture(scope="module")
def endpoint(proxy):
    return proxy.endpoint


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    rules = Rules(tmp_path_factory.mktemp("bucket-rules") / "rules")
    rules.set()
    return rules


@pytest.fixture(scope="module")
def address(proxy, rules):
    """A Ray whose workers know the bucket's endpoint and secret."""
    from ray.cluster_utils import Cluster

    os.environ[VARIABLE] = rules.variable
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    finally:
        del os.environ[VARIABLE]
    yield cluster.address
    cluster.shutdown()


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
    for name in sorted(files)[:FEW]:
        client.put_object(Bucket=BUCKET, Key=f"fewer/{name}", Body=files[name])
    kinds = {name: str(path) for name, path in write_kinds(root, files).items()}
    for name in ("a.tar", "a.zip"):
        client.upload_file(kinds[name], BUCKET, f"archives/{name}")
    return {**kinds, "bucket": f"s3://{BUCKET}/in", "tars in a bucket": f"s3://{BUCKET}/archives"}


def rows_in_bucket(results: str):
    place = open_location(f"{results}/scores")
    return DeltaTable(place.uri, storage_options=storage_options(place)).to_pyarrow_table()


@pytest.fixture
def score(address, tiny_bundle):
    """Runs the command on the cluster that knows the bucket."""

    def score(archives: list[str], results: object, *more: object, **variables: str):
        options = ["--model", tiny_bundle.path, "--results", results, "--address", address]
        return pneumonia("score", *archives, *options, *more, **variables)

    return score


def test_every_kind_of_archive_gives_the_same_rows_and_results_may_be_in_a_bucket(kinds, score, endpoint):
    results = f"s3://{BUCKET}/results"
    done = score(list(kinds.values()), results, "--precision", "float32")
    assert done.returncode == 0, done.stderr
    assert last_json(done)["listed"] == 8 * IMAGES
    table = rows_in_bucket(results)
    by_kind = []
    for name, archive in kinds.items():
        rows = table.filter(pc.equal(table["archive"], open_location(archive).uri))
        assert rows.num_rows == (2 if name == "tars in a bucket" else 1) * IMAGES, name
        by_kind.append(set(map(str, rows.select(SAME).to_pylist())))
    assert all(rows == by_kind[0] for rows in by_kind)
    read_by_others(results, endpoint, table.num_rows)
    latest = pneumonia("latest", results)
    assert last_json(latest)["rows"] == 8 * IMAGES, latest.stderr
    runs = pneumonia("runs", results, "--json")
    assert [run["state"] for run in last_json(runs)["runs"]] == ["committed"], runs.stderr
    again = score(list(kinds.values()), results, "--precision", "float32")
    assert last_json(again)["nothing_new"], again.stderr


def read_by_others(results: str, endpoint: str, count: int) -> None:
    options = storage_options(open_location(results))
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


@pytest.fixture(scope="module")
def undisturbed(kinds, address, tiny_bundle, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    done = pneumonia(
        "score",
        f"s3://{BUCKET}/fewer",
        "--model",
        tiny_bundle.path,
        "--results",
        results,
        "--address",
        address,
    )
    assert done.returncode == 0, done.stderr
    table = DeltaTable(str(results / "scores")).to_pyarrow_table()
    return table.select(["image_uri", *SAME]).sort_by("image_uri")


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["part.after@2", "merge.after", "commit.before", "commit.after"])
def test_killed_run_in_a_failing_bucket_ends_with_the_rows_of_an_undisturbed_one(
    undisturbed, score, proxy, rules, tmp_path, failpoint
):
    results = f"s3://{BUCKET}/killed-{failpoint.replace('@', '-')}"
    proxy.fail(r"^(GET|PUT|HEAD) /", rate=0.05, most=2)
    injected = proxy.injected
    # Parts are written by workers, all else by the driver.
    rules.set(f"{failpoint}=kill,once:{tmp_path / 'once'}")
    arguments = ([f"s3://{BUCKET}/fewer"], results, "--chunk-size", 8)
    died = score(*arguments, **{VARIABLE: rules.variable})
    assert (tmp_path / "once").exists(), died.stderr
    for _ in range(3):
        done = score(*arguments)
        if done.returncode == 0:
            break
    rules.set()
    assert done.returncode == 0, done.stderr
    assert proxy.injected > injected
    # The test itself asks once.
    proxy.fail(None)
    actual = rows_in_bucket(results).select(undisturbed.column_names).sort_by("image_uri")
    assert actual.equals(undisturbed)
    assert list_names(open_location(f"{results}/runs/.unfinished")) == []


@pytest.mark.slow
def test_nights_go_on_where_one_in_three_answers_fails(score, proxy, endpoint):
    client = boto3.client("s3", endpoint_url=endpoint)
    results = f"s3://{BUCKET}/one-in-three"
    proxy.fail(r"^(GET|PUT|HEAD) /", rate=0.33, most=2)
    for night in range(3):
        client.put_object(Bucket=BUCKET, Key=f"nights/{night}.jpeg", Body=jpeg(night))
        done = score([f"s3://{BUCKET}/nights"], results)
        assert done.returncode == 0, done.stderr
        assert last_json(done)["scored"] == 1
    proxy.fail(None)
    assert rows_in_bucket(results).num_rows == 3


@pytest.mark.slow  # pauses between attempts grow to seconds; test_patience.py has the same without Ray
def test_bucket_that_is_throttled_for_seconds_costs_no_image(score, proxy, endpoint, tmp_path):
    client = boto3.client("s3", endpoint_url=endpoint)
    for number in range(100):
        client.put_object(Bucket=BUCKET, Key=f"throttled/{number}.jpeg", Body=jpeg(number))
    injected, proxy.delay_s = proxy.injected, 0.05
    proxy.fail("GET .*throttled/.*jpeg", refusal=SLOW_DOWN)
    with ThreadPoolExecutor(1) as other:
        command = other.submit(score, [f"s3://{BUCKET}/throttled"], tmp_path)
        proxy.most_until_injected(injected + 100)
        at_once = proxy.most_until_injected(injected + 140)
        proxy.fail(None)
        proxy.delay_s = 0.0
        done = command.result()
    assert done.returncode == 0, done.stderr
    assert (last_json(done)["scored"], last_json(done)["rejected"]) == (100, 0)
    # 32 threads read.
    assert at_once <= 8


@pytest.mark.slow  # an image is tried for 15 s before it is rejected
def test_object_that_fails_for_good_is_a_row_that_says_so(score, proxy, endpoint, tmp_path):
    client = boto3.client("s3", endpoint_url=endpoint)
    for number in range(8):
        client.put_object(Bucket=BUCKET, Key=f"few/{number}.jpeg", Body=jpeg(number))
    proxy.fail("GET .*few/3.jpeg", refusal=SLOW_DOWN)
    done = score([f"s3://{BUCKET}/few"], tmp_path)
    assert done.returncode == 0, done.stderr
    table = DeltaTable(str(tmp_path / "scores")).to_pyarrow_table().to_pylist()
    rejected = {row["image_uri"]: row["reject_reason"] for row in table if row["status"] == "rejected"}
    assert rejected == {f"s3://{BUCKET}/few/3.jpeg": "unreadable"}
    assert len(table) == 8


def test_commit_whose_answer_is_lost_is_not_taken_for_that_of_another_run(score, proxy, endpoint):
    client = boto3.client("s3", endpoint_url=endpoint)
    client.put_object(Bucket=BUCKET, Key="one/x.jpeg", Body=jpeg(1))
    results = f"s3://{BUCKET}/lost-answer"
    injected = proxy.injected
    # The bucket takes the commit; a repeated request gets the answer that it exists already.
    proxy.fail(r"^PUT .*_delta_log/0+1\.json", most=1, always_cut=True)
    done = score([f"s3://{BUCKET}/one"], results)
    assert done.returncode == 0, done.stderr
    assert proxy.injected == injected + 1
    assert last_json(done)["version"] == 1
    assert rows_in_bucket(results).num_rows == 1


def test_keys_of_any_text_are_rows_of_the_table(score, endpoint, tmp_path):
    client = boto3.client("s3", endpoint_url=endpoint)
    names = [
        "a b.jpeg",
        "Röntgen-肺.jpeg",
        "carriage\rtab\t.jpeg",
        "100%25.jpeg",
        "x#y.jpeg",
        "what?=.jpeg",
        "d/e+f&g.jpeg",
    ]
    pictures = {name: jpeg(number) for number, name in enumerate(names)}
    # moto has no route for a key with a newline in it: the name of a member has it.
    member = "line\nbreak.jpeg"
    objects = {**pictures, "a.tar": tar_bytes({member: jpeg(9)})}
    for name, data in objects.items():
        client.put_object(Bucket=BUCKET, Key=f"odd/{name}", Body=data)
    done = score([f"s3://{BUCKET}/odd"], tmp_path)
    assert done.returncode == 0, done.stderr
    table = DeltaTable(str(tmp_path / "scores")).to_pyarrow_table().to_pylist()
    found = {row["image_uri"]: (row["status"], row["image_sha256"]) for row in table}
    expected = {**pictures, f"a.tar!/{member}": jpeg(9)}
    assert found == {
        f"s3://{BUCKET}/odd/{name}": ("scored", hashlib.sha256(data).hexdigest())
        for name, data in expected.items()
    }
    assert len(table) == len(expected)


def test_secrets_of_the_bucket_stand_nowhere_in_the_results(score, endpoint):
    client = boto3.client("s3", endpoint_url=endpoint)
    client.put_object(Bucket=BUCKET, Key="secret/a.tar", Body=tar_bytes({"x.jpeg": jpeg(1)}))
    results = f"s3://{BUCKET}/secretless"
    done = score([f"s3://{BUCKET}/secret"], results)
    assert done.returncode == 0, done.stderr
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix="secretless/")["Contents"]
    for entry in listed:
        body = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        assert SECRET.encode() not in body, entry["Key"]
    assert SECRET not in done.stdout + done.stderr + json.dumps(last_json(done))
