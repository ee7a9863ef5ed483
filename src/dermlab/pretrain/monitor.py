"""A pretraining is watched while it runs: neighbours on labelled photos, the spread of features, and named alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.evaluate.metrics import score
from dermlab.features.neighbours import nearest

if TYPE_CHECKING:
    from dermlab.core.device import Runtime
    from dermlab.data.pixel_cache import Pixels
    from dermlab.models.encoders import Encoder

TEMPERATURE = 0.07
"""Weights of the neighbours' votes are exp(cosine / this), as in DINO's evaluation."""

FLAT = 0.01
"""A loss within this share of ln K, and as long as it is, has learned nothing."""

COLLAPSED_SPREAD, COLLAPSED_RANK = 0.05, 1.5
STOPPED = 1e-6
FALL, FALL_LOOKS = 0.05, 3


@dataclass(frozen=True)
class LabelledPhotos:
    """The labelled photos of one data set that the monitor looks at; test photos are never among them.

    Attributes:
        name: of the data set.
        bank: rows of its train part, int64 (N,).
        bank_codes: their classes, int64 (N,).
        queries: rows of its val part, int64 (Q,).
        query_codes: their classes, int64 (Q,).
        n_classes: of the target.
    """

    name: str
    bank: np.ndarray
    bank_codes: np.ndarray
    queries: np.ndarray
    query_codes: np.ndarray
    n_classes: int


@dataclass(frozen=True)
class Alarm:
    """One finding: its name, the epoch, what was seen and what to change."""

    name: str
    epoch: int
    says: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return asdict(self)


def spread(features: np.ndarray) -> float:
    """Return how widely unit features (N, D) point: 1 is all over the sphere, 0 the same for every photo.

    The mean over dimensions of their standard deviation, times √D (SimSiam, Chen & He 2021, section 4.1).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return float(unit.std(axis=0).mean() * math.sqrt(features.shape[1]))


def effective_rank(features: np.ndarray) -> float:
    """Return exp of the entropy of the centred features' singular values, 1 to D (Roy & Vetterli 2007)."""
    values = np.linalg.svd(features.astype(np.float64) - features.mean(axis=0), compute_uv=False)
    total = values.sum()
    if total <= 0:
        return 1.0
    share = values / total
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def neighbour_score(
    bank: np.ndarray, bank_codes: np.ndarray, queries: np.ndarray, query_codes: np.ndarray, n_classes: int, k: int
) -> float:
    """Return the macro-F1 of k nearest neighbours by cosine, each voting by exp(cosine / 0.07)."""
    similarity, index = nearest(queries, bank, min(k, len(bank)))
    weight = np.exp((similarity.astype(np.float64) - similarity[:, :1]) / TEMPERATURE)
    votes = np.zeros((len(queries), n_classes))
    np.add.at(votes, (np.arange(len(queries))[:, None], bank_codes[index]), weight)
    return float(score(query_codes, votes / votes.sum(axis=1, keepdims=True), "macro_f1"))


def look(
    encoder: Encoder, pixels: Pixels, sets: Sequence[LabelledPhotos], rows: np.ndarray, *, runtime: Runtime, k: int
) -> dict[str, Any]:
    """Return what the encoder's features are worth now.

    Args:
        encoder: what would be exported; its mode is not touched.
        pixels: all photos under the encoder's own recipe.
        sets: labelled photos; without any the kNN is None.
        rows: photos whose features' spread is measured.
        runtime: device and precision.
        k: neighbours.

    Returns:
        ``knn`` (mean over the sets), ``knn_by_set``, ``spread``, ``rank``.
    """
    from dermlab.features.extract import encode

    wanted = np.unique(np.concatenate([rows, *(np.concatenate([one.bank, one.queries]) for one in sets)]))
    features = np.zeros((len(pixels), encoder.dim), np.float32)
    read = np.zeros(len(pixels), bool)
    for chosen, vectors in encode(encoder, pixels, wanted, runtime=runtime):
        features[chosen], read[chosen] = vectors, True
    by_set: dict[str, float] = {}
    for one in sets:
        good_bank, good_queries = read[one.bank], read[one.queries]
        by_set[one.name] = neighbour_score(
            features[one.bank[good_bank]],
            one.bank_codes[good_bank],
            features[one.queries[good_queries]],
            one.query_codes[good_queries],
            one.n_classes,
            k,
        )
    seen = features[rows[read[rows]]]
    return {
        "knn": float(np.mean(list(by_set.values()))) if by_set else None,
        "knn_by_set": by_set,
        "spread": spread(seen),
        "rank": effective_rank(seen),
    }


