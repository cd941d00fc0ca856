"""What a listing leaves out is told, above all what may hold images."""

from support.pages import RUN, assert_self_contained

from pneumonia_core.archives.skipped import in_words, may_hold_images
from pneumonia_core.reports.run_page import run_page


def test_kind_that_nobody_has_called_harmless_may_hold_images() -> None:
    skipped = {"hidden": 3, "no image": 1, "archive that is cut short": 1, "a kind of tomorrow": 2}
    assert may_hold_images(skipped) == {"archive that is cut short": 1, "a kind of tomorrow": 2}
    assert in_words(skipped) == "3 hidden, 2 a kind of tomorrow, 1 archive that is cut short, 1 no image"


def test_run_page_shows_what_was_skipped_first_what_may_hold_images() -> None:
    skipped = {"hidden": 1200, "archive that is damaged": 2}
    page = run_page({**RUN, "skipped": skipped})
    texts = assert_self_contained(page).texts
    assert "Images may be missing" in page
    assert texts.index("archive that is damaged") < texts.index("hidden") < texts.index("1,200")
    assert "Images may be missing" not in run_page({**RUN, "skipped": {"hidden": 1200}})
    assert "Skipped" not in run_page(RUN)
