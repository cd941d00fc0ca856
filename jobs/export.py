"""`pneumonia export`: a new bundle with one more engine."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from pneumonia_core.bundles.engines import FLOAT16_GRAPH, INT8_ENGINE, ONNX_ENGINE


@job_command("export")
@click.argument("bundle", type=LocationType())
@click.option(
    "--engine",
    required=True,
    type=click.Choice([INT8_ENGINE, ONNX_ENGINE, FLOAT16_GRAPH]),
    help="The engine that is added.",
)
@click.option(
    "--data",
    required=True,
    type=LocationType(),
    help="Labelled images, as `train` takes them; best those that it trained on.",
)
@click.option("--models", required=True, type=LocationType(folder=True), help="Folder for the new bundle.")
def command(**options: Any) -> Result:  # noqa: ANN401 - click's options
    """Write a new bundle with all that BUNDLE holds and one more engine. BUNDLE itself is not changed.

    openvino-int8 is the network in integers of 8 bits, for CPUs, calibrated on images of the splits train and
    val. onnxruntime is the network in ONNX, which scores without TensorFlow. tensorflow-float16 lets the
    engine tensorflow compute in float16 on GPUs. What is added is compared with the float32 network on images
    that `train` holds back. Where the two do not agree, the bundle is written all the same, and
    `--engine auto` does not take it.
    """
    # The job imports the libraries of the table, which --help does without.
    from jobs.exporting.export import ExportOptions, export_engine

    return export_engine(ExportOptions(**options))


if __name__ == "__main__":
    run_command(command)
