"""Manifests as Spark, pathlib, Hadoop and spreadsheets write them: read, or refused with what to write."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.buckets import BUCKET, s3_server, using
from support.images.archived import contents, jpeg, listing

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.archives.tables.table_files import column_names
from pneumonia_core.datasets.labelled import read_columns, read_labelled
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client

NAMES = ["a b.jpeg", "ü#1.jpeg", "100%.jpeg", "a%20b.jpeg"]


@pytest.fixture
def ward(tmp_path):
    """A folder whose name and files have to be encoded in a URI."""
    folder = tmp_path / "ward 3 (ß)"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(jpeg(number))
    return folder


def csv(folder: Path, *uris: str) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join(["uri", *uris, ""]))
    return path


def spark_uri(path: Path) -> str:
    """As Spark's input_file_name() writes it."""
    return path.as_uri().replace("file:///", "file:/")


@pytest.mark.parametrize(
    "written", [Path.as_uri, spark_uri, lambda path: f"file://{path}", lambda path: path.name]
)
def test_names_are_read_whether_they_are_encoded_or_not(ward, written):
    uris = [written(ward / name) for name in NAMES]
    images, skipped = listing(csv(ward, *uris))
    assert contents(images) == {f"file://{ward}/{name}": jpeg(n) for n, name in enumerate(NAMES)}
    assert not skipped
    rows = [f'"{uri}",normal,{number},test' for number, uri in enumerate(uris)]
    (ward / "labels.csv").write_text(
        "\n".join(["uri,label,patient_id,split,site", *(f"{row},{row[-8]}" for row in rows)])
    )
    labelled = {image.patient_id: image.uri for image in read_labelled(str(ward / "labels.csv"))}
    assert labelled == {str(n): f"file://{ward}/{name}" for n, name in enumerate(NAMES)}
    order = [image.patient_id for image in read_labelled(str(ward / "labels.csv"))]
    assert read_columns(str(ward / "labels.csv"), ["patient_id"])["patient_id"] == order


def test_image_that_is_named_in_both_ways_is_listed_once(ward):
    images, skipped = listing(csv(ward, "a b.jpeg", (ward / "a b.jpeg").as_uri()))
    assert list(contents(images)) == [f"file://{ward}/a b.jpeg"]
    assert skipped == {"repeated_in_manifest": 1}


@pytest.mark.parametrize(
    "escape",
    [
        "file:///{}/%2e%2e/out.jpeg",
        "file:///{}/..%2Fout.jpeg",
        "file:/{}/%2E./out.jpeg",
        "file:/{}/../out.jpeg",
    ],
)
def test_encoding_leads_no_further_than_the_manifest_s_folder(ward, escape):
    (ward.parent / "out.jpeg").write_bytes(jpeg(9))
    images, _ = listing(csv(ward, "a b.jpeg", escape.format(str(ward).lstrip("/"))))
    assert jpeg(9) not in contents(images).values()


def test_absent_images_keep_the_name_that_the_manifest_gives(ward):
    images, _ = listing(csv(ward, f"file://{ward}/no%20such.jpeg"))
    assert contents(images) == {f"file://{ward}/no%20such.jpeg": "not_found"}


