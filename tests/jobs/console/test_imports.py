import gc
import sys

import pytest

from jobs.console.imports import importing


@pytest.fixture(autouse=True)
def restored():
    frozen = gc.get_freeze_count()
    yield
    gc.enable()
    if not frozen:
        gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_looked_for_during_imports_and_then_as_before(enabled):
    if not enabled:
        gc.disable()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled() == enabled


def test_garbage_of_a_block_that_imports_nothing_is_found(monkeypatch):
    """A process that scores often would keep it."""
    frozen = gc.get_freeze_count()
    with importing():
        pass
    assert gc.get_freeze_count() == frozen
    with importing():
        monkeypatch.setitem(sys.modules, "a_module_of_a_test", sys)
    assert gc.get_freeze_count() > frozen
