"""The MLP head, and the loop that fits the small networks of heads: AdamW, early stopping on val, seeded."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.adapt.base import Head
from dermlab.core.randomness import generator

if TYPE_CHECKING:
    import torch

    from dermlab.models.fusion import FusionNetwork

CLIP = 10.0
"""Standardised features are clipped to ±10: one broken photo must not drive a network out of its range."""

PREDICT_BLOCK = 8192

ONE_THREAD_BELOW = 100_000_000
"""Multiplications of one network and batch below which one thread trains: several would mostly wait for each other
(on two busy cores two threads took ten times as long as one)."""

Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Training:
    """How the members of a head are trained.

    Attributes:
        epochs: most passes over the training samples.
        patience: epochs without a better val score after which training ends.
        learning_rate: of AdamW, constant: training is short.
        weight_decay: of AdamW, on weight matrices only.
        batch_size: None: 64 up to 4,096 samples, then n / 64 up to 512.
        seed: of weights, order and dropout.
        branch_share: the part of the rate at which everything but the interaction of a joined network moves.
    """

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    batch_size: int | None
    seed: int
    branch_share: float = 1.0


@dataclass(frozen=True)
class Curve:
    """What a training left to tell.

    Attributes:
        val_scores: score on val before training and after each epoch.
        best_epoch: the epoch kept; 0 is the state before training.
        finite: whether the loss stayed finite.
    """

    val_scores: list[float]
    best_epoch: int
    finite: bool


def train(
    networks: Sequence[FusionNetwork],
    n: int,
    batch: Callable[[np.ndarray, np.random.Generator], Batch],
    codes: np.ndarray,
    weights: np.ndarray,
    judge: Callable[[], float] | None,
    training: Training,
) -> Curve:
    """Train all networks on the same batches; leave in each the state of the epoch that was best on val.

    Args:
        networks: the members; their probabilities are averaged, so the average is what val judges.
        n: number of training samples.
        batch: makes the keyword arguments of the network's forward for the rows given.
        codes: int (N,) class codes, or float (N, S) of labels 0, 1 and NaN.
        weights: float (N,) weights of the samples in the loss; of labels (N, S), 0 where one is unknown.
        judge: returns the score of the networks as they are, higher is better; None: the last epoch is kept.
        training: rates and limits.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for network in networks:
        for name, parameter in network.named_parameters():
            rate = training.learning_rate * (1.0 if name.startswith("interaction") else training.branch_share)
            decay = training.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()],
        fused=True,
    )
    size = training.batch_size or int(np.clip(n // 64, 64, 512))
    loss: Callable[..., torch.Tensor] = cross_entropy
    if codes.ndim == 2:
        loss, codes = binary_cross_entropy_with_logits, np.nan_to_num(codes).astype(np.float32)
    targets, sample_weights = torch.from_numpy(codes), torch.from_numpy(weights.astype(np.float32))
    scores = [judge() if judge is not None else np.nan]
    best, kept, finite = 0, [copy.deepcopy(network.state_dict()) for network in networks], True
    work = size * sum(parameter.numel() for parameter in networks[0].parameters())
    with deterministic(training.seed, one_thread=work < ONE_THREAD_BELOW):
        for epoch in range(1, training.epochs + 1):
            random = generator(training.seed, "batches", epoch)
            order = random.permutation(n)
            for network in networks:
                network.train()
            for start in range(0, n, size):
                rows = order[start : start + size]
                if len(rows) == 1 and n > 1:
                    continue
                inputs = batch(rows, random)
                weight = sample_weights[rows]
                total = torch.stack(
                    [(loss(network(**inputs), targets[rows], reduction="none") * weight).sum() for network in networks]
                ).sum() / weight.sum().clamp_min(1e-12)
                optimiser.zero_grad()
                total.backward()
                optimiser.step()
                finite = finite and bool(torch.isfinite(total))
            if not finite:
                break
            for network in networks:
                network.eval()
            scores.append(judge() if judge is not None else np.nan)
            if judge is None or scores[-1] > scores[best]:
                best, kept = epoch, [copy.deepcopy(network.state_dict()) for network in networks]
            elif epoch - best >= training.patience:
                break
    for network, state in zip(networks, kept, strict=True):
        network.load_state_dict(state)
        network.eval()
    return Curve([float(value) for value in scores], best, finite)


@contextlib.contextmanager
def deterministic(seed: int, *, one_thread: bool = False) -> Iterator[None]:
    """Let torch draw from ``seed`` within the block, on one thread if asked; the caller's state comes back."""
    import torch

    state, n_threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which sets the GPUs' generators too
    if one_thread:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
        torch.set_num_threads(n_threads)


def mean_probabilities(
    networks: Sequence[FusionNetwork], batches: Iterator[Batch], *, labels: bool = False, double: bool = False
) -> np.ndarray:
    """Return the members' probabilities averaged, float64 (N, C).

    Args:
        networks: the members.
        batches: arguments of their forward.
        labels: each logit is of a question of its own.
        double: compute in double precision: the last bits of single precision depend on how many photos come
            together, and a photo's prediction must not.
    """
    import torch

    if double:
        networks = [copy.deepcopy(network).double() for network in networks]
        batches = ({n: v.double() if v.is_floating_point() else v for n, v in batch.items()} for batch in batches)
    parts = []
    with torch.inference_mode():
        for inputs in batches:
            logits = torch.stack([network(**inputs).double() for network in networks])
            parts.append((logits.sigmoid() if labels else logits.softmax(dim=2)).mean(dim=0).numpy())
    return np.concatenate(parts)


class MLPHead(Head):
    """Standardised features → 256 → classes; AdamW, early stopping on val, a few members averaged.

    The members differ in their first weights and see the same batches; their mean probability is what val judges and
    what is predicted. Training starts at the class shares, and that start may be kept: a head that found nothing
    predicts the shares.

    Args:
        hidden: width of the hidden layer.
        epochs: most passes over the training samples.
        patience: epochs without a better val score after which training ends.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        dropout: of the hidden layer.
        input_dropout: of the features.
        n_members: networks averaged.
        batch_size: None: by the number of samples.
        class_weight: None, ``"balanced"`` or weights by class.
        classes: all classes of the target in order; None: those that occur.
        choose_by: metric on val that stops.
        random_state: seed of weights, batches, dropout and hold-out.

    Attributes:
        networks_: the fitted members.
        mean_, scale_: float32 (D,), of the training samples.
        n_iter_: the epoch kept.
    """

    def __init__(
        self,
        hidden: int = 256,
        epochs: int = 100,
        patience: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        n_members: int = 3,
        batch_size: int | None = None,
        class_weight: Any = None,
        classes: Sequence[Any] | None = None,
        choose_by: str = "log_loss",
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.n_members = n_members
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.classes = classes
        self.choose_by = choose_by
        self.random_state = random_state

    @property
    def n_embedding_(self) -> int:
        """Number of leading features that are the embedding: all of them."""
        return self.n_features_in_

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        self._learn_scale(X)
        curve = self._train_image(X, codes, X_val, codes_val)
        self._report(curve, X_val is not None)

    def _learn_scale(self, X: np.ndarray) -> None:
        self.mean_ = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = X.std(axis=0, dtype=np.float64)
        constant = spread <= 1e-6 * np.abs(self.mean_)
        self.scale_ = np.where(constant, np.inf, spread).astype(np.float32)

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        scaled = (X.astype(np.float32) - self.mean_) / self.scale_
        return np.clip(scaled, -CLIP, CLIP)

    def _training(self, seed: str) -> Training:
        return Training(
            epochs=self.epochs,
            patience=self.patience,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            seed=int(generator(self.random_state, seed).integers(2**31)),
        )

    def _log_prior(self, codes: np.ndarray) -> np.ndarray:
        """Return the log class shares that the (weighted) loss sees, float64 (S,); of labels the log odds of a yes."""
        if self.multilabel_:
            weights = self._sample_weights(codes)
            return np.log((weights * (codes == 1)).sum(axis=0) / (weights * (codes == 0)).sum(axis=0))
        shares = np.bincount(codes, minlength=len(self.seen_)) * self._class_weights(codes)
        return np.log(shares / shares.sum())

    def _build(self, n_embedding: int, n_questionnaire: int, codes: np.ndarray, name: str) -> list[FusionNetwork]:
        import torch

        from dermlab.models.fusion import FusionNetwork

        networks = []
        for member in range(self.n_members):
            with deterministic(int(generator(self.random_state, name, member).integers(2**31))):
                network = FusionNetwork(
                    n_embedding,
                    n_questionnaire,
                    len(self.seen_),
                    hidden=self.hidden,
                    input_dropout=self.input_dropout,
                    dropout=self.dropout,
                )
            with torch.no_grad():
                network.classifier.bias.copy_(torch.from_numpy(self._log_prior(codes)))
            networks.append(network.eval())
        return networks

    def _train_image(
        self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None
    ) -> Curve:
        """Train the embedding branch with a classifier of its own."""
        import torch

        self.networks_ = self._build(self.n_embedding_, 0, codes, "image")
        embedding = torch.from_numpy(self._standardise(X)[:, : self.n_embedding_])

        return train(
            self.networks_,
            len(X),
            lambda rows, _: {"embedding": embedding[rows]},
            codes,
            self._sample_weights(codes),
            self._judge(X_val, codes_val),
            self._training("image training"),
        )

    def _judge(self, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> Callable[[], float] | None:
        """Return the function that scores the networks on val as they are, or None where there is no val."""
        if X_val is None or codes_val is None:
            return None
        batches = list(self._batches(X_val))
        return lambda: self._score(codes_val, self._mean_probabilities(iter(batches)))

    def _batches(self, X: np.ndarray) -> Iterator[Batch]:
        import torch

        for start in range(0, len(X), PREDICT_BLOCK):
            yield {"embedding": torch.from_numpy(self._standardise(X[start : start + PREDICT_BLOCK]))}

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        return self._mean_probabilities(self._batches(X), double=True)

    def _mean_probabilities(self, batches: Iterator[Batch], *, double: bool = False) -> np.ndarray:
        return mean_probabilities(self.networks_, batches, labels=self.multilabel_, double=double)

    def _report(self, curve: Curve, judged: bool) -> None:
        self.n_iter_ = max(1, curve.best_epoch)
        self.head_report_ |= {
            "chosen": {"epochs": curve.best_epoch},
            "val_score": curve.val_scores[curve.best_epoch] if judged else None,
            "sweep": [{"epoch": epoch, "val_score": value} for epoch, value in enumerate(curve.val_scores)],
            "converged": curve.finite,
        }
        warnings = self.head_report_["warnings"]
        if judged and curve.best_epoch == 0:
            warnings.append("no epoch was better on val than the class shares: nothing was learnt from the features")
        if judged and curve.best_epoch == self.epochs:
            warnings.append(f"val was still improving after {self.epochs} epochs: more may help (epochs)")
