"""L2 multinomial logistic regression on many draws from one pool of samples, all draws and penalties together.

A label-efficiency curve fits the same model thousands of times, on draws that share their samples. Three things make
that cheap, none of which changes the objective (scikit-learn's, on features standardised by each draw's own mean and
spread):

* one product for all draws: the pool is multiplied with the weights of all draws side by side, which keeps the
  processor busy where one draw's few columns leave it waiting for memory. A draw's standardisation is a factor on its
  weights, not another copy of the samples;
* draws of fewer samples than features live in the span of their samples, so they are rotated into it once;
* L-BFGS preconditioned by the covariance and warm-started from the stronger penalty takes about a dozen products a
  penalty. (A single fit, :mod:`dermlab.adapt.logistic`, takes Newton's method, which converges where this one crawls.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MEMORY = 10  # pairs of steps that L-BFGS remembers
MAX_ITERATIONS = 500
LEAST_SPREAD = 1e-4
ROUNDING = 2 * float(np.finfo(np.float32).eps)
BLOCK = 50  # draws at a time
GATHERED = 2  # the same where each draw's rows are gathered: more leave the processor's cache
POOLED_FROM = 0.25  # share of the pool from which multiplying all of it beats gathering the draw's rows


@dataclass(frozen=True)
class DrawFits:
    """The solutions of all draws for one penalty.

    Attributes:
        C: inverse strength of the penalty, as in scikit-learn.
        coef: float32 (draws, classes, D), on the features as they came; zero rows for classes that a draw lacks.
        intercept: float32 (draws, classes); ``-inf`` for classes that a draw lacks.
        gradient_norm: float64 (draws,), largest absolute entry of the gradient of the mean loss with penalty.
        n_iterations: L-BFGS steps taken by the slowest draw.
    """

    C: float
    coef: np.ndarray
    intercept: np.ndarray
    gradient_norm: np.ndarray
    n_iterations: int

    def part(self, draws: np.ndarray) -> DrawFits:
        """Return the solutions of some of the draws."""
        return replace(
            self, coef=self.coef[draws], intercept=self.intercept[draws], gradient_norm=self.gradient_norm[draws]
        )

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Return the logits of samples (N, D) under every draw's model, float32 (draws, N, classes)."""
        n_draws, n_classes, n_features = self.coef.shape
        product = self.coef.reshape(-1, n_features) @ X.T
        return product.reshape(n_draws, n_classes, len(X)).transpose(0, 2, 1) + self.intercept[:, None, :]


