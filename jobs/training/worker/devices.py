"""A worker's processor threads and GPUs, and how workers add gradients between them."""

import os
from typing import Final

import ray
import tensorflow as tf

from pneumonia_core.training.batch_norm import needs_shared_moments

# Gradients travel in packs of this size; one pack for all took a tenth more of the step.
PACK_BYTES: Final = 8 << 20


def set_up_devices(threads: int, gpus: int) -> None:
    """Let TensorFlow compute on so many threads, and on the GPUs that Ray gave this worker, if any."""
    if not gpus:
        # Ray hides no GPU from a worker that requests none.
        tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # No more operations at once than cores: two workers of one core each lost a tenth to each other's cache
    # misses.
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def threads_of_worker(workers_on_this_node: int) -> int:
    """A worker's share of the CPUs that both Ray and the operating system grant on this node.

    Either may grant fewer.
    """
    here = ray.get_runtime_context().get_node_id()
    granted = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["NodeID"] == here]
    cpus = max(1, min(int(sum(granted)), len(os.sched_getaffinity(0))))
    return max(1, cpus // workers_on_this_node)


def communication(gpus: int) -> tf.distribute.experimental.CommunicationOptions:
    """How workers of so many GPUs each add their gradients: through NCCL where they have GPUs.

    Left to itself, TensorFlow takes its own ring over gRPC between GPUs too, which copies through the hosts.
    NCCL knows no CPUs.
    """
    implementations = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=PACK_BYTES,
        implementation=implementations.NCCL if gpus else implementations.AUTO,
    )


def xla_error() -> str | None:
    """Why XLA cannot compile for this worker's first device; None where it can.

    It needs a compiler and a library of CUDA, which an installation may lack.
    """
    try:
        tf.function(lambda x: tf.exp(x @ x), jit_compile=True)(tf.ones((8, 8)))
    except tf.errors.OpError as error:
        return error.message.partition("\n")[0][:200]
    return None


def shares_moments(batch_size: int, replicas: int, gpus: int) -> bool:
    """Whether batch normalisation takes the moments of all replicas of a batch: for few images on GPUs.

    Workers on CPUs keep their own: a sum over their network for each layer takes longer than the layer.
    """
    return gpus > 0 and needs_shared_moments(batch_size // replicas, replicas)
