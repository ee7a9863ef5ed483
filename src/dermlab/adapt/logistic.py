"""L2 multinomial logistic regression along a path of penalties, the work shared between them.

One eigendecomposition makes the whole path cheap. L2 regression is invariant under rotations of the feature space, so
the samples are rotated once into the eigenbasis of their covariance: there the problem has at most
``min(n_samples, n_features)`` columns (embeddings are wide, labelled clinics are small), the Hessian is close to
diagonal, and its diagonal is a preconditioner for every penalty. Newton's method with conjugate gradients then walks
from the strongest penalty to the weakest, each solution the start of the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MAX_NEWTON = 100
MAX_INNER = 200
ROWS = 400  # of 768 columns in single precision: about a megabyte, which stays in a core's cache


@dataclass(frozen=True)
class LogisticFit:
    """The solution for one penalty.

    Attributes:
        C: inverse strength of the penalty, as in scikit-learn: ``C * sum(loss) + 0.5 * ||W||^2``.
        coef: float64 (n_classes, n_features).
        intercept: float64 (n_classes,), not penalised, summing to zero.
        gradient_norm: largest absolute entry of the gradient of the mean loss with penalty, at the solution.
        n_iterations: Newton steps taken from the previous solution.
        converged: whether ``gradient_norm`` came under the tolerance.
    """

    C: float
    coef: np.ndarray
    intercept: np.ndarray
    gradient_norm: float
    n_iterations: int
    converged: bool


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, computed without overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Basis:
    """Samples rotated into the eigenbasis of their covariance, once for all that is fitted on them.

    Attributes:
        centre: float64 (D,), their mean.
        Z: float (N, R), rotated; R is at most ``min(N, D)``.
        rotation: float (D, R).
    """

    centre: np.ndarray
    Z: np.ndarray
    rotation: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> Basis:
        """Centre and rotate samples (N, D)."""
        # The two products with Z are nearly all of the time and bound by memory: they run in the precision of X
        # (embeddings are float32), everything else in float64.
        n, dtype = len(X), np.float32 if X.dtype == np.float32 else np.float64
        centre = X.mean(axis=0, dtype=np.float64)
        if n <= X.shape[1]:
            centred = np.asarray(X, dtype=np.float64) - centre
            values, left = np.linalg.eigh(centred @ centred.T)
            kept = values > max(values[-1], 1e-300) * n * np.finfo(np.float64).eps
            scale = np.sqrt(values[kept])
            return cls(centre, (left[:, kept] * scale).astype(dtype), centred.T @ (left[:, kept] / scale))
        centred = X - centre.astype(dtype)
        values, right = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        kept = values > max(values[-1], 1e-300) * n * np.finfo(dtype).eps
        return cls(centre, centred @ right[:, kept].astype(dtype), right[:, kept])


class LogisticPath:
    """Solves multinomial logistic regression for one penalty after another on the same samples."""

    def __init__(
        self,
        X: np.ndarray,
        codes: np.ndarray,
        n_classes: int,
        sample_weight: np.ndarray | None = None,
        *,
        tolerance: float = 1e-5,
        max_iterations: int = MAX_NEWTON,
        basis: Basis | None = None,
    ) -> None:
        """Centre and rotate the samples.

        Args:
            X: standardised features, float (N, D).
            codes: class of each sample, int (N,), every class of 0 … n_classes - 1 present.
            n_classes: number of classes, at least 2.
            sample_weight: float (N,), non-negative; default: one each.
            tolerance: largest absolute entry of the mean gradient at which a solution counts as converged.
            max_iterations: Newton steps allowed for each penalty.
            basis: of ``X``, where it is known.
        """
        n = len(X)
        self.n_classes = n_classes
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        weight = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        self.total_weight = float(weight.sum())
        self.weight = weight / self.total_weight
        self.onehot = np.eye(n_classes)[codes]
        basis = Basis.of(X) if basis is None else basis
        self.centre, self.Z, self.rotation = basis.centre, basis.Z, basis.rotation
        self.variance = (self.Z**2).T @ self.weight
        prior = np.log(np.maximum(self.weight @ self.onehot, 1e-300))
        self.W = np.zeros((self.Z.shape[1], n_classes))
        self.b = prior - prior.mean()

    def solve(self, C: float) -> LogisticFit:
        """Return the solution for ``C``, starting from the one found last."""
        # Two classes: scikit-learn penalises one vector w, the softmax two vectors of +-w/2, whose squares sum to half.
        penalty = (2.0 if self.n_classes == 2 else 1.0) / (C * self.total_weight)
        weight, W, b = self.weight[:, None], self.W, self.b
        value, probabilities = self._objective(W, b, penalty)
        iteration = 0
        while True:
            residual = weight * (probabilities - self.onehot)
            gradient_W, gradient_b = self._back(residual) + penalty * W, residual.sum(axis=0)
            norm = max(np.abs(gradient_W).max(initial=0.0), np.abs(gradient_b).max())
            if norm <= self.tolerance or iteration >= self.max_iterations:
                break
            step_W, step_b, slope = self._newton_step(probabilities, gradient_W, gradient_b, penalty)
            length = 1.0
            while length > 1e-10:
                new_value, new_probabilities = self._objective(W + length * step_W, b + length * step_b, penalty)
                if new_value <= value + 1e-4 * length * slope + 1e-8 * abs(value):  # within rounding of float32
                    break
                length /= 2
            else:  # no descent left at this precision
                break
            W, b = W + length * step_W, b + length * step_b
            value, probabilities = new_value, new_probabilities
            iteration += 1
        b = b - b.mean()
        self.W, self.b = W, b
        coef = (self.rotation @ W).T
        return LogisticFit(
            C=float(C),
            coef=coef,
            intercept=b - coef @ self.centre,
            gradient_norm=float(norm),
            n_iterations=iteration,
            converged=bool(norm <= self.tolerance),
        )

    def _logits(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(self.Z @ W.astype(self.Z.dtype), dtype=np.float64) + b

    def _back(self, residual: np.ndarray) -> np.ndarray:
        return np.asarray(self.Z.T @ residual.astype(self.Z.dtype), dtype=np.float64)

    def _objective(self, W: np.ndarray, b: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        logits = self._logits(W, b)
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=1, keepdims=True)
        loss = np.log(total[:, 0]) - (logits * self.onehot).sum(axis=1)
        return float(self.weight @ loss + 0.5 * penalty * np.vdot(W, W)), exponentials / total

    def _newton_step(
        self, probabilities: np.ndarray, gradient_W: np.ndarray, gradient_b: np.ndarray, penalty: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Solve Hessian @ step = -gradient by preconditioned conjugate gradients, inexactly (Dembo et al. 1982)."""
        weight = self.weight[:, None]
        spread = (weight * probabilities * (1 - probabilities)).sum(axis=0)
        precondition_W = 1.0 / (self.variance[:, None] * spread + penalty)
        precondition_b = 1.0 / np.maximum(spread, 1e-8)
        weighted = weight * probabilities

        def hessian(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # A few rows at a time, forth and back, so that they are read from memory once and not twice.
            single = W.astype(self.Z.dtype)
            curved_W, curved_b = penalty * W, np.zeros_like(b)
            for start in range(0, len(self.Z), ROWS):
                rows = slice(start, start + ROWS)
                Z, p = self.Z[rows], probabilities[rows]
                direction = Z @ single + b
                product = weighted[rows] * (direction - (p * direction).sum(axis=1, keepdims=True))
                curved_W += Z.T @ product.astype(self.Z.dtype)
                curved_b += product.sum(axis=0)
            return curved_W, curved_b

        step_W, step_b = np.zeros_like(gradient_W), np.zeros_like(gradient_b)
        rest_W, rest_b = -gradient_W, -gradient_b
        scaled_W, scaled_b = precondition_W * rest_W, precondition_b * rest_b
        search_W, search_b = scaled_W, scaled_b
        energy = first = np.vdot(rest_W, scaled_W) + rest_b @ scaled_b
        forcing = min(0.5, np.sqrt(np.sqrt(first)))
        for _ in range(MAX_INNER):
            curved_W, curved_b = hessian(search_W, search_b)
            curvature = np.vdot(search_W, curved_W) + search_b @ curved_b
            if curvature <= 0:  # the intercepts' common direction is flat
                break
            length = energy / curvature
            step_W, step_b = step_W + length * search_W, step_b + length * search_b
            rest_W, rest_b = rest_W - length * curved_W, rest_b - length * curved_b
            scaled_W, scaled_b = precondition_W * rest_W, precondition_b * rest_b
            following = np.vdot(rest_W, scaled_W) + rest_b @ scaled_b
            if following <= forcing**2 * first:
                break
            ratio, energy = following / energy, following
            search_W, search_b = scaled_W + ratio * search_W, scaled_b + ratio * search_b
        return step_W, step_b, float(np.vdot(step_W, gradient_W) + step_b @ gradient_b)

    def sweep(self, Cs: np.ndarray) -> Iterator[LogisticFit]:
        """Yield the solutions from the strongest penalty (smallest C) to the weakest."""
        for C in np.sort(np.asarray(Cs, dtype=np.float64)):
            yield self.solve(float(C))


class LabelPaths:
    """Solves one binary logistic regression a label for one penalty after another, the rotation done once for all."""

    def __init__(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        *,
        tolerance: float = 1e-5,
        max_iterations: int = MAX_NEWTON,
    ) -> None:
        """Centre and rotate the samples.

        Args:
            X: standardised features, float (N, D).
            labels: float (N, S) of 0, 1 and NaN (unknown), both present in every column.
            weight: of each sample in the loss of each label, float (N, S), 0 where the label is unknown.
            tolerance: as :class:`LogisticPath`.
            max_iterations: as :class:`LogisticPath`.
        """
        basis = Basis.of(X)
        self.paths = [
            LogisticPath(
                X,
                (labels[:, place] == 1).astype(np.int64),
                2,
                weight[:, place],
                tolerance=tolerance,
                max_iterations=max_iterations,
                basis=basis,
            )
            for place in range(labels.shape[1])
        ]

    def solve(self, C: float) -> LogisticFit:
        """Return the solutions for ``C`` as one: a row of ``coef`` and an intercept a label, for its log odds."""
        fits = [path.solve(C) for path in self.paths]
        return LogisticFit(
            C=float(C),
            coef=np.stack([fit.coef[1] - fit.coef[0] for fit in fits]),
            intercept=np.array([fit.intercept[1] - fit.intercept[0] for fit in fits]),
            gradient_norm=max(fit.gradient_norm for fit in fits),
            n_iterations=max(fit.n_iterations for fit in fits),
            converged=all(fit.converged for fit in fits),
        )
