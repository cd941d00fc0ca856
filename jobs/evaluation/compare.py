"""Several bundles measured on the same labelled set and compared pair by pair."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.evaluate import Evaluated, measure_bundle, output_folder
from jobs.evaluation.options import EvaluateOptions
from jobs.ray_runtime.session import ray_session
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.comparison.compare import compare
from pneumonia_core.evaluation.comparison.document import Comparisons
from pneumonia_core.reports.comparison_page import comparison_lines, comparison_page
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location


def compare_bundles(models: Sequence[str], options: EvaluateOptions) -> Result:
    """Evaluate each of the bundles as `options` say, in a folder of its own, and compare every pair.

    Raises InvalidInput where two bundles are one model.
    """
    names, folders = _opened(models)
    folder = output_folder(options.output)
    with ray_session(options.address, options.num_cpus):
        evaluated = {
            name: measure_bundle(replace(options, model=bundle, output=str(folder / name)))
            for name, bundle in zip(names, folders, strict=True)
        }
    comparisons: Comparisons = {
        "split": options.split,
        "pairs": [
            compare(evaluated[first].scores, evaluated[second].scores, options.bootstrap)
            for first, second in combinations(names, 2)
        ],
    }
    return _report(comparisons, evaluated, options, folder)


def _opened(models: Sequence[str]) -> tuple[list[str], list[str]]:
    """The id and the folder of each model; all are opened before the first is measured.

    The folder is that of the bundle itself: an alias may point to another one later.
    """
    bundles = [open_bundle(model) for model in models]
    names = [bundle.model_id for bundle in bundles]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidInput(
            f"the model {repeated[0]} is given more than once: it cannot differ from itself. "
            "Name each bundle once."
        )
    return names, [str(bundle.path) for bundle in bundles]


def _report(
    comparisons: Comparisons, evaluated: dict[str, Evaluated], options: EvaluateOptions, folder: Path
) -> Result:
    facts = {"Data": {"data set": options.data, "split": options.split}}
    page = comparison_page(comparisons, f"Models compared on {options.split}", facts)
    document_path, page_path = folder / "comparison.json", folder / "comparison.html"
    document = json.dumps(comparisons, indent=2) + "\n"
    write_bytes(open_location(str(document_path)), document.encode())
    write_bytes(open_location(str(page_path)), page.encode())
    lines = comparison_lines(comparisons)
    for line in lines:
        say(line)
    say(f"the comparison's page: {page_path}")
    return {
        "state": "done",
        "comparison": str(document_path),
        "page": str(page_path),
        "models": {name: one.result for name, one in evaluated.items()},
        "verdicts": lines,
    }
