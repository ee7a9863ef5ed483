"""What all heads share: the scikit-learn contract, the validation part that chooses, classes nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from dermlab.adapt.logistic import softmax
from dermlab.core.randomness import generator
from dermlab.evaluate.metrics import higher_is_better, score

HOLD_OUT = 0.2
MIN_PROBABILITY = 1e-12


class Head(ClassifierMixin, BaseEstimator):
    """Base of the heads: ``fit(X, y, validation=(X_val, y_val))`` where ``validation`` chooses and ``X, y`` fit.

    A multi-label target is an ``y`` of 0, 1 and NaN (unknown) of shape (N, L): each label is a question of its own, and
    probabilities do not sum to 1. A label that training only knows as yes, or only as no, keeps that share.

    Without ``validation`` a fifth of the training samples is held out (stratified, whole groups) and chooses; heads
    that are cheap to fit are then fitted anew on all samples with what was chosen.

    A subclass implements ``_fit`` and ``_seen_probabilities``. It sees class codes of the classes that *occur in
    training* only; classes of the target that do not occur (``classes=``) get probability 0. One class alone is
    predicted with certainty and nothing is fitted. Of a multi-label target it sees, in place of codes, the columns
    float (N, S) of the labels that training knows both ways.

    Attributes:
        classes_: the classes in the order of the probability columns.
        seen_: places in ``classes_`` of what is fitted.
        fixed_: float64 (L,), the share of a label that is not fitted, NaN elsewhere; None: not multi-label.
        n_features_in_: number of features.
        head_report_: dictionary for the run's record: ``chosen`` (k, C, epochs …), ``choose_by``, ``val_score``,
            ``sweep`` (a row per setting tried), ``converged``, ``ranked`` (False where it did not converge),
            ``warnings``, ``n_train``, ``n_val``, ``validation`` ("given", "held out" or "none").
    """

    # Parameters that every subclass lists in its own __init__, as scikit-learn's contract asks.
    classes: Sequence[Any] | None
    fixed_: np.ndarray | None
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
            y: labels (N,), or 0, 1 and NaN (N, L).
            validation: features (M, D) and labels (M,) or (M, L) of the val part; its labels may hold classes that
                ``y`` lacks.
            groups: patient (else lesion) of each training sample, (N,); only used where no validation is given.

        Raises:
            ValueError: shapes, values or labels that do not fit (scikit-learn's own messages).
        """
        if self._is_multilabel(y):
            return self._fit_labels(X, np.asarray(y, dtype=np.float64), validation, groups)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.fixed_ = None
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
        report = self._new_report(len(y))
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
            self._fit_held_out(X, inner, codes, hold_out(codes, groups, self.random_state))
        return self._finished()

    def _fit_labels(self, X: Any, y: np.ndarray, validation: tuple[Any, Any] | None, groups: Any) -> Head:
        """Fit on a multi-label target: each label that training knows both ways is fitted."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        given = None
        if validation is not None and len(validation[1]):
            X_val = validate_data(self, validation[0], reset=False, dtype=[np.float64, np.float32])
            given = X_val, np.asarray(validation[1], dtype=np.float64)
        for name, labels, n in [("y", y, len(X))] + (
            [] if given is None else [("validation", given[1], len(given[0]))]
        ):
            if labels.shape != (n, y.shape[1]):
                raise ValueError(f"{name}: labels of shape {labels.shape} for {n} samples of {y.shape[1]} labels")
            if not (np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all():
                raise ValueError(f"{name}: labels of a multi-label target must be 0, 1 or NaN")
        self.classes_ = np.arange(y.shape[1]) if self.classes is None else np.asarray(self.classes)
        if len(self.classes_) != y.shape[1]:
            raise ValueError(f"y: {y.shape[1]} columns for {len(self.classes_)} classes")
        report = self._new_report(len(y))
        known = (~np.isnan(y)).sum(axis=0)
        n_yes = np.nansum(y, axis=0)
        both = (n_yes > 0) & (n_yes < known)
        self.seen_ = np.flatnonzero(both)
        # Of a label that is never told there is no share to keep: it is not called.
        self.fixed_ = np.where(both, np.nan, n_yes / np.maximum(known, 1))
        for said, names in (
            ("no training sample with", self.classes_[n_yes == 0]),
            ("all training samples have", self.classes_[(n_yes == known) & (known > 0)]),
        ):
            if len(names):
                report["warnings"].append(f"{said} {', '.join(map(str, names))}: nothing is learnt of it")
        if not len(self.seen_):
            return self
        inner = y[:, self.seen_]
        self.class_weights_ = np.ones((2, len(self.classes_)))
        self.class_weights_[:, self.seen_] = self._label_weights(inner)
        if given is not None:
            report |= {"validation": "given", "n_val": len(given[1])}
            self._fit(X, inner, given[0], given[1])
        else:
            self._fit_held_out(X, inner, y, hold_out_labels(y, groups, self.random_state))
        return self._finished()

    def _fit_held_out(self, X: np.ndarray, inner: np.ndarray, codes: np.ndarray, held: np.ndarray) -> None:
        """Fit with a part of the training samples held out to choose by, then on all of them."""
        self.head_report_ |= {"validation": "held out" if held.any() else "none", "n_val": int(held.sum())}
        if held.any():
            self._fit(X[~held], inner[~held], X[held], codes[held])
            self._refit(X, inner)
        else:
            self._fit(X, inner, None, None)

    def _new_report(self, n_train: int) -> dict[str, Any]:
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
        return self.head_report_

    def _finished(self) -> Head:
        report = self.head_report_
        report["ranked"] = report["converged"]
        if not report["converged"]:
            report["warnings"].append("the fit did not converge: not ranked")
        return self

    def _is_multilabel(self, y: Any) -> bool:
        """Tell whether labels are a table of several questions; a column of one is so only where one class is named."""
        y = np.asarray(y)
        named = self.classes is not None and len(self.classes) == 1
        return y.ndim == 2 and (y.shape[1] > 1 or named) and y.dtype.kind in "buif"

    @property
    def multilabel_(self) -> bool:
        """Whether each class is a question of its own."""
        return self.fixed_ is not None

    @property
    def nothing_fitted_(self) -> bool:
        """Whether training left nothing to learn: one class alone, or no label that occurs both ways."""
        return len(self.seen_) == (0 if self.multilabel_ else 1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities over ``classes_``, float64 (N, C); rows sum to 1, but for a multi-label target."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if self.nothing_fitted_:
            return self._over_all(np.ones((len(X), len(self.seen_))))
        return self._over_all(np.asarray(self._seen_probabilities(X), dtype=np.float64))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, (N,), the first of equals; of labels 0 or 1 (N, L)."""
        probabilities = self.predict_proba(X)
        if self.multilabel_:
            return (probabilities >= 0.5).astype(np.int64)
        return self.classes_[probabilities.argmax(axis=1)]

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        """Fit on codes 0 … len(seen_) - 1; ``codes_val`` are places in ``classes_``, for :meth:`_score` to judge."""
        raise NotImplementedError

    def _refit(self, X: np.ndarray, codes: np.ndarray) -> None:
        """Fit on all samples with what was chosen on those held out; heads that stop early keep what they have."""

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _link(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (…, S) into probabilities: over the classes, or of each label."""
        return expit(logits) if self.multilabel_ else softmax(logits)

    def _over_all(self, probabilities: np.ndarray) -> np.ndarray:
        if self.fixed_ is not None:
            result = np.tile(self.fixed_, (len(probabilities), 1))
            result[:, self.seen_] = probabilities
            return result
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
            value = -self._log_loss(full, codes_val)
        return float(value)

    def _log_loss(self, full: np.ndarray, codes_val: np.ndarray) -> float:
        if self.multilabel_:
            no, yes = self.class_weights_
            return label_log_loss(full, codes_val, np.where(codes_val == 1, yes, no))
        return log_loss(full, codes_val, self.class_weights_[codes_val])

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

    def _sample_weights(self, codes: np.ndarray) -> np.ndarray:
        """Return the weight of each sample in the loss, float64 (N,); of labels (N, S), 0 where a label is unknown.

        With ``class_weight="balanced"`` the yeses and the noes of a label weigh alike.
        """
        if not self.multilabel_:
            return self._class_weights(codes)[codes]
        no, yes = self._label_weights(codes)
        return np.where(np.isnan(codes), 0.0, np.where(codes == 1, yes, no))

    def _label_weights(self, labels: np.ndarray) -> np.ndarray:
        """Return the weight of a no and of a yes of each label, float64 (2, S), from ``class_weight``."""
        weight = getattr(self, "class_weight", None)
        n, n_yes = (~np.isnan(labels)).sum(axis=0), np.nansum(labels, axis=0)
        if weight is None:
            return np.ones((2, labels.shape[1]))
        if weight != "balanced":
            raise ValueError(f"class_weight: {weight!r} is for one label a sample; several take 'balanced'")
        return np.stack([n / np.maximum(2 * (n - n_yes), 1), n / np.maximum(2 * n_yes, 1)])


def log_loss(probabilities: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean negative log-probability of the true class; a zero counts as 1e-12."""
    own = probabilities[np.arange(len(codes)), codes]
    return float(-np.average(np.log(np.maximum(own, MIN_PROBABILITY)), weights=weights))


def label_log_loss(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean negative log-probability of the known labels (N, L) of 0, 1 and NaN; 0 counts as 1e-12.

    NaN where no label is known.
    """
    weights = np.where(np.isnan(labels), 0.0, weights)
    if not weights.any():
        return float("nan")
    own = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.average(np.log(np.maximum(own, MIN_PROBABILITY)), weights=weights))


def hold_out_labels(labels: np.ndarray, groups: Any, seed: int, share: float = HOLD_OUT) -> np.ndarray:
    """Choose about ``share`` of the groups of samples of a multi-label target, every label spread evenly: bool (N,)."""
    from dermlab.data.splits import deal

    groups = np.arange(len(labels)) if groups is None else check_array(groups, ensure_2d=False, dtype=None)
    _, group = np.unique(groups, return_inverse=True)
    if group.max() == 0:
        return np.zeros(len(labels), bool)
    counts = np.zeros((group.max() + 1, labels.shape[1] + 1))
    np.add.at(counts, group, np.column_stack([np.nan_to_num(labels), np.ones(len(labels))]))
    part = deal(counts, np.array([1 - share, share]), generator(seed, "hold-out"))
    return (part == 1)[group]


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
