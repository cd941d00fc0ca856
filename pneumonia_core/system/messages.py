"""Messages between a process and its children: JSON for values, npy for arrays, and never a pickle.

A pickle runs what it says when it is read, and a child that has decoded a stranger's bytes may say anything.
A message is read as a declared type and may give nothing else.
"""

import dataclasses
import io
import json
import math
import struct
import types
from collections.abc import Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Final, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

_LENGTH: Final = struct.Struct(">Q")
# JSON's keys for what JSON has not.
_BLOB: Final = "blob"
_ITEMS: Final = "items"
_CLASS: Final = "class"
_SCALARS: Final = (bool, int, float, str)
Buffer = bytes | memoryview


class MalformedMessage(ValueError):
    """The bytes are not a message of the declared type."""


def pack(value: object) -> list[Buffer]:
    """The message of a value, in pieces to be written one after the other.

    A value is built of None, bool, int, float, str, bytes, paths, enumerations of str, tuples, lists, dicts
    of str, dataclasses, and arrays without Python objects. Raises TypeError for any other.
    """
    blobs: list[list[Buffer]] = []
    tree = _tree(value, blobs)
    lengths = [sum(map(len, blob)) for blob in blobs]
    text = json.dumps([tree, lengths]).encode("ascii")
    return [_LENGTH.pack(len(text)), text, *(piece for blob in blobs for piece in blob)]


def unpack(message: bytes | bytearray, declared: object) -> object:
    """The value of a message. `declared` is its type, as in an annotation.

    Arrays are views of `message`. Raises MalformedMessage.
    """
    view = memoryview(message)
    try:
        (length,) = _LENGTH.unpack_from(view)
        start = _LENGTH.size + length
        tree, lengths = json.loads(bytes(view[_LENGTH.size : start]))
        blobs = []
        for count in lengths:
            blobs.append(view[start : start + count])
            start += count
        return _value(tree, declared, blobs)
    except MalformedMessage:
        raise
    except (struct.error, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise MalformedMessage("not a message") from error


def _tree(value: object, blobs: list[list[Buffer]]) -> object:
    """The value as JSON; bytes and arrays go into `blobs`."""
    match value:
        case Enum():
            return _tree(value.value, blobs)
        case Path():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            return _blob([memoryview(value)], blobs)
        case np.ndarray():
            return _blob(_npy(value), blobs)
        case tuple() | list():
            return [_tree(item, blobs) for item in value]
        case dict():
            return {_ITEMS: {_key(key): _tree(item, blobs) for key, item in value.items()}}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {
                _CLASS: type(value).__name__,
                _ITEMS: {n: _tree(item, blobs) for n, item in fields.items()},
            }
    raise TypeError(f"a {type(value).__name__} has no message")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of the type {type(key).__name__} has no message")
    return key


def _blob(pieces: list[Buffer], blobs: list[list[Buffer]]) -> object:
    blobs.append(pieces)
    return {_BLOB: len(blobs) - 1}


def _npy(array: np.ndarray) -> list[Buffer]:
    """The array as an npy file (NumPy's NEP 1): its header, and its values without a copy."""
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects has no message")
    array = np.ascontiguousarray(array).reshape(array.shape)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return [header.getvalue(), array.reshape(-1).view(np.uint8).data]


def _array(npy: memoryview) -> np.ndarray:
    start = io.BytesIO(npy[:4096])
    if np.lib.format.read_magic(start) != (1, 0):
        raise MalformedMessage("another version of npy")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(start)
    data = npy[start.tell() :]
    if dtype.hasobject or is_fortran or min(shape, default=0) < 0:
        raise MalformedMessage("an array that is not sent")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedMessage("an array of another size")
    return np.frombuffer(data, dtype).reshape(shape)


def _value(tree: object, declared: object, blobs: Sequence[memoryview]) -> object:
    """The value of JSON as the declared type. Raises MalformedMessage, and whatever other JSON raises."""
    origin, arguments = get_origin(declared), get_args(declared)
    if declared is None or declared is type(None):
        return _expected(tree, tree is None)
    if origin in (Union, types.UnionType):
        return _first_that_fits(tree, arguments, blobs)
    if origin is Literal:
        return _expected(tree, tree in arguments)
    if declared in _SCALARS:
        return _scalar(tree, declared)
    if declared is bytes:
        return bytes(_content(tree, blobs))
    if declared is np.ndarray:
        return _array(_content(tree, blobs))
    if origin is tuple:
        return _tuple(tree, arguments, blobs)
    if origin is dict:
        return {key: _value(item, arguments[1], blobs) for key, item in _items(tree, None).items()}
    if declared is Path:
        return Path(str(_scalar(tree, str)))
    if isinstance(declared, type) and issubclass(declared, Enum):
        return declared(tree)
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return _dataclass(tree, declared, blobs)
    raise TypeError(f"{declared} is not a type of messages")


def _first_that_fits(tree: object, types_: Sequence[object], blobs: Sequence[memoryview]) -> object:
    for declared in types_:
        try:
            return _value(tree, declared, blobs)
        except (ValueError, TypeError, LookupError):
            continue
    raise MalformedMessage("none of the declared types")


def _scalar(tree: object, declared: object) -> object:
    # JSON has one kind of numbers, and bool is an int of Python's.
    types_ = (int, float) if declared is float else declared
    return _expected(tree, isinstance(tree, types_))  # type: ignore[arg-type]


def _tuple(tree: object, arguments: Sequence[object], blobs: Sequence[memoryview]) -> tuple[object, ...]:
    if not isinstance(tree, list):
        raise MalformedMessage("not a tuple")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = [arguments[0]] * len(tree)
    return tuple(_value(item, kind, blobs) for item, kind in zip(tree, arguments, strict=True))


def _dataclass(tree: object, declared: type, blobs: Sequence[memoryview]) -> object:
    items = _items(tree, declared.__name__)
    hints = _fields(declared)
    if items.keys() != hints.keys():
        raise MalformedMessage("other fields")
    value: object = declared(**{name: _value(items[name], hint, blobs) for name, hint in hints.items()})
    return value


@cache
def _fields(declared: type) -> dict[str, object]:
    hints = get_type_hints(declared)
    return {field.name: hints[field.name] for field in dataclasses.fields(declared)}


def _items(tree: object, name: str | None) -> dict[str, object]:
    if not isinstance(tree, dict) or tree.get(_CLASS) != name or not isinstance(tree.get(_ITEMS), dict):
        raise MalformedMessage("not of the declared class")
    items: dict[str, object] = tree[_ITEMS]
    return items


def _content(tree: object, blobs: Sequence[memoryview]) -> memoryview:
    if not isinstance(tree, dict) or tree.keys() != {_BLOB}:
        raise MalformedMessage("not a blob")
    return blobs[tree[_BLOB]]


def _expected(tree: object, is_so: bool) -> object:
    if not is_so:
        raise MalformedMessage("another type")
    return tree
