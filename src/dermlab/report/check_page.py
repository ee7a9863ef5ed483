"""The page of an audit: ``findings.json`` and its tables in, one self-contained ``check.html`` out.

Each finding stands with the photos it speaks of (pairs side by side), worst first. Nothing is loaded, all text is
escaped, and thumbnails are made anew from pixels.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dermlab.core import words
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import read_json, write_text
from dermlab.report.html import page
from dermlab.report.photos import thumbnails

MOST_PHOTOS = 24
"""A finding shows so many photos, or pairs, at most; its table has them all."""

MOST_ROWS = 12

SEVERITIES = ("error", "warning", "waived", "info")
_WORDS = {"error": "Stops a run", "warning": "To judge", "waived": "Waived", "info": "Good to know"}
_BOX = ("left", "top", "width", "height")

Json = dict[str, Any]


def write_check(out: str | Path, *, photos: bool = True) -> Path:
    """Write ``check.html`` into the folder of an audit and return its path.

    Args:
        out: a folder with ``findings.json`` as ``dermlab data check --out`` writes it: a list of findings, each with
            ``table`` (the name of its CSV beside it, or null) and ``folders`` (the data sets it speaks of).
        photos: whether thumbnails are put into the page.

    Raises:
        InputError: there is no such ``findings.json``.
    """
    out = Path(out)
    findings = read_json(out / "findings.json")
    if not isinstance(findings, list):
        raise InputError(f"{out / 'findings.json'}: is not a list of findings; run dermlab data check --out again")
    return write_text(out / "check.html", render(findings, out, photos=photos))


def render(findings: Sequence[Json], out: Path, *, photos: bool = True) -> str:
    """Return the page.

    Args:
        findings: the content of ``findings.json``.
        out: the folder that holds the tables.
        photos: whether thumbnails are put into it.
    """
    shown = [_finding(finding, out) for finding in findings]
    pictures: dict[tuple[str, str], str] = {}
    if photos:
        wanted: dict[str, list[str]] = {}
        for finding in shown:
            for figure in finding["figures"]:
                for folder, image_id in figure["photos"]:
                    wanted.setdefault(folder, []).append(image_id)
        for folder, ids in wanted.items():
            pictures |= {(folder, image_id): uri for image_id, uri in thumbnails(folder, ids).items()}
    for finding in shown:
        for figure in finding["figures"]:
            figure["photos"] = [
                {"image_id": image_id, "uri": pictures.get((folder, image_id), "")}
                for folder, image_id in figure["photos"]
            ]
        finding["figures"] = [
            figure for figure in finding["figures"] if any(photo["uri"] for photo in figure["photos"]) or not photos
        ]
    groups = [
        {"severity": severity, "word": _WORDS[severity], "findings": [f for f in shown if f["severity"] == severity]}
        for severity in SEVERITIES
    ]

    folders = list(dict.fromkeys(folder for finding in findings for folder in finding["folders"]))
    errors = sum(finding["severity"] == "error" for finding in shown)
    return page(
        "check.html",
        {
            "title": "What is wrong with the data",
            "folders": folders,
            "held": [told for folder in folders if (told := _held(folder))],
            "made_at": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "errors": errors,
            "groups": [group for group in groups if group["findings"]],
            "has_photos": bool(pictures),
        },
    )


def _held(folder: str) -> str:
    """Say how many photos and patients a data set holds; empty where it cannot be opened any more."""
    from dermlab.data.dataset import Dataset

    try:
        dataset = Dataset.open(folder)
    except DermlabError:
        return ""
    groups = words.groups_word(dataset.group_column())
    of = f" of {words.count(len(set(dataset.groups())))} {groups}" if groups != "photos" else ""
    return f"{dataset.card.name}: {words.count(len(dataset))} photos{of}"


def _finding(finding: Json, out: Path) -> Json:
    """Return what the page shows of a finding: its sentence, its remedy, figures or the first rows of its table."""
    table = pd.read_csv(out / finding["table"], dtype=str, keep_default_na=False) if finding["table"] else None
    folders = finding["folders"] or [""]
    figures: list[Json] = []
    if table is not None and finding["code"] == "contamination" and len(folders) > 1:
        figures = [_figure(row, list(zip(folders, table.columns[:2], strict=True))) for row in _records(table)]
    elif table is not None and {"image_id", "copy"} <= set(table):
        figures = [_figure(row, [(folders[0], "image_id"), (folders[0], "copy")]) for row in _records(table)]
    elif table is not None and "image_id" in table:
        figures = [_figure(row, [(folders[0], "image_id")]) for row in _records(table)]
    return {
        **{key: finding[key] for key in ("code", "message", "remedy")},
        "severity": "waived" if finding["waived"] else finding["severity"],
        "figures": figures,
        "pairs": any(len(figure["photos"]) > 1 for figure in figures),
        "n": 0 if table is None else len(table),
        "file": finding["table"],
        "columns": [] if table is None or figures else list(table.columns),
        "rows": [] if table is None or figures else table.head(MOST_ROWS).to_numpy().tolist(),
    }


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    return [{str(key): value for key, value in row.items()} for row in table.head(MOST_PHOTOS).to_dict("records")]


def _figure(row: dict[str, str], photos: list[tuple[str, str]]) -> Json:
    """Return one photo, or two, with everything else the table says of them as the caption."""
    columns = [column for _, column in photos]
    said = [(key, value) for key, value in row.items() if key not in (*columns, *_BOX) and value != ""]
    box = None
    if set(_BOX) <= set(row):
        box = "; ".join(f"{side}: {100 * float(row[side]):.1f}%" for side in _BOX)
    return {"photos": [(folder, row[column]) for folder, column in photos], "said": said, "box": box}
