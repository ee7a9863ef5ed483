"""Whether a probability means what it says: reliability bins, and corrections fitted on ``val`` alone.

Three corrections, from the stiffest to the most supple: one temperature, a scale and a shift for each class, a step
function for each class. Which of them a fold gets is chosen by cross-validated log loss within its ``val`` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import Cases, CaseSets, case_sets, cases_from_arrays
from dermlab.evaluate.estimates import estimate
from dermlab.evaluate.fitting import CANNOT_TELL, Fitting, Place, fitting_places, scored_rows, within
from dermlab.evaluate.intervals import Estimate, interval
from dermlab.evaluate.metrics import N_BINS, Evaluation, confidence_bins, confidences, defined
from dermlab.evaluate.multilabel import with_thresholds
from dermlab.evaluate.predictions import PROBABILITY, Predictions

Calibration = Literal["temperature", "vector", "isotonic"]
METHODS: tuple[Calibration, ...] = ("temperature", "vector", "isotonic")
NONE, CHOSEN = "none", "chosen"
REPORTED = ("log_loss", "brier", "ece", "ece_equal_mass", "top1")
SMALLEST = 1e-12  # a nearest-neighbour vote says 0; its logarithm must stay finite
HOTTEST = 20.0
N_PARTS = 5
FEW_UNITS = 30  # fewer, and a correction of each class follows chance
FEW_CASES = 10
ORDER = 1e-6  # of the probabilities as they were, so that a step does not tie what the model told apart


def reliability(
    y_true: Any, y_prob: Any, *, n_bins: int = N_BINS, equal_mass: bool = False, classes: Any = None
) -> list[dict[str, float | int | None]]:
    """Return the bins of a reliability diagram for the most probable class.

    Args:
        y_true: (N,) labels.
        y_prob: (N, C) probabilities in class order.
        n_bins: number of bins.
        equal_mass: bins that hold about equally many cases instead of bins of equal width.
        classes: the classes in order; None: the sorted labels.

    Returns:
        One ``{"low", "high", "confidence", "accuracy", "n"}`` per bin from low to high: its edges (of the cases in it,
        where masses are equal), mean confidence, share correct and number of cases; None where it is empty.
    """
    return reliability_bins([cases_from_arrays(y_true, y_prob, classes=classes)], n_bins=n_bins, equal_mass=equal_mass)


def reliability_bins(
    sets: Sequence[Cases], *, n_bins: int = N_BINS, equal_mass: bool = False
) -> list[dict[str, float | int | None]]:
    """Return the bins of a reliability diagram over all case sets together; see :func:`reliability`."""
    pairs = [confidences(cases)[:2] for cases in sets]
    confidence, correct = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    place = confidence_bins(confidence, n_bins, equal_mass=equal_mass)
    bins: list[dict[str, float | int | None]] = []
    for number in range(n_bins):
        inside = place == number
        n = int(inside.sum())
        low, high = number / n_bins, (number + 1) / n_bins
        if equal_mass and n:
            low, high = float(confidence[inside].min()), float(confidence[inside].max())
        bins.append(
            {
                "low": low,
                "high": high,
                "confidence": float(confidence[inside].mean()) if n else None,
                "accuracy": float(correct[inside].mean()) if n else None,
                "n": n,
            }
        )
    return bins


def expected_ece(sets: Sequence[Cases], *, n_bins: int = N_BINS, n_draws: int = 500, seed: int = 0) -> float:
    """Return the calibration error that a perfectly calibrated model of the same confidences would show on average.

    The estimate averages absolute gaps, so chance alone makes it positive; what lies above this value is the model's.

    Args:
        sets: case sets, averaged over.
        n_bins: bins of equal width.
        n_draws: number of simulated outcomes.
        seed: of the outcomes.
    """
    found = []
    for place, cases in enumerate(sets):
        confidence = confidences(cases)[0]
        bins = confidence_bins(confidence, n_bins)
        random = generator(seed, "calibrated", place)
        gaps = [
            np.abs(np.bincount(bins, (random.random(len(bins)) < confidence) - confidence, n_bins)).sum() / len(bins)
            for _ in range(n_draws)
        ]
        found.append(np.mean(gaps))
    return float(np.mean(found))


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017, sec. 4.2).

    Args:
        truth: int (N,) class codes, or (N, C) of 0, 1 and NaN for independent labels.
        probabilities: float (N, C).

    Returns:
        A temperature within 1/20 and 20; above 1 the probabilities were too sure of themselves.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    if truth.ndim == 2:
        known = ~np.isnan(truth)
        towards = _logits(probabilities, independent=True)[known] * (2 * truth[known] - 1)

        def slope(inverse: float) -> float:
            return float(-(towards * expit(-inverse * towards)).mean())
    else:
        logs = _logits(probabilities, independent=False)
        logs -= logs.max(axis=1, keepdims=True)
        own = float(logs[np.arange(len(truth)), truth].mean())

        def slope(inverse: float) -> float:
            powers = np.exp(inverse * logs)
            return float((np.einsum("nc,nc->n", powers, logs) / powers.sum(axis=1)).mean() - own)

    # The loss is convex in 1/T, so its slope changes sign once, or not within the limits.
    if slope(1.0) == 0:
        return 1.0
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    if slope(HOTTEST) <= 0:
        return 1 / HOTTEST
    return float(1 / brentq(slope, 1 / HOTTEST, HOTTEST, xtol=1e-9, rtol=1e-9))


def apply_temperature(probabilities: np.ndarray, temperature: float, *, independent: bool = False) -> np.ndarray:
    """Return probabilities (N, C) after division of their logits by ``temperature``; the order of classes stays."""
    logs = np.log(np.clip(probabilities, SMALLEST, 1.0)) / temperature
    if independent:
        from scipy.special import expit

        return expit(logs - np.log(np.clip(1 - probabilities, SMALLEST, 1.0)) / temperature)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_vector(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and shift of each class's log probability that minimise the log loss, held near a temperature.

    Vector scaling of Guo et al. 2017, sec. 4.2. Maximum a posteriori: the relative departure from the best single
    temperature and the shift have a standard normal prior each, so that few cases move them little and many as much as
    they ask for. A class without a case (multi-label: without a yes or without a no) keeps the temperature.
    Multi-label targets: Platt's sigmoid of each label.

    Args:
        truth: int (N,) class codes, or (N, C) of 0, 1 and NaN for independent labels.
        probabilities: float (N, C).

    Returns:
        Scale (C,) and shift (C,), for :func:`apply_vector`.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    n_classes, independent = probabilities.shape[1], truth.ndim == 2
    temperature = fit_temperature(truth, probabilities)
    logits = _logits(probabilities, independent) / temperature
    outcome = truth if independent else (truth[:, None] == np.arange(n_classes)).astype(np.float64)
    unknown = np.isnan(outcome)
    free = (np.nansum(outcome, axis=0) > 0) & (np.nansum(1 - outcome, axis=0) > 0)
    rows = np.arange(len(truth))

    def answers(parameters: np.ndarray) -> np.ndarray:
        departure, shift = np.where(free, parameters.reshape(2, n_classes), 0.0)
        scores = (1 + departure) * logits + shift
        if independent:
            return expit(scores)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        departure, shift = np.where(free, parameters.reshape(2, n_classes), 0.0)
        said = answers(parameters)
        if independent:
            right = np.where(unknown, 1.0, np.where(outcome == 1, said, 1 - said))
            said = np.where(unknown, 0.0, said - outcome)
        else:
            right = said[rows, truth]
            said[rows, truth] -= 1
        gradient = np.stack([np.einsum("nc,nc->c", said, logits) + departure, said.sum(axis=0) + shift])
        value = -np.log(np.clip(right, SMALLEST, 1.0)).sum() + (departure**2).sum() / 2 + (shift**2).sum() / 2
        return float(value), np.where(free, gradient, 0.0).ravel()

    def curvature(parameters: np.ndarray) -> np.ndarray:
        # Second derivatives are few (a number for each pair of classes), and with them a handful of steps suffices.
        said = answers(parameters)
        own = np.where(unknown, 0.0, said * (1 - said)) if independent else said
        scaled = own * logits
        blocks = [np.diag(both) for both in ((scaled * logits).sum(axis=0), scaled.sum(axis=0), own.sum(axis=0))]
        if not independent:
            blocks = [blocks[0] - scaled.T @ scaled, blocks[1] - scaled.T @ said, blocks[2] - said.T @ said]
        matrix = np.block([[blocks[0], blocks[1]], [blocks[1].T, blocks[2]]])
        kept = np.tile(free, 2)
        return np.where(kept[:, None] & kept, matrix, 0.0) + np.eye(2 * n_classes)

    found = minimize(loss, np.zeros(2 * n_classes), jac=True, hess=curvature, method="trust-exact")
    departure, shift = np.where(free, found.x.reshape(2, n_classes), 0.0)
    return (1 + departure) / temperature, shift


def apply_vector(
    probabilities: np.ndarray, scale: np.ndarray, shift: np.ndarray, *, independent: bool = False
) -> np.ndarray:
    """Return probabilities (N, C) of the scaled and shifted logits; the order of classes may change."""
    from scipy.special import expit, softmax

    scores = scale * _logits(probabilities, independent) + shift
    return expit(scores) if independent else softmax(scores, axis=1)


def fit_isotonic(truth: np.ndarray, probabilities: np.ndarray) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Return for each class against the rest the rising function from probability to share (Zadrozny & Elkan 2002).

    Args:
        truth: int (N,) class codes, or (N, C) of 0, 1 and NaN for independent labels.
        probabilities: float (N, C).

    Returns:
        For each class the function's knots: probabilities and shares, ascending; None where all cases or none are of
        the class, whose probability then stays. Shares lie within 1 / (2n + 2) of 0 and 1: that none of n cases was of
        a class does not prove that none ever is.
    """
    from sklearn.isotonic import IsotonicRegression

    result: list[tuple[np.ndarray, np.ndarray] | None] = []
    for code in range(probabilities.shape[1]):
        outcome = truth[:, code] if truth.ndim == 2 else (truth == code).astype(np.float64)
        known = ~np.isnan(outcome)
        if len(np.unique(outcome[known])) < 2:
            result.append(None)
            continue
        found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
            probabilities[known, code], outcome[known]
        )
        least = 0.5 / (int(known.sum()) + 1)
        result.append((found.X_thresholds_, np.clip(found.y_thresholds_, least, 1 - least)))
    return result


