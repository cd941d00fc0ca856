"""What a listing leaves out is reported, above all what may hide images."""

import pytest
from support.pages import RUN, assert_self_contained

from pneumonia_core.archives.skipped import SkipReason, describe_skipped, may_hide_images
from pneumonia_core.reports.run_page import run_page


def test_code_that_this_version_does_not_know_may_hide_images() -> None:
    skipped = {"hidden": 3, "no_image": 1, "truncated_archive": 1, "code_of_tomorrow": 2}
    assert may_hide_images(skipped) == {"truncated_archive": 1, "code_of_tomorrow": 2}
    assert (
        describe_skipped(skipped) == "3 hidden, 2 code_of_tomorrow, 1 no image, 1 archive that is cut short"
    )


@pytest.mark.parametrize("reason", SkipReason)
def test_run_json_from_before_there_were_codes_is_read_as_one_with_codes(reason: SkipReason) -> None:
    hides = reason.may_hide_images
    assert bool(may_hide_images({reason.text: 1})) == bool(may_hide_images({reason: 1})) == hides
    assert describe_skipped({reason.text: 1}) == describe_skipped({reason.value: 1}) == f"1 {reason.text}"


@pytest.mark.parametrize("damaged", ["damaged_archive", "archive that is damaged"])
def test_run_page_shows_what_was_skipped_first_what_may_hide_images(damaged: str) -> None:
    skipped = {"hidden": 1200, damaged: 2}
    page = run_page({**RUN, "skipped": skipped})
    texts = assert_self_contained(page).texts
    assert "Images may be missing" in page
    assert texts.index("archive that is damaged") < texts.index("hidden") < texts.index("1,200")
    assert "Images may be missing" not in run_page({**RUN, "skipped": {"hidden": 1200}})
    assert "Skipped" not in run_page(RUN)
