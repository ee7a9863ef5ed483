"""How numbers are written for people: percent and points, intervals, durations, and the words for metrics and groups.

The command line, the bake-off's decision and the report all write them this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Metric → (its name in a sentence, its name in a table's head, how it is written).
METRICS: dict[str, tuple[str, str, str]] = {
    "top1": ("top-1 accuracy", "Top-1", "share"),
    "top3": ("top-3 accuracy", "Top-3", "share"),
    "balanced_accuracy": ("balanced accuracy", "Balanced", "share"),
    "macro_f1": ("macro-F1", "Macro-F1", "number"),
    "auroc": ("AUROC", "AUROC", "number"),
    "ece": ("calibration error (ECE)", "ECE", "number"),
    "ece_equal_mass": ("calibration error, bins of equal mass", "ECE, equal mass", "number"),
    "weighted_f1": ("weighted F1", "Weighted F1", "number"),
    "f1": ("F1", "F1", "number"),
    "kappa": ("Cohen's kappa", "Kappa", "number"),
    "quadratic_kappa": ("quadratic kappa", "Quadratic kappa", "number"),
    "mean_absolute_error": ("mean absolute error, in classes", "Mean error", "number"),
    "within_one": ("accuracy within one class", "Within one", "share"),
    "auprc": ("AUPRC", "AUPRC", "number"),
    "micro_auroc": ("micro AUROC", "Micro AUROC", "number"),
    "micro_f1": ("micro F1", "Micro F1", "number"),
    "subset_accuracy": ("share with every label right", "All labels right", "share"),
    "hamming_loss": ("share of wrong labels", "Wrong labels", "share"),
    "label_accuracy": ("mean accuracy of the labels", "Label accuracy", "share"),
    "brier": ("Brier score", "Brier", "number"),
    "log_loss": ("log loss", "Log loss", "number"),
    "recall": ("recall", "Recall", "share"),
    "precision": ("precision", "Precision", "share"),
    "specificity": ("specificity", "Specificity", "share"),
    "npv": ("negative predictive value", "NPV", "share"),
}

HEADLINES: dict[str, tuple[str, ...]] = {
    "multilabel": ("auroc", "auprc", "macro_f1", "micro_f1", "label_accuracy", "ece"),
    "ordinal": ("top1", "within_one", "balanced_accuracy", "quadratic_kappa", "auroc", "ece"),
}

_PLURALS = {"patient_id": "patients", "lesion_id": "lesions", "image_id": "photos", "site": "sites"}
_UNITS = {"image": ("photo", "photos"), "lesion": ("lesion", "lesions"), "patient": ("patient", "patients")}


def metric_words(metric: str) -> tuple[str, str, str]:
    """Return a metric's name in a sentence, its short name and its kind; an unknown one is named as it stands.

    ``recall:MEL`` is the recall of MEL.
    """
    if metric in METRICS:
        return METRICS[metric]
    base, _, of_class = metric.partition(":")
    if of_class and base in METRICS:
        label, short, kind = METRICS[base]
        return f"{label} of {of_class}", f"{short} {of_class}", kind
    return metric.replace("_", " "), metric, "number"


def headline(kind: str) -> tuple[str, ...]:
    """Return the six metrics that say most of a kind of target, in the order in which they are shown."""
    return HEADLINES.get(kind, ("top1", "top3", "balanced_accuracy", "macro_f1", "auroc", "ece"))


def intervals_sentence(metrics: Mapping[str, Any]) -> str:
    """Say how the intervals of a ``metrics.json`` were made."""
    interval = metrics["interval"]
    kind = "BCa" if interval["method"] == "bca" else interval["method"]
    text = f"bootstrap over {groups_word(metrics['group_by'])} ({interval['n_boot']:,} replicates, {kind})"
    if interval["wilson"]:
        text += f"; Wilson for {', '.join(metric_words(name)[0] for name in interval['wilson'])}"
    return text


def groups_word(column: str | None) -> str:
    """Return the plural for the groups of a column: ``patients`` for ``patient_id``."""
    if not column:
        return "photos"
    return _PLURALS.get(column, f"groups ({column})")


def units_word(unit: str, n: int | None = None) -> str:
    """Return ``photos``, ``lesions`` or ``patients``, in the singular for one."""
    one, many = _UNITS.get(unit, (unit, f"{unit}s"))
    return one if n == 1 else many


_USES = {
    "research": "research",
    "internal": "use inside the organisation",
    "commercial": "commercial use",
    "commercial-medical": "commercial medical use",
}


def use_words(use: str) -> str:
    """Return what a use is called in a sentence: ``commercial use``."""
    return _USES.get(use, use)


def plural(n: int, noun: str) -> str:
    """Write a count and its noun: ``1 file``, ``2 files``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def score(value: float | None, kind: str = "share") -> str:
    """Write a share as percent with one decimal (``61.3%``), any other number with three (``0.885``)."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if kind == "share" else f"{value:.3f}"


def span(metric: Mapping[str, Any], kind: str = "share") -> str:
    """Write a metric's interval: ``54.2–68.1``, or ``no interval`` where there is none."""
    low, high = metric.get("low"), metric.get("high")
    if low is None or high is None:
        return "no interval"
    return f"{100 * low:.1f}–{100 * high:.1f}" if kind == "share" else f"{low:.3f}–{high:.3f}"