def apply_isotonic(
    probabilities: np.ndarray, knots: Sequence[tuple[np.ndarray, np.ndarray] | None], *, independent: bool = False
) -> np.ndarray:
    """Return probabilities (N, C) after each class's function; rows sum to 1 again unless labels are independent."""
    result = probabilities.copy()
    for code, function in enumerate(knots):
        if function is not None:
            result[:, code] = np.interp(probabilities[:, code], *function)
    result = (1 - ORDER) * result + ORDER * probabilities
    return result if independent else result / result.sum(axis=1, keepdims=True)


def _logits(probabilities: np.ndarray, independent: bool) -> np.ndarray:
    logs = np.log(np.clip(probabilities, SMALLEST, 1.0))
    return logs - np.log(np.clip(1 - probabilities, SMALLEST, 1.0)) if independent else logs


@dataclass(frozen=True)
class _Fitted:
    """A correction and what to write down about it."""

    apply: Callable[[np.ndarray], np.ndarray]
    record: dict[str, Any]


def _fit(method: str, truth: np.ndarray, probabilities: np.ndarray) -> _Fitted:
    independent = truth.ndim == 2
    if method == NONE:
        return _Fitted(lambda values: values, {})
    if method == "temperature":
        temperature = fit_temperature(truth, probabilities)
        return _Fitted(
            lambda values: apply_temperature(values, temperature, independent=independent),
            {"temperature": temperature},
        )
    if method == "vector":
        scale, shift = fit_vector(truth, probabilities)
        return _Fitted(
            lambda values: apply_vector(values, scale, shift, independent=independent),
            {"scale": scale.tolist(), "shift": shift.tolist()},
        )
    knots = fit_isotonic(truth, probabilities)
    written = [None if knot is None else {"probability": knot[0].tolist(), "share": knot[1].tolist()} for knot in knots]
    return _Fitted(lambda values: apply_isotonic(values, knots, independent=independent), {"knots": written})


