"""The lists of gone images: how far back a night looks for them."""

from support.scoring import scoring_request

from pneumonia_core.runs.registry import new_run
from pneumonia_core.runs.run import run_folder
from pneumonia_core.runs.upkeep import gone_lists
from pneumonia_core.storage.files import make_folder, write_bytes
from pneumonia_core.storage.location import open_location


def test_no_record_is_read_that_is_older_than_the_lists_of_the_archives(tmp_path, tiny_bundle):
    """A night costs the same, however many nights there were before."""
    results = open_location(str(tmp_path / "r"))
    for name in ("one", "two"):
        make_folder(open_location(str(tmp_path / name)))
    requests = [scoring_request(tiny_bundle, tmp_path / name) for name in ("one", "two")]
    ended = []
    for version, request in enumerate([requests[0], *requests]):
        with new_run(results, request, version) as run:
            run.finish("committed", gone=1)
            ended.append(run.run_id)
    write_bytes(run_folder(results, ended[0]).child("run.json"), b"not to be read")
    archives = [request.archives[0] for request in requests]
    lists = gone_lists(results, archives)
    assert [lists[archive].uri.split("/")[-2] for archive in archives] == ended[1:]
