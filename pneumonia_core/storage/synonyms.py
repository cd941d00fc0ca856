"""Other ways to write a place, as Hadoop, Spark, Java and Azure do: read as the one that is used here."""

import re
from typing import Final

from pneumonia_core.storage.arrow import azure_account

_SCHEMES: Final = {
    **{scheme: scheme for scheme in ("file", "s3", "gs", "abfs")},
    **{"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs"},
}
_AZURE_HOST: Final = re.compile(r"^([^/@:]+)@([^/@:.]+)\.(?:dfs|blob)\.core\.windows\.net(/.*)?$", re.DOTALL)
_ACCESS_POINT: Final = re.compile(r"^s3://arn:aws[\w-]*:s3[\w-]*:")


def canonical(text: str) -> str:
    """The text with the scheme that is used here; unchanged where it is written so, or is not known.

    `s3a://b/k` is `s3://b/k`, `file:/d/x` is `file:///d/x`, and `abfss://c@ACCOUNT.dfs.core.windows.net/k`
    is `abfs://c/k` where the environment names this account.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        return f"file://{text.removeprefix('file:')}" if text.startswith("file:/") else text
    scheme = _SCHEMES.get(scheme.lower(), scheme)
    if scheme == "abfs" and (named := _AZURE_HOST.match(rest)) and named[2] == azure_account():
        rest = f"{named[1]}{named[3] or ''}"
    return f"{scheme}://{rest}"


def what_to_write(text: str) -> str | None:
    """How to write a place that is named in a known form which is not read; None for any other text."""
    text = canonical(text)
    if _ACCESS_POINT.match(text):
        return "an access point is written by its alias: s3://ALIAS-s3alias/KEY."
    if text.startswith("abfs://") and (named := _AZURE_HOST.match(text.removeprefix("abfs://"))):
        return (
            f"the account {named[2]} is not the one that AZURE_STORAGE_ACCOUNT_NAME names. Set that, and "
            "write abfs://CONTAINER/PATH."
        )
    return None
