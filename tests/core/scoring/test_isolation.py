"""Decoding in a child process: what becomes of one that does not start."""

import os
import sys
from pathlib import Path

import pytest

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.scoring.isolation import IsolatedDecoder
from pneumonia_core.system.child_process import Child


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_child_that_does_not_start_is_not_left_behind():
    before = _children()
    with pytest.raises(EOFError):
        Child("pneumonia_core.no_such_module")
    assert _children() <= before


def test_decoder_that_does_not_start_fails_the_run_and_blames_no_image(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with IsolatedDecoder() as decoder, pytest.raises(PneumoniaError, match="did not start"):
        decoder.decode(ImageRef("file:///image.png"), 64)
