"""Which cases a model should leave to a person: the risk-coverage curve, and a referral rule chosen on ``val``.

A model that keeps the cases it is sure of and refers the rest errs less on those it keeps. How much less is the curve;
where to draw the line for a promised error or sensitivity is decided on ``val``, and test tells whether that held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import Cases, CaseSets, case_sets
from dermlab.evaluate.fitting import (
    ROUNDING,
    Fitting,
    Place,
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
from dermlab.evaluate.intake import nearest
from dermlab.evaluate.intervals import Estimate, interval, resample
from dermlab.evaluate.metrics import Evaluation, mean_defined, ratio, sum_rows
from dermlab.evaluate.predictions import Predictions

SensitivityPromises = Mapping[str | tuple[str, ...], float]
COVERAGES = tuple(np.round(np.arange(0.02, 1.001, 0.02), 2).tolist())
JOINED = "+"
ERROR = "error"


class RiskCoverage(Evaluation):
    """Risk at stated coverages, and the area under the curve, as a function of how often each group is counted.

    Cases of equal confidence enter together, in the order that chance would give them on average.

    Args:
        sets: case sets with probabilities, not multi-label; averaged over.
        coverages: (P,) shares kept.
    """

    def __init__(self, sets: Sequence[Cases], coverages: Sequence[float] = COVERAGES) -> None:
        from scipy.sparse import vstack

        self.names = ("aurc", "excess_aurc", "error", *(f"risk:{coverage:g}" for coverage in coverages))
        self.n_groups = sets[0].n_groups
        self._coverages = np.asarray(coverages)
        rows, self._sizes = [], []
        for cases in sets:
            assert cases.probabilities is not None
            confidence = cases.probabilities.max(axis=1)
            levels, step = np.unique(-confidence, return_inverse=True)
            ones = np.ones(len(cases))
            places, values = np.concatenate([step, len(levels) + step]), np.concatenate([ones, 1 - cases.correct()])
            rows.append(sum_rows(places, np.tile(cases.group, 2), values, (2 * len(levels), self.n_groups)))
            self._sizes.append(len(levels))
        self.rows = vstack(rows, format="csr")

    def from_totals(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values of each name from totals (totals, B), averaged over the sets."""
        per_set, start = [], 0
        for size in self._sizes:
            per_set.append(self._one(totals[start : start + size], totals[start + size : start + 2 * size]))
            start += 2 * size
        values = mean_defined(np.stack(per_set))
        return {name: values[place] for place, name in enumerate(self.names)}

    def _one(self, cases: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Return (names, B) values from the cases and errors (steps, B) at each confidence, the surest first."""
        upper, lost = (np.zeros((len(cases) + 1, cases.shape[1])) for _ in range(2))
        np.cumsum(cases, axis=0, out=upper[1:])
        np.cumsum(errors, axis=0, out=lost[1:])
        n, wrong = upper[-1], lost[-1]
        # Within a step the j-th case to enter finds, on average, a risk of (before + j slope) / (lower + j); summed
        # over j that is a difference of harmonic numbers: the mean over all orders of the tied costs as much as one.
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(2, int(n.max()) + 1)))])
        steps = np.diff(harmonic[upper.astype(np.int32)], axis=0)
        slope = np.divide(errors, cases, out=np.zeros_like(cases), where=cases != 0)
        slope *= upper[:-1]
        np.subtract(lost[:-1], slope, out=slope)
        area = ratio(wrong + np.einsum("kb,kb->b", slope, steps), n)
        right = n - wrong
        best = ratio(wrong - right * (harmonic[n.astype(np.int64)] - harmonic[right.astype(np.int64)]), n)
        risk = np.full((len(self._coverages), len(n)), np.nan)
        entered, found = upper.T.copy(), lost.T.copy()
        for column in np.flatnonzero(n > 0):
            kept = self._coverages * n[column]
            risk[:, column] = np.interp(kept, entered[column], found[column]) / kept
        return np.concatenate([[area, area - best, ratio(wrong, n)], risk])


def risk_coverage(
    predictions: Predictions,
    *,
    split: str = "test",
    coverages: Sequence[float] = COVERAGES,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return the risk-coverage curve: the error among the cases kept, the least sure being left out first.

    El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification"; Geifman & El-Yaniv 2017,
    "Selective classification for deep neural networks". Confidence is the largest probability. The area (AURC) is the
    mean risk over all numbers kept; the excess (Geifman, Uziel & El-Yaniv 2019, sec. 3) is what lies above the area of
    a model with the same errors that leaves them out first. Without any order the area would be ``error``.

    Args:
        predictions: any table with probabilities; folds are pooled, repeats and seeds averaged.
        split: the split described.
        coverages: shares kept at which the risk is told.
        n_boot: bootstrap replicates over groups.
        seed: of the bootstrap.
        level: coverage of the intervals (at each point of the curve by itself).

    Returns:
        A dict for JSON; an estimate is ``{"value", "low", "high"}``::

            {"n", "n_groups", "unit", "group_by", "split", "aurc": estimate, "excess_aurc": estimate,
             "error": estimate (of all cases), "curve": [{"coverage", "risk": estimate}],
             "interval": {"method", "level", "n_boot", "seed"}, "warnings": []}

    Raises:
        InputError: hard labels, a multi-label target, or a coverage that is none.
    """
    _needs_one_answer(predictions, "a risk-coverage curve")
    within("level", level)
    for coverage in coverages:
        if not 0 < coverage <= 1:
            raise InputError(f"coverages: must lie above 0 and be at most 1, not {coverage}")
    found = case_sets(predictions, split)
    curve = RiskCoverage(found.sets, coverages)
    values, drawn = curve.value(), resample([curve], n_boot=n_boot, seed=seed)[0]
    figures = {
        name: interval(values[name], drawn[name], len(found.groups), level=level).to_dict() for name in curve.names
    }
    return {
        **_heading(predictions, found, split),
        **{name: figures[name] for name in ("aurc", "excess_aurc", "error")},
        "curve": [{"coverage": float(at), "risk": figures[f"risk:{at:g}"]} for at in coverages],
        "interval": {"method": "percentile", "level": level, "n_boot": n_boot, "seed": seed},
        "warnings": list(found.warnings),
    }


def referral(
    predictions: Predictions,
    *,
    max_error: float | None = None,
    sensitivity: SensitivityPromises | None = None,
    fitted_on: str = "val",
    split: str = "test",
    finite_sample: bool = True,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Choose on ``val`` which cases are referred to a person, and tell on test what came of it.

    A case is referred where its largest probability is below a threshold (``max_error``), or where the probability of
    the named classes together reaches one (``sensitivity``); with several promises, where any of them says so. What is
    not referred is kept: the model's answer stands. Each fold, repeat and seed has thresholds of its own.

    * ``max_error``: the threshold that keeps most ``val`` cases with at most that error among them; with
      ``finite_sample`` as if one more group of average size had been kept with nothing but errors.
    * ``sensitivity``: the highest threshold at which that share of the named classes' ``val`` cases is referred; with
      ``finite_sample`` as a conformal quantile (:func:`dermlab.evaluate.fitting.pooled_quantile`: groups weigh alike),
      so that a new patient's case is referred at least that often on average. A case that the model itself calls by a
      named class but that stays below the threshold counts as missed.

    Equal scores share one fate, so ties are referred together. Where ``val`` cannot support a promise (no case of the
    classes, or too few), everything is referred in that fold, and a warning says so.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those of ``split``.
        max_error: largest share of wrong answers among the cases kept.
        sensitivity: by class, by tuple of classes, or by names joined with ``+`` (``"BCC+MEL+SCC"``): the least share
            of their cases that must be referred, such as ``{"MEL": 0.95}``.
        fitted_on: the split that thresholds are chosen on.
        split: the split that reports.
        finite_sample: allow for how few ``val`` groups there are.
        n_boot: bootstrap replicates over groups, for ``error_saved``; shares have Wilson's interval.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Returns:
        A dict for JSON; an estimate is ``{"value", "low", "high"}``, all of test::

            {"n", "n_groups", "unit", "group_by", "split", "fitted_on", "finite_sample",
             "promises": [{"kind": "error" | "sensitivity", "classes": [] | ["MEL"], "aim", "found": estimate,
                           "n", "n_groups" (cases it rests on), "verdict": "held" | "broken" | "cannot tell",
                           "statement": one sentence}],
             "coverage": estimate, "referred_per_100": estimate, "error_kept": estimate, "error_referred": estimate,
             "error_all": estimate, "error_saved": estimate (paired: error of all less error of the kept),
             "per_class": {"ACK": {"n", "n_groups", "referred": estimate}},
             "thresholds": [{"fold", "repeat", "seed", "n", "n_groups", "refer_below": confidence, or null where there
                             is no such promise, "refer_from": {"MEL": probability}, "refers_all": bool}],
             "interval": {"method", "level", "n_boot", "seed"}, "warnings": []}

    Raises:
        InputError: no promise, one outside 0 and 1, a class that is unknown or has no case at all, hard labels, a
            multi-label target, or a fold without labelled ``val`` rows.
    """
    _needs_one_answer(predictions, "a referral rule")
    within("level", level)
    if max_error is None and not sensitivity:
        raise InputError("referral: needs max_error (such as 0.1) or sensitivity (such as {'MEL': 0.95})")
    if max_error is not None:
        within("max_error", max_error)
    promises = _promised(predictions, sensitivity or {})
    fitting = fitting_places(predictions, fitted_on, "a referral threshold", split)
    confidence, predicted = fitting.probabilities.max(axis=1), fitting.probabilities.argmax(axis=1)
    referred = np.zeros(len(confidence), bool)
    scores = [fitting.probabilities[:, codes].sum(axis=1) for codes, _ in promises]
    thresholds, warnings = [], [*fitting.warnings]
    for place in fitting.places:
        entry: dict[str, Any] = {
            **place.key(),
            "n": len(place.fitting),
            "n_groups": fitting.n_groups(place.fitting),
            "refer_below": None,
            "refer_from": {},
        }
        if max_error is not None:
            right = predicted[place.fitting] == fitting.truth[place.fitting]
            group = fitting.group[place.fitting]
            floor = error_threshold(confidence[place.fitting], right, group, max_error, finite_sample=finite_sample)
            referred[place.rows] |= confidence[place.rows] < floor
            entry["refer_below"] = None if np.isinf(floor) else floor
            entry["refers_all"] = bool(np.isinf(floor))
        for (codes, aim), score in zip(promises, scores, strict=True):
            start = _sensitivity_threshold(fitting, place, codes, score, aim, finite_sample)
            referred[place.rows] |= score[place.rows] >= start
            entry["refer_from"][_name(predictions, codes)] = None if np.isinf(start) else start
            entry["refers_all"] = entry.get("refers_all", False) or bool(np.isinf(start))
        thresholds.append(entry)
    warnings += _told(fitting, promises, thresholds, max_error, fitted_on)

    found = case_sets(fitting.predictions, split)
    rows = scored_rows(found, fitting.predictions.frame, split)
    sent = [referred[places].astype(np.float64) for places in rows]
    quantities = _quantities(found, sent, promises)
    figures = {name: share(found, weighted, level) for name, weighted in quantities.items()}
    saved = _saved(found, quantities, n_boot, seed, level)
    told = []
    if max_error is not None:
        told.append(_kept_promise(found, ERROR, [], max_error, figures["error_kept"], quantities["error_kept"]))
    for number, (codes, aim) in enumerate(promises):
        names = [predictions.classes[code] for code in codes]
        key = f"sensitivity:{number}"
        told.append(_kept_promise(found, "sensitivity", names, aim, figures[key], quantities[key]))
    kept = figures["coverage"]
    per_100 = {key: None if np.isnan(value) else 100 * (1 - value) for key, value in _turned(kept).items()}
    return {
        **_heading(predictions, found, split),
        "fitted_on": fitted_on,
        "finite_sample": finite_sample,
        "promises": told,
        "coverage": kept.to_dict(),
        "referred_per_100": per_100,
        **{name: figures[name].to_dict() for name in ("error_kept", "error_referred", "error_all")},
        "error_saved": saved.to_dict(),
        "per_class": {
            name: {
                **_counted(found, quantities[f"referred:{name}"]),
                "referred": figures[f"referred:{name}"].to_dict(),
            }
            for name in predictions.classes
        },
        "thresholds": thresholds,
        "interval": {"method": "wilson", "level": level, "n_boot": n_boot, "seed": seed},
        "warnings": [*found.warnings, *warnings],
    }


def error_threshold(
    confidence: np.ndarray, right: np.ndarray, group: np.ndarray, max_error: float, *, finite_sample: bool = True
) -> float:
    """Return the least confidence at which at most ``max_error`` of the cases kept are wrong.

    Args:
        confidence: float (N,) of the answer.
        right: bool (N,) whether it is correct.
        group: int (N,) codes of the groups.
        max_error: largest share of errors among the cases of at least that confidence.
        finite_sample: count one more group of average size as kept and wrong.

    Returns:
        The threshold, infinity where none serves; all cases of one confidence are kept or referred together.
    """
    levels, step = np.unique(-confidence, return_inverse=True)
    kept = np.cumsum(np.bincount(step))
    wrong = np.cumsum(np.bincount(step, weights=~right))
    more = len(group) / len(np.unique(group)) if finite_sample else 0.0
    serves = np.flatnonzero((wrong + more) / (kept + more) <= max_error + ROUNDING)
    return float(-levels[serves[-1]]) if len(serves) else np.inf


def _sensitivity_threshold(
    fitting: Fitting, place: Place, codes: tuple[int, ...], score: np.ndarray, aim: float, finite_sample: bool
) -> float:
    """Return the score from which on a fold's cases are referred, minus infinity where all have to be."""
    own = place.fitting[np.isin(fitting.truth[place.fitting], codes)]
    return -pooled_quantile(-score[own], fitting.group[own], aim, finite_sample=finite_sample)


def _needs_one_answer(predictions: Predictions, what: str) -> None:
    if not predictions.has_probabilities:
        raise InputError(f"{predictions.source}: holds hard labels; {what} needs probabilities")
    if predictions.kind == "multilabel":
        raise InputError(
            f"{predictions.source}: is multi-label; {what} needs one answer a case: evaluate a label as a binary target"
        )


def _heading(predictions: Predictions, found: CaseSets, split: str) -> dict[str, Any]:
    return {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "split": split,
    }


def _promised(predictions: Predictions, sensitivity: SensitivityPromises) -> list[tuple[tuple[int, ...], float]]:
    """Return the class codes and the aim of each promise."""
    classes, result = predictions.classes, []
    for key, aim in sensitivity.items():
        names = key if isinstance(key, tuple) else (key,) if key in classes else tuple(key.split(JOINED))
        for name in names:
            if name not in classes:
                near = nearest(name, classes)
                hint = (
                    f"did you mean {near!r}?"
                    if near
                    else ("a branch of a hierarchy (malignant) needs the data set whose card defines it: --data")
                )
                raise InputError(f"sensitivity: {name!r} is not one of {', '.join(classes)}; {hint}")
        codes = tuple(dict.fromkeys(classes.index(name) for name in names))
        if len(codes) == len(classes):
            raise InputError("sensitivity: names every class; all cases would be referred")
        if not any((predictions.frame["label"] == classes[code]).any() for code in codes):
            raise InputError(f"{predictions.source}: has no case of {', '.join(names)} to choose a threshold by")
        result.append((codes, within(f"sensitivity of {JOINED.join(names)}", aim)))
    return result


def _name(predictions: Predictions, codes: tuple[int, ...]) -> str:
    return JOINED.join(predictions.classes[code] for code in codes)


def _quantities(
    found: CaseSets, sent: Sequence[np.ndarray], promises: Sequence[tuple[tuple[int, ...], float]]
) -> dict[str, list[Weighted]]:
    """Return what is averaged over test cases: by name, values and weights for each case set."""
    result: dict[str, list[Weighted]] = {}
    for cases, away in zip(found.sets, sent, strict=True):
        wrong, ones = 1 - cases.correct(), np.ones(len(cases))
        entries: dict[str, Weighted] = {
            "coverage": (1 - away, ones),
            "error_kept": (wrong, 1 - away),
            "error_referred": (wrong, away),
            "error_all": (wrong, ones),
        }
        for number, (codes, _) in enumerate(promises):
            entries[f"sensitivity:{number}"] = (away, np.isin(cases.truth, codes).astype(np.float64))
        for code, name in enumerate(cases.classes):
            entries[f"referred:{name}"] = (away, (cases.truth == code).astype(np.float64))
        for name, entry in entries.items():
            result.setdefault(name, []).append(entry)
    return result


def _saved(
    found: CaseSets, quantities: Mapping[str, Sequence[Weighted]], n_boot: int, seed: int, level: float
) -> Estimate:
    """Return by how much the error among the kept lies below that among all, paired on the same draws of groups."""
    ratios = as_ratios(found, {name: quantities[name] for name in ("error_all", "error_kept")})
    values, drawn = ratios.value(), resample([ratios], n_boot=n_boot, seed=seed)[0]
    difference = drawn["error_all"] - drawn["error_kept"]
    return interval(values["error_all"] - values["error_kept"], difference, len(found.groups), level=level)


def _counted(found: CaseSets, weighted: Sequence[Weighted]) -> dict[str, int]:
    """Return the distinct units and groups with a weight in any case set."""
    units = np.unique(
        np.concatenate([unit[weights > 0] for unit, (_, weights) in zip(found.unit, weighted, strict=True)])
    )
    return {"n": len(units), "n_groups": len(np.unique(found.group_of_unit[units]))}


def _kept_promise(
    found: CaseSets, kind: str, names: list[str], aim: float, figure: Estimate, weighted: Sequence[Weighted]
) -> dict[str, Any]:
    counts = _counted(found, weighted)
    verdict = promise(figure, aim, at_least=kind != ERROR)
    what = (
        f"at most {aim:.1%} wrong among those kept" if kind == ERROR else f"at least {aim:.1%} of {JOINED.join(names)}"
    )
    said = "no such case on test" if np.isnan(figure.value) else f"{figure.value:.1%} on test"
    if not np.isnan(figure.low):
        said += f" ({figure.low:.1%} to {figure.high:.1%}; n = {counts['n']}, groups = {counts['n_groups']})"
    return {
        "kind": kind,
        "classes": names,
        "aim": aim,
        "found": figure.to_dict(),
        **counts,
        "verdict": verdict,
        "statement": f"promised {what}{'' if kind == ERROR else ' referred'}; {said}: {verdict}",
    }


def _turned(share: Estimate) -> dict[str, float]:
    """Return an estimate whose ends change places when it is taken from 1."""
    return {"value": share.value, "low": share.high, "high": share.low}


def _told(
    fitting: Fitting,
    promises: Sequence[tuple[tuple[int, ...], float]],
    thresholds: Sequence[dict[str, Any]],
    max_error: float | None,
    fitted_on: str,
) -> list[str]:
    """Say where ``val`` could not support a promise."""
    told, n_places = [], len(fitting.places)
    if max_error is not None:
        without = sum(entry["refer_below"] is None for entry in thresholds)
        if without:
            told.append(
                f"{without} of {n_places} folds: no threshold keeps the error on {fitted_on} at {max_error:g}; "
                "everything is referred there"
            )
    for codes, aim in promises:
        name = _name(fitting.predictions, codes)
        without = sum(entry["refer_from"][name] is None for entry in thresholds)
        if without:
            held = [place.fitting[np.isin(fitting.truth[place.fitting], codes)] for place in fitting.places]
            fewest = min(fitting.n_groups(rows) for rows in held)
            told.append(
                f"{without} of {n_places} folds: too few {fitted_on} groups with {name} (fewest {fewest}) to promise "
                f"{aim:g}, which needs {groups_needed(aim)}; everything is referred there"
            )
    return told
