"""The figures of a benchmark: rates by node, what they come to, and the table for a person."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from jobs.console.output import aligned_columns
from pneumonia_core.runs.outcome.limit import limit_of_workers
from pneumonia_core.runs.outcome.timings import RunTimings

_MILLION_PER_HOUR: Final = 1e6 / 3600
# From this share of the actors' seconds on, opening the engines spoils the rate of the run.
_MUCH_LOADING: Final = 0.05


@dataclass(frozen=True)
class NodeRates:
    """What a node does, in images per second: decoding alone, the engine alone. `images` it scored."""

    node: str
    cpus: float
    gpus: float
    decode_images_per_s: float
    engine_images_per_s: float
    images: int


@dataclass(frozen=True)
class Figures:
    """A benchmark: the rates of each node, and a scoring run on all of them.

    `engine_gpus` is how many GPUs the engine computes on, 0 where it computes on CPUs.
    """

    nodes: Sequence[NodeRates]
    timings: RunTimings
    engine: str
    precision: str
    engine_gpus: float

    @property
    def decode_images_per_s(self) -> float:
        """Images per second that all CPUs decode when they do nothing else."""
        return sum(node.decode_images_per_s for node in self.nodes)

    @property
    def engine_images_per_s(self) -> float:
        """Images per second that the engine computes on all processors when these do nothing else."""
        return sum(node.engine_images_per_s for node in self.nodes)

    @property
    def ceiling_images_per_s(self) -> float:
        """Images per second of a run that loses nothing: the same cores decode and compute one after the
        other; with GPUs the slower of both limits the other."""
        decode, engine = self.decode_images_per_s, self.engine_images_per_s
        if self.engine_gpus:
            return min(decode, engine)
        return 1 / (1 / decode + 1 / engine)

    @property
    def end_to_end_images_per_s(self) -> float:
        """Images per second of the run from its first chunk to its last."""
        return self.timings.scored_per_s

    @property
    def efficiency(self) -> float:
        return self.end_to_end_images_per_s / self.ceiling_images_per_s

    @property
    def cpus_per_gpu(self) -> float | None:
        """The CPUs that decode as fast as one GPU computes; None where the engine computes on CPUs."""
        if not self.engine_gpus:
            return None
        of_cpu = self.decode_images_per_s / sum(node.cpus for node in self.nodes)
        return self.engine_images_per_s / self.engine_gpus / of_cpu

    @property
    def hours_per_million(self) -> float:
        """Hours for a million images, from the first chunk to the last."""
        return _MILLION_PER_HOUR / self.end_to_end_images_per_s

    @property
    def actor_seconds(self) -> dict[str, float]:
        """The seconds of one actor on average, by stage, with those of its share of the decoding tasks."""
        seconds = self.timings.stages + self.timings.tasks
        return {name: round(value / self.timings.actors, 3) for name, value in vars(seconds).items()}

    def as_json(self) -> dict[str, Any]:
        limit, why = limit_of_workers(self.timings)
        return {
            "images": self.timings.images,
            "engine": self.engine,
            "precision": self.precision,
            "decode_images_per_s": round(self.decode_images_per_s, 1),
            "engine_images_per_s": round(self.engine_images_per_s, 1),
            "ceiling_images_per_s": round(self.ceiling_images_per_s, 1),
            "end_to_end_images_per_s": round(self.end_to_end_images_per_s, 1),
            "run_images_per_s": round(self.timings.images_per_s, 1),
            "efficiency": round(self.efficiency, 3),
            "actors": self.timings.actors,
            "actor_seconds": self.actor_seconds,
            "limit": limit,
            "why": why,
            "cpus_per_gpu": None if self.cpus_per_gpu is None else round(self.cpus_per_gpu, 1),
            "hours_per_million": round(self.hours_per_million, 3),
            "node_hours_per_million": round(self.hours_per_million * len(self.nodes), 3),
            "nodes": [_rounded(node) for node in self.nodes],
            "timings": self.timings.as_json(),
        }


def _rounded(node: NodeRates) -> dict[str, Any]:
    return {
        name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(node).items()
    }


def table(figures: Mapping[str, Any]) -> list[str]:
    """The lines for a person, from the JSON of the figures."""
    both = "the slower of both" if figures["cpus_per_gpu"] is not None else "one after the other"
    rates = [
        ("decoding alone", "decode_images_per_s"),
        ("engine alone", "engine_images_per_s"),
        (f"both, {both}", "ceiling_images_per_s"),
        ("end to end, from the first chunk to the last", "end_to_end_images_per_s"),
        ("the whole run, with start and commit", "run_images_per_s"),
    ]
    nodes = figures["nodes"]
    lines = [
        f"{figures['images']:,} images, {figures['engine']} in {figures['precision']}, nodes: {len(nodes)}",
        "",
        *aligned_columns([("", "images/s"), *((text, f"{figures[key]:,.1f}") for text, key in rates)], [1]),
        "",
        f"efficiency: {figures['efficiency']:.0%}, end to end against both",
        f"limited by {figures['limit']}: {figures['why']}",
        f"a million images: {figures['hours_per_million']:,.2f} hours, "
        f"{figures['node_hours_per_million']:,.2f} node-hours",
    ]
    if figures["cpus_per_gpu"] is not None:
        lines.append(f"CPUs that would feed one GPU: {figures['cpus_per_gpu']:,.1f}")
    seconds = figures["actor_seconds"]
    loading = seconds["load"] / sum(seconds.values())
    if loading >= _MUCH_LOADING:
        lines.append(f"the actors opened their engines for {loading:.0%} of the run: give more --images")
    lines += ["", f"seconds of an actor (mean of {figures['actors']:,}):"]
    lines += aligned_columns([list(seconds), [f"{value:,.2f}" for value in seconds.values()]], range(9))
    names = ("node", "CPUs", "GPUs", "decoding/s", "engine/s", "images")
    rows = [
        (
            node["node"][:8],
            f"{node['cpus']:g}",
            f"{node['gpus']:g}",
            f"{node['decode_images_per_s']:,.1f}",
            f"{node['engine_images_per_s']:,.1f}",
            f"{node['images']:,}",
        )
        for node in nodes
    ]
    return [*lines, "", *aligned_columns([names, *rows], range(1, 6))]
