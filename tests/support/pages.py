"""The record of a run for a page, and the checks of every page."""

import re
from collections import Counter
from html.parser import HTMLParser

NASTY = "/data/<script>alert('x')</script>\x1b[31m\u202egpj.exe & \"more\""
VOID = {"meta", "br", "img", "link", "hr", "input"}
RUN = {
    "run_id": "20240301T020000-000000-abc123",
    "state": "committed",
    "run_date": "2024-03-01",
    "model": NASTY,
    "engine": "openvino",
    "exit_code": 0,
    "gone": 2,
    "configuration": {"archives": [NASTY], "limit": None},
    "versions": {"ray": "2.60.0"},
    "counts": {
        "listed": 1100, "scored": 1000, "rejected": 38, "unchanged": 60, "deferred": 2,
        "bytes_read": 230_000_000, "reject_reasons": {"truncated": 37, "empty": 1},
        "findings": {"normal": 700, "bacterial": 200, "viral": 100},
    },
    "result": {"seconds": 200.0, "images_per_s": 5.2, "table": "file:///results/scores", "version": 3},
}  # fmt: skip


class Outline(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_self_contained(page: str) -> Outline:
    outline = Outline(page)
    assert not outline.tags.keys() & {"script", "link", "iframe", "object", "a", "form"}
    for name, content in outline.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            assert (content or "").startswith(("#", "data:"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "Research use only. Not a medical device." in page
    ids = [content for name, content in outline.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    return outline
