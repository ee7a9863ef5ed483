"""Other places, other classes, other prevalences: label maps for external validation, and prior shift.

A model of one data set can be tested on another whose classes differ once both are mapped to classes they share. And a
model trained where melanoma is one photo in twenty believes in one in twenty; where the prevalence is known, or can be
told from the unlabelled photos, its probabilities are corrected for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import CaseSets, case_sets
from dermlab.evaluate.fitting import Weighted, as_ratios, share
from dermlab.evaluate.intake import as_text, listed
from dermlab.evaluate.intervals import interval, resample
from dermlab.evaluate.metrics import Evaluation
from dermlab.evaluate.predictions import PROBABILITY, Predictions, class_codes
from dermlab.evaluate.ratios import Ratios

SMALLEST = 1e-12
FLOOR = 1e-6  # a class that a prior calls impossible could never come back
MAX_STEPS = 1000
TOLERANCE = 1e-8
ROUNDED = 0.005  # stated shares may be rounded by so much in all


def hierarchy_map(hierarchy: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return class → branch of a card's hierarchy, a mapping for :func:`map_labels`."""
    return {name: branch for branch, members in hierarchy.items() for name in members}


def map_labels(
    predictions: Predictions,
    mapping: Mapping[str, str | None],
    classes: Sequence[str] | None = None,
    *,
    labels: Mapping[str, str | None] | pd.Series | None = None,
    label_mapping: Mapping[str, str | None] | None = None,
) -> Predictions:
    """Return the table over other classes: probabilities of merged classes summed, labels mapped likewise.

    A class of the model that has no place among the new ones is dropped and the rest divided by what remains, as if
    the model had been told that it does not occur. Images whose label has no place are left out. Both are said in the
    table's warnings, with how much probability and how many images it was.

    Args:
        predictions: a table over the model's classes.
        mapping: class of the model → new class; None, or not named: dropped.
        classes: the new classes in order; None: in the order in which ``mapping`` names them. Two make a binary target
            whose second is the positive one.
        labels: image id → label in the other data set's words, in place of the table's own; an image that is not named
            has no label.
        label_mapping: label → new class; None: ``mapping``. A label that is a new class already stays.

    Raises:
        InputError: a class is unknown, fewer than two new classes, a multi-label target, no image is left.
    """
    if predictions.kind == "multilabel":
        raise InputError(f"{predictions.source}: label maps are for one label a case, not for a multi-label target")
    unknown = [name for name in mapping if name not in predictions.classes]
    if unknown:
        raise InputError(
            f"label map: {unknown[0]!r} is not a class of {predictions.source} ({', '.join(predictions.classes)})"
        )
    new = tuple(classes or dict.fromkeys(name for name in mapping.values() if name is not None))
    strange = [name for name in mapping.values() if name is not None and name not in new]
    if strange:
        raise InputError(f"label map: {strange[0]!r} is not one of the new classes {', '.join(new)}")
    if len(new) < 2:
        raise InputError(f"label map: leads to {listed(new) or 'no class'}; it must lead to at least two classes")
    frame = predictions.frame.copy()
    told = []
    own = frame["label"] if labels is None else frame["image_id"].map(dict(labels))
    known_labels = dict(mapping) if label_mapping is None else dict(label_mapping)
    words = as_text(own)
    mapped = [word if word in new and word not in known_labels else known_labels.get(word) for word in words]
    homeless = words.notna().to_numpy() & np.array([name is None for name in mapped])
    if homeless.any():
        n = int(frame["image_id"][homeless].nunique())
        told.append(
            f"label map: {n} images of {listed(sorted(set(words[homeless])))} have no class here and are left out"
        )
    bad = {name for name in mapped if name is not None} - set(new)
    if bad:
        raise InputError(f"label map: {min(bad)!r} is not one of the new classes {', '.join(new)}")
    frame["label"] = pd.Series(mapped, index=frame.index, dtype=object)
    kept = np.ones(len(frame), bool) & ~homeless
    place = np.array([new.index(target) if (target := mapping.get(name)) else -1 for name in predictions.classes])
    dropped = [name for name, code in zip(predictions.classes, place, strict=True) if code < 0]
    if predictions.has_probabilities:
        old = predictions.probabilities()
        summed = np.column_stack([old[:, place == code].sum(axis=1) for code in range(len(new))])
        mass = summed.sum(axis=1)
        empty = kept & (mass <= SMALLEST)
        if dropped and kept.any():
            told.append(
                f"label map: the model's {', '.join(dropped)} have no class here; their probability, "
                f"{100 * float((1 - mass[kept]).mean()):.1f}% on average, is divided among the others"
            )
        if empty.any():
            told.append(
                f"label map: {int(empty.sum())} rows had all their probability there: now the classes are equal"
            )
        summed = np.where(mass[:, None] > SMALLEST, summed / np.maximum(mass, SMALLEST)[:, None], 1 / len(new))
        frame = frame.drop(columns=[PROBABILITY + name for name in predictions.classes])
        frame[[PROBABILITY + name for name in new]] = summed
    else:
        codes = np.append(place, -1)[class_codes(frame["prediction"], predictions.classes)]
        lost = kept & (codes < 0)
        if lost.any():
            told.append(f"label map: {int(lost.sum())} rows decide for {', '.join(dropped)}, no class here; left out")
        kept &= codes >= 0
        frame["prediction"] = np.array([*new, None], dtype=object)[codes]
    if not kept.any():
        raise InputError(f"{predictions.source}: the label map leaves no image")
    meta = {
        "classes": list(new),
        "kind": "binary" if len(new) == 2 else "multiclass",
        "warnings": [*predictions.warnings, *told],
        "label_map": {name: mapping.get(name) for name in predictions.classes},
        "calibration": None,
    }
    return Predictions(frame[kept].reset_index(drop=True), new, {**predictions.meta, **meta})


