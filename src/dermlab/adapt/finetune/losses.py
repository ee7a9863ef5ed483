"""What a network is trained for: the loss of each kind of target, its probabilities, and batches mixed in pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import log_softmax, logsigmoid, one_hot

from dermlab.adapt.base import label_log_loss, log_loss
from dermlab.core.errors import InputError
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.metrics import Evaluation

if TYPE_CHECKING:
    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.data.card import Target

VAL_METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc", "auprc")
OF_LABELS = ("balanced_accuracy", "macro_f1", "auroc", "auprc", "label_accuracy")
OF_RANKS = ("quadratic_kappa",)


@dataclass(frozen=True)
class Objective:
    """The loss of a target and what its logits mean.

    Attributes:
        n_classes: of the target.
        kind: of the target.
        loss: ``cross_entropy``, ``focal``, ``ordinal``, ``cost`` or ``hierarchy``; a multi-label target takes the first
            two, of each label.
        smoothing: share of each label that is spread.
        gamma: focal loss's exponent.
        costs: (C, C) card's cost matrix, row = the true class; for ``cost``.
        cost_weight: of the expected cost beside cross-entropy.
        groups: place of each class's branch of the hierarchy; for ``hierarchy``.
        alpha: how fast the hierarchy's levels lose weight on the way to the classes.
    """

    n_classes: int
    kind: str = "multiclass"
    loss: str = "cross_entropy"
    smoothing: float = 0.0
    gamma: float = 0.0
    costs: tuple[tuple[float, ...], ...] | None = None
    cost_weight: float = 1.0
    groups: tuple[int, ...] | None = None
    alpha: float = 0.5

    @classmethod
    def of(cls, target: Target, settings: FinetuneSettings) -> Objective:
        """Return the objective of a recipe for a target.

        Raises:
            InputError: the loss, the metric or the sampling does not suit the target.
        """
        several, name = target.kind == "multilabel", repr(target.column)
        if several and settings.loss not in ("cross_entropy", "focal"):
            raise InputError(
                f"loss: {settings.loss} is for one label a photo; {name} has several: cross_entropy or focal"
            )
        if settings.loss == "ordinal" and target.kind != "ordinal":
            raise InputError(f"loss: ordinal needs a target of kind ordinal; {name} is {target.kind}")
        if settings.loss == "cost" and target.cost_matrix is None:
            raise InputError(f"loss: cost needs a cost_matrix at the target {name} in card.yaml")
        if settings.loss == "hierarchy" and target.hierarchy is None:
            raise InputError(f"loss: hierarchy needs a hierarchy at the target {name} in card.yaml")
        if several and settings.metric == "top1":
            raise InputError(
                f"metric: top1 is for one label a photo; {name} has several: log_loss, auroc, auprc, macro_f1"
            )
        if settings.metric in OF_RANKS and target.kind != "ordinal":
            raise InputError(f"metric: {settings.metric} needs a target of kind ordinal; {name} is {target.kind}")
        if several and "balanced" in (settings.sampling, settings.val_sampling):
            raise InputError(
                f"sampling: balanced draws photos by their one class; {name} has several labels: class_weight: balanced"
            )
        return cls(
            n_classes=len(target.classes),
            kind=target.kind,
            loss=settings.loss,
            smoothing=settings.label_smoothing,
            gamma=settings.focal_gamma if settings.loss == "focal" else 0.0,
            costs=target.cost_matrix if settings.loss == "cost" else None,
            cost_weight=settings.cost_weight,
            groups=_branches(target) if settings.loss == "hierarchy" else None,
            alpha=settings.hierarchy_alpha,
        )

    @property
    def multilabel(self) -> bool:
        """Whether each class is a question of its own."""
        return self.kind == "multilabel"

    @property
    def n_outputs(self) -> int:
        """Logits of the network: one a class, of ordinal loss one between each two classes."""
        return self.n_classes - 1 if self.loss == "ordinal" else self.n_classes

    @property
    def val_metrics(self) -> tuple[str, ...]:
        """What is measured on val after each epoch, beside the log loss."""
        if self.multilabel:
            return OF_LABELS
        return (*VAL_METRICS, *OF_RANKS) if self.kind == "ordinal" else VAL_METRICS

    def labels(self, codes: np.ndarray, device: torch.device | str) -> torch.Tensor:
        """Return class codes int (B,), or labels float (B, C) of 0, 1 and NaN, as soft labels float32 (B, C)."""
        given = torch.from_numpy(codes).to(device)
        return given.float() if self.multilabel else soft_labels(given, self.n_classes)

    def class_weights(self, codes: np.ndarray) -> torch.Tensor:
        """Return weights that make the classes weigh alike: float32 (C,), of labels (2, C), of a no and of a yes."""
        if self.multilabel:
            n, n_yes = (~np.isnan(codes)).sum(axis=0), np.nansum(codes, axis=0)
            weights = np.stack([n / np.maximum(2 * (n - n_yes), 1), n / np.maximum(2 * n_yes, 1)])
        else:
            counts = np.bincount(codes, minlength=self.n_classes)
            weights = np.where(counts > 0, counts.sum() / np.maximum(counts, 1) / max(1, (counts > 0).sum()), 0.0)
        return torch.from_numpy(weights.astype(np.float32))

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar in fp32.

        Args:
            logits: (B, n_outputs), any precision.
            labels: soft labels (B, C), as :meth:`labels` and :func:`mixed` return them.
            class_weights: as :meth:`class_weights` returns them.
        """
        if self.multilabel:
            return label_loss(logits, labels, smoothing=self.smoothing, gamma=self.gamma, label_weights=class_weights)
        if self.loss in ("cross_entropy", "focal"):
            return classification_loss(
                logits, labels, smoothing=self.smoothing, gamma=self.gamma, class_weights=class_weights
            )
        with torch.autocast(logits.device.type, enabled=False):
            smooth = labels * (1 - self.smoothing) + self.smoothing / labels.shape[1]
            if self.loss == "ordinal":
                each = ordinal_loss(logits.float(), smooth)
            elif self.loss == "cost":
                costs = torch.tensor(self.costs, dtype=torch.float32, device=logits.device)
                each = cost_loss(logits.float(), smooth, costs, weight=self.cost_weight)
            else:
                groups = torch.tensor(self.groups, device=logits.device)
                each = hierarchical_loss(logits.float(), smooth, groups, alpha=self.alpha)
            if class_weights is None:
                return each.mean()
            weight = labels @ class_weights
            return (each * weight).sum() / weight.sum()

    def weight(self, labels: torch.Tensor, class_weights: torch.Tensor | None = None) -> float:
        """Return what the mean loss of a batch is divided by, and so how much it counts beside other batches.

        Args:
            labels: as for a call.
            class_weights: as for a call.
        """
        if self.multilabel:
            return float(label_counts(labels, class_weights).sum())
        return float(len(labels)) if class_weights is None else float((labels @ class_weights).sum())

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return float64 (B, C): over the classes, or of each label."""
        if self.multilabel:
            return logits.double().sigmoid()
        return ordinal_probabilities(logits.double()) if self.loss == "ordinal" else logits.double().softmax(dim=1)

    def judged(self, probabilities: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
        """Return what is told of val after an epoch: ``val_loss``, ``n_predicted`` and ``val_<metric>``.

        ``val_loss`` is the log loss of the true class (of the known labels), whatever loss is trained. ``n_predicted``
        counts the classes predicted; where labels go together it is the number of classes.
        """
        names = self.val_metrics
        if not np.isfinite(probabilities).all():
            return {"val_loss": np.nan, "n_predicted": 0, **{f"val_{name}": np.nan for name in names}}
        cases = cases_from_arrays(codes, probabilities, classes=range(self.n_classes), ordinal=self.kind == "ordinal")
        found = Evaluation([cases], names).value()
        if self.multilabel:
            loss, n_predicted = label_log_loss(probabilities, codes, np.ones(codes.shape)), self.n_classes
        else:
            loss = log_loss(probabilities, codes, np.ones(len(codes)))
            n_predicted = len(np.unique(probabilities.argmax(1)))
        return {"val_loss": loss, "n_predicted": n_predicted, **{f"val_{name}": found[name] for name in names}}


def _branches(target: Target) -> tuple[int, ...]:
    """Return the place of each class's branch; a class in none is a branch of its own."""
    place = {name: group for group, members in enumerate((target.hierarchy or {}).values()) for name in members}
    alone = len(target.hierarchy or {})
    return tuple(place.get(name, alone + code) for code, name in enumerate(target.classes))


