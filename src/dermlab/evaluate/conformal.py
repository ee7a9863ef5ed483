"""Conformal sets: a differential diagnosis that holds the true class as often as was stated.

A threshold on how strange a class looks for a photo is taken from ``val`` such that a new patient's true class stays
within it with the stated probability, whatever the model and however badly calibrated. What holds on average may fail
in a class or a group of patients: test tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import CaseSets, case_sets
from dermlab.evaluate.fitting import (
    ROUNDING,
    TOO_FEW,
    Fitting,
    Weighted,
    as_ratios,
    fitting_places,
    groups_needed,
    pooled_quantile,
    promise,
    scored_rows,
    share,
    within,
)
from dermlab.evaluate.intervals import Estimate, wilson_grouped
from dermlab.evaluate.levels import NOT_RECORDED, choose_levels, describing_columns
from dermlab.evaluate.predictions import Predictions
from dermlab.evaluate.ratios import estimate_ratios

Score = Literal["lac", "aps"]
Grouping = Literal["weighted", "one_per_group"]
SCORES: tuple[Score, ...] = ("lac", "aps")
GROUPINGS: tuple[Grouping, ...] = ("weighted", "one_per_group")
FEW_GROUPS = 10  # in a class or subgroup: fewer, and nothing is claimed about its coverage


def strangeness(probabilities: np.ndarray, method: Score = "lac") -> np.ndarray:
    """Return how strange each class would be as the true one, float64 (N, C); the set holds what is not too strange.

    ``lac``: one minus the class's probability (Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued classifiers
    with bounded error levels"): the smallest sets on average; a set may be empty. ``aps``: the probability of all
    classes that are more probable (Romano, Sesia & Candès 2020, "Classification with valid and adaptive coverage",
    eqs. 2-5, without their random number: u = 1 here, so that one photo always has one answer): sets adapt to the
    case and are never empty.

    Args:
        probabilities: float (N, C), rows that sum to 1.
        method: ``lac`` or ``aps``.
    """
    if method == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    falling = np.take_along_axis(probabilities, order, axis=1)
    above = np.cumsum(falling, axis=1) - falling
    # Classes of equal probability have the same classes above them.
    tied = np.zeros_like(falling, dtype=bool)
    tied[:, 1:] = falling[:, 1:] == falling[:, :-1]
    above = np.maximum.accumulate(np.where(tied, 0.0, above), axis=1)
    result = np.empty_like(above)
    np.put_along_axis(result, order, above, axis=1)
    return result


def conformal_sets(
    predictions: Predictions,
    *,
    coverage: float = 0.9,
    method: Score = "lac",
    class_conditional: bool = False,
    grouping: Grouping = "weighted",
    subgroups: Sequence[str] | None = None,
    fitted_on: str = "val",
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return for each case the classes that cannot be excluded at the stated coverage, and how often that held on test.

    Split conformal prediction (Vovk, Gammerman & Shafer 2005; Papadopoulos et al. 2002) on each fold's ``val`` rows,
    with the finite-sample quantile. ``class_conditional`` takes a threshold for each class from its own ``val`` cases
    (Mondrian; Vovk 2012, "Conditional validity of inductive conformal predictors"): the coverage is then promised for
    each class, at the price of larger sets. A class of too few ``val`` groups for the coverage is in every set.

    What is exchangeable is patients, not photos (Dunn, Wasserman & Ramdas 2023). ``weighted``: all ``val`` cases,
    each group weighing 1 in all (:func:`dermlab.evaluate.fitting.pooled_quantile`).
    ``one_per_group``: one case of each group at random, which makes the threshold noisier and the coverage of a random
    case of a new patient neither less than was stated nor more by over 1 / (groups + 1), where no scores tie. Where
    each group has one case the two are the same.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those of ``split``.
        coverage: the share of cases whose true class the set shall hold.
        method: ``lac`` or ``aps``, see :func:`strangeness`.
        class_conditional: promise the coverage for each class.
        grouping: how groups of several ``val`` cases count.
        subgroups: columns (and pairs ``a*b``) by which the coverage is checked; None: the usual ones that the table
            has (skin type, sex, age, site, …); an empty list: none.
        fitted_on: the split that thresholds are taken from.
        split: the split that reports.
        n_boot: bootstrap replicates over groups, for sizes; shares have Wilson's interval.
        seed: of the bootstrap, and of the choice of ``one_per_group``.
        level: coverage of the intervals.

    Returns:
        A table of the rows of ``split``: ``unit, group, fold, repeat, seed, label``, ``set`` (the likeliest class
        first), ``size`` and ``covered`` (null where unlabelled); and a dict for JSON, with estimates
        ``{"value", "low", "high"}``::

            {"n", "n_groups", "unit", "group_by", "split", "fitted_on", "method", "class_conditional", "grouping",
             "coverage_aimed", "coverage": estimate (of cases), "coverage_of_groups": estimate (groups weighing alike,
             which is what is promised), "verdict": "held" | "broken" | "cannot tell" (of coverage_of_groups),
             "mean_size": estimate, "sizes": [share of sets of 0, 1, … C classes],
             "share_empty": estimate, "share_single": estimate, "share_all": estimate,
             "accuracy_of_single": estimate (share of the sets of one class that hold the truth),
             "per_class": {"ACK": {"n", "n_groups", "coverage": estimate, "mean_size": estimate,
                           "n_fitted": val cases in the poorest fold, "n_groups_fitted", "always": whether it is in
                           every set of some fold for want of val cases, "verdict"}},
             "subgroups": {"skin_type": [{"level", "n", "n_groups", "coverage": estimate, "mean_size": estimate,
                           "verdict"}]},
             "thresholds": [{"fold", "repeat", "seed", "n", "n_groups", "quantile": number (null: every class is in
                            every set), or {"ACK": number} where class-conditional}],
             "interval": {"method", "level", "n_boot", "seed", "level_of_verdicts": {"per_class", "subgroups"}},
             "warnings": []}

        Verdicts on classes and subgroups are taken at levels divided by how many there are (Bonferroni); fewer than
        ten groups give ``"too few"``. Only the overall coverage is promised, and that of classes where
        ``class_conditional``; elsewhere ``broken`` says that the coverage is below the one stated.

    Raises:
        InputError: hard labels, a multi-label target, an unknown method or column, or a fold without ``val`` rows.
    """
    _check(predictions, coverage, method, grouping, level)
    fitting = fitting_places(predictions, fitted_on, "a conformal threshold", split)
    scores = strangeness(fitting.probabilities, method)
    limits, thresholds = _limits(fitting, scores, coverage, class_conditional, grouping, seed)
    inside = scores <= limits + ROUNDING

    found = case_sets(fitting.predictions, split)
    rows = scored_rows(found, fitting.predictions.frame, split)
    n_classes = len(predictions.classes)
    sizes = [inside[places].sum(axis=1) for places in rows]
    covered = [inside[places, cases.truth].astype(np.float64) for cases, places in zip(found.sets, rows, strict=True)]
    ones = [np.ones(len(cases)) for cases in found.sets]
    by_class = {name: [cases.truth == code for cases in found.sets] for code, name in enumerate(predictions.classes)}
    columns, told = _subgroups(fitting, found, split, subgroups)
    shares: dict[str, list[Weighted]] = {
        "coverage": list(zip(covered, ones, strict=True)),
        "share_empty": [(size == 0, one) for size, one in zip(sizes, ones, strict=True)],
        "share_single": [(size == 1, one) for size, one in zip(sizes, ones, strict=True)],
        "share_all": [(size == n_classes, one) for size, one in zip(sizes, ones, strict=True)],
        "accuracy_of_single": [(hit, (size == 1) * 1.0) for hit, size in zip(covered, sizes, strict=True)],
    }
    parts = {("per_class", name): members for name, members in by_class.items()} | {
        (column, value): members for column, values in columns.items() for value, members in values.items()
    }
    averaged: dict[str, list[Weighted]] = {"mean_size": list(zip(sizes, ones, strict=True))}
    for (column, value), members in parts.items():
        averaged[f"{column}|{value}"] = [(size, own * 1.0) for size, own in zip(sizes, members, strict=True)]
    mean_size = estimate_ratios(as_ratios(found, averaged), n_boot=n_boot, seed=seed, level=level)
    of_groups = _coverage_of_groups(found, covered, level)
    n_subgroups = max(1, sum(len(values) for values in columns.values()))
    strict = {"per_class": 1 - (1 - level) / n_classes, "subgroups": 1 - (1 - level) / n_subgroups}

    def part(column: str, value: str) -> dict[str, Any]:
        members = parts[column, value]
        units = np.unique(np.concatenate([unit[own] for unit, own in zip(found.unit, members, strict=True)]))
        n_groups = len(np.unique(found.group_of_unit[units]))
        weighted = [(hit, own * 1.0) for hit, own in zip(covered, members, strict=True)]
        judged = share(found, weighted, strict["per_class" if column == "per_class" else "subgroups"])
        return {
            "n": len(units),
            "n_groups": n_groups,
            "coverage": share(found, weighted, level).to_dict(),
            "mean_size": mean_size[f"{column}|{value}"].to_dict(),
            "verdict": promise(judged, coverage) if n_groups >= FEW_GROUPS else TOO_FEW,
        }

    fitted = _fitted_counts(fitting, limits)
    report = {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "split": split,
        "fitted_on": fitted_on,
        "method": method,
        "class_conditional": class_conditional,
        "grouping": grouping,
        "coverage_aimed": coverage,
        "coverage_of_groups": of_groups.to_dict(),
        "verdict": promise(of_groups, coverage),
        "mean_size": mean_size["mean_size"].to_dict(),
        "sizes": np.mean([np.bincount(size, minlength=n_classes + 1) / len(size) for size in sizes], axis=0).tolist(),
        **{name: share(found, weighted, level).to_dict() for name, weighted in shares.items()},
        "per_class": {name: {**part("per_class", name), **fitted[name]} for name in predictions.classes},
        "subgroups": {
            column: [{"level": value, **part(column, value)} for value in values] for column, values in columns.items()
        },
        "thresholds": thresholds,
        "interval": {
            "method": "wilson",
            "level": level,
            "n_boot": n_boot,
            "seed": seed,
            "level_of_verdicts": strict,
        },
        "warnings": [
            *found.warnings,
            *fitting.warnings,
            *told,
            *_told(fitting, fitted, thresholds, coverage, class_conditional, fitted_on),
        ],
    }
    return _table(fitting, inside, split), report


