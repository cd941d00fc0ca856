"""Gates: how they are written, and from which share on they warn or hold."""

import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.gates import DEFAULT_GATES, Drift, Gate, Share, parse_gates, raised_alarms

DEFAULTS = parse_gates([])


def raised(gates, **shares):
    named = {name.replace("_", "-"): Share(*share) for name, share in shares.items()}
    return [(alarm.gate, alarm.action) for alarm in raised_alarms(gates, named)]


def test_gates_are_the_default_ones_where_none_is_given():
    assert DEFAULTS == DEFAULT_GATES
    assert (DEFAULTS["read-rejected"], DEFAULTS["gone"]) == (Gate("hold", 0.05), Gate("hold", 0.1))


def test_given_gates_change_the_default_ones_and_the_last_one_counts():
    gates = parse_gates(["gone=off", "rejected=hold:0.5", "volume=hold", "rejected=hold:0"])
    assert gates == {
        **DEFAULTS, "gone": Gate("off", 0.1), "rejected": Gate("hold", 0), "volume": Gate("hold", 2)
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "gone", "gone=", "gone=stop", "gone=hold:", "gone=hold:5", "gone=hold:-1", "gone=hold:nan",
     "volume=warn:1", "volume=warn:inf", "drift=warn:0", "drift=warn:inf", "gonne=off"],
)  # fmt: skip
def test_gate_that_cannot_be_read_is_wrong_input(text):
    with pytest.raises(InvalidInput, match="NAME is one of rejected, read-rejected, gone"):
        parse_gates([text])


def test_share_above_its_limit_raises_the_alarm_of_its_gate():
    assert raised(DEFAULTS, read_rejected=(50, 1000), gone=(100, 1000), rejected=(200, 1000)) == []
    above = {"read_rejected": (51, 1000), "gone": (101, 1000), "rejected": (201, 1000)}
    assert raised(DEFAULTS, **above, out_of_domain=(300, 1000)) == [
        ("rejected", "warn"), ("read-rejected", "hold"), ("gone", "hold"), ("out-of-domain", "warn")
    ]  # fmt: skip
    assert raised(parse_gates(["gone=off", "read-rejected=off"]), **above) == [("rejected", "warn")]


def test_few_images_raise_no_alarm():
    assert raised(DEFAULTS, read_rejected=(1, 10), gone=(4, 10), rejected=(0, 0)) == []
    assert raised(DEFAULTS, read_rejected=(5, 10), gone=(5, 10)) == [
        ("read-rejected", "hold"), ("gone", "hold")
    ]  # fmt: skip


def test_archive_half_as_big_or_ten_times_as_big_is_reported():
    for listed in (500, 10_000):
        assert raised(DEFAULTS, volume=(listed, 1000)) == [("volume", "warn")]
    for listed in (501, 1999):
        assert raised(DEFAULTS, volume=(listed, 1000)) == []
    assert raised(DEFAULTS, volume=(25, 10)) == []


def test_alarm_says_its_numbers_in_words():
    gates = parse_gates(["gone=hold:0.1"])
    gone, volume = raised_alarms(gates, {"gone": Share(4200, 10_000), "volume": Share(500, 1000)})
    assert gone.text == (
        "4,200 of 10,000 images that the archives had have gone: 42.0% (gate gone: hold above 10.0%)"
    )
    assert volume.text == (
        "500 images are listed, 1,000 were in the run before (gate volume: warn from a factor of 2)"
    )


def test_drift_above_its_limit_counts_where_chance_does_not_explain_it():
    for index, by_chance, images, raises in [
        (0.3, 0.03, 1_000, True),
        (0.2, 0.03, 1_000, False),
        (0.3, 0.6, 50, False),
        (0.8, 0.6, 50, True),
        (9, 2, 4, False),
    ]:
        alarms = raised_alarms(DEFAULTS, {"drift": Drift(index, images, 10_000, by_chance)})
        assert [alarm.gate for alarm in alarms] == ["drift"] * raises
    (alarm,) = raised_alarms(parse_gates(["drift=hold:2"]), {"drift": Drift(2.5, 100, 200, 0.3)})
    assert (alarm.action, alarm.images, alarm.of, alarm.limit) == ("hold", 100, 200, 2)
    assert alarm.text == (
        "the scores of 100 images are distributed unlike those of 200 images in the runs before: population "
        "stability index 2.50 (gate drift: hold above 2)"
    )
