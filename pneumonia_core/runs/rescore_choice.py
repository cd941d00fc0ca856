"""What a new model does with images that have rows: chosen once for each model, and remembered."""

import json
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.unfinished import registry_lock
from pneumonia_core.storage.files import exists, read_bytes, write_bytes
from pneumonia_core.storage.location import Location

_RESCORE: Final = ".rescore.json"


def any_model_counts(results: Location, request: RunRequest, view: TableView) -> bool:
    """Whether a row under another model makes an image unchanged: --rescore none, given now or earlier.

    Raises InvalidInput where a new model meets a table with rows and no run has decided it yet.
    """
    choice = request.rescore or remembered_rescore(results).get(request.model_id)
    if choice is None and not view.is_empty and not view.knows_model(request.model_id):
        raise InvalidInput(
            f"the model {request.model_id} is new to {results.uri}, which has rows of another model.",
            Remedy.SAY_RESCORE,
        )
    return choice == "none"


def remember_rescore(results: Location, request: RunRequest) -> None:
    """Keep the request's choice for its model: a user gives it once, and later runs follow it."""
    if not request.rescore:
        return
    # Another command may add the choice for another model at the same time.
    with registry_lock(results):
        known = {**remembered_rescore(results), request.model_id: request.rescore}
        write_bytes(results.child("runs").child(_RESCORE), json.dumps(known).encode())


def remembered_rescore(results: Location) -> dict[str, str]:
    """The choice that was made for each model: `all` or `none`."""
    location = results.child("runs").child(_RESCORE)
    return dict(json.loads(read_bytes(location))) if exists(location) else {}
