"""One model's figures with their intervals: what ``metrics.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dermlab.evaluate.calibration import expected_ece, reliability_bins
from dermlab.evaluate.cases import CaseSets, case_sets
from dermlab.evaluate.estimates import estimate
from dermlab.evaluate.influence import delong_interval
from dermlab.evaluate.intervals import NO_WIDTH, Estimate, Method
from dermlab.evaluate.metrics import (
    MULTILABEL,
    ORDINAL,
    PER_CLASS,
    Evaluation,
    confusion_matrix,
    defined,
    point,
)
from dermlab.evaluate.multilabel import call_words, mean_thresholds
from dermlab.evaluate.predictions import Predictions

PROMISED = ("top1", "top3", "balanced_accuracy", "macro_f1", "auroc", "ece")
FURTHER = ("weighted_f1", "kappa", "auprc", "ece_equal_mass", "brier", "log_loss", *ORDINAL, *MULTILABEL)
FEW_GROUPS = 30
FEW_CASES = 10
UNDEFINED_SHARE = 0.05


def summarise(
    predictions: Predictions,
    *,
    metrics: Sequence[str] = (),
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    method: Method = "percentile",
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the figures of a predictions table as ``metrics.json`` holds them (docs/reference/predictions.md).

    Args:
        predictions: any table; images of one unit are pooled first.
        metrics: further metrics by name (``sens@spec=0.9:MEL``), which are returned under ``further``.
        split: the split scored.
        n_boot: number of bootstrap replicates.
        seed: of the bootstrap.
        method: interval of the bootstrap, ``percentile`` or ``bca``.
        level: coverage aimed at.

    Raises:
        InputError: the split is missing or holds no label, or a metric does not exist for it.
    """
    found = case_sets(predictions, split)
    first = found.sets[0]
    names = [name for name in (*PROMISED, *FURTHER) if defined(name, first)]
    evaluation = Evaluation(found.sets, list(dict.fromkeys([*names, *metrics])))
    estimates = estimate([evaluation], n_boot=n_boot, seed=seed, method=method, level=level)[0]
    nothing = Estimate(np.nan, np.nan, np.nan, method)
    frame = predictions.part(split).frame
    group_by = predictions.meta.get("group_by", "image_id")
    result: dict[str, Any] = {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": group_by,
        "target": predictions.meta.get("target", "target"),
        "split": split,
        "folds": int(frame["fold"].nunique()),
        "classes": list(predictions.classes),
        **{name: estimates.get(name, nothing).to_dict() for name in PROMISED},
        "per_class": _per_class(found, estimates, nothing),
        **{name: estimates[name].to_dict() for name in names if name in FURTHER},
        "model": predictions.meta.get("model"),
        "kind": predictions.kind,
        "n_images": int(frame["image_id"].nunique()),
        "repeats": int(frame["repeat"].nunique()),
        "seeds": int(frame["seed"].nunique()),
        "interval": {
            "method": method,
            "level": level,
            "n_boot": n_boot,
            "seed": seed,
            "wilson": _of_wilson(estimates),
        },
    }
    if metrics:
        result["further"] = {name: estimates[name].to_dict() for name in metrics}
    if "auroc" in names:
        area = delong_interval(found.sets, level=level).to_dict()
        result["auroc"]["delong"] = {"low": area["low"], "high": area["high"]}
    if not first.multilabel:
        result["confusion_matrix"] = confusion_matrix(found.sets).tolist()
    if first.probabilities is not None:
        result["reliability"] = reliability_bins(found.sets)
        result["ece"]["if_calibrated"] = expected_ece(found.sets, seed=seed)
    if predictions.meta.get("calibration"):
        result["calibration"] = predictions.meta["calibration"]
    if first.multilabel:
        result["thresholds"] = mean_thresholds(predictions)
        found = replace(found, warnings=(*found.warnings, call_words(predictions, first.classes)))
    warnings = [*predictions.warnings, *found.warnings, *_warnings(found, estimates, [*names, *metrics], group_by)]
    result["warnings"] = list(dict.fromkeys(warnings))
    return result


