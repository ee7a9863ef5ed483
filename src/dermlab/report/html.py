"""The bake-off report: ``bakeoff.json`` in, one self-contained ``report.html`` out; and what every page is made with.

A page loads nothing: styles and pictures are inline, and its content security policy forbids everything but the one
inline script, which opens the folded parts for printing. All text goes through the template engine's escaping.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dermlab import __version__
from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.files import inside, read_json, write_text
from dermlab.report import checklist, parts
from dermlab.report.model_card import CARD_FILE, Lineage, model_card
from dermlab.report.photos import thumbnails
from dermlab.report.view import Json, photo_ids, view

FORMAT = 1
FILTERS = (
    *("score", "span", "span_whole", "points", "tick", "whole", "count", "p_value", "seconds", "duration"),
    *("rate", "plain", "unsigned"),
)


def write_report(folder: str | Path, *, photos: bool = True) -> Path:
    """Write ``report.html``, ``checklist.md`` and the winner's ``MODEL_CARD.md`` into a bake-off folder.

    Args:
        folder: a folder with ``bakeoff.json`` as :func:`dermlab.bench.bakeoff.run_bakeoff` writes it. The winner's
            ``assessment/*.json`` are shown where they are there, and so are ``robustness.json``, ``unseen.json`` and
            ``label_efficiency.json``, in the folder itself or in a folder of that name in it.
        photos: whether thumbnails of the data set are put into the page.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: there is no ``bakeoff.json``, or it is of another format.
    """
    folder = Path(folder)
    record = read_json(folder / "bakeoff.json")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{folder / 'bakeoff.json'}: is not a bake-off of format {FORMAT}; run dermlab bakeoff again")
    pictures = thumbnails(record["data"]["folder"], photo_ids(record)) if photos else {}
    further = read_further(folder, record)
    write_text(folder / "checklist.md", checklist.as_markdown(checklist.fill(record, further), record["title"]))
    run = next((item["run"] for item in record["candidates"] if item["winner"]), None)
    card = model_card(record, further, Lineage.of(inside(folder, run)) if run else None)
    if card is not None and run:
        write_text(inside(folder, run) / CARD_FILE, card)
    return write_text(folder / "report.html", render(record, pictures, further))


def read_further(folder: str | Path, record: Json) -> dict[str, Json]:
    """Return what was measured beyond the leaderboard, by name of :data:`dermlab.report.parts.TITLES`."""
    folder = Path(folder)
    found: dict[str, Json] = {}
    for name in parts.TITLES:
        places = (folder / "assessment", folder, folder / name, folder / name.replace("_", "-"))
        path = next((place / f"{name}.json" for place in places if (place / f"{name}.json").is_file()), None)
        if path is not None:
            found[name] = read_json(path)
    if record.get("leak"):
        found["leak"] = record["leak"]
    return found


def render(record: Json, pictures: Mapping[str, str], further: Mapping[str, Json] | None = None) -> str:
    """Return the page of a bake-off record.

    Args:
        record: the content of ``bakeoff.json``.
        pictures: data URIs by image id; the page has no photos where it is empty.
        further: the winner's assessment and what else was measured, by name; None: nothing.
    """
    return page("report.html", view(record, pictures, further or {}))


def page(template: str, variables: Mapping[str, Any]) -> str:
    """Return a self-contained page: one of the templates that extend ``page.html``.

    Args:
        template: its file name in the folder ``templates``.
        variables: what it shows; ``title`` is needed by all.
    """
    script = source("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    given = {"style": Markup(source("style.css")), "script": Markup(script), "script_hash": digest}
    return draw(template, {**variables, **given, "version": __version__}) + "\n"


def draw(template: str, variables: Mapping[str, Any]) -> str:
    """Return a template filled in, every text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dermlab.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        environment.filters[name] = getattr(words, name)
    environment.filters.update(capitalise=words.capital, short=_short)
    return environment.get_template(template).render(**variables)


def source(name: str) -> str:
    """Return the text of a file in the folder ``templates``."""
    return importlib.resources.files("dermlab.report").joinpath("templates", name).read_text(encoding="utf-8").strip()


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
