"""Pages hold the figures they are given, escape the texts they are given, and need nothing from outside."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from support.pages import NASTY, RUN, assert_self_contained
from support.paths import REPOSITORY
from support.scores import evaluate, subgroups

from pneumonia_core.calibration import Calibration
from pneumonia_core.datasets.kermany import DATA_SETS, known_data_set
from pneumonia_core.evaluation.groups.gaps import gaps
from pneumonia_core.evaluation.groups.patients import heaviest_patients
from pneumonia_core.evaluation.perturbations import PERTURBATIONS
from pneumonia_core.evaluation.robustness import PerturbedScores, robustness
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.evaluation.selective.risk_coverage import risk_coverage
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL, Thresholds
from pneumonia_core.reports.checklist import reporting_items
from pneumonia_core.reports.evaluation_page import evaluation_page
from pneumonia_core.reports.model_card import model_card
from pneumonia_core.reports.render import duration, interval, megabytes, shown, signed, value
from pneumonia_core.reports.run_page import run_page


def evaluation(present: tuple[int, ...] = (NORMAL, BACTERIAL, VIRAL), **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.choice(present, 150)
    logits = rng.normal(0, 1.2, (150, 3))
    logits[np.arange(150), np.minimum(labels, VIRAL)] += 2
    powers = np.exp(logits)
    probabilities = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    options = {"bootstrap": 60, **options}
    return evaluate(labels, probabilities, np.arange(150) // 2, Thresholds(0.5, 0.5), **options)


def test_evaluation_page_needs_nothing_from_outside_and_shows_every_measure() -> None:
    figures = evaluation()
    page = evaluation_page(figures, "resnet18-0123 on test", {"Model": {"network": "resnet18"}})
    outline = assert_self_contained(page)
    assert outline.tags["svg"] == 4
    for task in figures["tasks"].values():
        for name in (
            "auroc",
            "auprc",
            "accuracy",
            "sensitivity",
            "specificity",
            "sensitivity_at_specificity_95",
        ):
            assert value(task[name]) in outline.texts
            assert interval(task[name]) in outline.texts
        for name in ("slope", "intercept", "ece", "brier"):
            assert value(task["calibration"][name]) in outline.texts
    for row in figures["three_class"]["confusion"]:
        for number in row:
            assert str(number) in outline.texts
    for row in figures["predictive_values"]:
        assert value(row["ppv"]) in outline.texts


def whole_evaluation(**options: Any) -> dict[str, Any]:
    """With the tables that `pneumonia evaluate` adds."""
    rng = np.random.default_rng(1)
    scores = rng.dirichlet([1, 1, 1], (40, 1 + len(PERTURBATIONS))).astype(np.float32)
    labels, patients = np.arange(40) % 3, np.arange(40)
    groups = {NASTY: ["L"] * 18 + [NASTY] * 22}
    scored = ScoredSet.of(labels, patients, scores[:, 0])
    return {
        **evaluation(**options),
        "heaviest_patients": heaviest_patients(scored, [f"{NASTY}{number}" for number in range(40)]),
        "subgroup_gaps": gaps(scored, Thresholds(0.5, 0.5), groups, bootstrap=20),
        "risk_coverage": risk_coverage(scored, Thresholds(0.5, 0.5), bootstrap=20),
        "subgroups": subgroups(labels, scores[:, 0], patients, Thresholds(0.5, 0.5), groups, bootstrap=20),
        "robustness": robustness(
            PerturbedScores(labels, patients, scores, PERTURBATIONS, {True: 1.2, False: 1.5}),
            Thresholds(0.5, 0.5),
            bootstrap=20,
        ),
    }


def test_evaluation_page_shows_groups_and_what_moves_the_scores() -> None:
    figures = whole_evaluation()
    page = evaluation_page(figures, "a")
    texts = assert_self_contained(page).texts
    assert "\x1b" not in page
    for row in figures["subgroups"]:
        for name in ("auroc", "sensitivity", "specificity", "bacterial_viral_auroc"):
            assert value(row[name]) in texts
            assert interval(row[name]) in texts
    assert len(figures["heaviest_patients"]) == 2
    for row in figures["heaviest_patients"]:
        assert f"it is {signed(row['auroc_without'])} instead of {signed(row['auroc'])}" in "".join(texts)
    assert figures["subgroup_gaps"]
    for row in figures["subgroup_gaps"]:
        assert value(row["gap"]) in texts
        assert interval(row["gap"]) in texts
    assert value(figures["risk_coverage"]["aurc"], 4) in "".join(texts)
    for row in figures["robustness"]["rows"]:
        assert row["label"] in texts
        assert value(row["auroc_change"]) in texts
        assert signed(row["p99_change"]) in texts
        assert signed(row["bacterial_viral"]["p99_change"]) in texts
        for change in (row["bacterial_viral"]["auroc_change"], row["three_class_accuracy_change"]):
            assert value(change) in texts
            assert interval(change) in texts
    assert "1.20 times its height for normal, 1.50 for pneumonia" in "".join(texts)
    assert "What moves the scores" not in evaluation_page(evaluation(), "a")


def test_evaluation_page_is_the_same_for_the_same_figures() -> None:
    figures = evaluation()
    assert evaluation_page(figures, "a") == evaluation_page(figures, "a")


@pytest.mark.parametrize(
    ("present", "figures"), [((NORMAL,), 1), ((BACTERIAL, VIRAL), 2), ((NORMAL, VIRAL), 3), ((BACTERIAL,), 1)]
)
def test_evaluation_page_without_a_class_says_what_is_undefined(
    present: tuple[int, ...], figures: int
) -> None:
    outline = assert_self_contained(evaluation_page(evaluation(present), "a"))
    assert outline.tags["svg"] == figures
    assert "–" in outline.texts
    assert "nan" not in "".join(outline.texts).lower()


def test_evaluation_page_says_where_the_kind_of_pneumonia_is_unknown() -> None:
    page = evaluation_page(evaluation((NORMAL, PNEUMONIA_UNKNOWN_KIND)), "a")
    unknown = evaluation((NORMAL, PNEUMONIA_UNKNOWN_KIND))["images_by_class"]["pneumonia_unknown_kind"]
    assert f"{unknown} with pneumonia whose kind is unknown." in page
    assert "pneumonia whose kind" not in evaluation_page(evaluation(), "a")


def test_evaluation_page_says_which_prevalence_is_assumed() -> None:
    page = evaluation_page(evaluation(prevalence=0.1), "a")
    assert "prevalence of 10.0 %" in page
    assert "prevalence of" not in evaluation_page(evaluation(), "a")


def test_evaluation_page_without_bootstrap_has_no_intervals() -> None:
    assert "No intervals were computed." in evaluation_page(evaluation(bootstrap=0), "a")


def test_names_on_pages_are_escaped_for_html_and_for_the_eye() -> None:
    for page in (evaluation_page(evaluation(), NASTY, {NASTY: {NASTY: NASTY}}), run_page(RUN)):
        assert_self_contained(page)
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert "\\u202egpj.exe" in page


def test_run_page_accounts_for_every_image() -> None:
    outline = assert_self_contained(run_page(RUN))
    text = "".join(outline.texts)
    for number in ("1,100", "1,000", "38", "60", "70.0 %", "3 min 20 s", "230.0 MB", "5.2"):
        assert number in text
    assert text.index("truncated") < text.index("empty")  # the most frequent reason first
    assert "the sum of the above" in text


def test_run_page_shows_what_the_workers_did_and_what_limits_the_run() -> None:
    stages = {"read": 1.0, "decode": 90.0, "infer": 9.0, "idle": 0.0}
    timings = {
        "actors": 4,
        "stages": stages,
        "tasks": {"decode": 0.0},
        "steps": {"connect": 3.5},
        "limit": "decoding",
        "why": f"slow {NASTY}",
    }
    text = "".join(assert_self_contained(run_page({**RUN, "timings": timings})).texts)
    for part in ("1 min 30 s", "90 %", "22.5 s", "step: connect", "3.5 s", "Limited by decoding: slow"):
        assert part in text
    assert "idle" not in text


def test_run_page_says_what_the_run_computed_with_and_why() -> None:
    reason = f"openvino computes in float32: 60.0 images/s {NASTY}"
    text = "".join(assert_self_contained(run_page({**RUN, "engine_reason": reason})).texts)
    assert "why these" in text
    assert "openvino computes in float32: 60.0 images/s" in text
    assert "why these" not in run_page(RUN)
    shared = run_page({**RUN, "actors_per_gpu": 2, "actors_per_gpu_reason": f"2 actors: measured {NASTY}"})
    assert "2 actors: measured" in "".join(assert_self_contained(shared).texts)
    assert "actors on each GPU" not in run_page(RUN)


def test_run_page_shows_how_the_scores_are_distributed_beside_those_before() -> None:
    def text_of(now: list[int], before: list[int]) -> str:
        counts = {**RUN["counts"], "score_histogram": now}
        page = run_page({**RUN, "counts": counts, "score_histograms": {"before": before, "validation": []}})
        return " ".join(" ".join(assert_self_contained(page).texts).split())

    now, before = [600, *[0] * 8, 200], [500, *[0] * 8, 500]
    text = text_of(now, before)
    assert "0.9 to 1.0 25.0 % 50.0 %" in text
    assert "against the runs before: 0.27. Above 0.25 the scores are distributed differently" in text
    assert "pneumonia recalibrate" not in text
    assert "Up to 0.25 is usually let pass" in text_of([480, *[0] * 8, 320], before)
    assert "by chance, so this says nothing of a change" in text_of([6, *[0] * 8, 2], before)
    assert "stability index" not in text_of(now, [])
    assert "Probability of pneumonia" not in run_page(RUN)


def test_run_page_of_a_run_that_has_only_begun_can_be_drawn() -> None:
    begun = {"run_id": "r", "state": "listing", "run_date": "2024-03-01", "result": {"seconds": 1.0}}
    text = "".join(assert_self_contained(run_page(begun)).texts)
    assert "nothing is committed yet" in text
    assert "No image was scored." in text


def test_page_of_a_held_run_says_why_and_that_of_an_accepted_one_that_it_was_held() -> None:
    alarm = {"gate": "gone", "action": "hold", "text": f"4 of 9 images have gone {NASTY}"}
    held = "".join(assert_self_contained(run_page({**RUN, "state": "held", "gates": [alarm]})).texts)
    assert "nothing is committed" in held
    assert "4 of 9 images have gone" in held
    accepted = run_page({**RUN, "gates": [alarm], "accepted": True})
    assert "was held, and then accepted" in accepted


MITCHELL_HEADINGS = [
    "Model Details", "Intended Use", "Factors", "Metrics", "Evaluation Data", "Training Data",
    "Quantitative Analyses", "Ethical Considerations", "Caveats and Recommendations",
]  # fmt: skip


def test_model_card_has_the_headings_of_mitchell_et_al() -> None:
    figures = evaluation()
    card = model_card({"network": "resnet18", "image_size": 64}, figures)
    assert re.findall(r"^## (.+)$", card, re.MULTILINE) == MITCHELL_HEADINGS
    assert "Research use only. Not a medical device." in card
    auroc = figures["tasks"]["pneumonia_vs_normal"]["auroc"]
    assert f"| AUROC | {value(auroc)} | {interval(auroc)} |" in card
    for line in card.splitlines():  # a table row has as many cells as its head
        assert not line.startswith("| AU") or line.count("|") == 4


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_model_card_says_where_each_reporting_item_is(data_set: str) -> None:
    items = reporting_items(data_set)
    card = model_card({"network": "resnet18", "image_size": 64, "data_set": data_set}, evaluation())
    for row in items:
        assert f"| {row['item']} | {row['tripod']} | {row['claim']} | {row['where']} |" in card
        reason = row["where"].removeprefix("not applicable")
        assert reason == row["where"] or len(reason) > 4
    numbers = {int(n) for row in items for n in re.findall(r"\d+", row["tripod"])}
    ranges = {
        n
        for row in items
        for a, b in re.findall(r"(\d+)\D*–(\d+)", row["tripod"])
        for n in range(int(a), int(b) + 1)
    }
    assert numbers | ranges == set(range(1, 28))  # every item of TRIPOD+AI


def test_model_card_states_origin_and_licence_of_the_data() -> None:
    facts = {"network": "resnet18", "image_size": 64}
    kermany = model_card({**facts, "data_set": "kermany"}, evaluation())
    assert "CC BY 4.0" in kermany
    assert "rscbjbr9sj" in kermany
    synthetic = model_card({**facts, "data_set": "synthetic"}, evaluation())
    assert "CC BY" not in synthetic
    assert "Do not score X-rays of patients with it." in synthetic
    assert "theirs to state" in model_card(facts, evaluation())


def test_model_card_says_that_labels_of_the_kind_are_not_all_true() -> None:
    maps = Calibration(1.5, 0.25, 0.75, -0.5)
    facts = {"network": "resnet18", "image_size": 64, "calibration": maps}
    assert "takes 12 % of the viral pneumonias for labelled bacterial and 2 %" in model_card(
        {**facts, "data_set": "kermany"}, evaluation()
    )
    assert "for labelled bacterial" not in model_card({**facts, "data_set": "other"}, evaluation())


def test_model_card_says_where_figures_are_of_the_images_chosen_on() -> None:
    facts = {"network": "resnet18", "image_size": 64}
    validation = {**facts, "evaluated_on": "validation patients"}
    figures = evaluation()
    card = model_card(validation, figures)
    assert "their figures are optimistic" in card
    assert "All figures below are of the images that the model was chosen on" in card
    assert "0.981 on the 624 images" not in card
    kermany = model_card({**validation, "data_set": "kermany"}, figures)
    assert "0.981 on the 624 images" in kermany
    # Of what was measured elsewhere the reader sees where, with intervals.
    assert "| 0.992 (0.980–0.999) | 0.967 (0.948–0.982) |" in kermany
    assert "321 images" not in card
    assert "optimistic" not in model_card({**facts, "evaluated_on": "the test split"}, figures)


def test_model_card_begins_with_what_the_hugging_face_hub_reads() -> None:
    figures = evaluation()
    facts = {"network": "resnet18", "image_size": 64, "model_id": "00ff", "data_set": "kermany"}
    card = model_card({**facts, "evaluated_on": f"validation of {NASTY!r}: # 'x'"}, figures)
    empty, front, body = card.split("---\n", 2)
    assert empty == ""
    assert body.startswith("# Model card: resnet18 00ff")
    found = yaml.safe_load(front)
    assert (found["library_name"], found["pipeline_tag"]) == ("keras", "image-classification")
    assert "license" not in found
    (model,) = found["model-index"]
    assert model["name"] == "resnet18-00ff"
    (result,) = model["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["type"] == "kermany-chest-x-rays"
    assert result["dataset"]["name"] == f"validation of {NASTY!r}: # 'x' (chosen on these, so optimistic)"
    metrics = {metric["name"].partition(" (")[0]: metric for metric in result["metrics"]}
    pneumonia, kind = figures["tasks"]["pneumonia_vs_normal"], figures["tasks"]["bacterial_vs_viral"]
    assert len(metrics) == 9
    assert metrics["AUROC, pneumonia or normal"]["value"] == round(pneumonia["auroc"]["value"], 4)
    assert metrics["AUROC, pneumonia or normal"]["type"] == "roc_auc"
    assert metrics["specificity, bacterial or viral"]["value"] == round(kind["specificity"]["value"], 4)
    low = f"{figures['three_class']['accuracy']['low']:.3f}"
    assert f"(95 % interval {low} to" in metrics["accuracy, three classes"]["name"]


def test_metadata_leave_out_what_is_undefined() -> None:
    card = model_card({"network": "resnet18", "image_size": 64}, evaluation((NORMAL,)))
    front = yaml.safe_load(card.split("---\n", 2)[1])
    names = [metric["name"].partition(",")[0] for metric in front["model-index"][0]["results"][0]["metrics"]]
    assert names == ["accuracy", "specificity", "accuracy"]


@pytest.mark.parametrize(
    ("split", "said"),
    [("train", "say nothing about others"), ("validation", "figures are too good"), ("test", None)],
)
def test_evaluation_page_warns_of_images_that_training_knows(split: str, said: str | None) -> None:
    page = evaluation_page({**evaluation(), "split": split}, "a")
    assert page.count("A model that was trained on this data set") == (said is not None)
    assert said is None or said in page


@pytest.mark.parametrize(
    ("rejected", "said"),
    [({}, None), ({"empty": 1}, " 1 more could not be scored and is in no figure"),
     ({"empty": 1, "truncated": 2}, " 3 more could not be scored and are in no figure")],
)  # fmt: skip
def test_evaluation_page_says_how_many_images_are_in_no_figure(
    rejected: dict[str, int], said: str | None
) -> None:
    page = evaluation_page({**evaluation(), "rejected": rejected}, "a")
    assert ("could not be scored" in page) == (said is not None)
    assert said is None or said in page


def test_figure_of_predictive_values_marks_the_prevalence_that_the_page_names() -> None:
    assert "above: 0.5 %" in evaluation_page(evaluation(prevalence=0.005), "a")
    assert "above: 62.5 %" in evaluation_page(evaluation(prevalence=0.625), "a")


def test_model_card_lists_the_training_facts_escaped() -> None:
    facts = {
        "network": "resnet18", "image_size": 64, "model_id": "a_b", "version": "0.1.0", "weights": "imagenet",
        "calibration": Calibration(1.25, -0.5, 0.75, 0.125), "members": 3, "mirror": True,
        "data_fingerprint": "ff00",
        "training": {"images_per_s": 31.5, "data": "<b>|*x*"},
    }  # fmt: skip
    card = model_card(facts, evaluation())
    assert "- images per s: 31.5" in card
    assert r"\<b\>\|\*x\*" in card
    assert "multiplied by 1.250 and then moved by -0.500" in card
    assert "by 0.750 and 0.125" in card
    assert "the log-odds of 3 networks" in card
    assert "of its mirror image" in card
    assert r"a\_b" in card
    assert "ff00" in card


def test_page_and_card_tell_the_coverage_and_the_size_of_findings_sets() -> None:
    share = {"value": 0.875, "low": 0.8, "high": 0.925}
    figures = evaluation()
    assert "Findings sets" not in evaluation_page(figures, "a")
    figures["findings_sets"] = {
        "coverage": 0.9,
        "covered": dict.fromkeys(("normal", "bacterial", "viral"), share),
        "mean_size": {"value": 1.375, "low": 1.25, "high": 1.5},
        "images_by_size": [100, 41, 9],
    }
    page, card = (
        evaluation_page(figures, "a"),
        model_card({"network": "resnet18", "image_size": 64}, figures),
    )
    assert "90 % of the images of each class" in page
    assert "90 % of the images of each class" in card
    assert "0.800–0.925" in page
    assert "100 sets have one, 41 two, 9 all three" in page
    assert "has 1.375 findings on average" in page
    assert "has 1.375 findings on average" in card


def test_model_card_says_how_classes_are_weighted_and_images_prepared() -> None:
    facts = {"network": "resnet18", "image_size": 64, "class_weights": {"normal": 1.29, "bacterial": 0.7}}
    card = model_card(facts, evaluation())
    assert "the fewer images it is true of: normal 1.290, bacterial 0.700." in card
    assert "the fewer images it is true of. " in model_card({"network": "a", "image_size": 64}, evaluation())
    assert re.search(r"stretched to a square of 64 pixels .*JPEG of quality 75", card)
    (imbalance,) = [row for row in reporting_items("other") if row["tripod"] == "13"]
    assert "Training Data" in imbalance["where"]


def test_kermany_data_is_known_by_its_file_names() -> None:
    assert known_data_set(["d/train/NORMAL/IM-0115-0001.jpeg", "d/NORMAL2-IM-0927-0001.jpeg"]) == "kermany"
    assert known_data_set(["d/NORMAL2-IM-0927-0001.jpeg", "d/adult_1.png"]) == "other"


def test_numbers_are_written_for_people() -> None:
    assert value({"value": -0.0271, "low": None, "high": None}) == "−0.027"
    assert interval({"value": 0.0, "low": -0.35, "high": 0.2}, 2) == "−0.35 to 0.20"
    assert [duration(s) for s in (4.2, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 05 min"]
    assert [megabytes(s) for s in (900, 2_500_000, 7.2e9)] == ["1 kB", "2.5 MB", "7.2 GB"]
    assert shown({"a": True, "b": [1, None]}) == "a yes, b 1, –"


def test_a_commit_draws_its_page_without_matplotlib() -> None:
    """It takes half a second to import, and no figure is on the page of a run."""
    code = "import sys; import pneumonia_core.reports.run_page; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
