import gc

import pytest

from jobs.console.imports import importing


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_looked_for_during_imports_and_then_as_before(enabled):
    if not enabled:
        gc.disable()
    try:
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
        gc.unfreeze()