def _check(predictions: Predictions, coverage: float, method: str, grouping: str, level: float) -> None:
    within("coverage", coverage)
    within("level", level)
    if method not in SCORES:
        raise InputError(f"method: must be one of {', '.join(SCORES)}, not {method!r}")
    if grouping not in GROUPINGS:
        raise InputError(f"grouping: must be one of {', '.join(GROUPINGS)}, not {grouping!r}")
    if predictions.kind == "multilabel":
        raise InputError(
            f"{predictions.source}: is multi-label; a conformal set needs one true class a case: "
            "evaluate a label as a binary target"
        )


def _limits(
    fitting: Fitting, scores: np.ndarray, coverage: float, class_conditional: bool, grouping: Grouping, seed: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the largest strangeness that a set takes in, (rows, C), and the thresholds of each fold for JSON."""
    classes = fitting.predictions.classes
    limits = np.empty_like(scores)
    units = fitting.predictions.frame["unit"].to_numpy(str)
    thresholds = []
    for place in fitting.places:
        truth, own = fitting.truth[place.fitting], place.fitting
        strange = scores[own, truth]

        def quantile(members: np.ndarray, strange: np.ndarray = strange, own: np.ndarray = own) -> float:
            chosen = np.flatnonzero(members)
            if grouping == "one_per_group":
                # In the order of the units' names, so that the order of the rows does not matter.
                chosen = chosen[np.argsort(units[own[chosen]], kind="stable")]
                chosen = chosen[generator(seed, "one per group").permutation(len(chosen))]
                chosen = chosen[np.unique(fitting.group[own[chosen]], return_index=True)[1]]
            return pooled_quantile(strange[chosen], fitting.group[own[chosen]], coverage)

        if class_conditional:
            each = np.array([quantile(truth == code) for code in range(len(classes))])
        else:
            each = np.full(len(classes), quantile(np.ones(len(own), bool)))
        limits[place.rows] = each
        finite = [None if np.isinf(value) else float(value) for value in each]
        thresholds.append(
            {
                **place.key(),
                "n": len(own),
                "n_groups": fitting.n_groups(own),
                "quantile": dict(zip(classes, finite, strict=True)) if class_conditional else finite[0],
            }
        )
    return limits, thresholds


def _subgroups(
    fitting: Fitting, found: CaseSets, split: str, subgroups: Sequence[str] | None
) -> tuple[dict[str, dict[str, list[np.ndarray]]], list[str]]:
    """Return by column and level the members of each case set, and what was passed over."""
    frame = fitting.predictions.frame
    chosen, told = choose_levels(
        frame[frame["split"] == split],
        found.units,
        describing_columns(fitting.predictions),
        subgroups,
        fitting.predictions.source,
    )
    result: dict[str, dict[str, list[np.ndarray]]] = {}
    for levels in chosen:
        names = [*enumerate(levels.names), (-1, NOT_RECORDED)]
        members = {name: [levels.codes[unit] == code for unit in found.unit] for code, name in names}
        result[levels.column] = {name: own for name, own in members.items() if any(part.any() for part in own)}
    return result, told


def _coverage_of_groups(found: CaseSets, covered: Sequence[np.ndarray], level: float) -> Estimate:
    """Return the coverage with groups weighing alike: the mean over groups of the share of their cases covered."""
    n, hits = np.zeros(len(found.groups)), np.zeros(len(found.groups))
    for cases, hit in zip(found.sets, covered, strict=True):
        n += np.bincount(cases.group, minlength=len(n))
        hits += np.bincount(cases.group, weights=hit, minlength=len(n))
    share_of_group = hits[n > 0] / n[n > 0]
    return wilson_grouped(share_of_group, np.arange(len(share_of_group)), level)


def _fitted_counts(fitting: Fitting, limits: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return for each class how many cases its threshold rests on in the poorest fold, and whether it had none."""
    result = {}
    for code, name in enumerate(fitting.predictions.classes):
        own = [place.fitting[fitting.truth[place.fitting] == code] for place in fitting.places]
        result[name] = {
            "n_fitted": min(len(rows) for rows in own),
            "n_groups_fitted": min(fitting.n_groups(rows) for rows in own),
            "always": any(bool(np.isinf(limits[place.rows[0], code])) for place in fitting.places),
        }
    return result


def _told(
    fitting: Fitting,
    fitted: dict[str, dict[str, Any]],
    thresholds: Sequence[dict[str, Any]],
    coverage: float,
    class_conditional: bool,
    fitted_on: str,
) -> list[str]:
    """Say where ``val`` could not support the coverage."""
    needed = groups_needed(coverage)
    if class_conditional:
        always = [f"{name} ({counts['n_groups_fitted']})" for name, counts in fitted.items() if counts["always"]]
        if always:
            return [
                f"too few {fitted_on} groups for a coverage of {coverage:g}, which needs {needed}, in some fold: "
                f"{', '.join(always)}; such a class is in every set there"
            ]
        return []
    told = []
    without = sum(entry["quantile"] is None for entry in thresholds)
    if without:
        told.append(
            f"{without} of {len(thresholds)} folds: fewer than {needed} {fitted_on} groups for a coverage of "
            f"{coverage:g}; every class is in every set there"
        )
    absent = [name for name, counts in fitted.items() if counts["n_fitted"] == 0]
    if absent:
        told.append(f"no {fitted_on} case of {', '.join(absent)} in some fold: nothing holds for them")
    return told


def _table(fitting: Fitting, inside: np.ndarray, split: str) -> pd.DataFrame:
    """Return the sets of a split's rows, the most probable class first."""
    frame, names = fitting.predictions.frame, np.asarray(fitting.predictions.classes, dtype=object)
    rows = np.flatnonzero((frame["split"] == split).to_numpy())
    order = np.argsort(-fitting.probabilities[rows], axis=1, kind="stable")
    kept = np.take_along_axis(inside[rows], order, axis=1)
    truth = fitting.truth[rows]
    covered = inside[rows, np.maximum(truth, 0)]
    table = frame.loc[rows, ["unit", "group", "fold", "repeat", "seed", "label"]].reset_index(drop=True)
    table["set"] = [names[places[flags]].tolist() for places, flags in zip(order, kept, strict=True)]
    table["size"] = kept.sum(axis=1)
    table["covered"] = pd.array(np.where(truth >= 0, covered, False), dtype="boolean")
    table.loc[truth < 0, "covered"] = pd.NA
    return table
