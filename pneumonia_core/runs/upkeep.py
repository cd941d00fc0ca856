"""The runs of a results folder, for the commands beside scoring: read, their gone images, their leftovers."""

import contextlib
import datetime
from collections.abc import Iterator

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.runs.record import ENDED, RunRecord
from pneumonia_core.runs.registry import active_runs, committed_runs, delete_unmarked_run, read_runs
from pneumonia_core.runs.run import WORKING_FOLDERS, run_folder
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_folder, exists
from pneumonia_core.storage.location import Location


def existing_runs(results: Location) -> list[RunRecord]:
    """The records of all runs, oldest first.

    Raises InvalidInput where the folder has none, PneumoniaError where they cannot be read.
    """
    with _accessing(results):
        if not exists(results.child("runs")):
            raise InvalidInput(f"{results.uri} has no runs.", Remedy.SCORED_RESULTS)
        return read_runs(results)


def gone_lists(results: Location) -> dict[str, Location]:
    """For each archive the list of its gone images, from its newest run with a complete listing.

    Raises PneumoniaError where the records of the runs cannot be read.
    """
    gone: dict[str, Location] = {}
    with _accessing(results):
        for record in committed_runs(results):
            if not record.listing_complete:
                continue
            for archive in record.configuration.archives:
                gone.setdefault(archive, run_folder(results, record.run_id).child("gone.parquet"))
    return gone


def check_no_run_is_active(results: Location) -> None:
    """Raise PneumoniaError where a run is at work or staged."""
    with _accessing(results):
        if active := active_runs(results):
            raise PneumoniaError(f"run {active[0]} is at work or staged. Run its command to its end first.")


def delete_leftovers(results: Location, age_s: float) -> int:
    """Delete what is older than `age_s` seconds: folders that ended runs left, and runs that died unmarked.

    Returns how many folders were deleted. Raises PneumoniaError where the storage fails.
    """
    folders = 0
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    with _accessing(results):
        for record in read_runs(results):
            if datetime.datetime.fromisoformat(record.updated_at) > oldest:
                continue
            if record.state in ENDED:
                folder = run_folder(results, record.run_id)
                folders += sum(_deleted(folder.child(name)) for name in WORKING_FOLDERS)
            else:
                folders += delete_unmarked_run(results, record.run_id)
    return folders


def _deleted(folder: Location) -> bool:
    found = exists(folder)
    if found:
        delete_folder(folder)
    return found


@contextlib.contextmanager
def _accessing(results: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PneumoniaError(
            f"{results.uri}: the runs could not be read ({error_text(error)}). Fix that and run the same "
            "command again."
        ) from error
