"""The page of one predictions table: ``metrics.json`` in, ``evaluation.html`` and its plots out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_text
from dermlab.report import html, parts, plots, provenance
from dermlab.report.glossary import GLOSSARY

LISTED = (
    *("top1", "top3", "balanced_accuracy", "macro_f1", "weighted_f1", "auroc", "auprc", "kappa", "quadratic_kappa"),
    *("within_one", "mean_absolute_error", "micro_auroc", "micro_f1", "subset_accuracy", "label_accuracy"),
    *("hamming_loss", "ece", "ece_equal_mass", "brier", "log_loss"),
)
PER_CLASS = ("recall", "precision", "f1", "auroc", "auprc")
# Words of a warning that says the figures may be wrong, not only that they are rough.
GRAVE = ("undefined", "single group", "flattered", "seen in training")
Json = dict[str, Any]


def write_evaluation(folder: str | Path) -> tuple[Path, ...]:
    """Write ``evaluation.html``, ``reliability.svg`` and ``confusion_matrix.svg`` into a folder with ``metrics.json``.

    Args:
        folder: a folder that ``dermlab evaluate`` or a run wrote.

    Returns:
        The files written; a plot that there are no numbers for is left out.

    Raises:
        InputError: ``metrics.json`` is missing or no such file.
    """
    folder = Path(folder)
    metrics = read_json(folder / "metrics.json")
    if not isinstance(metrics, dict) or "per_class" not in metrics:
        raise InputError(f"{folder / 'metrics.json'}: is not what dermlab evaluate writes; run it again")
    origin = provenance.shown(folder)
    variables = {**view(metrics, read_parts(folder)), "origin": origin}
    written = [write_text(folder / "evaluation.html", html.page("evaluation.html", variables))]
    style = Markup(html.source("plot.css"))
    shown = {
        "reliability": {"points": plots.reliability_points(metrics.get("reliability") or [], size=300.0)},
        "confusion_matrix": {
            "cells": plots.confusion_cells(metrics.get("confusion_matrix") or []),
            "classes": metrics["classes"],
        },
    }
    for name, variables in shown.items():
        if variables.get("points") or variables.get("cells"):
            drawn = html.draw("plot.svg", {**variables, "figure": name, "style": style}).strip()
            written.append(write_text(folder / f"{name}.svg", drawn + "\n"))
    return tuple(written)


def read_parts(folder: str | Path) -> dict[str, Json]:
    """Return the further analyses that lie in a folder as ``<name>.json``, by name; other files are passed over."""
    found = {name: Path(folder) / f"{name}.json" for name in parts.TITLES}
    return {name: read_json(path) for name, path in found.items() if path.exists()}


def view(metrics: Json, further: Mapping[str, Json]) -> Json:
    """Return the variables of ``evaluation.html``.

    Args:
        metrics: the content of ``metrics.json``.
        further: the other analyses by name, as :func:`dermlab.evaluate.assessment.assess` returns them.
    """
    unit, groups = words.units_word(metrics["unit"]), words.groups_word(metrics["group_by"])
    scaled = provenance.calibrated(metrics.get("calibration"))
    shown = parts.view(further, metrics["warnings"])
    for part in shown:
        if scaled and part["name"] == "calibration" and not part["skipped"]:
            part["sentence"] = (
                f"The {scaled}; what is called before here is the table so calibrated. {part['sentence']}"
            )
    listed = [name for name in LISTED if name != "top3" or len(metrics["classes"]) > parts.ALL_OF_TOP3]
    return {
        "title": f"{metrics.get('model') or 'Predictions'}: {metrics['target']}",
        "target": metrics["target"],
        "split": metrics["split"],
        "sentence": _sentence(metrics, unit, groups),
        "notes": _notes([*([f"the {scaled}"] if scaled else []), *metrics["warnings"]]),
        "tiles": [
            _tile(name, metrics[name])
            for name in words.headline(metrics.get("kind", ""))
            if name != "top3" and _known(metrics.get(name))
        ],
        "how": f"{metrics['interval']['level']:.0%} intervals: {words.intervals_sentence(metrics)}. The "
        "sections further down draw theirs anew, so that before and after, or groups, can be subtracted: the ends of "
        "one figure may differ a little there.",
        "level": f"{metrics['interval']['level']:.0%}",
        "metrics": [
            {
                "label": words.capital(words.metric_words(name)[0]),
                "kind": words.metric_words(name)[2],
                "metric": metrics[name],
            }
            for name in listed
            if _known(metrics.get(name))
        ]
        + [
            {"label": name + of_class(name, metrics), "kind": "number", "metric": found}
            for name, found in metrics.get("further", {}).items()
        ],
        "units_word": unit,
        "recall": [
            {"label": name, "tags": [], "note": f"n = {found['n']:,}", "kind": "candidate", "metric": found["recall"]}
            for name, found in metrics["per_class"].items()
        ],
        "recall_axis": plots.axis([0.0, 1.0]),
        "per_class": {
            "heads": [words.metric_words(name)[1] for name in PER_CLASS],
            "rows": [
                {
                    "name": name,
                    "n": found["n"],
                    "cells": [{"metric": found.get(key), "kind": words.metric_words(key)[2]} for key in PER_CLASS],
                }
                for name, found in metrics["per_class"].items()
            ],
        },
        "labels": parts.labels_table(metrics),
        "classes": metrics["classes"],
        "cells": plots.confusion_cells(metrics.get("confusion_matrix") or []),
        "points": plots.reliability_points(metrics.get("reliability") or []),
        "ece_sentence": _ece(metrics.get("ece") or {}),
        "parts": shown,
        "glossary": GLOSSARY,
    }


def of_class(name: str, metrics: Json) -> str:
    """Return on how many cases a metric of one class rests: `` (n = 44 of 842)``; empty for a metric of all classes."""
    found = metrics["per_class"].get(name.partition(":")[2])
    return f" (n = {found['n']:,} of {metrics['n']:,})" if found else ""


def _sentence(metrics: Json, unit: str, groups: str) -> str:
    """Say in one sentence how good the model is, on how many."""
    held = f" of {words.count(metrics['n_groups'])} {groups}" if metrics["n_groups"] < metrics["n"] else ""
    measured = f"On {words.count(metrics['n'])} {unit}{held}"
    if not _known(metrics["top1"]):
        area, score = metrics["auroc"], metrics["macro_f1"]
        return (
            f"{measured}, each of {len(metrics['classes'])} labels being a question of its own: a case that has a "
            f"label is ranked before one that has not with probability {words.score(area['value'], 'number')} "
            f"({words.span(area, 'number')}; AUROC, the mean over labels), and the mean F1 of the labels is "
            f"{words.score(score['value'], 'number')} ({words.span(score, 'number')})."
        )
    chance = max((found["n"] for found in metrics["per_class"].values()), default=0) / max(metrics["n"], 1)
    commonest = max(metrics["per_class"], key=lambda name: metrics["per_class"][name]["n"])
    top1, balanced = metrics["top1"], metrics["balanced_accuracy"]
    return (
        f"{measured}, its first answer is right in {words.score(top1['value'])} ({words.span(top1)}); always answering "
        f"{commonest} would be right in {words.score(chance)}. With every class counting alike it is "
        f"{words.score(balanced['value'])} ({words.span(balanced)})."
    )


def _notes(warnings: list[str]) -> list[Json]:
    """Return the warnings, the grave ones first."""
    notes = [
        {
            "severity": "error" if any(word in text for word in GRAVE) else "warning",
            "message": words.capital(text) + ".",
        }
        for text in warnings
    ]
    return sorted(notes, key=lambda note: note["severity"])


def _tile(name: str, metric: Json) -> Json:
    label, _, kind = words.metric_words(name)
    note = f"95% interval {words.span(metric, kind)}"
    return {"label": words.capital(label), "value": words.score(metric["value"], kind), "note": note}


def _ece(metric: Json) -> str:
    if not _known(metric):
        return ""
    text = f"Expected calibration error: {words.score(metric['value'], 'number')} ({words.span(metric, 'number')})"
    chance = metric.get("if_calibrated")
    return text + (f"; chance alone would show {chance:.3f} on so many cases." if chance is not None else ".")


def _known(metric: Json | None) -> bool:
    return bool(metric) and metric is not None and metric.get("value") is not None
