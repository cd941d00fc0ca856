"""Which mistakes a page shows, and how."""

import base64
import io

import numpy as np
from PIL import Image
from support.pages import NASTY, assert_self_contained
from support.scores import evaluate

from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL, Thresholds
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.reports.evaluation_page import evaluation_page
from pneumonia_core.reports.explanations import Explanation, Explanations, explanation
from pneumonia_core.reports.mistakes import Mistake, MistakeKind, worst_mistakes

HALVES = Thresholds(0.5, 0.5)


def scored(*rows: tuple[int, float, float]) -> ScoredSet:
    """Images with a label, a probability of pneumonia and, given it, of bacterial."""
    labels, totals, shares = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = np.stack([1 - totals, totals * shares, totals * (1 - shares)], axis=1)
    return ScoredSet.of(labels, np.arange(len(rows)), probabilities)


def test_worst_mistakes_are_the_surest_of_each_kind() -> None:
    images = scored(
        (NORMAL, 0.1, 0.5), (NORMAL, 0.6, 0.5), (NORMAL, 0.9, 0.5),  # right, and two false alarms
        (BACTERIAL, 0.2, 0.9), (VIRAL, 0.01, 0.1), (PNEUMONIA_UNKNOWN_KIND, 0.3, 0.5),  # three missed
        (BACTERIAL, 0.9, 0.1), (VIRAL, 0.9, 0.7), (PNEUMONIA_UNKNOWN_KIND, 0.9, 0.5),  # two kinds, one right
    )  # fmt: skip
    found = worst_mistakes(images, HALVES, 12)
    assert [(each.index, each.kind) for each in found] == [
        (4, MistakeKind.MISSED), (3, MistakeKind.MISSED), (5, MistakeKind.MISSED),
        (2, MistakeKind.FALSE_ALARM), (1, MistakeKind.FALSE_ALARM),
        (6, MistakeKind.WRONG_KIND), (7, MistakeKind.WRONG_KIND),
    ]  # fmt: skip
    assert [round(each.probability, 3) for each in found] == [0.99, 0.8, 0.7, 0.9, 0.6, 0.9, 0.7]
    assert [(each.label, each.found) for each in found[-2:]] == [(BACTERIAL, VIRAL), (VIRAL, BACTERIAL)]
    assert [each.index for each in worst_mistakes(images, HALVES, 4)] == [4, 3, 2, 6]
    assert worst_mistakes(images, HALVES, 0) == []


def missed(number: int) -> Mistake:
    return Mistake(number, MistakeKind.MISSED, BACTERIAL, NORMAL, 0.987)


def pictures(number: int) -> Explanation:
    rng = np.random.default_rng(number)
    film = Image.fromarray(phantom(1, number, 0, (512, 512)))
    activation = rng.random((16, 16)).astype(np.float32)
    return explanation(missed(number), NASTY, np.asarray(film), activation)


def page_of(explanations: Explanations | None) -> str:
    # Of normal images alone: there is no curve to draw, which takes longest.
    probabilities = np.tile(np.float32([0.8, 0.1, 0.1]), (5, 1))
    figures = evaluate(np.full(5, NORMAL), probabilities, np.arange(5), HALVES, bootstrap=10)
    return evaluation_page(figures, "a", explanations=explanations)


def test_page_of_a_dozen_mistakes_is_self_contained_small_and_cautious() -> None:
    page = page_of(Explanations([pictures(number) for number in range(12)], unread=2, cells=16, members=3))
    outline = assert_self_contained(page)
    text = "".join(outline.texts)
    assert outline.tags["img"] == 24
    assert len(page) < 1_000_000
    for said in (
        "labelled bacterial, found normal", "0.987", "2 more could not be read again", "16 × 16 cells",
        "the first of the model’s 3 networks", "no proof", "Not for diagnosis", "pictures of patients",
    ):  # fmt: skip
        assert said in text
    assert "<script>" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_overlay_is_warm_where_the_map_is_high_and_the_picture_elsewhere() -> None:
    pixels = np.full((64, 64), 100, np.uint8)
    activation = np.zeros((4, 4), np.float32)
    activation[0, 3] = 1
    shown = explanation(missed(0), "a.jpeg", pixels, activation)
    overlay, picture = (decoded(uri) for uri in (shown.overlay, shown.picture))
    assert abs(picture[40:, :20].astype(int) - 100).max() <= 2
    assert abs(overlay[40:, :20].astype(int) - 100).max() <= 4
    red, green, blue = overlay[:8, 56:].reshape(-1, 3).mean(0)
    assert red > 170 > 130 > green > blue


def decoded(uri: str | None) -> np.ndarray:
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_page_says_where_nothing_spoke_for_a_finding_and_where_there_is_no_map() -> None:
    pixels = phantom(1, 1, 0, (64, 64))
    empty = explanation(missed(0), "a.jpeg", pixels, np.zeros((2, 2), np.float32))
    assert "No place spoke for it." in page_of(Explanations([empty], cells=2))
    without = page_of(Explanations([explanation(missed(0), "a.jpeg", pixels, None)]))
    assert "there is no map" in without
    assert assert_self_contained(without).tags["img"] == 1
    assert "The worst mistakes" not in page_of(None)