def adjust_priors(probabilities: np.ndarray, train_priors: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) as they would be had the classes the shares ``priors`` and not ``train_priors``.

    Saerens, Latinne & Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities",
    eq. 2.4.

    Args:
        probabilities: float (N, C).
        train_priors: (C,) class shares that the model was trained at.
        priors: (C,) class shares where it is used.
    """
    weighted = probabilities * (np.asarray(priors, np.float64) / np.maximum(train_priors, SMALLEST))
    total = weighted.sum(axis=1, keepdims=True)
    return np.where(total > 0, weighted / np.where(total > 0, total, 1.0), probabilities)


def estimate_priors(
    probabilities: np.ndarray, train_priors: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the class shares of unlabelled cases by expectation maximisation (Saerens et al. 2002, eq. 2.9).

    Right as far as the probabilities are calibrated and only the shares differ, not the looks within a class.

    Args:
        probabilities: float (N, C).
        train_priors: (C,) class shares that the model was trained at.
        weights: (N, B) how often each case counts, one column per replicate; None: once.

    Returns:
        (C,), or (C, B) where weights are given.
    """
    counts = np.ones((len(probabilities), 1)) if weights is None else np.asarray(weights, np.float64)
    likelihood = probabilities / np.maximum(train_priors, SMALLEST)
    priors = np.tile(np.asarray(train_priors, np.float64)[:, None], (1, counts.shape[1]))
    total = np.maximum(counts.sum(axis=0), 1.0)
    for _ in range(MAX_STEPS):
        # Responsibilities need no (N, C, B) array: their sum over cases is prior · likelihoodᵀ (counts / evidence).
        evidence = np.maximum(likelihood @ priors, SMALLEST)
        new = priors * (likelihood.T @ (counts / evidence)) / total
        moved = np.abs(new - priors).max()
        priors = new
        if moved < TOLERANCE:
            break
    return priors[:, 0] if weights is None else priors


def class_shares(predictions: Predictions, split: str = "val") -> dict[str, float]:
    """Return the share of each class among the labelled units of a split, every class at least one in a million."""
    found = case_sets(predictions, split)
    counts = np.mean([np.bincount(one.truth, minlength=len(one.classes)) for one in found.sets], axis=0)
    shares = np.maximum(counts / counts.sum(), FLOOR)
    return dict(zip(predictions.classes, (shares / shares.sum()).tolist(), strict=True))


