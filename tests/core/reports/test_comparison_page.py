"""What a comparison says: which model is better, or that nobody can tell."""

from support.pages import NASTY, assert_self_contained

from pneumonia_core.evaluation.comparison.compare import COMPARED
from pneumonia_core.reports.comparison_page import comparison_page, verdict


def pair(**differences):
    rows = []
    for name in COMPARED:
        value, low, high = differences.get(name.replace(".", "_"), (0, -0.01, 0.01))
        difference = {"value": value, "low": low, "high": high}
        rows.append({"measure": name, "first": 0.9, "second": 0.9, "difference": difference})
    test = {"question": "three_class", "first_alone_right": 3, "second_alone_right": 4, "p_value": 1.0}
    bootstrap = {"unit": "patient", "level": 0.95, "resamples": 9, "used": 9, "skipped": 0, "seed": 0}
    return {
        "first": "aaaa", "second": "bbbb", "images": 50, "patients": 40, "scored_by_one_alone": 2,
        "bootstrap": bootstrap, "differences": rows, "mcnemar": [test],
    }  # fmt: skip


def test_the_better_model_is_named_with_its_gain_only_where_the_interval_excludes_zero():
    pairs = pair(
        pneumonia_vs_normal_auroc=(0.02, 0.01, 0.03),
        three_class_accuracy=(-0.05, -0.08, -0.02),
        pneumonia_vs_normal_sensitivity=(0.1, 0.05, 0.15),
        bacterial_vs_viral_auroc=(0.2, None, None),
    )
    assert verdict(pairs) == (
        "aaaa is better in accuracy, three classes by 0.050 (0.020 to 0.080); "
        "bbbb is better in AUROC, pneumonia or normal by 0.020 (0.010 to 0.030)."
    )
    assert verdict(pair()) == "These images cannot tell which of aaaa and bbbb is better."


def test_page_needs_nothing_from_outside_and_escapes_names():
    page = comparison_page({"split": "test", "pairs": [pair()]}, "a", {"Data": {"data set": NASTY}})
    outline = assert_self_contained(page)
    assert NASTY not in page
    assert "These images cannot tell which of aaaa and bbbb is better." in outline.texts
    assert "2 more were scored by one of them alone" in page