class DrawPaths:
    """Solves the same penalties on many draws of equal size from one pool."""

    def __init__(self, X: np.ndarray, codes: np.ndarray, n_classes: int, *, tolerance: float = 1e-5) -> None:
        """Standardise the pool and, where draws may outnumber the features, look along which directions it varies.

        Args:
            X: features of the pool, float (N, D).
            codes: class of each sample, int (N,).
            n_classes: number of classes.
            tolerance: largest absolute entry of the mean gradient at which a fit ends. scikit-learn's ``tol`` of 1e-4
                stops short where the penalty is weak: macro-F1 is then off by .005 (800 labels, C = 1).
        """
        self.mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = X.std(axis=0, dtype=np.float64)
        self.scale = np.where(spread > 0, spread, 1.0).astype(np.float32)
        self.X = np.ascontiguousarray((X - self.mean) / self.scale, np.float32)
        self.codes = np.asarray(codes)
        self.n_classes = n_classes
        self.tolerance = tolerance
        self._eigen: tuple[np.ndarray, np.ndarray] | None = None

    def solve(
        self, draws: Sequence[np.ndarray], Cs: Sequence[float], max_iterations: int = MAX_ITERATIONS
    ) -> list[DrawFits]:
        """Return the solutions for each penalty, strongest first.

        Args:
            draws: row numbers of each draw's samples in the pool; any sizes, each with two classes at least.
            Cs: inverse penalties, as in scikit-learn: ``C * sum(loss) + 0.5 * ||W||^2``.
            max_iterations: L-BFGS steps allowed for each penalty.
        """
        order = sorted(float(C) for C in Cs)
        n_draws, n_features = len(draws), self.X.shape[1]
        coef = np.zeros((len(order), n_draws, self.n_classes, n_features), np.float32)
        intercept = np.full((len(order), n_draws, self.n_classes), -np.inf, np.float32)
        norms = np.zeros((len(order), n_draws))
        steps = np.zeros(len(order), np.int64)
        # Draws that see the same classes in the same number of samples are solved side by side.
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, rows in enumerate(draws):
            alike.setdefault((len(rows), tuple(np.unique(self.codes[rows]).tolist())), []).append(place)
        for (n, seen), places in alike.items():
            at_once = GATHERED if n_features < n < POOLED_FROM * len(self.X) else BLOCK
            for start in range(0, len(places), at_once):
                block = places[start : start + at_once]
                found = self._solve_alike([draws[place] for place in block], seen, order, max_iterations)
                for at, (W, b, norm, n_steps) in enumerate(found):
                    cell = np.ix_(block, seen)
                    coef[at][cell], intercept[at][cell] = W, b
                    norms[at, block] = norm
                    steps[at] = max(steps[at], n_steps)
        return [DrawFits(C, coef[at], intercept[at], norms[at], int(steps[at])) for at, C in enumerate(order)]

    def _solve_alike(
        self, draws: list[np.ndarray], seen: tuple[int, ...], Cs: list[float], max_iterations: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        """Yield coefficients, intercepts, gradient norms and steps for each penalty, on the features as they came."""
        n, n_features = len(draws[0]), self.X.shape[1]
        codes = np.searchsorted(seen, np.stack([self.codes[rows] for rows in draws]))
        problem: _InSpan | _InFeatures
        if n <= n_features:
            problem = _InSpan(self.X, draws, codes, len(seen))
        else:
            problem = _InFeatures(self.X, draws, codes, len(seen), self._directions())
        for C in Cs:
            norm, n_steps = _minimise(problem, _penalty(C, n, len(seen)), self.tolerance, max_iterations)
            W, b = problem.coefficients()
            W = W / self.scale
            yield W, b - W @ self.mean, norm, n_steps

    def _directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return variances and directions of the pool (its eigenbasis), found when first needed."""
        if self._eigen is None:
            values, vectors = np.linalg.eigh((self.X.T @ self.X).astype(np.float64) / len(self.X))
            self._eigen = np.maximum(values, 0).astype(np.float32), vectors.astype(np.float32)
        return self._eigen


class _Problem:
    """B draws of n samples over the same K classes: parameters (B, K, P), the last of P the intercept.

    Attributes:
        theta: the parameters, float32; the next solution starts from them.
        onehot: float32 (B, K, rows), one at the class of each row drawn, zero elsewhere.
        drawn: float32 (B, 1, rows), one where a row is drawn, zero elsewhere; None where all rows are.
        n: samples in each draw.
    """

    theta: np.ndarray
    onehot: np.ndarray
    drawn: np.ndarray | None
    n: int

    def forward(self, theta: np.ndarray) -> np.ndarray:
        """Return logits (B, K, rows)."""
        raise NotImplementedError

    def backward(self, residual: np.ndarray) -> np.ndarray:
        """Return the product (B, K, P) of residuals (B, K, rows) with the samples and, in the last place, with 1."""
        raise NotImplementedError

    def precondition(self, gradient: np.ndarray, spread: np.ndarray, penalty: float) -> np.ndarray:
        """Return about the inverse Hessian times ``gradient`` where probabilities vary by ``spread`` (B, K).

        The Hessian's block of a class is about the covariance of the samples times ``spread`` (the bound of Böhning
        1992, "Multinomial logistic regression algorithm", scaled to the probabilities at hand), plus the penalty.
        """
        raise NotImplementedError

    def begin(self, n_parameters: int) -> None:
        """Start from weights of zero and the logarithms of the class shares."""
        shares = self.onehot.sum(axis=2, dtype=np.float64) / self.n
        prior = np.log(np.maximum(shares, 1e-300))
        self.theta = np.zeros((*shares.shape, n_parameters), np.float32)
        self.theta[..., -1] = prior - prior.mean(axis=1, keepdims=True)

    def value_and_gradient(self, theta: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values (B,) float64, gradients (B, K, P) and the mean of p (1 - p) of each class (B, K)."""
        logits = self.forward(theta)
        logits -= logits.max(axis=1, keepdims=True)
        own = np.einsum("bkn,bkn->b", logits, self.onehot, dtype=np.float64)
        probabilities = np.exp(logits, out=logits)
        total = probabilities.sum(axis=1, keepdims=True)
        probabilities /= total
        loss = np.log(total[:, 0])
        residual = probabilities
        if self.drawn is not None:
            loss *= self.drawn[:, 0]
            residual = probabilities * self.drawn
        spread = (residual.sum(axis=2) - np.einsum("bkn,bkn->bk", residual, probabilities)) / self.n
        value = (loss.sum(axis=1, dtype=np.float64) - own) / self.n
        residual -= self.onehot
        gradient = self.backward(residual)
        gradient /= self.n
        weights = theta[..., :-1]
        value += 0.5 * penalty * np.einsum("bkp,bkp->b", weights, weights, dtype=np.float64)
        gradient[..., :-1] += penalty * weights
        return value, gradient, spread