def prior_shift(
    predictions: Predictions,
    *,
    train_priors: Mapping[str, float],
    prevalence: Mapping[str, float] | None = None,
    split: str = "test",
    n_boot: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Predictions, dict[str, Any]]:
    """Correct a table's probabilities for other class shares, stated or estimated, and say what it changes.

    Args:
        predictions: a table of probabilities, calibrated at ``train_priors``.
        train_priors: class → share that the model was trained at (:func:`class_shares` of ``val``); need not sum to 1.
        prevalence: class → share where it is to be used; None: estimated from the probabilities of ``split`` alone,
            without its labels.
        split: the split corrected and scored.
        n_boot: bootstrap replicates over groups.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Returns:
        The table with the corrected rows of ``split``, and a dictionary for JSON::

            {"n", "n_groups", "unit", "group_by", "stated": bool, "classes",
             "train": {class: share},                              # ``train_priors``: of val, where it comes from there
             "test": {class: share},                               # labels of the split, for comparison
             "estimated": {class: {value, low, high}},             # by EM, from probabilities alone
             "used": {class: share},
             "top1": {"before", "after", "difference": {value, low, high}},
                # accuracy at the shares used: recall of each class, weighted by them; the difference is paired
             "majority": {"class", "top1"},   # always answering the commonest class at the shares used
             "per_class": {class: {"n", "recall": PAIR, "specificity": PAIR, "ppv": PAIR}},
                # specificity and ppv at the shares used: cases are weighted by their class's share there
             "changed": share of units decided otherwise, "warnings"}

        where ``PAIR`` is ``{"before", "after", "difference"}``, each ``{value, low, high}``, the difference paired.

    Raises:
        InputError: hard labels, a multi-label target, unknown classes, negative shares.
    """
    found = case_sets(predictions, split)
    if found.sets[0].multilabel or found.sets[0].probabilities is None:
        raise InputError(f"{predictions.source}: prior shift needs probabilities of one label a case")
    classes = predictions.classes
    trained = _shares(train_priors, classes, "train_priors")
    estimated, drawn = _estimated(found, trained, n_boot, seed)
    used = estimated if prevalence is None else _shares(prevalence, classes, "prevalence")
    rows = (predictions.frame["split"] == split).to_numpy()
    corrected = predictions.probabilities()
    corrected[rows] = adjust_priors(corrected[rows], trained, used)
    frame = predictions.frame.copy()
    frame[[PROBABILITY + name for name in classes]] = corrected
    result = predictions.with_frame(frame, prior_shift={"train": trained.tolist(), "used": used.tolist()})
    after = case_sets(result, split)
    evaluations = [Evaluation(one.sets, ["top1"]) for one in (found, after)]
    draws = resample(evaluations, n_boot=n_boot, seed=seed)
    values, replicates = zip(
        *(
            (
                _weighted({key: np.array([v]) for key, v in one.value().items()}, classes, used)[0],
                _weighted(d, classes, used),
            )
            for one, d in zip(evaluations, draws, strict=True)
        ),
        strict=True,
    )
    n_groups = len(found.groups)
    changed = np.mean([(a.predicted != b.predicted).mean() for a, b in zip(found.sets, after.sets, strict=True)])
    counts = np.mean([np.bincount(one.truth, minlength=len(classes)) for one in found.sets], axis=0)
    warnings = [*predictions.warnings, *found.warnings]
    stated = 1.0 if prevalence is None else sum(map(float, prevalence.values()))
    if abs(stated - 1) > ROUNDED:
        warnings.append(f"the prevalence stated sums to {stated:g}, not 1: each share was divided by that")
    absent = [name for name, n, share in zip(classes, counts, used, strict=True) if n == 0 and share > 0]
    if absent:
        warnings.append(f"no case of {', '.join(absent)}: the accuracy at the stated prevalence leaves them out")
    return result, {
        "n": len(found.units),
        "n_groups": n_groups,
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "stated": prevalence is not None,
        "classes": list(classes),
        "train": dict(zip(classes, trained.tolist(), strict=True)),
        "test": dict(zip(classes, (counts / counts.sum()).tolist(), strict=True)),
        "estimated": {
            name: interval(float(estimated[code]), drawn[code], n_groups, level=level).to_dict()
            for code, name in enumerate(classes)
        },
        "used": dict(zip(classes, used.tolist(), strict=True)),
        "top1": {
            "before": interval(values[0], replicates[0], n_groups, level=level).to_dict(),
            "after": interval(values[1], replicates[1], n_groups, level=level).to_dict(),
            "difference": interval(
                values[1] - values[0], replicates[1] - replicates[0], n_groups, level=level
            ).to_dict(),
        },
        "majority": {"class": classes[int(used.argmax())], "top1": float(used.max())},
        "per_class": _per_class(found, after, used / np.maximum(counts / counts.sum(), SMALLEST), n_boot, seed, level),
        "changed": float(changed),
        "warnings": list(dict.fromkeys(warnings)),
    }