def span_whole(metric: Mapping[str, Any]) -> str:
    """Write the interval of a share in whole percent: ``54–68``."""
    low, high = metric.get("low"), metric.get("high")
    return "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}"


def points(difference: float | None, kind: str = "share") -> str:
    """Write a signed difference: percentage points with one decimal for a share, three decimals else."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.1f}" if kind == "share" else f"{difference:+.3f}"
    return text.replace("-", "−")


def gap_span(difference: Mapping[str, Any], kind: str = "share") -> str:
    """Write the interval of a difference, its ends signed: ``−1.2 to +3.4``, or ``no interval`` where there is none."""
    low, high = difference.get("low"), difference.get("high")
    return "no interval" if low is None or high is None else f"{points(low, kind)} to {points(high, kind)}"


def margin(size: float, kind: str = "share") -> str:
    """Write a margin: ``2 points`` for a share, ``0.02`` else."""
    return f"{round(100 * size, 6):g} points" if kind == "share" else f"{size:g}"


def tick(value: float, kind: str = "share") -> str:
    """Write an axis label as short as its value allows."""
    if kind == "share":
        return f"{round(100 * value, 2):g}%"
    if kind in ("points", "signed"):  # of differences
        shown = round(100 * value, 2) if kind == "points" else value
        return f"{shown:+g}".replace("-", "−") if shown else "0"
    return f"{value:g}"


def unsigned(text: str) -> str:
    """Take the sign off a number that is written with one."""
    return text.lstrip("+−")


def capital(text: str) -> str:
    """Write a sentence's first letter large."""
    return text[:1].upper() + text[1:]


def whole(share: float | None) -> str:
    """Write a share in whole percent; a small one is not nothing."""
    if share is None:
        return "–"
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def count(n: float | None) -> str:
    """Write a count with thousands separators."""
    return "–" if n is None else f"{n:,.0f}"


def p_value(p: float | None) -> str:
    """Write a p-value with three decimals, or ``< 0.001``."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seconds(value: float | None) -> str:
    """Write measured seconds."""
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def duration(value: float | None) -> str:
    """Write an estimated time in the unit a person would use."""
    if value is None:
        return "–"
    if value < 90:
        return f"{max(value, 1):.0f} s"
    if value < 90 * 60:
        return f"{value / 60:.0f} min"
    if value < 48 * 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 86400:.1f} days"


def rate(value: float | None) -> str:
    """Write images per second."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def plain(value: Any) -> str:
    """Write any cell of a table: floats with at most three decimals, nothing for a null."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)
