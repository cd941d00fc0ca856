"""Archives that change from night to night, and a plain Python model of the results table over them."""

import hashlib
import io
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import boto3
import numpy as np
from PIL import Image

from pneumonia_core.phantoms.radiograph import phantom


class Place(Protocol):
    """Where an archive's files are."""

    uri: str

    def put(self, name: str, data: bytes, age: int) -> str:
        """Write a file, and give what its version is known by; `age` grows with each new content."""

    def drop(self, name: str) -> None: ...


@dataclass(frozen=True)
class BucketPlace:
    endpoint: str
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def put(self, name: str, data: bytes, age: int) -> str:
        self._client().put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=data)
        return hashlib.sha256(data).hexdigest()

    def drop(self, name: str) -> None:
        self._client().delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def _client(self):
        return boto3.client("s3", endpoint_url=self.endpoint)


@dataclass(frozen=True)
class FolderPlace:
    path: Path

    @property
    def uri(self) -> str:
        return f"file://{self.path}"

    def put(self, name: str, data: bytes, age: int) -> str:
        (self.path / name).write_bytes(data)
        os.utime(self.path / name, ns=(age * 10**9, age * 10**9))
        return f"{len(data)}-{age}"

    def drop(self, name: str) -> None:
        (self.path / name).unlink()


@dataclass(frozen=True)
class File:
    """A file's content, and what its version is known by."""

    sha256: str
    version: str
    data: bytes = field(repr=False)
    age: int


# A row as it is compared: image, hash of the content, model.
Row = tuple[str, str, str]


@dataclass
class Archive:
    """An archive, its files now and before, and what the table must have of them."""

    place: Place
    files: dict[str, File] = field(default_factory=dict)
    before: dict[str, File] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    newest: dict[tuple[str, str], str] = field(default_factory=dict)

    def change(self, rng: random.Random, age: int, new: int, changed: int) -> int:
        """A day: files come, change, go, and are put back as they were. Returns the age of the newest."""
        for number in range(new):
            age += 1
            self._write(f"{age:05d}-{number}.png", _picture(age), age)
        for name in rng.sample(sorted(self.files), min(changed, len(self.files))):
            age += 1
            self.before[name] = self.files[name]
            self._write(name, _picture(age), age)
        for name in rng.sample(sorted(self.before), min(2, len(self.before))):
            earlier = self.before[name]
            self._write(name, earlier.data, earlier.age)
        if len(self.files) > 8:
            gone = rng.choice(sorted(self.files))
            self.before[gone] = self.files.pop(gone)
            self.place.drop(gone)
        return age

    def _write(self, name: str, data: bytes, age: int) -> None:
        version = self.place.put(name, data, age)
        self.files[name] = File(hashlib.sha256(data).hexdigest(), version, data, age)

    def night(self, model: str) -> None:
        """All files have been scored with the model: those that its newest row does not show got one."""
        for name, file in sorted(self.files.items()):
            if self.newest.get((name, model)) != file.version:
                self.newest[name, model] = file.version
                self.rows.append((f"{self.place.uri}/{name}", file.sha256, model))

    def latest(self, model: str) -> list[Row]:
        return [(f"{self.place.uri}/{name}", file.sha256, model) for name, file in self.files.items()]


def differences(actual: list[Row], expected: list[Row]) -> str:
    """What is too much and what is missing, as lines; empty where both are the same."""
    too_much, missing = Counter(actual), Counter(expected)
    lines = [f"too much: {count} x {row}" for row, count in (too_much - missing).items()]
    return "\n".join(lines + [f"missing: {count} x {row}" for row, count in (missing - too_much).items()])


def _picture(seed: int) -> bytes:
    pixels = phantom(seed % 3, seed, 0, (48, 48)).copy()
    pixels[0, :8] = np.frombuffer(seed.to_bytes(8, "big"), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
