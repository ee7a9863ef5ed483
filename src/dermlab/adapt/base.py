"""What all heads share: the scikit-learn contract, the validation part that chooses, classes nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from dermlab.core.randomness import generator
from dermlab.evaluate.metrics import higher_is_better, score

HOLD_OUT = 0.2
MIN_PROBABILITY = 1e-12


class Head(ClassifierMixin, BaseEstimator):
    """Base of the heads: ``fit(X, y, validation=(X_val, y_val))`` where ``validation`` chooses and ``X, y`` fit.

    Without ``validation`` a fifth of the training samples is held out (stratified, whole groups) and chooses; heads
    that are cheap to fit are then fitted anew on all samples with what was chosen.

    A subclass implements ``_fit`` and ``_seen_probabilities``. It sees class codes of the classes that *occur in
    training* only; classes of the target that do not occur (``classes=``) get probability 0. One class alone is
    predicted with certainty and nothing is fitted.

    Attributes:
        classes_: the classes in the order of the probability columns.
        n_features_in_: number of features.
        head_report_: dictionary for the run's record: ``chosen`` (k, C, epochs …), ``choose_by``, ``val_score``,
            ``sweep`` (a row per setting tried), ``converged``, ``ranked`` (False where it did not converge),
            ``warnings``, ``n_train``, ``n_val``, ``validation`` ("given", "held out" or "none").
    """

    # Parameters that every subclass lists in its own __init__, as scikit-learn's contract asks.
    classes: Sequence[Any] | None
    choose_by: str
    random_state: int

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        groups: Any = None,
    ) -> Head:
        """Fit on ``X, y``; choose on ``validation``.

        Args:
            X: features, float (N, D), finite.
            y: labels (N,).
            validation: features (M, D) and labels (M,) of the val part; its labels may hold classes that ``y`` lacks.
            groups: patient (else lesion) of each training sample, (N,); only used where no validation is given.

        Raises:
            ValueError: shapes, values or labels that do not fit (scikit-learn's own messages).
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        n_train = len(y)
        given = None
        if validation is not None and len(validation[1]):
            X_val = validate_data(self, validation[0], reset=False, dtype=[np.float64, np.float32])
            given = X_val, np.asarray(validation[1])
            if len(given[1]) != len(X_val):
                raise ValueError(f"validation: {len(X_val)} samples but {len(given[1])} labels")
        present = [y] if given is None else [y, given[1]]
        self.classes_ = np.unique(np.concatenate(present)) if self.classes is None else np.asarray(self.classes)
        codes, codes_val = self._codes(y), None if given is None else self._codes(given[1])
        self.seen_ = np.unique(codes)
        self.head_report_: dict[str, Any] = {
            "chosen": {},
            "choose_by": self.choose_by,
            "val_score": None,
            "sweep": [],
            "converged": True,
            "ranked": True,
            "warnings": [],
            "n_train": n_train,
            "n_val": 0,
            "validation": "none",
        }
        report = self.head_report_
        missing = [str(self.classes_[code]) for code in range(len(self.classes_)) if code not in self.seen_]
        if missing:
            report["warnings"].append(f"no training sample of {', '.join(missing)}: never predicted")
        if len(self.seen_) == 1:
            report["warnings"].append(f"training holds one class only ({self.classes_[self.seen_[0]]})")
            return self
        inner = np.searchsorted(self.seen_, codes)
        # Whoever weighs the classes in training wants them weighed in the choice too.
        self.class_weights_ = np.ones(len(self.classes_))
        self.class_weights_[self.seen_] = self._class_weights(inner)
        if given is not None and codes_val is not None:
            report |= {"validation": "given", "n_val": len(codes_val)}
            self._fit(X, inner, given[0], codes_val)
        else:
            held = hold_out(codes, groups, self.random_state)
            report |= {"validation": "held out" if held.any() else "none", "n_val": int(held.sum())}
            if held.any():
                self._fit(X[~held], inner[~held], X[held], codes[held])
                self._refit(X, inner)
            else:
                self._fit(X, inner, None, None)
        report["ranked"] = report["converged"]
        if not report["converged"]:
            report["warnings"].append("the fit did not converge: not ranked")
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities over ``classes_``, float64 (N, C), rows summing to 1."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if len(self.seen_) == 1:
            return self._over_all(np.ones((len(X), 1)))
        return self._over_all(np.asarray(self._seen_probabilities(X), dtype=np.float64))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, (N,); the first of equals."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        """Fit on codes 0 … len(seen_) - 1; ``codes_val`` are places in ``classes_``, for :meth:`_score` to judge."""
        raise NotImplementedError

    def _refit(self, X: np.ndarray, codes: np.ndarray) -> None:
        """Fit on all samples with what was chosen on those held out; heads that stop early keep what they have."""

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _over_all(self, probabilities: np.ndarray) -> np.ndarray:
        if len(self.seen_) == len(self.classes_):
            return probabilities
        result = np.zeros((len(probabilities), len(self.classes_)))
        result[:, self.seen_] = probabilities
        return result

    def _score(self, codes_val: np.ndarray, probabilities: np.ndarray) -> float:
        """Return the choosing metric, higher is better; log loss where the metric is undefined on these samples."""
        full = self._over_all(probabilities)
        value = np.nan
        if self.choose_by != "log_loss":
            value = score(codes_val, full, self.choose_by)
            value = value if higher_is_better(self.choose_by) else -value
        if not np.isfinite(value):
            value = -log_loss(full, codes_val, self.class_weights_[codes_val])
        return float(value)

    def _codes(self, y: np.ndarray) -> np.ndarray:
        order = np.argsort(self.classes_, kind="stable")
        place = np.searchsorted(self.classes_, y, sorter=order)
        codes = order[np.minimum(place, len(order) - 1)]
        unknown = self.classes_[codes] != y
        if unknown.any():
            raise ValueError(f"label {y[unknown][0]!r} is not one of the classes {', '.join(map(str, self.classes_))}")
        return codes

    def _class_weights(self, codes: np.ndarray) -> np.ndarray:
        """Return a weight per class seen, float64 (S,), from ``class_weight``: None, ``"balanced"`` or a dictionary."""
        weight = getattr(self, "class_weight", None)
        names = self.classes_[self.seen_]
        if weight is None:
            return np.ones(len(names))
        if isinstance(weight, dict):
            weight = {name: value for name, value in weight.items() if name in names}
        return np.asarray(compute_class_weight(weight, classes=names, y=names[codes]), dtype=np.float64)


def log_loss(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean negative log-probability of the true class; a zero counts as 1e-12."""
    own = probabilities[np.arange(len(codes)), codes]
    return float(-np.average(np.log(np.maximum(own, MIN_PROBABILITY)), weights=weights))


def hold_out(codes: np.ndarray, groups: Any, seed: int, share: float = HOLD_OUT) -> np.ndarray:
    """Choose about ``share`` of the samples of every class, whole groups at a time: bool (N,).

    A class of which fewer than two groups exist gives none; each keeps at least one group in training.
    """
    groups = np.arange(len(codes)) if groups is None else check_array(groups, ensure_2d=False, dtype=None)
    _, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((group.max() + 1, codes.max() + 1), dtype=np.int64)
    np.add.at(counts, (group, codes), 1)
    left = counts.sum(axis=0)
    wanted = np.where(left > 1, np.maximum(1, np.round(share * left)), 0).astype(np.int64)
    held = np.zeros(len(counts), dtype=bool)
    rare_first = np.argsort(left, kind="stable")
    order = generator(seed, "hold-out").permutation(len(counts))
    for code in rare_first:
        for place in order:
            if wanted[code] <= 0:
                break
            sizes = counts[place]
            if held[place] or not sizes[code] or (left - sizes < 1)[sizes > 0].any():
                continue
            if sizes[code] > max(wanted[code], 1) * 1.5:
                continue
            held[place] = True
            left -= sizes
            wanted -= sizes
    return held[group]
