"""The choice of --rescore for each model, made by several commands at once."""

import json
import threading

from support.scoring import scoring_request

from pneumonia_core.runs.rescore_choice import remember_rescore, remembered_rescore
from pneumonia_core.runs.unfinished import registry_lock
from pneumonia_core.storage.files import read_bytes, write_bytes
from pneumonia_core.storage.location import open_location


def test_choices_for_two_models_at_once_are_both_remembered(tmp_path, tiny_bundle):
    results = open_location(str(tmp_path))
    one, two = (
        scoring_request(tiny_bundle, tmp_path, model_id=model, rescore=choice)
        for model, choice in (("1" * 16, "all"), ("2" * 16, "none"))
    )
    remember_rescore(results, one)
    choices = results.child("runs").child(".rescore.json")
    with registry_lock(results):
        # Another command has read the choices and is about to write them.
        read = json.loads(read_bytes(choices))
        second = threading.Thread(target=remember_rescore, args=(results, two))
        second.start()
        second.join(0.3)
        write_bytes(choices, json.dumps({**read, "3" * 16: "all"}).encode())
    second.join()
    assert remembered_rescore(results) == {"1" * 16: "all", "2" * 16: "none", "3" * 16: "all"}
