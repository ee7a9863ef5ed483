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
from dermlab.evaluate.cases import Cases, CaseSets, case_sets
from dermlab.evaluate.estimates import proportion
from dermlab.evaluate.intake import as_text, listed
from dermlab.evaluate.intervals import (
    BLOCK,
    NO_WIDTH,
    Estimate,
    group_counts,
    in_threads,
    interval,
    wilson_over_sets,
)
from dermlab.evaluate.metrics import mean_defined, ratio
from dermlab.evaluate.predictions import PROBABILITY, Predictions, class_codes, pool_units

SMALLEST = 1e-12
FLOOR = 1e-6  # a class that a prior calls impossible could never come back
MAX_STEPS = 1000
STEPS = 10  # about how many a replicate takes, and how often its probabilities are gone through
MAX_FAILURES = 3  # Newton steps that were too long, after which a replicate takes none
FEW_LEFT = 4  # replicates, from which on each has derivatives of its own
ASIDE = 0.01  # of the shares trained at, mixed into those that replicates begin with
STILL_GAINING = 1e-2  # a share so small that it hardly moves is still on its way where it gains more
TOLERANCE = 1e-8
ROUGH_TOLERANCE = 1e-6  # of a replicate's shares, which differ from each other by a thousand times that
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
    probabilities: np.ndarray,
    train_priors: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    start: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Return the class shares of unlabelled cases that are most likely (Saerens et al. 2002, eq. 2.9).

    Steps of expectation maximisation, hastened by Newton's on the same equations. Right as far as the probabilities are
    calibrated and only the shares differ, not the looks within a class.

    Args:
        probabilities: float (N, C).
        train_priors: (C,) class shares that the model was trained at.
        weights: (N, B) how often each case counts, one column per replicate; None: once.
        start: (C,) shares to begin with; None: those of training.
        tolerance: largest change of a share in one step at which it ends.

    Returns:
        (C,), or (C, B) where weights are given.
    """
    counts = np.ones((len(probabilities), 1)) if weights is None else np.asarray(weights, np.float64)
    likelihood = probabilities / np.maximum(train_priors, SMALLEST)
    begun = np.asarray(train_priors if start is None else start, np.float64)
    priors = np.tile(begun[:, None], (1, counts.shape[1]))
    total = np.maximum(counts.sum(axis=0), 1.0)
    left = np.arange(counts.shape[1])  # the replicates that still move
    failures = np.zeros(counts.shape[1], np.int64)
    stride, slope, instead = np.zeros_like(priors), np.zeros(counts.shape[1]), priors.copy()
    for _ in range(MAX_STEPS):
        now, times, n = priors[:, left], counts[:, left], total[left]
        # Responsibilities need no (N, C, B) array: their sum over cases is prior · likelihoodᵀ (counts / evidence).
        evidence = np.maximum(likelihood @ now, SMALLEST)
        gain = likelihood.T @ (times / evidence) / n
        # The likelihood is concave: a step was too long where it falls at its end as steeply as it rose at its start.
        too_far = (gain * stride[:, left]).sum(axis=0) < -slope[left]
        failures[left] += too_far
        new = np.where(too_far, instead[:, left], now * gain)
        moving = too_far | (np.abs(new - now).max(axis=0) >= tolerance) | (gain.max(axis=0) > 1 + STILL_GAINING)
        # A step of maximisation always gains, and where classes are alike very little; Newton's on the same equations
        # arrives, where it leads upwards.
        further = now.copy()
        tried = np.flatnonzero(moving & ~too_far & (failures[left] < MAX_FAILURES))
        for each in [tried] if len(tried) > FEW_LEFT else tried[:, None]:  # the last ones are each a case apart
            if len(each):
                further[:, each] = _newton(likelihood, now[:, each], times[:, each], n[each], gain[:, each])
        upwards = (gain * (further - now)).sum(axis=0)
        hastened = upwards > 0
        instead[:, left] = new
        stride[:, left], slope[left] = np.where(hastened, further - now, 0.0), np.where(hastened, upwards, 0.0)
        priors[:, left] = np.where(hastened, further, new)
        left = left[moving]
        if not len(left):
            break
    return priors[:, 0] if weights is None else priors


def _newton(
    likelihood: np.ndarray, priors: np.ndarray, counts: np.ndarray, total: np.ndarray, gain: np.ndarray
) -> np.ndarray:
    """Return shares (C, B) after a Newton step towards ``gain = 1``, as they are where it leads out of the simplex.

    A share that falls stays a tenth of what it was. The derivatives are those of the replicates' mean, which all of
    them are near; of one replicate they are its own.

    Args:
        likelihood: float (N, C), probabilities over the shares trained at.
        priors: (C, B), where the replicates stand.
        counts: (N, B).
        total: (B,), sums of the counts.
        gain: (C, B), what a step of maximisation multiplies the shares by.
    """
    middle = priors.mean(axis=1)
    evidence = np.maximum(likelihood @ middle, SMALLEST)
    scaled = likelihood * (np.sqrt((counts / total).mean(axis=1)) / evidence)[:, None]
    slopes = np.diag(gain.mean(axis=1) - 1) - middle[:, None] * (scaled.T @ scaled)
    try:
        found = priors - np.linalg.solve(slopes, priors * gain - priors)
    except np.linalg.LinAlgError:
        return priors
    least = priors / 10
    inside = np.isfinite(found).all(axis=0) & ((found >= least) | (gain < 1)).all(axis=0)
    found = np.maximum(found, least)
    return np.where(inside, found / found.sum(axis=0), priors)


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

    Units are pooled first, so that what is corrected is what is scored. Estimated shares are as uncertain as the
    patients they come from: every bootstrap replicate estimates its own, corrects by them and is scored at them.

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
        The pooled table with the corrected rows of ``split``, and a dictionary for JSON::

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
    predictions = pool_units(predictions)
    found = case_sets(predictions, split)
    if found.sets[0].multilabel or found.sets[0].probabilities is None:
        raise InputError(f"{predictions.source}: prior shift needs probabilities of one label a case")
    classes = predictions.classes
    trained = _shares(train_priors, classes, "train_priors")
    estimated = np.mean([estimate_priors(_probabilities(one), trained) for one in found.sets], axis=0)
    used = estimated if prevalence is None else _shares(prevalence, classes, "prevalence")
    rows = (predictions.frame["split"] == split).to_numpy()
    corrected = predictions.probabilities()
    corrected[rows] = adjust_priors(corrected[rows], trained, used)
    frame = predictions.frame.copy()
    frame[[PROBABILITY + name for name in classes]] = corrected
    result = predictions.with_frame(frame, prior_shift={"train": trained.tolist(), "used": used.tolist()})
    after = case_sets(result, split)
    sides = (found, after)
    values = [_figures(np.stack([_confusion(one) for one in side.sets]), used[None], classes) for side in sides]
    drawn, *both = _drawn(found, after, trained, estimated, prevalence is None, used, n_boot, seed)
    n_groups = len(found.groups)
    changed = np.mean([(a.predicted != b.predicted).mean() for a, b in zip(found.sets, after.sets, strict=True)])
    counts = np.mean([np.bincount(one.truth, minlength=len(classes)) for one in found.sets], axis=0)
    units = [
        [unit[one.truth == code] for unit, one in zip(found.unit, found.sets, strict=True)]
        for code in range(len(classes))
    ]
    warnings = [*predictions.warnings, *found.warnings]
    told = {}
    for name in values[0]:
        kind, _, part = name.partition(":")
        held = found.group_of_unit[np.concatenate(units[classes.index(part)])] if kind == "recall" else found.groups
        told[name] = _pair(
            name,
            list(zip(sides, values, both, strict=True)),
            len(np.unique(held)),
            level,
            certain=prevalence is not None,
        )
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
        "top1": told["top1"],
        "majority": {"class": classes[int(used.argmax())], "top1": float(used.max())},
        "per_class": {
            name: {
                "n": len(np.unique(np.concatenate(units[code]))),
                **{kind: told[f"{kind}:{name}"] for kind in ("recall", "specificity", "ppv")},
            }
            for code, name in enumerate(classes)
        },
        "changed": float(changed),
        "warnings": list(dict.fromkeys(warnings)),
    }


def _probabilities(cases: Cases) -> np.ndarray:
    assert cases.probabilities is not None
    return cases.probabilities


def _confusion(cases: Cases, predicted: np.ndarray | None = None, counts: np.ndarray | None = None) -> np.ndarray:
    """Return cases by true class and decision, float64 (1, C, C), each counted as often as its group is."""
    n_classes = len(cases.classes)
    cells = cases.truth * n_classes + (cases.predicted if predicted is None else predicted)
    weights = None if counts is None else counts[cases.group]
    return np.bincount(cells, weights, n_classes**2).reshape(1, n_classes, n_classes).astype(np.float64)


def _drawn(
    before: CaseSets,
    after: CaseSets,
    trained: np.ndarray,
    estimated: np.ndarray,
    is_estimated: bool,
    used: np.ndarray,
    n_boot: int,
    seed: int,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return replicates of the estimated shares (C, n_boot), and of the figures before and after.

    Where the shares used are estimated, each replicate of the patients has its own, corrects by them and is scored at
    them: how uncertain they are is part of how uncertain the figures are.
    """
    n_groups = len(before.groups)
    likelihoods = [_probabilities(one) / np.maximum(trained, SMALLEST) for one in before.sets]
    near = (1 - ASIDE) * estimated + ASIDE * trained  # a share of 0 could not come back
    by_class = [np.ascontiguousarray(one.T) for one in likelihoods]

    def block(number: int) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        counts = group_counts(n_groups, min(BLOCK, n_boot - number * BLOCK), seed, number)
        priors = np.mean(
            [
                estimate_priors(_probabilities(one), trained, counts[one.group], start=near, tolerance=ROUGH_TOLERANCE)
                for one in before.sets
            ],
            axis=0,
        )
        at = priors if is_estimated else np.repeat(used[:, None], counts.shape[1], axis=1)
        figures = []
        for side, sets in enumerate((before.sets, after.sets)):
            tables = []
            for cases, likelihood in zip(sets, by_class, strict=True):
                decided = [_decided(likelihood, one) if side and is_estimated else None for one in at.T]
                tables.append(
                    np.concatenate([_confusion(cases, one, own) for one, own in zip(decided, counts.T, strict=True)])
                )
            figures.append(_figures(np.stack(tables), at.T, before.sets[0].classes))
        return priors, figures[0], figures[1]

    work = float(sum(one.size for one in likelihoods)) * n_boot * STEPS
    parts = list(in_threads(block, -(-n_boot // BLOCK), "prior shift", work))
    joined = [
        {name: np.concatenate([part[side][name] for part in parts]) for name in parts[0][side]} for side in (1, 2)
    ]
    return np.concatenate([part[0] for part in parts], axis=1), joined[0], joined[1]


def _decided(likelihood: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the class of the largest product, int64 (N,), the first of several, for likelihoods (C, N)."""
    largest, decided = likelihood[0] * shares[0], np.zeros(likelihood.shape[1], np.int64)
    for code in range(1, len(likelihood)):
        product = likelihood[code] * shares[code]
        decided[product > largest] = code
        np.maximum(largest, product, out=largest)
    return decided


def _figures(tables: np.ndarray, shares: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return accuracy, recalls, specificities and predictive values (B,) where the classes have the shares stated.

    All follow from how each class is called and from how common it is. Classes without a case are left out.

    Args:
        tables: float64 (sets, B, C, C) cases by true class and decision; averaged over sets.
        shares: float64 (B, C).
        classes: their names.
    """
    n = tables.sum(axis=-1)
    weight = np.where(n > 0, shares, 0.0)
    called = np.divide(tables, n[..., None], out=np.zeros_like(tables), where=n[..., None] > 0)
    mass = weight[..., None] * called  # (sets, B, true, called), the share of all cases
    total, hit = weight.sum(axis=-1), np.diagonal(mass, axis1=-2, axis2=-1)
    all_called = mass.sum(axis=-2)
    result = {"top1": mean_defined(ratio(hit.sum(axis=-1), total))}
    for code, name in enumerate(classes):
        others = total - weight[..., code]
        wrongly = all_called[..., code] - hit[..., code]
        result[f"recall:{name}"] = mean_defined(ratio(tables[..., code, code], n[..., code]))
        result[f"specificity:{name}"] = mean_defined(ratio(others - wrongly, others))
        result[f"ppv:{name}"] = mean_defined(ratio(hit[..., code], all_called[..., code]))
    return result


def _pair(
    name: str,
    sides: Sequence[tuple[CaseSets, dict[str, np.ndarray], dict[str, np.ndarray]]],
    n_groups: int,
    level: float,
    *,
    certain: bool,
) -> dict[str, Any]:
    """Return a figure before, after, and the paired difference, each with its interval.

    Args:
        name: of the figure.
        sides: before and after: the cases, the values (1,) and the replicates (n_boot,) by name.
        n_groups: number of groups that its spread is known from.
        level: coverage aimed at.
        certain: the shares were stated, so that the decisions do not vary with the patients drawn.
    """
    (_, was, old), (_, now, new) = ((found, float(values[name][0]), draws[name]) for found, values, draws in sides)
    result = {"difference": interval(now - was, new - old, n_groups, level=level)}
    if certain and all(
        (a.predicted == b.predicted).all() for a, b in zip(*(side.sets for side, *_ in sides), strict=True)
    ):
        result["difference"] = Estimate(0.0, 0.0, 0.0, "unchanged")  # shares that change no decision change nothing
    for key, (found, _, _), value, draws in (("before", sides[0], was, old), ("after", sides[1], now, new)):
        one = interval(value, draws, n_groups, level=level)
        counted = None if name == "top1" else proportion(name.replace("ppv:", "precision:"), found.sets)
        wilson = None if counted is None else wilson_over_sets(counted, level)
        # Specificity and predictive value count classes by their shares; unweighted they are the same in the extreme.
        if wilson is not None and (
            (name.startswith("recall:") and (certain or key == "before"))
            or (one.method == NO_WIDTH and np.isclose(wilson.value, value))
        ):
            one = wilson
        result[key] = one
    return {key: result[key].to_dict() for key in ("before", "after", "difference")}


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
