"""Every request to S3: tried again while the bucket is busy or away, and checked to be answered whole."""

from functools import partial
from typing import Any, Final

from botocore.exceptions import ConnectionClosedError

from pneumonia_core.storage.patience import Purpose, persist
from pneumonia_core.storage.s3 import client as s3_client
from pneumonia_core.storage.s3 import settings
from pneumonia_core.storage.s3.answers import is_transient

_WITH_VERSION: Final = frozenset({"head_object", "get_object", "put_object"})


def ask(bucket: str, operation: str, purpose: Purpose, **parameters: object) -> dict[str, Any]:
    """The answer to a request, for instance `list_objects_v2`, tried again as `patience.persist` does.

    Raises an error of `answers.REQUEST_ERRORS`.
    """
    return persist(
        f"s3://{bucket}", partial(ask_once, bucket, operation, **parameters), is_transient, purpose
    )


def ask_once(bucket: str, operation: str, **parameters: object) -> dict[str, Any]:
    """The answer to one attempt at a request. Raises what boto3 raises.

    Python takes an answer that ends within its headers for one without a body: a listing without keys, an
    object without bytes. Here that is a connection that was closed.
    """
    if settings.requester_pays() and operation != "head_bucket":
        parameters["RequestPayer"] = "requester"
    answer: dict[str, Any] = getattr(s3_client.client(), operation)(Bucket=bucket, **parameters)
    if not _is_whole(operation, answer):
        raise ConnectionClosedError(endpoint_url=settings.endpoint() or "S3")
    return answer


def _is_whole(operation: str, answer: dict[str, Any]) -> bool:
    if operation == "list_objects_v2":
        return "Name" in answer
    if operation not in _WITH_VERSION:
        return True
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    has_length = "content-length" in headers or "transfer-encoding" in headers
    if operation == "put_object":
        return has_length or "etag" in headers
    # A gateway may give no ETag; the time of the object is then its version.
    return has_length and ("etag" in headers or "last-modified" in headers)