class _InSpan(_Problem):
    """Draws of no more samples than features, each rotated into the span of its samples."""

    def __init__(self, X: np.ndarray, draws: list[np.ndarray], codes: np.ndarray, n_classes: int) -> None:
        n = len(draws[0])
        self.n = n
        self.rotations: list[np.ndarray] = []
        self.Z = np.zeros((len(draws), n, n + 1), np.float32)
        self.Z[..., -1] = 1
        self.centres = np.zeros((len(draws), X.shape[1]), np.float32)
        for place, rows in enumerate(draws):
            samples = X[rows].astype(np.float64)
            centre, factor = samples.mean(axis=0), _factor(samples)
            centred = (samples - centre) * factor
            values, left = np.linalg.eigh(centred @ centred.T)
            kept = values > max(values[-1], 1e-300) * n * np.finfo(np.float64).eps
            length = np.sqrt(values[kept])
            self.Z[place, :, : int(kept.sum())] = left[:, kept] * length
            self.rotations.append(((left[:, kept] / length).T @ centred * factor).astype(np.float32))
            self.centres[place] = centre
        self.variance = (self.Z**2).mean(axis=1)[:, None, :]
        self.onehot = (codes[:, None, :] == np.arange(n_classes)[:, None]).astype(np.float32)
        self.drawn = None
        self.begin(n + 1)

    def forward(self, theta: np.ndarray) -> np.ndarray:
        return theta @ self.Z.transpose(0, 2, 1)

    def backward(self, residual: np.ndarray) -> np.ndarray:
        return residual @ self.Z

    def precondition(self, gradient: np.ndarray, spread: np.ndarray, penalty: float) -> np.ndarray:
        curvature = self.variance * spread[..., None] + np.float32(penalty)
        curvature[..., -1] = spread
        return gradient / curvature

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (B, K, D) and intercepts (B, K) on the pool's standardised features."""
        W = np.stack(
            [theta[:, : len(rotation)] @ rotation for theta, rotation in zip(self.theta, self.rotations, strict=True)]
        )
        return W, self.theta[..., -1] - np.einsum("bkd,bd->bk", W, self.centres)


class _InFeatures(_Problem):
    """Draws of more samples than features: each has its own factors, all share the samples."""

    def __init__(
        self,
        X: np.ndarray,
        draws: list[np.ndarray],
        codes: np.ndarray,
        n_classes: int,
        directions: tuple[np.ndarray, np.ndarray],
    ) -> None:
        n = len(draws[0])
        self.n = n
        n_draws, n_features = len(draws), X.shape[1]
        self.values, self.vectors = directions
        self.pooled = n >= POOLED_FROM * len(X)
        self.factor = np.stack([_factor(X[rows]) for rows in draws]).astype(np.float32)[:, None, :]
        if self.pooled:
            self.samples = X
            mask = np.zeros((n_draws, len(X)), np.float32)
            everyone = np.zeros((n_draws, len(X)), np.int64)
            for place, rows in enumerate(draws):
                mask[place, rows], everyone[place, rows] = 1, codes[place]
            self.drawn = mask[:, None, :]
            self.onehot = (everyone[:, None, :] == np.arange(n_classes)[:, None]) * self.drawn
        else:
            self.samples = np.stack([X[rows] for rows in draws])
            self.drawn = None
            self.onehot = (codes[:, None, :] == np.arange(n_classes)[:, None]).astype(np.float32)
        self.begin(n_features + 1)

    def forward(self, theta: np.ndarray) -> np.ndarray:
        scaled = theta[..., :-1] * self.factor
        if self.pooled:
            n_draws, n_classes, n_features = scaled.shape
            logits = (scaled.reshape(-1, n_features) @ self.samples.T).reshape(n_draws, n_classes, -1)
        else:
            logits = scaled @ self.samples.transpose(0, 2, 1)
        logits += theta[..., -1:]
        return logits

    def backward(self, residual: np.ndarray) -> np.ndarray:
        n_draws, n_classes, n_rows = residual.shape
        result = np.empty((n_draws, n_classes, self.factor.shape[2] + 1), np.float32)
        if self.pooled:
            product = (residual.reshape(-1, n_rows) @ self.samples).reshape(n_draws, n_classes, -1)
        else:
            product = residual @ self.samples
        result[..., :-1] = product * self.factor
        result[..., -1] = residual.sum(axis=2)
        return result

    def precondition(self, gradient: np.ndarray, spread: np.ndarray, penalty: float) -> np.ndarray:
        result = np.empty_like(gradient)
        n_draws, n_classes, n_features = gradient.shape[0], gradient.shape[1], gradient.shape[2] - 1
        turned = gradient[..., :-1].reshape(-1, n_features) @ self.vectors
        turned /= spread.reshape(-1, 1) * self.values + np.float32(penalty)
        result[..., :-1] = (turned @ self.vectors.T).reshape(n_draws, n_classes, n_features)
        result[..., -1] = gradient[..., -1] / spread
        return result

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (B, K, D) and intercepts (B, K) on the pool's standardised features."""
        return self.theta[..., :-1] * self.factor, self.theta[..., -1].copy()