def _of_wilson(estimates: dict[str, Estimate]) -> list[str]:
    """Return which metrics have Wilson's interval, those of classes by one name where all of them have it."""
    bases: dict[str, list[str]] = {}
    for name in estimates:
        bases.setdefault(name if point(name) else name.partition(":")[0], []).append(name)
    told = set()
    for base, members in bases.items():
        wilson = [name for name in members if estimates[name].method == "wilson"]
        told |= {base} if len(wilson) == len(members) else set(wilson)
    return sorted(told)


def _per_class(found: CaseSets, estimates: dict[str, Estimate], nothing: Estimate) -> dict[str, dict[str, Any]]:
    """Return for each class its number of units and its metrics."""
    result: dict[str, dict[str, Any]] = {}
    for code, name in enumerate(found.sets[0].classes):
        holders = [
            place[(cases.truth[:, code] == 1) if cases.multilabel else (cases.truth == code)]
            for cases, place in zip(found.sets, found.unit, strict=True)
        ]
        units = np.unique(np.concatenate(holders))
        result[name] = {
            "n": len(units),
            "n_groups": len(np.unique(found.group_of_unit[units])),
            **{key: estimates.get(f"{key}:{name}", nothing).to_dict() for key in PER_CLASS},
        }
    return result


def _warnings(found: CaseSets, estimates: dict[str, Estimate], names: list[str], group_by: str) -> list[str]:
    """Say what a reader of the figures must know."""
    told: list[str] = []
    cases = found.sets[0]
    if cases.probabilities is None:
        told.append("hard labels only: no top-3, AUROC or calibration")
    if not cases.multilabel and len(cases.classes) <= 3 and cases.probabilities is not None:
        told.append(f"only {len(cases.classes)} classes: top-3 is always 1")
    counts = np.array([_count(found, code) for code in range(len(cases.classes))])
    absent = [name for name, n in zip(cases.classes, counts, strict=True) if n == 0]
    if absent:
        told.append(
            f"no case of {', '.join(absent)}: left out of averages over classes" + _still_counted(found, absent)
        )
    few = [f"{name} ({n})" for name, n in zip(cases.classes, counts, strict=True) if 0 < n < FEW_CASES]
    if few:
        told.append(
            f"fewer than {FEW_CASES} cases of {', '.join(few)}: their recall, and averages over classes, are rough"
        )
    if len(found.groups) == 1:
        told.append("a single group: there is nothing to draw intervals from")
    elif len(found.groups) < FEW_GROUPS:
        told.append(f"only {len(found.groups)} groups: bootstrap intervals from so few are too narrow")
    if not found.clustered and group_by == "image_id":
        told.append("no patients or lesions are known: intervals take every image for independent")
    still = [name for name in names if estimates[name].method == NO_WIDTH]
    if still:
        told.append(
            f"the same in every bootstrap replicate, which is no certainty, so without an interval: {', '.join(still)}"
        )
    for name in names:
        replicates = estimates[name].replicates
        undefined = float(np.isnan(replicates).mean()) if len(replicates) else 0.0
        if np.isnan(estimates[name].value):
            told.append(f"{name} is undefined on these cases")
        elif undefined > UNDEFINED_SHARE:
            told.append(f"{name} is undefined in {undefined:.0%} of the bootstrap replicates, which are passed over")
    return told


def _still_counted(found: CaseSets, absent: Sequence[str]) -> str:
    """Say which classes without a case macro-F1 counts as 0 all the same, because they are predicted."""
    cases = found.sets[0]
    if cases.multilabel:
        return ""
    called = confusion_matrix(found.sets).sum(axis=0)
    said = [name for name, n in zip(cases.classes, called, strict=True) if name in absent and n > 0]
    return f"; macro-F1 counts {', '.join(said)} with F1 0, being predicted" if said else ""


def _count(found: CaseSets, code: int) -> int:
    return max(
        int((cases.truth[:, code] == 1).sum() if cases.multilabel else (cases.truth == code).sum())
        for cases in found.sets
    )
