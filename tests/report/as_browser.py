"""Reads a page as a browser would: tags that match, addresses, headings, the words a person sees."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

HOSTILE = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Collects tags, attributes, headings and text; notices tags that were not closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "rect", "line", "circle", "polyline", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.heads: list[int] = []  # of each table its number of head cells
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "table":
            self.heads.append(0)
        if tag == "th":
            self.heads[-1] += 1
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        """The text of the page, blanks made one."""
        return re.sub(r"\s+", " ", " ".join(self.text))

    def check_accessible(self) -> None:
        """Hold it to what a screen reader needs: one h1, no level of headings skipped, names on pictures, ids once."""
        levels = [int(tag[1]) for tag in self.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), levels
        assert len(self.ids) == len(set(self.ids))
        named = [
            tag for tag, name, value in self.attributes if name == ("alt" if tag == "img" else "aria-label") and value
        ]
        for tag in ("img", "svg"):
            assert named.count(tag) == self.tags.count(tag)
        assert all(self.heads), "a table without head cells"

    def check_self_contained(self) -> None:
        """Hold it to loading nothing and running nothing but the one script of ours."""
        for tag, name, value in self.attributes:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "data", "poster", "action"):
                assert value.startswith(("data:image/", "#")), (tag, name, value)
                assert not value.startswith("#") or value[1:] in self.ids, value
        assert self.tags.count("script") == 1
        assert not {"link", "iframe", "object", "embed", "form", "base"} & set(self.tags)
