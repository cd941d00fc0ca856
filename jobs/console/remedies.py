"""Remedies in the words of the command line: for each remedy of the core, the option to give."""

from typing import Final

from pneumonia_core.errors import PneumoniaError, Remedy

REMEDIES: Final[dict[Remedy, str]] = {
    Remedy.RUN_AGAIN: "Run the same command again to resume.",
    Remedy.FIX_AND_RUN_AGAIN: "Fix that and run the same command again.",
    Remedy.WRITE_RECORD: "Run the same command again: it only writes the record.",
    Remedy.START_OVER: "Run the same command with --fresh to start the run over.",
    Remedy.OTHER_RESULTS: "Give another --results.",
    Remedy.SCORED_RESULTS: "Give the --results of `pneumonia score`.",
    Remedy.FEWER_ACTORS: "Run the same command again, with fewer --actors.",
    Remedy.FREE_MEMORY: (
        "Free memory, or score with fewer --actors, and run the same command again: what is finished is kept."
    ),
    Remedy.OTHER_ENGINE: "Name another --engine and run the same command again.",
    Remedy.INSTALL_GPU: (
        "Install the extra `gpu` on every node with GPUs (pip install '.[gpu]'), or compute on CPUs: "
        "`score --shape cpu`, `train --gpus 0`."
    ),
    Remedy.INSTALL_INT8: "Install the extra `int8` (pip install '.[int8]'); scoring does without it.",
    Remedy.INSTALL_ONNX: "Install the extra `onnx` on every node (pip install '.[onnx]').",
    Remedy.INSTALL_ONNX_GPU: (
        "Install the extra `onnx-gpu`, and not `onnx`, on every node with GPUs (pip install '.[onnx-gpu]'), "
        "or compute on CPUs: `score --shape cpu`."
    ),
    Remedy.NAME_ENGINE: "Name one with --engine to use it all the same.",
    Remedy.WEIGHTS: "Give --weights none, imagenet, or a .npz, .keras or .weights.h5 file.",
    Remedy.LOCAL_WEIGHTS: "Give --weights FILE or --weights none.",
    Remedy.SAY_RESCORE: (
        "Add --rescore all to score every image with it, or --rescore none to score only new and changed "
        "images."
    ),
    Remedy.OTHER_SPLIT: "Choose one with --split.",
    Remedy.FINISH_OR_ABANDON: "Run its own command to finish it, or add --fresh to abandon it.",
    Remedy.PROMOTE: "Choose one with `pneumonia models promote`.",
    Remedy.LET_IT_END: "Wait until it has ended, or stop it and run the same command again: that resumes it.",
    Remedy.SET_CLOCK: "Set the clock that is wrong, and run the same command again.",
    Remedy.ALLOW_PREFIX: "Add an --allow-prefix that the images are under.",
    Remedy.MAKE_ROOM: "Make room there, then run the same command again.",
    Remedy.WHEN_STORAGE_ANSWERS: "Run the same command again when the storage answers: it resumes.",
    Remedy.RESTORE_ARCHIVE: (
        "Make it readable on every node, then run the same command again. If its images are gone for good, "
        "add --fresh."
    ),
    Remedy.RENEW_CREDENTIALS: (
        "Renew them, or set the clock of the machine that reads, and run the same command again: what is "
        "finished is kept."
    ),
    Remedy.GIVE_CREDENTIALS: (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every node, or AWS_PROFILE. For a public bucket, "
        "set AWS_SKIP_SIGNATURE=true."
    ),
    Remedy.CHECK_BUCKET: "Check bucket, credentials and AWS_ENDPOINT_URL, then run the same command again.",
    Remedy.ALLOW_READING: (
        "Allow this user to read it, or move it out of the archive, and run the same command again."
    ),
    Remedy.FIX_OR_MOVE: "Fix that, or move it out of the archive, and run the same command again.",
    Remedy.OTHER_SCRATCH: (
        "Free space there, or name another folder in TMPDIR, and run the same command again."
    ),
    Remedy.PAGE_ELSEWHERE: "Give an --output for a page of what is known now.",
    Remedy.NAME_RUN: "Name one that `pneumonia runs` shows.",
    Remedy.NAME_HELD_RUN: "Name one that `pneumonia runs` shows as held.",
    Remedy.NAME_MANIFEST: "Name a manifest, or leave out --carry and --allow-prefix.",
}


def error_line(error: PneumoniaError) -> str:
    """What the command says about an error: the thing, the reason, and what to do."""
    return error.text if error.remedy is None else f"{error.text} {REMEDIES[error.remedy]}"
