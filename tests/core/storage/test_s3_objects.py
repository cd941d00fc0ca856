"""Requests to S3: the result of each kind of answer, from a server with prepared answers."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
from support.buckets import using

from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.storage.errors import CredentialsError, StorageUnavailable
from pneumonia_core.storage.files import delete_folder, open_file
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import objects as s3_objects

URI = "s3://hospital/in/x.jpeg"
DATES = b"Date: Sun, 01 Feb 2026 10:00:30 GMT\r\nLast-Modified: Sun, 01 Feb 2026 10:00:00 GMT\r\n"


def answer(body: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return b'HTTP/1.1 %b\r\nETag: "e"\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b' % (
        status,
        DATES,
        length,
        body,
    )


@contextlib.contextmanager
def bucket_that_says(*answers: bytes, trickling: bool = False) -> Iterator[list[str]]:
    """A server that gives each request the next of these answers, and the last one from then on."""
    asked: list[str] = []

    def serve(server: socket.socket) -> None:
        for number in count():
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                asked.append(client.recv(65536).decode())
                client.sendall(answers[min(number, len(answers) - 1)])
                while trickling:
                    client.sendall(b"x")
                    time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        with using(f"http://127.0.0.1:{server.getsockname()[1]}"):
            yield asked


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(LIMITS, "backoff_s", 0.05)
    monkeypatch.setattr(LIMITS, "give_up_after_s", 0.5)
    monkeypatch.setattr(LIMITS, "lease_give_up_after_s", 0.5)


@pytest.mark.parametrize(
    ("read", "error"), [("get", StorageUnavailable), ("get_whole", OSError), ("get_aged", OSError)]
)
@pytest.mark.timeout(60)
def test_object_that_trickles_is_given_up_in_time(monkeypatch, read, error):
    monkeypatch.setattr(LIMITS, "stall_after_s", 0.2)
    arguments = (URI, 0, 100_000) if read == "get" else (URI,)
    with (
        bucket_that_says(answer(b"", length=100_000), trickling=True) as asked,
        pytest.raises(error, match=r"did not answer .*TimeoutError"),
    ):
        getattr(s3_objects, read)(*arguments)
    # A later attempt goes on from the bytes that came.
    assert all("Range: bytes=0-" not in again for again in asked[1:])


def test_answer_that_breaks_off_is_asked_for_again_from_there(monkeypatch):
    # A busy machine may take half a second for the first answer alone.
    monkeypatch.setattr(LIMITS, "lease_give_up_after_s", 30.0)
    with bucket_that_says(answer(b"0123", length=10), answer(b"456789", b"206 Partial Content")) as asked:
        found = s3_objects.get_aged(URI)
    assert found == s3_objects.AgedObject(b"0123456789", "e", 30.0)
    assert "Range" not in asked[0]
    assert "Range: bytes=4-\r\n" in asked[1]
    assert 'If-Match: "e"' in asked[1]


@pytest.mark.timeout(60)
def test_object_that_stays_cut_is_given_up_in_time():
    with bucket_that_says(answer(b"", length=10)):
        with pytest.raises(OSError, match=r"did not answer .*IncompleteReadError"):
            s3_objects.get_aged(URI)
        with pytest.raises(StorageUnavailable, match="IncompleteReadError"):
            s3_objects.get(URI, 0, 10)


def test_answer_of_unknown_length_is_read_to_its_end():
    chunked = (
        b'HTTP/1.1 200 OK\r\nETag: "e"\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n2\r\n45\r\n0\r\n\r\n'
    )
    with bucket_that_says(chunked):
        assert s3_objects.get(URI, 0, 100) == b"012345"


def test_object_larger_than_any_image_is_not_received():
    with bucket_that_says(answer(b"", length=2**29 + 1)), pytest.raises(RejectedImage, match="too_large"):
        s3_objects.get(URI, 0, 2**29 + 1)


def test_answer_that_ends_within_its_headers_is_no_answer():
    """Python alone takes it for one without a body: an archive without images, an object without bytes."""
    with bucket_that_says(b"HTTP/1.1 200 OK\r\nServer: half an ans") as asked:
        with pytest.raises(PneumoniaError, match="cannot be listed"):
            list(s3_objects.list_pages("s3://hospital/in/"))
        with pytest.raises(StorageUnavailable, match="did not answer"):
            s3_objects.get(URI, 0, 100)
        with pytest.raises(StorageUnavailable, match="did not answer"):
            s3_objects.stat(URI)
        with pytest.raises(OSError, match="did not take"):
            s3_objects.put(URI, b"")
    assert len(asked) >= 4 * 2


def refusal(code: str, status: bytes) -> bytes:
    return answer(b"<Error><Code>%b</Code><Message>no</Message></Error>" % code.encode(), status)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ExpiredToken", b"400 Bad Request"),
        ("SignatureDoesNotMatch", b"403 Forbidden"),
        ("RequestTimeTooSkewed", b"403 Forbidden"),
    ],
)
def test_worker_whose_credentials_or_clock_the_storage_does_not_take_blames_no_image(code, status):
    with bucket_that_says(refusal(code, status)), pytest.raises(CredentialsError, match=code):
        s3_objects.get(URI, 0, 100)


def test_name_that_a_gateway_signs_otherwise_is_a_rejected_image():
    refused = refusal("SignatureDoesNotMatch", b"403 Forbidden")
    listed = b"<ListBucketResult><Name>hospital</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
    with bucket_that_says(refused, answer(listed)), pytest.raises(RejectedImage, match="unreadable"):
        s3_objects.get("s3://hospital/in//x.jpeg", 0, 100)


def test_objects_that_a_bucket_leaves_are_not_taken_for_deleted():
    listed = (
        b"""<ListBucketResult><Name>hospital</Name><IsTruncated>false</IsTruncated>%b</ListBucketResult>"""
        % (
            b"".join(
                b"<Contents><Key>r/%d</Key><Size>1</Size><ETag>e</ETag></Contents>" % number
                for number in range(2)
            )
        )
    )
    left = b"<DeleteResult><Error><Key>r/1</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    with (
        bucket_that_says(answer(listed), answer(left)),
        pytest.raises(OSError, match=r"did not delete s3://hospital/r/1 \(AccessDenied\)"),
    ):
        delete_folder(open_location("s3://hospital/r"))


def test_file_that_is_rewritten_while_it_is_read_is_no_mixture():
    first = answer(b"", length=10)
    with (
        bucket_that_says(
            first, answer(b"01234", b"206 Partial Content"), refusal("PreconditionFailed", b"412 -")
        ) as asked,
        open_file(open_location("s3://hospital/m.csv")) as file,
    ):
        assert file.read(5) == b"01234"
        with pytest.raises(OSError, match="rewritten"):
            file.read(5)
    assert all('If-Match: "e"' in request for request in asked[1:])


def test_gateway_that_ignores_the_condition_gives_no_other_version():
    with bucket_that_says(answer(b"0123")):
        assert s3_objects.get(URI, 0, 100, "e") == b"0123"
        with pytest.raises(RejectedImage, match="rewritten"):
            s3_objects.get(URI, 0, 100, "another")