def _refusal(method: str, truth: np.ndarray) -> str | None:
    """Return why a correction of each class cannot be fitted on these cases, None where it can."""
    if method in (NONE, "temperature"):
        return None
    if len(truth) < FEW_UNITS:
        return f"needs {FEW_UNITS} labelled val units, and there are {len(truth)}"
    if truth.ndim == 1 and len(np.unique(truth)) < 2:
        return "all val units are of one class"
    return None


def parts_of_groups(truth: np.ndarray, group: np.ndarray, n_parts: int, seed: int) -> np.ndarray:
    """Return a part (0 … n_parts - 1) for each case; a group is in one part, and parts have like mixes of classes.

    Groups are shuffled, ordered by the rarest class among their cases, and dealt out in turn.

    Args:
        truth: int (N,) class codes, or (N, C) of 0, 1 and NaN.
        group: int (N,) codes of the groups.
        n_parts: how many parts; never more than there are groups.
        seed: of the shuffle.
    """
    if truth.ndim == 2:
        share = np.nansum(truth, axis=0)
        rarest = np.where(truth == 1, share, np.inf)
        codes = np.where((truth == 1).any(axis=1), rarest.argmin(axis=1), truth.shape[1])
    else:
        codes = truth
    rank = np.argsort(np.argsort(np.bincount(codes), kind="stable"))[codes]
    names, place = np.unique(group, return_inverse=True)
    own = np.full(len(names), rank.max() + 1)
    np.minimum.at(own, place, rank)
    shuffled = generator(seed, "calibration parts").permutation(len(names))
    dealt = np.empty(len(names), np.int64)
    dealt[shuffled[np.argsort(own[shuffled], kind="stable")]] = np.arange(len(names)) % min(n_parts, len(names))
    return dealt[place]


