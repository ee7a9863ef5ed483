"""The audit's page: worst first, photos beside the sentences, and no text of a user becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from as_browser import HOSTILE, Page

from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.report.check_page import render, write_check


def finding(code: str, severity: str, **over: Any) -> dict[str, Any]:
    return {
        "code": code,
        "severity": severity,
        "message": f"clinic: {code}.",
        "evidence": {},
        "remedy": f"mend {code}",
        "waived": False,
        "table": None,
        "folders": [],
        **over,
    }


@pytest.fixture
def audited(clinic: Path, tmp_path: Path) -> Path:
    ids = Dataset.open(clinic).image_ids
    pd.DataFrame({"image_id": ids[:2], "copy": ids[2:4], "kind": ["same photo", HOSTILE]}).to_csv(
        tmp_path / "near-duplicates.csv", index=False
    )
    box = {"left": [0.1], "top": [0.8], "width": [0.5], "height": [0.1]}
    pd.DataFrame({"image_id": ids[5:6], "characters": [9], **box}).to_csv(tmp_path / "burnt-in-text.csv", index=False)
    pd.DataFrame({"column": ["age"], "auroc": [0.8]}).to_csv(tmp_path / "columns-tested.csv", index=False)
    entries = [
        finding("near-duplicates", "error", table="near-duplicates.csv", folders=[str(clinic)], message=HOSTILE),
        finding("group-overlap", "error", waived=True),
        finding("burnt-in-text", "warning", table="burnt-in-text.csv", folders=[str(clinic)]),
        finding("columns-tested", "info", table="columns-tested.csv", folders=[str(clinic)]),
    ]
    (tmp_path / "findings.json").write_text(json.dumps(entries))
    return tmp_path


def test_worst_first_with_photos_side_by_side(audited: Path) -> None:
    text = write_check(audited).read_text()
    page = Page(text)
    places = [
        page.words.index(word) for word in ("1 finding stops", "Stops a run", "To judge", "Waived", "Good to know")
    ]
    assert places == sorted(places)
    pictures = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    assert len(pictures) == 5  # two pairs and one photo
    assert all(value.startswith("data:image/jpeg;base64,") for value in pictures)
    assert "left: 10.0%; top: 80.0%" in text
    assert "mend near-duplicates" in page.words
    assert "0.8" in page.words


def test_no_text_becomes_markup_and_nothing_is_loaded(audited: Path) -> None:
    text = write_check(audited).read_text()
    page = Page(text)
    assert "<script>alert" not in text
    assert "alert('x')" in page.words
    for tag, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), (tag, name, value)


def test_without_photos_there_are_none(audited: Path) -> None:
    entries = json.loads((audited / "findings.json").read_text())
    page = Page(render(entries, audited, photos=False))
    assert "img" not in page.tags
    assert "near-duplicates" in page.words


def test_what_is_no_list_of_findings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "findings.json").write_text("{}")
    with pytest.raises(InputError, match="not a list of findings"):
        write_check(tmp_path)


def test_it_says_when_and_on_how_many_photos_and_patients(audited: Path, clinic: Path) -> None:
    write_check(audited, photos=False)
    words = Page((audited / "check.html").read_text(encoding="utf-8")).words
    dataset = Dataset.open(clinic)
    assert f"{dataset.card.name}: {len(dataset):,} photos of {len(set(dataset.groups())):,} patients" in words
    assert re.search(r"made \d{4}-\d{2}-\d{2} \d{2}:\d{2} UTC", words)