def _per_class(
    before: CaseSets, after: CaseSets, weights: np.ndarray, n_boot: int, seed: int, level: float
) -> dict[str, dict[str, Any]]:
    """Return recall, specificity and precision by class, before and after, each case counted by its class's weight."""
    classes = before.sets[0].classes
    drawn: list[Ratios] = []
    asked: list[tuple[str, CaseSets, dict[str, list[Weighted]]]] = []
    for side in (before, after):
        quantities: dict[str, list[Weighted]] = {}
        for code, name in enumerate(classes):
            own = [one.truth == code for one in side.sets]
            called = [one.predicted == code for one in side.sets]
            at = [weights[one.truth] for one in side.sets]
            quantities[f"recall:{name}"] = [(c, o * 1.0) for c, o in zip(called, own, strict=True)]
            quantities[f"specificity:{name}"] = [(~c, ~o * w) for c, o, w in zip(called, own, at, strict=True)]
            quantities[f"ppv:{name}"] = [(o, c * w) for c, o, w in zip(called, own, at, strict=True)]
        drawn.append(as_ratios(side, quantities))
        asked.append(("before" if side is before else "after", side, quantities))
    values = [one.value() for one in drawn]
    draws = resample(drawn, n_boot=n_boot, seed=seed)
    holders = [
        len(np.unique(np.concatenate([one.group[one.truth == code] for one in before.sets])))
        for code in range(len(classes))
    ]

    def pair(kind: str, code: int) -> dict[str, Any]:
        name = f"{kind}:{classes[code]}"
        n_groups = holders[code] if kind == "recall" else len(before.groups)
        (was, now), (old, new) = (one[name] for one in values), (one[name] for one in draws)
        sides = {"before": (was, old), "after": (now, new), "difference": (now - was, new - old)}
        found = {key: interval(*side, n_groups, level=level).to_dict() for key, side in sides.items()}
        if kind == "recall":  # none of 35 found: no bootstrap draws anything else, Wilson's interval stays honest
            found |= {key: share(side, given[name], level).to_dict() for key, side, given in asked}
        return found

    units = [
        np.concatenate([unit[one.truth == code] for unit, one in zip(before.unit, before.sets, strict=True)])
        for code in range(len(classes))
    ]
    return {
        name: {
            "n": len(np.unique(units[code])),
            **{kind: pair(kind, code) for kind in ("recall", "specificity", "ppv")},
        }
        for code, name in enumerate(classes)
    }


def _estimated(found: CaseSets, trained: np.ndarray, n_boot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares by EM (C,) and their replicates (C, n_boot), averaged over the case sets."""
    random = generator(seed, "priors")
    n_groups = len(found.groups)
    counts = np.stack(
        [np.bincount(random.integers(0, n_groups, n_groups), minlength=n_groups) for _ in range(n_boot)], 1
    )
    values, draws = [], []
    for cases in found.sets:
        assert cases.probabilities is not None
        values.append(estimate_priors(cases.probabilities, trained))
        draws.append(estimate_priors(cases.probabilities, trained, counts[cases.group]))
    return np.mean(values, axis=0), np.mean(draws, axis=0)


def _shares(given: Mapping[str, float], classes: Sequence[str], what: str) -> np.ndarray:
    unknown = [name for name in given if name not in classes]
    if unknown:
        raise InputError(f"{what}: {unknown[0]!r} is not one of the classes {', '.join(classes)}")
    absent = [name for name in classes if name not in given]
    if absent:
        raise InputError(f"{what}: names no share of {', '.join(absent)}; every class needs one, 0 where it is absent")
    shares = np.array([float(given[name]) for name in classes])
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise InputError(f"{what}: shares must be 0 or more, and not all 0")
    return shares / shares.sum()


def _weighted(values: Mapping[str, np.ndarray], classes: Sequence[str], shares: np.ndarray) -> np.ndarray:
    """Return accuracy at given shares (B,): the recalls of the classes, weighted, classes without a case left out."""
    recalls = np.stack([values[f"recall:{name}"] for name in classes])
    known = ~np.isnan(recalls)
    weight = np.where(known, shares[:, None], 0.0)
    total = weight.sum(axis=0)
    return np.divide(
        (np.where(known, recalls, 0.0) * weight).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0
    )