def cross_validated_log_loss(
    truth: np.ndarray, probabilities: np.ndarray, group: np.ndarray, methods: Sequence[str], *, seed: int = 0
) -> dict[str, float]:
    """Return the log loss of each correction on cases whose groups it was not fitted on (five parts by group).

    Args:
        truth: int (N,) class codes, or (N, C) of 0, 1 and NaN.
        probabilities: float (N, C).
        group: int (N,) codes of the groups.
        methods: of :data:`METHODS`, and ``none``.
        seed: of the parts.
    """
    part = parts_of_groups(truth, group, N_PARTS, seed)
    said = {method: np.empty_like(probabilities) for method in methods}
    for number in range(int(part.max()) + 1):
        out = part == number
        for method in methods:
            said[method][out] = _fit(method, truth[~out], probabilities[~out]).apply(probabilities[out])
    return {method: _log_loss(truth, values) for method, values in said.items()}


def _log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    classes = tuple(str(code) for code in range(probabilities.shape[1]))
    cases = Cases(truth, truth, probabilities, np.zeros(len(truth), np.int64), 1, classes)
    return Evaluation([cases], ["log_loss"]).value()["log_loss"]


def _choose(fitting: Fitting, place: Place, methods: Sequence[str], seed: int) -> tuple[str, dict[str, float]]:
    """Return the correction of one fold and the cross-validated losses it was chosen by; the stiffest wins a tie."""
    truth, group = fitting.truth[place.fitting], fitting.group[place.fitting]
    if fitting.n_groups(place.fitting) < 2 * N_PARTS:
        return NONE, {}
    offered = [NONE, *(method for method in METHODS if method in methods and _refusal(method, truth) is None)]
    losses = cross_validated_log_loss(truth, fitting.probabilities[place.fitting], group, offered, seed=seed)
    return min(losses, key=lambda method: losses[method]), losses


def calibrate(
    predictions: Predictions,
    *,
    method: Calibration | Literal["chosen"] = "temperature",
    fitted_on: str = "val",
    seed: int = 0,
) -> Predictions:
    """Correct the probabilities of each fold, repeat and seed by what was fitted on its ``val`` rows.

    Units are pooled first, so that what is calibrated is what is scored.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those to be scored.
        method: ``temperature``, ``vector``, ``isotonic``, or ``chosen``: for each fold the one (or none) of least
            log loss in a cross-validation by groups within its ``val`` rows.
        fitted_on: the split that is fitted on; the test split is refused.
        seed: of that cross-validation's parts.

    Returns:
        The pooled table with calibrated probabilities. ``meta["calibration"]`` holds ``method``, ``fitted_on`` and, for
        each fold, what was fitted: ``temperatures``, or ``fits`` of ``scale`` and ``shift``, or ``knots`` by class.

    Raises:
        InputError: hard labels, or a fold without labelled ``val`` rows, or with too few for the method.
    """
    if method not in (*METHODS, CHOSEN):
        raise InputError(f"method: must be one of {', '.join((*METHODS, CHOSEN))}, not {method!r}")
    purpose = "a temperature" if method == "temperature" else "a calibration"
    fitting = fitting_places(predictions, fitted_on, purpose)
    values, fits = fitting.probabilities.copy(), []
    for place in fitting.places:
        truth = fitting.truth[place.fitting]
        own: str = method if method != CHOSEN else _choose(fitting, place, METHODS, seed)[0]
        refusal = _refusal(own, truth)
        if refusal:
            raise InputError(
                f"{predictions.source}: fold {place.fold}, repeat {place.repeat}, seed {place.seed}: "
                f"calibration {own!r} {refusal}; use 'temperature'"
            )
        fitted = _fit(own, truth, fitting.probabilities[place.fitting])
        values[place.rows] = fitted.apply(fitting.probabilities[place.rows])
        chosen = {"method": own} if method == CHOSEN else {}
        fits.append({**place.key(), "n": len(place.fitting), **chosen, **fitted.record})
    frame = fitting.predictions.frame.copy()
    frame[[PROBABILITY + name for name in predictions.classes]] = values
    entry = "temperatures" if method == "temperature" else "fits"
    record = {"method": method, "fitted_on": fitted_on, entry: fits}
    return with_thresholds(fitting.predictions.with_frame(frame, calibration=record))  # they move with the scores


