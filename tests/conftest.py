"""What many tests share: a small bundle, written once a session."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

# Otherwise every Ray process compiles Ray, pandas and TensorFlow again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from support.clusters import DECLARED_GPU, Rules
from support.paths import SHARED_DATA
from support.tiny_bundles import write_tiny_bundle


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real X-rays (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture
def exact_float32():
    """Undoes the graph precision of an engine that ran in this process before."""
    from pneumonia_core.bundles.tensorflow_runtime.engine import set_graph_precision

    set_graph_precision("float32")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle of a small convolutional network with fixed random weights, 64 px."""
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def worker_rules(tmp_path_factory):
    """The failpoints of the workers of the session's Ray."""
    rules = Rules(tmp_path_factory.mktemp("rules") / "rules")
    rules.set()
    return rules


@pytest.fixture(scope="session")
def guarded_bundle(tmp_path_factory):
    """A bundle of a ResNet-18 with fixed random weights, 64 px, that knows synthetic X-rays of children of
    one to five years."""
    import keras

    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.phantoms.radiograph import phantom
    from pneumonia_core.training.held_out.images import ImageParts
    from pneumonia_core.training.held_out.validation_set import ValidationSet
    from pneumonia_core.training.release import Provenance, release

    keras.utils.set_random_seed(7)
    classifier = build_classifier("resnet18", 64)
    # Multiples of a batch: Keras takes seconds to trace the network for another size.
    images = np.stack([phantom(number % 3, number, 0, (64, 64)) for number in range(384)])
    labels = np.arange(384) % 3
    validation = ValidationSet(ImageParts.of(images[256:]), labels[256:], np.arange(256, 384))
    provenance = Provenance("none", "synthetic", "none", {"note": "fixed random weights"}, (1.0, 5.0))
    folder = tmp_path_factory.mktemp("guarded")
    return release(folder, [classifier], images[:256], validation, provenance).bundle


@pytest.fixture(scope="session")
def trapped_folder(tmp_path_factory):
    """A folder that a user may stand in, whose files have names of modules. An import of one says so."""
    folder = tmp_path_factory.mktemp("trapped")
    for module in ("dl", "pickle", "pyarrow", "ray", "wave"):
        (folder / f"{module}.py").write_text(f"open({str(folder / 'executed')!r}, 'w'); raise SystemExit(9)")
    return folder


@pytest.fixture(scope="session")
def ray_here(worker_rules, trapped_folder):
    """One Ray with two CPUs and a declared GPU for the whole session.

    Jobs in this process use it, commands by its address.
    """
    import ray

    from jobs.ray_runtime.session import ray_session
    from pneumonia_core.system.failpoints import VARIABLE

    inherited = {VARIABLE: worker_rules.variable, "PNEUMONIA_HASH_KEY": "pepper", **DECLARED_GPU}
    os.environ.update(inherited)
    with contextlib.ExitStack() as stack:
        with contextlib.chdir(trapped_folder):
            stack.enter_context(ray_session("local", num_cpus=2))
        for name in inherited:
            del os.environ[name]
        yield ray


@pytest.fixture(scope="session")
def broken_archive(tmp_path_factory):
    """An archive of 40 synthetic X-rays with every kind of broken file among them."""
    from pneumonia_core.phantoms.data_sets import write_archive

    folder = tmp_path_factory.mktemp("archive")
    return folder, write_archive(folder, 40, seed=3, broken=True)


@pytest.fixture
def not_root():
    """A folder of a user who may not read everything."""
    folder = Path(tempfile.mkdtemp(prefix="pneumonia-"))
    us = os.geteuid()
    if us == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(us)
        for above, names, _ in os.walk(folder):
            for name in names:
                Path(above, name).chmod(0o700)
        shutil.rmtree(folder)
