"""The linear head: L2 multinomial logistic regression on standardised features, the penalty chosen on val."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dermlab.adapt.base import Head
from dermlab.adapt.logistic import LabelPaths, LogisticFit, LogisticPath

GRID = tuple(float(C) for C in np.logspace(-5, 1, 13))
MAX_EXTENSIONS = 6
PATIENCE = 3
BLOCK = 16_384


class LinearHead(Head):
    """L2-penalised multinomial logistic regression, standardised, ``C`` swept on val.

    The sweep walks from the strongest penalty to the weakest, each solution the start of the next (see
    :mod:`dermlab.adapt.logistic`). With the default ``choose_by="log_loss"``, which is smooth in ``C``, it ends after
    three penalties in a row that were worse on val. A best value at the grid's edge extends the grid by up to six
    steps, and is reported where it stays there. Ties go to the stronger penalty.

    Of a multi-label target each label has a regression of its own, and all of them one penalty.

    Why log loss chooses: on PAD-UFES-20 (168 val photos) it picked a penalty about as good on test as top-1,
    balanced accuracy, macro-F1 or AUROC did, by top-1 and AUROC alike; accuracies on so few photos tie and jump.

    Args:
        C: one inverse penalty (scikit-learn's ``C``), or several to choose from; None is a grid of half decades
            from 1e-5 to 10.
        class_weight: None, ``"balanced"`` or weights by class.
        standardise: divide each feature by its spread in training; without it the penalty weighs on features as they
            come, as scikit-learn's own regression on raw features does.
        classes: all classes of the target in order; None: those that occur.
        choose_by: metric on val that chooses.
        tol: largest absolute entry of the gradient (of the mean loss with penalty) that counts as converged.
        max_iter: Newton steps allowed for each penalty.
        random_state: seed of the hold-out where no validation is given.

    Attributes:
        coef_: float64 (S, D) on standardised features; S classes, or labels, seen in training.
        intercept_: float64 (S,).
        mean_, scale_: float64 (D,), of the training samples.
        C_: the chosen inverse penalty.
        n_iter_: Newton steps that the chosen solution took from the one before it, int (1,).
    """

    def __init__(
        self,
        C: float | Sequence[float] | None = None,
        class_weight: Any = None,
        standardise: bool = True,
        classes: Sequence[Any] | None = None,
        choose_by: str = "log_loss",
        tol: float = 1e-5,
        max_iter: int = 100,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.standardise = standardise
        self.classes = classes
        self.choose_by = choose_by
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        path = self._path(X, codes)
        grid = sorted(float(C) for C in np.atleast_1d(GRID if self.C is None else self.C))
        if X_val is None or codes_val is None:
            # With nothing to choose on, the middle of the grid: a penalty in proportion to nothing is a guess.
            self._take(path.solve(grid[len(grid) // 2]))
            return
        standardised = self._standardise(X_val)
        self._take(self._sweep(path, grid, standardised, codes_val))

    def _path(self, X: np.ndarray, codes: np.ndarray) -> LogisticPath | LabelPaths:
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        spread = X.std(axis=0, dtype=np.float64)
        # A feature that never varied in training says nothing: its weight stays exactly zero.
        self.scale_ = np.where(spread > 10 * np.finfo(X.dtype).eps * np.abs(self.mean_), spread, np.inf)
        self.scale_[spread == 0] = np.inf
        if not self.standardise:
            # Centred all the same: the intercept, which no penalty touches, takes it up, and Newton's steps are better.
            self.scale_ = np.where(np.isfinite(self.scale_), 1.0, np.inf)
        limits: dict[str, Any] = {"tolerance": self.tol, "max_iterations": self.max_iter}
        weights = self._sample_weights(codes)
        if self.multilabel_:
            return LabelPaths(self._standardise(X), codes, weights, **limits)
        return LogisticPath(self._standardise(X), codes, len(self.seen_), weights, **limits)

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_.astype(X.dtype)) / self.scale_.astype(X.dtype)

    def _sweep(
        self, path: LogisticPath | LabelPaths, grid: list[float], X_val: np.ndarray, codes_val: np.ndarray
    ) -> LogisticFit:
        report = self.head_report_
        tried: list[tuple[float, LogisticFit]] = []

        def judge(C: float) -> float:
            fit = path.solve(C)
            value = self._score(codes_val, self._link(X_val @ fit.coef.T + fit.intercept))
            tried.append((value, fit))
            return value

        best, worse, n_extensions = -np.inf, 0, 0
        for C in grid:
            value = judge(C)
            worse = 0 if value > best else worse + 1
            best = max(best, value)
            if self.choose_by == "log_loss" and worse >= PATIENCE:
                break
        if self.C is None:
            step = np.sqrt(10.0)
            while worse == 0 and n_extensions < MAX_EXTENSIONS:  # the weakest penalty so far is the best
                worse = 0 if judge(tried[-1][1].C * step) > best else 1
                best, n_extensions = max(best, tried[-1][0]), n_extensions + 1
            strongest = grid[0]
            while tried[0][0] == best and n_extensions < MAX_EXTENSIONS and judge(strongest / step) >= best:
                tried.insert(0, tried.pop())
                best, strongest, n_extensions = tried[0][0], tried[0][1].C, n_extensions + 1
        tried.sort(key=lambda pair: pair[1].C)
        chosen = next(fit for value, fit in tried if value == best)  # ties: the strongest penalty
        if len(tried) > 1 and (chosen is tried[0][1] or chosen is tried[-1][1]):
            report["warnings"].append(f"the best C on val, {chosen.C:g}, is at the edge of what was tried")
        report["sweep"] = [
            {
                "C": fit.C,
                "val_score": value,
                "gradient_norm": fit.gradient_norm,
                "n_iterations": fit.n_iterations,
                "converged": fit.converged,
            }
            for value, fit in tried
        ]
        report |= {"val_score": best, "n_extensions": n_extensions}
        return chosen

    def _take(self, fit: LogisticFit) -> None:
        self.coef_, self.intercept_, self.C_ = fit.coef, fit.intercept, fit.C
        self.n_iter_ = np.array([max(fit.n_iterations, 1)])
        self.head_report_ |= {
            "chosen": {"C": fit.C},
            "gradient_norm": fit.gradient_norm,
            "converged": fit.converged,
        }

    def _refit(self, X: np.ndarray, codes: np.ndarray) -> None:
        self._take(self._path(X, codes).solve(self.C_))

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        coef, intercept = self.coef_.T.astype(X.dtype), self.intercept_.astype(X.dtype)
        parts = [
            self._link((self._standardise(X[start : start + BLOCK]) @ coef + intercept).astype(np.float64))
            for start in range(0, len(X), BLOCK)
        ]
        return np.concatenate(parts)