@pytest.mark.parametrize(
    "uri",
    [
        "s3a://bucket/a.jpeg",
        "s3n://bucket/a.jpeg",
        "gcs://bucket/a.jpeg",
        "abfss://c@account.dfs.core.windows.net/a.jpeg",
        "abfs://c@account.blob.core.windows.net/a.jpeg",
        "hdfs://namenode:8020/a.jpeg",
        "wasbs://c@account.blob.core.windows.net/a.jpeg",
        "https://bucket.s3.amazonaws.com/a.jpeg",
        "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/ward/a.jpeg",
    ],
)
def test_other_schemes_and_forms_are_rows_that_say_what_to_write(ward, uri, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "another")
    images, _ = listing(csv(ward, "a b.jpeg", uri))
    assert images[1].source.rejection.reason == "unsupported"
    assert "write s3://BUCKET/KEY" in images[1].source.rejection.detail
    with pytest.raises(InvalidInput, match="names images by other schemes or forms"):
        listing(csv(ward, uri))


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3a://bucket/a b", "s3://bucket/a b"),
        ("S3N://bucket", "s3://bucket"),
        ("S3://Bucket/A", "s3://Bucket/A"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("abfss://c/a", "abfs://c/a"),
        ("abfss://c@ward.dfs.core.windows.net/a", "abfs://c/a"),
        ("abfs://c@ward.blob.core.windows.net", "abfs://c"),
        ("file:/data/x", "file:///data/x"),
    ],
)
def test_synonyms_are_read(text, uri, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "ward")
    assert open_location(text).uri == uri


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "abfss://c@other.dfs.core.windows.net/a",
            "account other is not the one that AZURE_STORAGE_ACCOUNT_NAME",
        ),
        ("s3://arn:aws:s3:eu-central-1:1:accesspoint/ward/a", "written by its alias: s3://ALIAS-s3alias/KEY"),
        ("s3a://key:secret@bucket/a", "takes no credentials"),
        ("hdfs://b/a", "scheme hdfs:// is not supported"),
    ],
)
def test_places_that_are_not_read_are_told_what_to_write(text, message, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "ward")
    with pytest.raises(InvalidInput, match=message) as raised:
        open_location(text)
    assert "secret" not in str(raised.value)


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as endpoint, using(endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        s3_client.client().put_object(Bucket=BUCKET, Key="a b.jpeg", Body=jpeg(1))
        yield BUCKET


@pytest.mark.parametrize("uri", ["s3a://{}/a b.jpeg", "s3a://{}/a%20b.jpeg", "s3n://{}/a%20b.jpeg"])
def test_synonyms_beneath_an_allowed_prefix_are_the_same_images(ward, bucket, uri):
    rules = ListingRules(allow_prefixes=(f"s3a://{bucket}",))
    images, _ = listing(csv(ward, uri.format(bucket)), rules)
    assert contents(images) == {f"s3://{bucket}/a b.jpeg": jpeg(1)}


def write_parts(folder: Path, suffix: str = ".parquet") -> list[str]:
    """A table as Spark writes it, partitioned by day."""
    for number, name in enumerate(NAMES):
        part = folder / f"day={number % 2}" / f"part-{number:05d}{suffix}"
        part.parent.mkdir(parents=True, exist_ok=True)
        columns = {
            "uri": [f"{folder.parent}/{name}"],
            "label": ["normal"],
            "patient_id": [str(number)],
            "split": ["test"],
        }
        if suffix == ".parquet":
            pq.write_table(pa.table(columns), part)
        else:
            pa.csv.write_csv(pa.table(columns), part)
        (part.parent / f".{part.name}.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / f"part-00000{suffix}").write_bytes(b"not finished")
    return [f"file://{folder.parent}/{name}" for name in NAMES]


@pytest.mark.parametrize(
    ("suffix", "name"), [(".parquet", "m.parquet"), (".csv", "m.csv"), (".parquet", "m")]
)
def test_parts_in_a_folder_are_one_table(ward, suffix, name):
    uris = write_parts(ward / name, suffix)
    given = f"{ward / name}" if name != "m" else f"{ward / name}/*{suffix}"
    rules = ListingRules(allow_prefixes=(str(ward),))
    images, _ = listing(given, rules)
    assert sorted(image.uri for image in images) == sorted(uris)
    assert "rejection" not in {type(image.source).__name__ for image in images}
    assert column_names(given) == ["uri", "label", "patient_id", "split"]
    assert len(read_labelled(given)) == len(NAMES)
    if name == "m":
        with pytest.raises(InvalidInput, match=r"holds a table in parts\. Give it as .*/m/\*\.parquet"):
            open_archive(str(ward / name))


def test_parts_in_a_bucket_are_one_table(bucket, tmp_path):
    write_parts(tmp_path / "m.parquet")
    for path in sorted((tmp_path / "m.parquet").rglob("*")):
        if path.is_file():
            key = path.relative_to(tmp_path).as_posix()
            s3_client.client().put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    rules = ListingRules(allow_prefixes=(str(tmp_path),))
    assert open_archive(f"s3://{bucket}/m.parquet", rules) == f"s3://{bucket}/m.parquet"
    assert len(read_labelled(f"s3://{bucket}/m.parquet")) == len(NAMES)


def test_delta_table_and_folder_without_parts_are_refused(ward):
    write_parts(ward / "m.parquet")
    (ward / "m.parquet" / "_delta_log").mkdir()
    (ward / "empty.csv").mkdir()
    for name, message in (("m.parquet", "is a Delta table"), ("empty.csv", "has no files that end in .csv")):
        for ask in (open_archive, read_labelled, column_names):
            with pytest.raises(InvalidInput, match=message):
                ask(str(ward / name))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"uri;label;patient_id;split\na.jpeg;normal;1;test\n", "semicolons in place of commas"),
        (b"\xef\xbb\xbfuri;site\r\na,b.jpeg;1\r\n", "semicolons in place of commas"),
        (b"uri\tsite\na.jpeg\t1\n", "tabs in place of commas"),
        ("uri,label\na.jpeg,normal\n".encode("utf-16"), "in UTF-16: save it as CSV in UTF-8"),
        ("uri,label\na.jpeg,normal\n".encode("utf-16-le"), "in UTF-16"),
        ("uri,größe\na.jpeg,1\n".encode("latin-1"), "not in UTF-8"),
        (b"URI,label\na.jpeg,normal\n", "This one has 'URI': call it `uri`"),
        (b"image_path,label\na.jpeg,normal\n", "This one has 'image_path': call it `uri`"),
    ],
)
def test_tables_of_spreadsheets_are_told_what_they_have(ward, data, message):
    (ward / "m.csv").write_bytes(data)
    for read in (lambda path: listing(path, ListingRules(carry=("label",))), read_labelled):
        with pytest.raises(InvalidInput, match=message):
            read(str(ward / "m.csv"))


def test_first_row_of_a_table_without_a_header_is_not_shown(ward):
    (ward / "m.csv").write_text("Doe^Jane.jpeg,s3://b/x?X-Amz-Signature=SECRET\n")
    for read in (listing, read_labelled):
        with pytest.raises(InvalidInput) as raised:
            read(str(ward / "m.csv"))
        assert "Doe" not in str(raised.value)
        assert "SECRET" not in str(raised.value)
