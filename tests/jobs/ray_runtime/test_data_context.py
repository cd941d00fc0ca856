"""Ray Data's settings are left as they were, and of its warnings those that touch the user are said."""

import logging

import pytest
from support.scoring import score, scoring_request

from jobs.ray_runtime.data_context import data_context, quiet_ray_data
from pneumonia_core.phantoms.data_sets import write_archive


def settings():
    from ray.data import DataContext

    context = DataContext.get_current()
    names = [name for name in vars(context) if not name.startswith("_")]
    return {name: repr(getattr(context, name)) for name in names}


@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_a_run_leaves_ray_datas_settings_as_they_were(ray_here, tiny_bundle, tmp_path, shape):
    write_archive(tmp_path / "archive", 8, seed=3)
    before = settings()
    score(tmp_path / "r", scoring_request(tiny_bundle, tmp_path / "archive"), shape=shape)
    assert settings() == before


def test_settings_hold_for_a_block_only(ray_here):
    from ray.data import DataContext

    before = settings()
    with data_context() as context:
        context.target_max_block_size = 1
        context.autoscaling_config.actor_pool_max_upscaling_delta = 1
        context.execution_options.preserve_order = True
        assert DataContext.get_current() is context
    assert settings() == before


def test_warnings_that_touch_the_user_are_said_once(ray_here, capsys):
    quiet_ray_data()
    quiet_ray_data()
    logger = logging.getLogger("ray.data._internal.actor_autoscaler")
    for _ in range(3):
        logger.warning("Actor Pool configuration of the op will not allow it to scale up: %s", 1.5)
        logger.warning("something that only a developer of Ray understands")
        logger.info("Cluster resources are not enough")
    said = [line for line in capsys.readouterr().err.splitlines() if "Ray Data" in line]
    assert said == [
        "warning of Ray Data: Actor Pool configuration of the op will not allow it to scale up: 1.5"
    ]
