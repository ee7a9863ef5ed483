"""Whether a probability means what it says: reliability bins, and a temperature fitted on ``val`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import Cases, cases_from_arrays
from dermlab.evaluate.metrics import N_BINS, confidence_bins, confidences
from dermlab.evaluate.predictions import PROBABILITY, Predictions, pool_units

SMALLEST = 1e-12  # a nearest-neighbour vote says 0; its logarithm must stay finite
HOTTEST = 20.0


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
    from scipy.optimize import minimize_scalar
    from scipy.special import expit, logsumexp

    logs = np.log(np.clip(probabilities, SMALLEST, 1.0))
    if truth.ndim == 2:
        known = ~np.isnan(truth)
        logits = (logs - np.log(np.clip(1 - probabilities, SMALLEST, 1.0)))[known]
        sign = 2 * truth[known] - 1

        def loss(log_temperature: float) -> float:
            return float(-np.log(np.clip(expit(sign * logits / np.exp(log_temperature)), SMALLEST, 1.0)).mean())
    else:
        own = logs[np.arange(len(truth)), truth]

        def loss(log_temperature: float) -> float:
            heat = np.exp(log_temperature)
            return float((logsumexp(logs / heat, axis=1) - own / heat).mean())

    # The loss is convex in 1/T, so it has one minimum in log T too.
    limit = np.log(HOTTEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6}).x))


def apply_temperature(probabilities: np.ndarray, temperature: float, *, independent: bool = False) -> np.ndarray:
    """Return probabilities (N, C) after division of their logits by ``temperature``; the order of classes stays."""
    logs = np.log(np.clip(probabilities, SMALLEST, 1.0)) / temperature
    if independent:
        from scipy.special import expit

        return expit(logs - np.log(np.clip(1 - probabilities, SMALLEST, 1.0)) / temperature)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibrate(predictions: Predictions, *, fitted_on: str = "val") -> Predictions:
    """Scale the probabilities of each fold, repeat and seed by a temperature fitted on its ``val`` rows.

    Units are pooled first, so that what is calibrated is what is scored.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those to be scored.
        fitted_on: the split that the temperature is fitted on; the test split is refused.

    Returns:
        The pooled table with calibrated probabilities; ``meta["calibration"]`` holds the temperatures.

    Raises:
        InputError: hard labels, or a fold without labelled ``val`` rows.
    """
    source = predictions.meta.get("source", "predictions")
    if not predictions.has_probabilities:
        raise InputError(f"{source}: holds hard labels; a temperature needs probabilities")
    if fitted_on == "test":
        raise InputError("calibrate: the test split only reports; fit on val")
    predictions = pool_units(predictions)
    frame = predictions.frame.copy()
    values, truth = predictions.probabilities(), predictions.truth()
    independent = predictions.kind == "multilabel"
    labelled = ~np.isnan(truth).all(axis=1) if independent else truth >= 0
    chosen = (frame["split"] == fitted_on).to_numpy() & labelled
    temperatures = []
    places: dict[Any, Any] = dict(frame.groupby(["fold", "repeat", "seed"], sort=True).indices)
    for key, rows in places.items():
        fold, repeat, seed = (int(part) for part in key)
        fitting = rows[chosen[rows]]
        if not len(fitting):
            raise InputError(
                f"{source}: fold {fold}, repeat {repeat}, seed {seed} has no labelled rows of split {fitted_on!r} "
                "to fit a temperature on"
            )
        temperature = fit_temperature(truth[fitting], values[fitting])
        temperatures.append(
            {"fold": fold, "repeat": repeat, "seed": seed, "n": len(fitting), "temperature": temperature}
        )
        values[rows] = apply_temperature(values[rows], temperature, independent=independent)
    frame[[PROBABILITY + name for name in predictions.classes]] = values
    record = {"method": "temperature", "fitted_on": fitted_on, "temperatures": temperatures}
    return predictions.with_frame(frame, calibration=record)
