"""Messages of JSON and npy: every kind of value comes back, and nothing else than what was declared."""

import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pneumonia_core.errors import Rejection, Remedy
from pneumonia_core.system.messages import MalformedMessage, pack, unpack


@dataclass(frozen=True)
class Inner:
    content: bytes | Rejection | None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    shares: dict[str, float]
    kind: Literal["gz", "zst"] | None = None


def sent(value, declared):
    return unpack(b"".join(pack(value)), declared)


@pytest.mark.parametrize(
    ("value", "declared"),
    [
        (None, None),
        (True, bool),
        (-(10**30), int),
        ("a\udcff\n\0\u2028", str),
        (b"\x00\xff" * 5, bytes),
        (b"", bytes | None),
        (1, float),
        (Path("/a b/c"), Path),
        (Remedy.FREE_MEMORY, Remedy | None),
        ((1, "two", (b"3",)), tuple[int, str, tuple[bytes, ...]]),
        ((), tuple[int, ...]),
        (Outer(Inner(b"x"), {"items": 0.5, "class": math.inf}, "zst"), Outer),
        (Outer(Inner(Rejection("empty", "no bytes")), {}), Inner | Outer),
    ],
)
def test_value_comes_back_as_its_declared_type(value, declared):
    back = sent(value, declared)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        np.zeros((0, 3), np.float32),
        np.array(7.5),
        np.array([True, False]),
    ],
)
def test_array_comes_back_in_shape_and_type(array):
    first, back = sent(("x", array), tuple[str, np.ndarray])
    assert (first, back.dtype, back.shape) == ("x", array.dtype, array.shape)
    assert np.array_equal(back, array)


@pytest.mark.parametrize("value", [object(), {1: 2}, np.array([object()]), np.float32(1), {1}])
def test_what_is_not_data_is_not_sent(value):
    with pytest.raises(TypeError):
        pack(value)


def test_scalar_that_an_image_may_have_and_that_is_not_declared_is_refused():
    for value, declared in [
        (1.5, int),
        ("1", int),
        (None, str),
        (b"x", str),
        ("x", bytes),
        (Inner(None), Outer),
    ]:
        with pytest.raises(MalformedMessage):
            sent(value, declared)


def message(tree, *blobs):
    text = json.dumps([tree, [len(blob) for blob in blobs]]).encode()
    return len(text).to_bytes(8, "big") + text + b"".join(blobs)


def npy(header):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        pickle.dumps("x"),
        message([]),
        message({"blob": 0}),
        message({"blob": -2}, b"x"),
        message({"blob": "x"}, b"x"),
        message({"blob": 0}, b"not npy"),
        message({"blob": 0}, npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"x" * 8),
        message({"blob": 0}, npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9,), }") + b"x"),
        message({"blob": 0}, npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }") + b"x"),
        message({"blob": 0}, npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},), }}")),
        message({"blob": 0}, npy("__import__('os').abort()")),
        message({"class": "Outer", "items": {}}),
        b"\0\0\0\0\0\1\x86\xa0" + b"[" * 100_000,
    ],
)
def test_message_that_nobody_sent_is_refused(hostile):
    with pytest.raises(MalformedMessage):
        unpack(hostile, np.ndarray | Outer)


def test_class_that_refuses_its_values_is_a_malformed_message():
    with pytest.raises(MalformedMessage):
        unpack(message({"class": "Rejection", "items": {"reason": "hacked", "detail": ""}}), Rejection)
