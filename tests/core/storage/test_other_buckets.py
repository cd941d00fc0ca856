"""Google's and Azure's buckets, on their emulators: listed, read by range, keys of any text."""

import datetime
import pickle
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.images.archived import contents, jpeg, listing, pictures, tar_bytes, zip_bytes

from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table import open_table
from pneumonia_core.storage import arrow
from pneumonia_core.storage.arrow import arrow_file_system, forget_file_systems
from pneumonia_core.storage.errors import StorageUnavailable
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.ranges import read_file, stat_file

# Published by Azurite: the account and key that everyone's emulator has.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def emulator(command: list[str], port: int):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with suppress(urllib.error.HTTPError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def google():
    port = free_port()
    command = [
        sys.executable, "-c", "from gcp_storage_emulator.__main__ import main; main()", "start",
        "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=hospital",
    ]  # fmt: skip
    with emulator(command, port):
        yield {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://127.0.0.1:{port}"}


@contextmanager
def azure(folder: Path):
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite (npm install -g azurite) is not on this machine")
    port = free_port()
    command = [program, "--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck"]
    with emulator(command, port):
        endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT}"
        yield {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName={ACCOUNT};AccountKey={KEY};{endpoint}"}


@pytest.fixture(scope="module", params=["gs", "abfs"])
def bucket(request, tmp_path_factory):
    """A bucket of each kind, empty."""
    server = google() if request.param == "gs" else azure(tmp_path_factory.mktemp("azurite"))
    with server as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        forget_file_systems()
        if request.param == "abfs":
            arrow_file_system("abfs://hospital").create_dir("hospital")
        yield f"{request.param}://hospital"
        forget_file_systems()


def test_images_and_archives_are_listed_and_read(bucket):
    files = pictures(6)
    for name, data in files.items():
        write_bytes(open_location(f"{bucket}/in/{name}"), data)
    write_bytes(open_location(f"{bucket}/in/a.tar"), tar_bytes(files))
    write_bytes(open_location(f"{bucket}/in/b.zip"), zip_bytes(files))
    write_bytes(open_location(f"{bucket}/in/notes.txt"), b"no image")
    images, skipped = listing(f"{bucket}/in")
    expected = {
        f"{bucket}/in/{before}{name}": data
        for before in ("", "a.tar!/", "b.zip!/")
        for name, data in files.items()
    }
    assert contents(images) == expected
    assert skipped == {"no_image": 1}
    single, _ = listing(f"{bucket}/in/a.tar")
    assert list(contents(single).values()) == list(files.values())


def test_keys_are_taken_as_they_are(bucket):
    names = ["a b.jpeg", "ü.jpeg", "100%25.jpeg", "x#y.jpeg", "what?x=1.jpeg"]
    for number, name in enumerate(names):
        location = open_location(f"{bucket}/odd")
        write_bytes(location.child(name), jpeg(number))
    images, _ = listing(f"{bucket}/odd")
    assert contents(images) == {f"{bucket}/odd/{name}": jpeg(number) for number, name in enumerate(names)}


def test_object_that_went_is_not_found(bucket):
    location = open_location(f"{bucket}/gone/x.jpeg")
    write_bytes(location, jpeg(1))
    images, _ = listing(f"{bucket}/gone")
    delete_file(location)
    assert list(contents(images).values()) == ["not_found"]


def test_no_image_of_a_tar_that_was_rewritten_has_the_bytes_of_another(bucket):
    files = pictures(2)
    location = open_location(f"{bucket}/rewritten/a.tar")
    write_bytes(location, tar_bytes(files))
    images, _ = listing(location.uri)
    assert list(contents(images).values()) == list(files.values())
    # Azure's size alone comes with opening a file.
    more = {"more.jpeg": jpeg(3, 256)} if location.uri.startswith("abfs") else {}
    write_bytes(location, tar_bytes(dict(reversed(files.items())) | more))
    assert set(contents(images).values()) == {"unreadable"}


def test_storage_that_is_out_of_reach_blames_no_image(monkeypatch):
    monkeypatch.setattr(arrow, "_GS_RETRIES", datetime.timedelta(seconds=0.2))
    monkeypatch.setattr(LIMITS, "give_up_after_s", 0.5)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    forget_file_systems()
    with pytest.raises(StorageUnavailable, match="gs://away did not answer"):
        stat_file("gs://away/x.jpeg")
    with pytest.raises(StorageUnavailable, match="gs://away did not answer"):
        read_file("gs://away/x.jpeg")
    forget_file_systems()


@pytest.mark.parametrize(
    ("text", "transient"),
    [
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted, CURL error [7])", True),
        ("google::cloud::Status(RESOURCE_EXHAUSTED: 429)", True),
        ("GetProperties failed for 'http://h/b/x'. Azure Error: [ServerBusy] 503 The server is busy", True),
        ("Azure Error: [] Fail to get a new connection for: http://h. Could not connect to server", True),
        (
            "GetProperties failed for 'http://h/b/503/connect.jpeg'. Azure Error: [AuthorizationFailure] 403",
            False,
        ),
        ("google::cloud::Status(INVALID_ARGUMENT: no such name)", False),
    ],
)
def test_errors_of_other_storages_are_told_apart_by_their_texts(text, transient):
    assert arrow.is_transient(OSError(text)) is transient
    assert not arrow.is_transient(FileNotFoundError(text))


def test_place_travels_without_its_credentials(bucket):
    location = open_location(f"{bucket}/in")
    sent = pickle.dumps(location)
    assert KEY.encode() not in sent
    assert pickle.loads(sent) == location


def test_results_there_are_refused(bucket):
    with pytest.raises(InvalidInput, match=r"on a disk or in S3"):
        open_table(open_location(f"{bucket}/r"))


def test_bucket_that_does_not_exist_is_one_clear_line(bucket):
    with pytest.raises(InvalidInput, match=r"no such file or folder|cannot be opened"):
        listing(f"{bucket}-absent/in")
