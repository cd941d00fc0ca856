"""The counts of a run: what became of every listed image."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counts:
    """The images of a staged or committed run: listed = scored + rejected + unchanged + deferred.

    `out_of_domain` is None where the bundle or the version that wrote the record did not judge the domain.
    `score_histogram` counts the scored images by p_pneumonia, in drift.BINS equal bins from 0 to 1; it is
    empty where an earlier version wrote the record.
    """

    listed: int = 0
    scored: int = 0
    rejected: int = 0
    unchanged: int = 0
    deferred: int = 0
    reject_reasons: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    out_of_domain: int | None = None
    bytes_read: int = 0
    score_histogram: tuple[int, ...] = ()

    @property
    def attempted(self) -> int:
        """The images that got a row."""
        return self.scored + self.rejected

    @property
    def reject_rate(self) -> float:
        """The share of the attempted images that were rejected."""
        return self.rejected / self.attempted if self.attempted else 0.0