def calibration_report(
    predictions: Predictions,
    *,
    fitted_on: str = "val",
    split: str = "test",
    methods: Sequence[Calibration] = METHODS,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return what each correction, fitted on ``val``, does to the calibration on test.

    Every fold, repeat and seed is fitted on its own ``val`` rows; test rows are pooled over folds and averaged over
    repeats and seeds, as in ``metrics.json``. Intervals are over groups of test cases and take what was fitted as
    given; the change is paired (before and after on the same draws). Multi-label targets: all labels together.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those of ``split``.
        fitted_on: the split that is fitted on.
        split: the split that reports.
        methods: of :data:`METHODS`.
        n_boot: bootstrap replicates.
        seed: of the bootstrap and of the parts of the cross-validation.
        level: coverage of the intervals.

    Returns:
        A dict for JSON; an estimate is ``{"value", "low", "high"}``::

            {"n", "n_groups", "unit", "group_by", "kind", "split", "fitted_on",
             "before": {"log_loss", "brier", "ece": {…, "if_calibrated"}, "ece_equal_mass", "top1"},   # estimates
             "reliability": [bins of :func:`reliability` before],
             "methods": {"temperature": {"after": as before, "change": {metric: estimate of after - before},
                                         "reliability": [bins], "places": [{"fold", "repeat", "seed", "n", "n_groups",
                                         "temperature"}], "refused": None}, …},
             "chosen": {"method": name, "none" or "mixed", "after", "change", "reliability",
                        "verdict": "better" | "worse" | "cannot tell",     # by the change of log loss
                        "places": [{…, "method", "cross_validated_log_loss": {"none", "temperature", …}}]},
             "interval": {"method", "level", "n_boot", "seed"}, "warnings": []}

        A method that some fold's ``val`` rows are too few for has ``"refused"``: the reason, and nothing else.
        ``if_calibrated`` is the calibration error that chance alone would show. ``top1`` is absent for multi-label
        targets. A ``places`` entry holds ``temperature``, or ``scale`` and ``shift`` by class, or ``n_knots`` by class.

    Raises:
        InputError: hard labels, a method that does not exist, or a fold without labelled ``val`` rows.
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(f"methods: must be among {', '.join(METHODS)}, not {method!r}")
    within("level", level)
    fitting = fitting_places(predictions, fitted_on, "a calibration", split)
    found = case_sets(fitting.predictions, split)
    rows = scored_rows(found, fitting.predictions.frame, split)
    tables: dict[str, np.ndarray] = {NONE: fitting.probabilities}
    reports: dict[str, dict[str, Any]] = {}
    fitted: dict[tuple[str, int], _Fitted] = {}
    for method in methods:
        refused = next(filter(None, (_refusal(method, fitting.truth[place.fitting]) for place in fitting.places)), None)
        if refused:
            reports[method] = {"refused": refused}
            continue
        values, places = fitting.probabilities.copy(), []
        for number, place in enumerate(fitting.places):
            one = _fit(method, fitting.truth[place.fitting], fitting.probabilities[place.fitting])
            fitted[method, number] = one
            values[place.rows] = one.apply(fitting.probabilities[place.rows])
            places.append({**_described(fitting, place), **_short(one.record, predictions.classes)})
        tables[method], reports[method] = values, {"places": places, "refused": None}
    values, places, names = fitting.probabilities.copy(), [], []
    for number, place in enumerate(fitting.places):
        offered = [method for method in methods if method in tables]
        name, losses = _choose(fitting, place, offered, seed)
        names.append(name)
        if name != NONE:
            values[place.rows] = fitted[name, number].apply(fitting.probabilities[place.rows])
        places.append({**_described(fitting, place), "method": name, "cross_validated_log_loss": losses})
    tables[CHOSEN] = values
    reports[CHOSEN] = {"method": names[0] if len(set(names)) == 1 else "mixed", "places": places}

    sets = {name: _with_probabilities(found, rows, table) for name, table in tables.items()}
    measured = [name for name in REPORTED if defined(name, found.sets[0])]
    evaluations = [Evaluation(cases, measured) for cases in sets.values()]
    estimates = estimate(evaluations, n_boot=n_boot, seed=seed, level=level, names=measured)
    before = estimates[0]
    for name, after in zip(list(sets)[1:], estimates[1:], strict=True):
        change = {metric: _change(before[metric], after[metric], len(found.groups), level) for metric in measured}
        reports[name] |= {
            "after": _figures(after, sets[name], seed),
            "change": {metric: moved.to_dict() for metric, moved in change.items()},
            "reliability": reliability_bins(sets[name]),
        }
        if name == CHOSEN:
            loss = change["log_loss"]
            reports[name]["verdict"] = "better" if loss.high < 0 else "worse" if loss.low > 0 else CANNOT_TELL
    return {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "kind": predictions.kind,
        "split": split,
        "fitted_on": fitted_on,
        "before": _figures(before, sets[NONE], seed),
        "reliability": reliability_bins(sets[NONE]),
        "methods": {method: reports[method] for method in methods},
        "chosen": reports[CHOSEN],
        "interval": {"method": "percentile", "level": level, "n_boot": n_boot, "seed": seed},
        "warnings": [*found.warnings, *fitting.warnings, *_told(fitting, reports, fitted_on)],
    }


def _with_probabilities(found: CaseSets, rows: Sequence[np.ndarray], values: np.ndarray) -> list[Cases]:
    result = []
    for cases, places in zip(found.sets, rows, strict=True):
        own = values[places]
        result.append(
            replace(cases, probabilities=own, predicted=cases.predicted if cases.multilabel else own.argmax(1))
        )
    return result


def _figures(estimates: dict[str, Estimate], sets: Sequence[Cases], seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {name: estimates[name].to_dict() for name in REPORTED if name in estimates}
    figures["ece"]["if_calibrated"] = expected_ece(sets, seed=seed)
    return figures


def _change(before: Estimate, after: Estimate, n_groups: int, level: float) -> Estimate:
    return interval(after.value - before.value, after.replicates - before.replicates, n_groups, level=level)


def _described(fitting: Fitting, place: Place) -> dict[str, Any]:
    return {**place.key(), "n": len(place.fitting), "n_groups": fitting.n_groups(place.fitting)}


def _short(record: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return what was fitted, by class name; of the knots only how many there are."""
    if "knots" in record:
        counts = [None if knots is None else len(knots["share"]) for knots in record["knots"]]
        return {"n_knots": dict(zip(classes, counts, strict=True))}
    return {
        key: dict(zip(classes, value, strict=True)) if isinstance(value, list) else value
        for key, value in record.items()
    }


def _told(fitting: Fitting, reports: dict[str, dict[str, Any]], fitted_on: str) -> list[str]:
    """Say where there was too little to fit on."""
    told = [
        f"{method} is not fitted: {report['refused']}" for method, report in reports.items() if report.get("refused")
    ]
    n_classes = fitting.probabilities.shape[1]
    counts = np.array(
        [
            np.nansum(fitting.truth[place.fitting], axis=0)
            if fitting.independent
            else np.bincount(fitting.truth[place.fitting], minlength=n_classes)
            for place in fitting.places
        ]
    ).min(axis=0)
    few = [
        f"{name} ({int(count)})"
        for name, count in zip(fitting.predictions.classes, counts, strict=True)
        if count < FEW_CASES
    ]
    if few:
        told.append(
            f"fewer than {FEW_CASES} {fitted_on} cases of {', '.join(few)} (in the poorest fold): what is fitted for a "
            "class is rough there, and a class without any keeps its own probability"
        )
    if any(fitting.n_groups(place.fitting) < 2 * N_PARTS for place in fitting.places):
        told.append(f"a fold has fewer than {2 * N_PARTS} {fitted_on} groups: no method was chosen there")
    return told