def _factor(samples: np.ndarray) -> np.ndarray:
    """Return what standardises a draw's features, float64 (D,): 1 / spread, 0 where a feature does not vary."""
    spread = samples.std(axis=0, dtype=np.float64)
    return np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)


def _penalty(C: float, n: int, n_classes: int) -> float:
    """Return the factor of ``0.5 * ||W||^2`` beside the mean loss that scikit-learn's ``C`` stands for.

    For two classes scikit-learn penalises one vector w, the softmax two vectors of +-w/2, whose squares sum to half.
    """
    return (2.0 if n_classes == 2 else 1.0) / (C * n)


def _minimise(problem: _Problem, penalty: float, tolerance: float, max_iterations: int) -> tuple[np.ndarray, int]:
    """Bring every ``theta`` to its minimum by L-BFGS.

    Nocedal & Wright 2006, "Numerical optimization", algorithm 7.4, with the preconditioner as first inverse Hessian and
    halved steps until the value falls (Armijo).

    Args:
        problem: solved in place.
        penalty: factor of half the squared weights.
        tolerance: largest absolute entry of the gradient that counts as converged.
        max_iterations: steps allowed.

    Returns:
        The gradients' largest entries, float64 (B,), and the steps taken by the slowest.
    """
    theta = problem.theta
    value, gradient, spread = problem.value_and_gradient(theta, penalty)
    spread = np.maximum(spread, LEAST_SPREAD).astype(np.float32)
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    norm = np.abs(gradient).max(axis=(1, 2))
    stuck, failed_before = np.zeros(len(theta), bool), np.zeros(len(theta), bool)
    iteration = 0
    while iteration < max_iterations and ((norm > tolerance) & ~stuck).any():
        direction = _direction(problem, gradient, spread, penalty, pairs)
        slope = np.einsum("bkp,bkp->b", direction, gradient, dtype=np.float64)
        length = np.where((norm > tolerance) & ~stuck, 1.0, 0.0)
        while True:
            step = length.astype(np.float32)[:, None, None] * direction
            new_value, new_gradient, _ = problem.value_and_gradient(theta + step, penalty)
            worse = (new_value > value + 1e-4 * length * slope + ROUNDING * np.abs(value)) & (length > 0)
            if not worse.any():
                break
            length[worse] /= 2
            failed = worse & (length < 1e-4)
            length[failed] = 0.0
            # Rounding may have spoilt what is remembered: once more without it; then no descent is left.
            stuck |= failed & failed_before
            failed_before |= failed
            for _, _, weight in pairs:
                weight[failed] = 0
        change = new_gradient - gradient
        curvature = np.einsum("bkp,bkp->b", step, change, dtype=np.float64)
        # A pair without curvature (a problem that is done, or rounding) is left out by a weight of zero.
        useful = curvature > 1e-300
        weight = np.where(useful, 1 / np.where(useful, curvature, 1.0), 0.0).astype(np.float32)
        weight[~np.isfinite(weight)] = 0
        failed_before &= length == 0
        pairs = [*pairs, (step, change, weight)][-MEMORY:]
        theta, value, gradient = theta + step, new_value, new_gradient
        norm = np.abs(gradient).max(axis=(1, 2))
        iteration += 1
    theta[..., -1] -= theta[..., -1].mean(axis=1, keepdims=True)
    problem.theta = theta
    return norm.astype(np.float64), iteration


def _direction(
    problem: _Problem,
    gradient: np.ndarray,
    spread: np.ndarray,
    penalty: float,
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Return minus the remembered inverse Hessian times the gradient."""
    rest = gradient.copy()
    along: list[np.ndarray] = []
    for step, change, weight in reversed(pairs):
        share = weight * np.einsum("bkp,bkp->b", step, rest)
        rest -= share[:, None, None] * change
        along.append(share)
    result = problem.precondition(rest, spread, penalty)
    for (step, change, weight), share in zip(pairs, reversed(along), strict=True):
        back = weight * np.einsum("bkp,bkp->b", change, result)
        result += (share - back)[:, None, None] * step
    return -result