def soft_labels(codes: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return class codes (B,) as float32 (B, C), 1 at the class."""
    return one_hot(codes, n_classes).float()


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    smoothing: float = 0.0,
    gamma: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean loss, a scalar in fp32.

    Args:
        logits: (B, C), any precision; computed on in fp32.
        labels: soft labels (B, C), rows sum to 1.
        smoothing: share of each label spread evenly over the classes (Szegedy et al. 2016).
        gamma: focal loss's exponent, 0 for cross-entropy (Lin et al. 2017, equation 4).
        class_weights: (C,); as torch's cross_entropy the weighted mean is divided by the labels' weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p = log_softmax(logits.float(), dim=1)
        smooth = labels * (1 - smoothing) + smoothing / labels.shape[1]
        terms = -smooth * log_p
        if gamma:
            terms = terms * (1 - log_p.exp()).clamp_min(0) ** gamma
        if class_weights is None:
            return terms.sum(dim=1).mean()
        return (terms * class_weights).sum() / (labels * class_weights).sum()


def label_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    smoothing: float = 0.0,
    gamma: float = 0.0,
    label_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean binary cross-entropy of all known labels, a scalar in fp32.

    Args:
        logits: (B, C), any precision; computed on in fp32.
        labels: (B, C) within 0 and 1, NaN where unknown.
        smoothing: share of each label that goes half to yes and half to no.
        gamma: focal loss's exponent, 0 for cross-entropy (Lin et al. 2017, equation 4).
        label_weights: (2, C), of a no and of a yes; the weighted mean is divided by the labels' weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        weight = label_counts(labels, label_weights)
        known = ~labels.isnan()
        labels = labels.nan_to_num()
        smooth = labels * (1 - smoothing) + smoothing / 2
        yes, no = -smooth * logsigmoid(logits), -(1 - smooth) * logsigmoid(-logits)
        if gamma:
            yes, no = yes * logits.neg().sigmoid() ** gamma, no * logits.sigmoid() ** gamma
        if label_weights is not None:
            yes, no = yes * label_weights[1], no * label_weights[0]
        return ((yes + no) * known).sum() / weight.sum().clamp_min(1e-12)


def label_counts(labels: torch.Tensor, label_weights: torch.Tensor | None) -> torch.Tensor:
    """Return how much each label counts, float (B, C): 0 where it is unknown.

    Args:
        labels: (B, C) within 0 and 1, NaN where unknown.
        label_weights: (2, C), of a no and of a yes; None: all known ones count 1.
    """
    known = (~labels.isnan()).float()
    if label_weights is None:
        return known
    yes = labels.nan_to_num()
    return known * (yes * label_weights[1] + (1 - yes) * label_weights[0])


def ordinal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of CORN for each sample, (B,).

    Shi, Cao & Raschka 2023, "Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities", equation 6: logit k asks "above class k?" of those that are above class k - 1. The sum over the
    questions asked of a sample is the negative log-probability of its class.

    Args:
        logits: (B, C - 1), of the conditional probabilities.
        labels: soft labels (B, C); a sample that is partly of two classes is asked their questions in these parts.
    """
    above = labels.flip(1).cumsum(1).flip(1)  # the part of each sample that is of class k or higher
    return -(above[:, 1:] * logsigmoid(logits) + labels[:, :-1] * logsigmoid(-logits)).sum(dim=1)


def ordinal_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return the probability of each class (B, C) from the logits of :func:`ordinal_loss`.

    ``P(y > k)`` is the product of the conditional probabilities up to k, and so never rises with k.
    """
    above = torch.cat([torch.ones_like(logits[:, :1]), logits.sigmoid().cumprod(dim=1)], dim=1)
    return above - torch.cat([above[:, 1:], torch.zeros_like(above[:, :1])], dim=1)


def cost_loss(logits: torch.Tensor, labels: torch.Tensor, costs: torch.Tensor, *, weight: float) -> torch.Tensor:
    """Return cross-entropy plus ``weight`` times the expected cost of a decision drawn from the softmax, (B,).

    Galdran et al. 2020, "Cost-sensitive regularization for diabetic retinopathy grading from eye fundus images",
    equation 3. Cross-entropy keeps the probabilities meaningful, and its gradient where the expected cost alone has
    none. Costs are divided by their mean over the wrong decisions, so that ``weight`` means the same whatever the unit.

    Args:
        logits: (B, C).
        labels: soft labels (B, C).
        costs: (C, C), row = the true class, column = the decision.
        weight: of the expected cost.
    """
    wrong = ~torch.eye(len(costs), dtype=torch.bool, device=costs.device)
    scale = costs[wrong].abs().mean().clamp_min(1e-12)
    log_p = log_softmax(logits, dim=1)
    return -(labels * log_p).sum(dim=1) + weight * ((labels @ (costs / scale)) * log_p.exp()).sum(dim=1)


def hierarchical_loss(
    logits: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor, *, alpha: float
) -> torch.Tensor:
    """Return the hierarchical cross-entropy of branches and their classes for each sample, (B,).

    Bertinetto et al. 2020, "Making better mistakes", equations 3 and 5: the log-probability of the class within its
    branch, and that of the branch, each weighted by ``exp(-alpha * depth)``; here relative to the branch's, so that
    ``alpha = 0`` is cross-entropy and a larger one cares less which class of the branch it is.

    Args:
        logits: (B, C).
        labels: soft labels (B, C).
        groups: int64 (C,), the branch of each class.
        alpha: how much a level weighs less than the one above.
    """
    log_p = log_softmax(logits, dim=1)
    member = one_hot(groups).T.bool()  # (branches, C); numbers no class has are empty rows
    member = member[member.any(dim=1)]
    inside = log_p[:, None, :].masked_fill(~member, -torch.inf).logsumexp(dim=2)  # (B, branches)
    of_branch = inside @ member.float()  # (B, C), of the class's branch
    return -(labels * (of_branch + float(np.exp(-alpha)) * (log_p - of_branch))).sum(dim=1)


def mixed(
    images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator, *, mixup: float, cutmix: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch each of whose photos holds a part of another, and the labels in the same shares.

    MixUp (Zhang et al. 2018) adds photos; CutMix (Yun et al. 2019) puts a rectangle of one into the other, and its
    share is that of the rectangle as clipped at the border. Where both are asked for, a coin decides for each batch.

    Args:
        images: (B, 3, H, W).
        labels: soft labels (B, C).
        random: draws partners, shares and rectangles.
        mixup: alpha of the Beta distribution of shares; 0: never.
        cutmix: the same for CutMix.
    """
    if not (mixup or cutmix) or len(images) < 2:
        return images, labels
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(random.beta(alpha, alpha))
    partner = torch.from_numpy(random.permutation(len(images))).to(images.device)
    if not cuts:
        return images * share + images[partner] * (1 - share), labels * share + labels[partner] * (1 - share)
    height, width = images.shape[2:]
    side = np.sqrt(1 - share)
    row, column = random.integers(height), random.integers(width)
    top, bottom = np.clip([row - int(height * side) // 2, row + int(height * side) // 2], 0, height).tolist()
    left, right = np.clip([column - int(width * side) // 2, column + int(width * side) // 2], 0, width).tolist()
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return images, labels * share + labels[partner] * (1 - share)
