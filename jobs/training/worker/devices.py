"""A worker's processor threads and GPUs, and how workers add gradients between them."""

from typing import Final

import tensorflow as tf

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
