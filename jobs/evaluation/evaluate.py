"""Measure a bundle on a labelled set: the scoring pipeline scores its images like any archive's."""

from dataclasses import dataclass
from pathlib import Path

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.explained_mistakes import explain_mistakes
from jobs.evaluation.factors import find_factors
from jobs.evaluation.labelled_scores import request_scores, score_labelled
from jobs.evaluation.options import EvaluateOptions
from jobs.evaluation.perturbed_scores import measure_robustness
from jobs.evaluation.seen_images import find_seen_images
from jobs.ray_runtime.session import ray_errors_explained, ray_session
from jobs.scoring.context import ExecutionOptions
from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.datasets.labelled import images_of_split
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.comparison.compare import ModelScores
from pneumonia_core.evaluation.document import Evaluation, as_text, headline, prevalence_evaluated
from pneumonia_core.evaluation.groups.patients import heaviest_patients
from pneumonia_core.evaluation.table_scores import evaluate_table, read_scores
from pneumonia_core.reports.evaluation_page import evaluation_page, page_facts
from pneumonia_core.reports.evaluation_text import evaluation_lines
from pneumonia_core.reports.explanations import Explanations
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location


def evaluate_bundle(options: EvaluateOptions) -> Result:
    """Measure as the command does, in the Ray session that is open or in one of its own."""
    return measure_bundle(options).result


@dataclass(frozen=True)
class Evaluated:
    """The scores that a bundle gave the images, and the command's result."""

    scores: ModelScores
    result: Result


def measure_bundle(options: EvaluateOptions) -> Evaluated:
    """As `evaluate_bundle`, with the scores."""
    images = images_of_split(options.data, options.split)
    folder = output_folder(options.output)
    factors = find_factors(options.by, options.data, images)
    bundle = open_bundle(options.model)
    request = request_scores(images, folder, options, bundle, factors.carried)
    execution = ExecutionOptions(address=options.address, num_cpus=options.num_cpus)
    with ray_session(options.address, options.num_cpus):
        rows = score_labelled(images, request, bundle, folder, execution)
        labels, patients = [image.label for image in images], [image.patient_id for image in images]
        scores = read_scores(labels, patients, rows)
        with ray_errors_explained():
            robustness = measure_robustness(images, scores, bundle, options)
            explanations = explain_mistakes(images, scores, bundle, options.explanations)
    evaluation = evaluate_table(
        scores,
        bundle.thresholds,
        bundle.domain,
        by=factors.values(rows),
        conformal=bundle.spec.conformal,
        prevalence=options.prevalence,
        calibrated_at=prevalence_evaluated(bundle.path / "evaluation.json"),
        bootstrap=options.bootstrap,
    )
    evaluation["model_id"] = bundle.model_id
    evaluation["split"] = options.split
    evaluation["robustness"] = robustness
    names = [images[position].uri for position in scores.positions]
    evaluation["heaviest_patients"] = heaviest_patients(scores.scored, names)
    evaluation["seen_images"] = find_seen_images(rows, bundle)
    result = _report(evaluation, bundle, options.data, explanations, folder)
    return Evaluated(ModelScores(bundle.model_id, bundle.thresholds, scores), result)


def output_folder(output: str) -> Path:
    """The folder, made where it is missing. Raises InvalidInput where it is not on this machine."""
    if "://" in output:
        raise InvalidInput(f"--output {output}: give a folder on this machine, or one that is mounted here.")
    folder = Path(output).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot create this folder ({error.strerror}).") from error
    return folder


def _report(
    evaluation: Evaluation, bundle: Bundle, data: str, explanations: Explanations | None, folder: Path
) -> Result:
    facts = page_facts(evaluation, data, bundle.spec.network, bundle.image_size)
    title = f"Evaluation on {evaluation['split']}"
    page = evaluation_page(evaluation, title, facts, explanations)
    document_path, page_path = folder / "evaluation.json", folder / "evaluation.html"
    # The page is drawn before the first of the two is written, so that they are of one evaluation.
    write_bytes(open_location(str(document_path)), as_text(evaluation).encode())
    write_bytes(open_location(str(page_path)), page.encode())
    for line in evaluation_lines(evaluation):
        say(line)
    say(f"the evaluation's page: {page_path}")
    return {
        "state": "done",
        "evaluation": str(document_path),
        "page": str(page_path),
        **headline(evaluation),
    }
