"""The record of one scoring run: what was requested, which state it is in, and what came of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, TypedDict

from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.archives.position import ListingPosition
from pneumonia_core.errors import InvalidInput
from pneumonia_core.gates import Alarm
from pneumonia_core.runs.inventory import InventoryShard
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.outcome.timings import RunTimings

FORMAT_VERSION: Final = 1

RunState = Literal["listing", "scoring", "staged", "held", "committed", "abandoned"]
EndState = Literal["committed", "abandoned"]
ENDED: Final[tuple[EndState, ...]] = ("committed", "abandoned")
# No scoring command resumes a run in one of these states. A held one keeps its parts until it is accepted.
CLOSED: Final[tuple[RunState, ...]] = (*ENDED, "held")


@dataclass(frozen=True)
class RunConfiguration:
    """The options that decide which rows a run writes. Only a request with the same options resumes a run."""

    archives: tuple[str, ...]
    model_id: str
    engine: str
    precision: str
    rescore: str | None
    retry_rejected: bool
    limit: int | None
    chunk_size: int
    carry: tuple[str, ...] = ()
    allow_prefix: tuple[str, ...] = ()
    trust_chest: bool = False
    # None leaves it to the devices.
    batch_size: int | None = None


@dataclass(frozen=True)
class RunRequest:
    """What a scoring run is requested to do."""

    archives: tuple[str, ...]
    model: str
    model_id: str
    engine: str
    precision: str
    rescore: str | None
    retry_rejected: bool
    limit: int | None
    chunk_size: int
    run_date: str
    date_is_given: bool
    rules: ListingRules = field(default_factory=ListingRules)
    trust_chest: bool = False
    batch_size: int | None = None

    def configuration(self) -> RunConfiguration:
        """What must be the same when the run is resumed.

        The date is not part of it: a run that died is finished under its own date.
        """
        return RunConfiguration(
            archives=self.archives,
            model_id=self.model_id,
            engine=self.engine,
            precision=self.precision,
            rescore=self.rescore,
            retry_rejected=self.retry_rejected,
            limit=self.limit,
            chunk_size=self.chunk_size,
            carry=tuple(self.rules.carry),
            allow_prefix=tuple(self.rules.allow_prefixes),
            trust_chest=self.trust_chest,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class RunResult:
    """What the command prints of a committed or held run.

    `version` is None where the run had no row to commit, and where a gate holds it back. Where
    `listing_complete` is false, a deadline came before all archives were listed.
    """

    run_id: str
    run_date: str
    results: str
    table: str
    version: int | None
    page: str
    model_id: str
    engine: str | None
    listed: int
    scored: int
    rejected: int
    unchanged: int
    deferred: int
    seconds: float
    images_per_s: float
    exit_code: int
    precision: str | None = None
    gone: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    reject_reasons: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    out_of_domain: int | None = None
    listing_complete: bool = True
    # What the gates warn of, and what they hold the run for.
    gates: tuple[Alarm, ...] = ()
    drift: float | None = None
    state: RunState = "committed"
    timings: RunTimings | None = None
    # The result of an earlier run, which still holds: this command found nothing to score.
    nothing_new: bool = False

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        if not self.nothing_new:
            del values["nothing_new"]
        return values


@dataclass(frozen=True)
class RunRecord:
    """All that run.json holds. `Run.advance` is the only way to change it."""

    run_id: str
    run_date: str
    state: RunState
    # Times are ISO 8601, UTC.
    created_at: str
    configuration: RunConfiguration
    # The bundle as it was given, and the installed packages.
    model: str
    versions: Mapping[str, str]
    # The version of the table that the run is planned from.
    planned_version: int
    updated_at: str = ""
    listing_complete: bool = False
    # Where the listing began, None for the first archive's beginning. How many shards there are up to the
    # last archive's end, None where it is not reached: those that follow begin at the first one's beginning.
    listed_from: ListingPosition | None = None
    shards_until_end: int | None = None
    # Where the listing of the next run begins: what comes before is listed, and scored where it is new. None
    # where the listing is complete, or an earlier version wrote the record. `begun_anew` says that the place
    # is in the part that begins at the first archive's beginning.
    listed_to: ListingPosition | None = None
    begun_anew: bool = False
    # The runs whose listings, one after the other, lead from the first archive's beginning to `listed_from`.
    listed_before: tuple[str, ...] = ()
    # Whether a row under another model makes an image unchanged; None until --rescore is decided.
    any_model: bool | None = None
    # The folder of the bundle, without aliases. Version 0.1.0 did not record it.
    bundle: str | None = None
    # What the run computes with, the same for all its rows. None until the first chunk is scored; version
    # 0.1.0 recorded no precision, and had no batches but of BATCH_SIZE.
    engine: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    # Why, in a line. None where engine and precision were named.
    engine_reason: str | None = None
    # The actors that share a GPU, None on CPUs; and why so many, None also where they were asked for.
    actors_per_gpu: int | None = None
    actors_per_gpu_reason: str | None = None
    # Images/s of what `auto` could take, on all nodes together: {engine: {precision: rate}}, and whether they
    # were `measured` for this run or `remembered` from another. Empty where they did not decide.
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rates_origin: str | None = None
    # How many images each node of the cluster has scored or rejected, by Ray's id of the node.
    nodes: Mapping[str, int] = field(default_factory=dict)
    # How many rows another run has committed since this one was planned.
    superseded: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    # The images of the table that the listing lacks: their number and a digest of their names. None where
    # neither this listing nor those of `listed_before` with it are complete.
    gone: int | None = None
    gone_digest: str | None = None
    counts: Counts = field(default_factory=Counts)
    # Where the time of the run's commands went; None where no worker has scored, or an earlier version ran.
    timings: RunTimings | None = None
    gates: tuple[Alarm, ...] = ()
    # The population stability index of its scores against those of the runs before; and the histograms of
    # those (`before`) and of the images that the bundle was validated on (`validation`), as in `counts`.
    drift: float | None = None
    score_histograms: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Whether a user commits the run although a gate has held it.
    accepted: bool = False
    # The data files of the commit, relative to scores/.
    files: tuple[str, ...] = ()
    version: int | None = None
    exit_code: int | None = None
    result: RunResult | None = None
    # The planned inventory; the key in run.json is `batches`.
    shards: tuple[InventoryShard, ...] = ()
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The record that a run.json holds, whichever version up to this one wrote it.

        Raises InvalidInput where a newer version wrote it.
        """
        if values["format_version"] > FORMAT_VERSION:
            raise InvalidInput(
                f"run {values['run_id']} was written by a newer version of pneumonia: its format is "
                f"{values['format_version']}, this version reads up to {FORMAT_VERSION}. Update pneumonia."
            )
        known = _known(cls, {name: value for name, value in values.items() if value is not None})
        configuration = _known(RunConfiguration, values["configuration"])
        for name in ("archives", "carry", "allow_prefix"):
            configuration[name] = tuple(configuration.get(name, ()))
        known["configuration"] = RunConfiguration(**configuration)
        counts = _known(Counts, known.get("counts", {}))
        known["counts"] = Counts(**{**counts, "score_histogram": tuple(counts.get("score_histogram", ()))})
        known["timings"] = RunTimings.from_json(known.get("timings"))
        known["score_histograms"] = {k: tuple(v) for k, v in known.get("score_histograms", {}).items()}
        for name in ("files", "listed_before"):
            known[name] = tuple(known.get(name, ()))
        for name in ("listed_from", "listed_to"):
            if name in known:
                known[name] = ListingPosition(**known[name])
        known["gates"] = tuple(Alarm(**alarm) for alarm in known.get("gates", ()))
        known["shards"] = tuple(InventoryShard(**shard) for shard in values.get("batches", ()))
        if "result" in known:
            result = {"listing_complete": values.get("listing_complete", True)}
            result |= _known(RunResult, known["result"])
            result["timings"] = RunTimings.from_json(result.get("timings"))
            result["gates"] = tuple(Alarm(**alarm) for alarm in result.get("gates", ()))
            known["result"] = RunResult(**result)
        return cls(**known)

    def as_json(self) -> dict[str, Any]:
        """The content of run.json."""
        values = asdict(self)
        values["batches"] = values.pop("shards")
        if self.counts == Counts():
            # Nothing is counted before the parts are merged: zeros would say that there is nothing.
            values["counts"] = {}
        values["result"] = None if self.result is None else self.result.as_json()
        return values

    def matches(self, request: RunRequest) -> bool:
        """Whether the run was started with the options of this request."""
        return self.configuration == request.configuration()

    def request(self) -> RunRequest:
        """The request that this run carries out."""
        asked = dict(vars(self.configuration))
        rules = ListingRules(asked.pop("carry"), asked.pop("allow_prefix"))
        return RunRequest(**asked, model=self.model, run_date=self.run_date, date_is_given=True, rules=rules)


class RunChanges(TypedDict, total=False):
    """The fields of a RunRecord that change while the run goes on."""

    planned_version: int
    listing_complete: bool
    listed_from: ListingPosition | None
    shards_until_end: int | None
    listed_to: ListingPosition | None
    begun_anew: bool
    listed_before: tuple[str, ...]
    any_model: bool
    bundle: str
    engine: str
    precision: str
    batch_size: int
    engine_reason: str | None
    actors_per_gpu: int | None
    actors_per_gpu_reason: str | None
    rates: Mapping[str, Mapping[str, float]]
    rates_origin: str
    nodes: Mapping[str, int]
    superseded: int
    skipped: Mapping[str, int]
    gone: int | None
    gone_digest: str | None
    counts: Counts
    timings: RunTimings | None
    gates: tuple[Alarm, ...]
    drift: float | None
    score_histograms: Mapping[str, tuple[int, ...]]
    accepted: bool
    files: tuple[str, ...]
    version: int | None
    exit_code: int
    result: RunResult
    shards: tuple[InventoryShard, ...]


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are fields of this dataclass."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