def examine(
    history: Sequence[dict[str, Any]], looks: Sequence[dict[str, Any]], *, n_outputs: int, n_epochs: int, method: str
) -> list[Alarm]:
    """Return the alarms of a run so far.

    Args:
        history: a dictionary an epoch: ``epoch``, ``loss`` (of dino and ibot the class loss as ``class_loss`` where
            there is one), ``teacher_entropy``, ``marginal_entropy``, ``target_movement``, ``n_skipped``, ``n_steps``.
        looks: what :func:`look` returned, each with its ``epoch``.
        n_outputs: K of dino and ibot, else 0.
        n_epochs: of the whole run.
        method: its name.
    """
    alarms: list[Alarm] = []
    slower = "try a lower learning_rate, a longer warmup_epochs, or precision: fp32"
    broken = next((row for row in history if row["n_skipped"]), None)
    if broken is not None:
        alarms.append(
            Alarm(
                "non-finite",
                broken["epoch"],
                f"epoch {broken['epoch']}: {broken['n_skipped']} of {broken['n_steps']} steps had a loss or gradient "
                f"that is not finite and moved nothing; {slower}",
            )
        )
    if n_outputs:
        alarms += _of_teacher(history, n_outputs, n_epochs)
    later = [one for one in looks if one["epoch"] > 0]
    narrow = next((one for one in later if one["spread"] < COLLAPSED_SPREAD or one["rank"] < COLLAPSED_RANK), None)
    if narrow is not None:
        cure = {
            "dino": "lower teacher_temperature, keep center_momentum: 0.9, norm_last_layer: true",
            "ibot": "lower teacher_temperature, keep center_momentum: 0.9, norm_last_layer: true",
            "simclr": "raise batch_size or temperature",
            "byol": "keep head_batch_norm: true and momentum at .99 or above",
            "panderm": "lower the learning_rate and look at the teacher's tokens",
        }[method]
        alarms.append(
            Alarm(
                "collapse",
                narrow["epoch"],
                f"epoch {narrow['epoch']}: all photos get nearly one vector (spread {narrow['spread']:.3f}, effective "
                f"rank {narrow['rank']:.1f}); {cure}; or {slower}",
            )
        )
    scores = [one for one in looks if one["knn"] is not None]
    if len(scores) > FALL_LOOKS:
        best = max(scores[:-FALL_LOOKS], key=lambda one: one["knn"])
        if all(one["knn"] < best["knn"] - FALL for one in scores[-FALL_LOOKS:]):
            alarms.append(
                Alarm(
                    "knn-falling",
                    scores[-FALL_LOOKS]["epoch"],
                    f"kNN on val is below its best ({best['knn']:.3f} in epoch {best['epoch']}) by more than {FALL} "
                    f"for {FALL_LOOKS} looks; the weights of epoch {best['epoch']} are kept; fewer epochs, a lower "
                    "learning_rate or stronger layer_decay would do",
                )
            )
    return alarms


def _of_teacher(history: Sequence[dict[str, Any]], n_outputs: int, n_epochs: int) -> list[Alarm]:
    """Return what a distilling run's loss and teacher betray."""
    alarms = []
    chance = math.log(n_outputs)
    wait = max(3, round(0.1 * n_epochs))
    tail = [row.get("class_loss", row["loss"]) for row in history[-wait:]]
    if len(tail) == wait and all(abs(value - chance) < FLAT * chance for value in tail):
        alarms.append(
            Alarm(
                "flat-loss",
                history[-wait]["epoch"],
                f"the loss has stood at ln {n_outputs} = {chance:.3f} for {wait} epochs: student and teacher "
                "answer evenly; lower teacher_temperature, a smaller out_dim for so few photos, or "
                "freeze_last_layer_epochs: 1",
            )
        )
    last = history[-1] if history else None
    if last is not None and last["marginal_entropy"] < 0.05 * chance:
        alarms.append(
            Alarm(
                "one-prototype",
                last["epoch"],
                f"epoch {last['epoch']}: the teacher gives all photos one answer (entropy of its mean "
                f"{last['marginal_entropy']:.3f} of {chance:.3f}); raise teacher_temperature or lower center_momentum",
            )
        )
    running = [row for row in history if row["epoch"] < 0.9 * n_epochs]
    if running and running[-1]["target_movement"] < STOPPED:
        alarms.append(
            Alarm(
                "teacher-stopped",
                running[-1]["epoch"],
                f"epoch {running[-1]['epoch']}: the teacher has moved by {running[-1]['target_movement']:.1g} of its "
                "length only; lower momentum or raise the learning_rate",
            )
        )
    return alarms
