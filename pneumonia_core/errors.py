"""The errors a user can meet, their remedies, and the closed list of reasons why an image has no score."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal


class Remedy(StrEnum):
    """What a user can do about an error, in words that name no option of a command line.

    A front end may have better words for its own users: the `pneumonia` command names the option
    (`jobs.console.remedies`).
    """

    RUN_AGAIN = "Run it again to resume."
    FIX_AND_RUN_AGAIN = "Fix that and run it again to resume."
    WRITE_RECORD = "Run it again: that only writes the record."
    START_OVER = "Start the run over."
    OTHER_RESULTS = "Choose another results folder."
    SCORED_RESULTS = "Choose the results folder of a scoring run."
    FEWER_ACTORS = "Run it again with fewer actors to resume."
    FREE_MEMORY = "Free memory, or use fewer processes, and run it again."
    OTHER_ENGINE = "Choose another engine and run it again."
    INSTALL_GPU = "Install the extra `gpu` on every node with GPUs, or compute on CPUs."
    INSTALL_INT8 = "Install the extra `int8`; only making the engine needs it."
    INSTALL_ONNX = "Install the extra `onnx` on every node."
    INSTALL_ONNX_GPU = (
        "Install the extra `onnx-gpu`, and not `onnx`, on every node with GPUs, or compute on CPUs."
    )
    NAME_ENGINE = "Name an engine to use it all the same."
    WEIGHTS = "Give the weights as none, imagenet, or a .npz, .keras or .weights.h5 file."
    LOCAL_WEIGHTS = "Give a weights file, or train from random weights."
    SAY_RESCORE = "Say whether to score every image again or only new and changed ones."
    OTHER_SPLIT = "Choose another split."
    FINISH_OR_ABANDON = "Repeat its own request to finish it, or abandon it."
    PROMOTE = "Choose one and promote it."
    LET_IT_END = "Wait until it has ended, or stop it and run this again to resume it."
    SET_CLOCK = "Set the clock that is wrong, and run this again."
    ALLOW_PREFIX = "Allow the prefix that the images are in."
    MAKE_ROOM = "Make room there, then run it again to resume."
    WHEN_STORAGE_ANSWERS = "Run it again when the storage answers."
    RESTORE_ARCHIVE = "Make it readable on every machine and run it again to resume, or start the run over."
    RENEW_CREDENTIALS = "Renew them, or set the clock of the machine that reads, and run it again to resume."
    GIVE_CREDENTIALS = (
        "Give them in the usual variables, or say with AWS_SKIP_SIGNATURE=true that the bucket is public."
    )
    CHECK_BUCKET = "Check bucket, credentials and endpoint, then run it again."
    ALLOW_READING = "Allow this user to read it, or move it out of the archive, and run it again."
    FIX_OR_MOVE = "Fix that, or move it out of the archive, and run it again."
    OTHER_SCRATCH = "Free space there, or name another folder in TMPDIR, and run it again."
    PAGE_ELSEWHERE = "Write its page elsewhere for now."
    NAME_RUN = "List the runs, and name one of them."
    NAME_HELD_RUN = "List the runs, and name one that is held."
    NAME_MANIFEST = "Name a manifest, or neither carry columns nor allow prefixes."


class PneumoniaError(Exception):
    """A run that failed and can be resumed by the same command.

    `text` names the thing and the reason; `remedy` says what to do, where `text` does not.
    """

    exit_code = 1

    def __init__(self, text: str, remedy: Remedy | None = None) -> None:
        self.text = text
        self.remedy = remedy
        super().__init__(text, remedy)

    def __str__(self) -> str:
        return self.text if self.remedy is None else f"{self.text} {self.remedy}"


class InvalidInput(PneumoniaError):
    """Wrong usage or input: the message says what to change."""

    exit_code = 2


def differing_options(run: Mapping[str, object], now: Mapping[str, object]) -> str:
    """The options of a resumed run that differ: `limit: 10 (run) / 20 (now); …`."""
    return "; ".join(
        f"{name}: {json.dumps(run.get(name))} (run) / {json.dumps(now.get(name))} (now)"
        for name in sorted({*run, *now})
        if run.get(name) != now.get(name)
    )


RejectStage = Literal["read", "decode", "score"]


@dataclass(frozen=True)
class RejectReason:
    """Why an image has no score: the stage that found out, whether a later run may succeed, the meaning."""

    stage: RejectStage
    meaning: str
    retryable: bool = False


REJECT_REASONS: Final[dict[str, RejectReason]] = {
    "not_found": RejectReason("read", "gone between listing and reading", retryable=True),
    "forbidden": RejectReason("read", "no permission to read it", retryable=True),
    "timeout": RejectReason("read", "reading took too long", retryable=True),
    "unreadable": RejectReason("read", "reading failed", retryable=True),
    "too_large": RejectReason("read", "the file is larger than the limit", retryable=True),
    "empty": RejectReason("decode", "the file has no bytes"),
    "not_an_image": RejectReason("decode", "the content is not a known image format"),
    "truncated": RejectReason("decode", "the file ends before the picture does"),
    "corrupt": RejectReason("decode", "the content breaks its own format"),
    "unsupported": RejectReason("decode", "a kind of image that is not read"),
    "too_many_pixels": RejectReason("decode", "more pixels than the limit"),
    "too_small": RejectReason("decode", "a side is under 32 pixels"),
    "blank": RejectReason("decode", "the picture has no contrast"),
    "not_chest_radiograph": RejectReason("decode", "its tags say that it is not a frontal chest X-ray"),
    "multi_frame": RejectReason("decode", "several frames"),
    "no_pixels": RejectReason("decode", "no pixel data"),
    "too_slow": RejectReason("decode", "decoding took too long", retryable=True),
    "crashed_decoder": RejectReason("decode", "the decoder died on it", retryable=True),
    "engine_error": RejectReason("score", "the engine failed on it"),
    "crashed_engine": RejectReason("score", "the engine's process died on it, twice", retryable=True),
}


@dataclass(frozen=True)
class Rejection:
    """Why one image has no score.

    `reason` is a key of REJECT_REASONS. `detail` is a fixed template with numbers filled in, never text out
    of the file or out of another exception: those may carry a patient's name.
    """

    reason: str
    detail: str

    def __post_init__(self) -> None:
        if self.reason not in REJECT_REASONS:
            raise ValueError(f"{self.reason} is not a reject reason")

    @property
    def stage(self) -> RejectStage:
        return REJECT_REASONS[self.reason].stage


class RejectedImage(Exception):
    """Raised where an image turns out to have no score: it becomes a row, never a failure of the run."""

    def __init__(self, reason: str, detail: str) -> None:
        self.rejection = Rejection(reason, detail)
        super().__init__(reason, detail)

    @property
    def stage(self) -> RejectStage:
        return self.rejection.stage

    @property
    def reason(self) -> str:
        return self.rejection.reason

    @property
    def detail(self) -> str:
        return self.rejection.detail
