"""The errors a user can meet: each names the thing, the reason and the remedy."""

from typing import Any, Final


class PneumoniaError(Exception):
    """A run that failed and can be resumed by the same command."""

    exit_code = 1


class InvalidInput(PneumoniaError):
    """Wrong usage or input: the message says what to change."""

    exit_code = 2


# The closed list of reasons why an image has no score, by the stage that found out.
REJECT_REASONS: Final[dict[str, tuple[str, ...]]] = {
    "read": ("not_found", "forbidden", "timeout", "unreadable", "too_large"),
    "decode": (
        "empty",
        "not_an_image",
        "truncated",
        "corrupt",
        "unsupported",
        "too_many_pixels",
        "too_small",
        "blank",
        "not_chest_radiograph",
        "multi_frame",
        "no_pixels",
        "too_slow",
        "crashed_decoder",
    ),
    "score": ("engine_error",),
}
REJECT_STAGE: Final[dict[str, str]] = {
    reason: stage for stage, reasons in REJECT_REASONS.items() for reason in reasons
}


class RejectedImage(Exception):
    """An image that cannot be scored: it becomes a row, never a failure of the run.

    `detail` is a fixed template with numbers filled in, never text out of the file or out of
    another exception: those may carry a patient's name.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.stage = REJECT_STAGE[reason]
        self.reason = reason
        self.detail = detail
        self.source: Any = None
        super().__init__(reason, detail)
