"""Targets of several labels, of ranks and of costs: losses by hand and by oracles, and runs from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.finetune.losses import (
    Objective,
    cost_loss,
    hierarchical_loss,
    label_loss,
    mixed,
    ordinal_loss,
    ordinal_probabilities,
    soft_labels,
)
from dermlab.core.errors import InputError
from dermlab.data.card import Target
from dermlab.evaluate.cases import case_sets
from dermlab.evaluate.predictions import least_cost, read_predictions

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [-1.0, 0.2, 0.3], [2.0, 1.0, 0.0]])
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_the_loss_of_labels_is_torchs_and_torchvisions() -> None:
    from torchvision.ops import sigmoid_focal_loss

    torch.testing.assert_close(label_loss(LOGITS, LABELS), binary_cross_entropy_with_logits(LOGITS, LABELS))
    focal = sigmoid_focal_loss(LOGITS, LABELS, alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(label_loss(LOGITS, LABELS, gamma=2.0), focal)
    smooth = binary_cross_entropy_with_logits(LOGITS, LABELS * 0.9 + 0.05)
    torch.testing.assert_close(label_loss(LOGITS, LABELS, smoothing=0.1), smooth)
    weights = torch.tensor([[1.0, 1.0, 1.0], [3.0, 2.0, 5.0]])
    of_each = binary_cross_entropy_with_logits(LOGITS, LABELS, pos_weight=weights[1], reduction="sum")
    expected = of_each / (1 + LABELS * (weights[1] - 1)).sum()
    torch.testing.assert_close(label_loss(LOGITS, LABELS, label_weights=weights), expected)


def test_unknown_labels_have_no_part_in_the_loss() -> None:
    labels = LABELS.clone()
    labels[1:, 2] = torch.nan
    known = torch.cat(
        [label_loss(LOGITS[:, :2], LABELS[:, :2])[None] * 8, label_loss(LOGITS[:1, 2:], LABELS[:1, 2:])[None]]
    )
    torch.testing.assert_close(label_loss(LOGITS, labels), known.sum() / 9)
    logits = LOGITS.clone().requires_grad_()
    label_loss(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[1:, 2] == 0).all()
    assert logits.grad.isfinite().all()


def test_the_ordinal_loss_is_the_probability_of_the_class() -> None:
    codes = torch.tensor([0, 3, 1, 2])
    probabilities = ordinal_probabilities(LOGITS.double())
    own = -probabilities[range(4), codes].log()
    torch.testing.assert_close(ordinal_loss(LOGITS.double(), soft_labels(codes, 4).double()), own)
    # By hand: P(y > 0) = P(y > 1 | y > 0) = 1/2, P(y > 2 | y > 1) = 3/4.
    by_hand = ordinal_probabilities(torch.tensor([[0.0, 0.0, float(np.log(3))]]))
    torch.testing.assert_close(by_hand, torch.tensor([[1 / 2, 1 / 4, 1 / 16, 3 / 16]]))


def test_ordinal_probabilities_are_valid_and_monotone() -> None:
    random = torch.Generator().manual_seed(0)
    probabilities = ordinal_probabilities(10 * torch.randn(500, 4, generator=random, dtype=torch.float64))
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(500, dtype=torch.float64))


def test_the_expected_cost_by_hand() -> None:
    costs = torch.tensor([[0.0, 1.0, 1.0], [9.0, 0.0, 1.0], [5.0, 1.0, 0.0]])  # 18 over 6 wrong decisions: mean 3
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    found = cost_loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), costs, weight=2.0)
    expected = -np.log(0.3) + 2 * (0.5 * 9 + 0.2 * 1) / 3
    assert float(found[0]) == pytest.approx(expected, rel=1e-6)
    doubled = cost_loss(logits, torch.tensor([[0.0, 1.0, 0.0]]), 2 * costs, weight=2.0)
    torch.testing.assert_close(found, doubled)  # the unit of the costs does not matter


def test_the_hierarchical_loss_by_hand() -> None:
    groups = torch.tensor([0, 0, 5])  # two of one branch, one alone
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()
    found = [float(hierarchical_loss(logits, soft_labels(torch.tensor([k]), 3), groups, alpha=0.7)[0]) for k in (0, 2)]
    assert found == pytest.approx([-np.log(0.5) - np.exp(-0.7) * np.log(0.4), -np.log(0.5)], rel=1e-5)
    codes = torch.tensor([0, 1, 2, 0])
    flat = hierarchical_loss(LOGITS, soft_labels(codes, 3), groups, alpha=0.0)
    torch.testing.assert_close(flat, cross_entropy(LOGITS, codes, reduction="none"))


def test_mixed_labels_of_several_are_shares_of_both() -> None:
    images = torch.rand(4, 3, 8, 8)
    labels = LABELS.clone()
    labels[0, 0] = torch.nan
    _, made = mixed(images, labels, np.random.default_rng(0), mixup=1.0, cutmix=0.0)
    assert made.shape == (4, 3)
    assert made.isnan().any()
    assert label_loss(LOGITS, made).isfinite()


def recipe(**changes: Any) -> FinetuneSettings:
    return FinetuneSettings(encoder="resnet18+random", **changes)


RANKS = Target(column="grade", kind="ordinal", classes=("a", "b", "c"))
SIGNS = Target(column="signs", kind="multilabel", classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        (SIGNS, {"loss": "ordinal"}, "loss: ordinal is for one label"),
        (SIGNS, {"metric": "top1"}, "metric: top1 is for one label"),
        (SIGNS, {"sampling": "balanced"}, "class_weight: balanced"),
        (RANKS, {"loss": "cost"}, "needs a cost_matrix"),
        (RANKS, {"loss": "hierarchy"}, "needs a hierarchy"),
        (RANKS.model_copy(update={"kind": "multiclass"}), {"loss": "ordinal"}, "kind ordinal"),
    ],
)
def test_what_does_not_suit_a_target_is_refused_in_one_line(target: Target, changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Objective.of(target, recipe(**changes))


def test_what_is_told_of_val_after_an_epoch() -> None:
    ranks = Objective.of(RANKS, recipe(loss="ordinal"))
    assert ranks.n_outputs == 2
    told = ranks.judged(np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]), np.array([0, 1]))
    assert told["val_top1"] == 0.5
    assert told["val_loss"] == pytest.approx(-np.log([0.7, 0.2]).mean())
    assert told["val_quadratic_kappa"] == pytest.approx(1 - 0.5 / 1.5)  # observed over expected squared distance
    signs = Objective.of(SIGNS, recipe())
    labels = np.array([[1.0, 0, np.nan], [0, 1, 1]])
    told = signs.judged(np.array([[0.9, 0.2, 0.5], [0.1, 0.8, 0.6]]), labels)
    assert told["val_auroc"] == 1.0
    assert told["val_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.9, 0.8, 0.6]).mean())
    assert "val_top1" not in told


def test_several_labels_from_the_command_line(clinic: Path, tmp_path: Path) -> None:
    from dermlab.cli import main

    run = tmp_path / "signs"
    arguments = ["probe", str(clinic), "--target", "signs", "--out", str(run), "--n_boot", "100"]
    assert main([*arguments, "--encoder", "histogram", "--head", "linear"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["kind"] == "multilabel"
    assert metrics["auroc"]["value"] > 0.5
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]
    assert set(metrics["thresholds"]) == set(metrics["classes"])
    table = read_predictions(run)
    assert not np.allclose(table.probabilities().sum(axis=1), 1)
    floor = tmp_path / "floor"
    assert (
        main(["probe", str(clinic), "--target", "signs", "--out", str(floor), "--head", "majority", "--n_boot", "100"])
        == 0
    )
    assert main(["compare", str(run), str(floor), "--out", str(tmp_path / "compared"), "--n_boot", "100"]) == 0
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert [entry["metric"] for entry in compared] == ["auroc", "auprc", "macro_f1"]
    assert main(["evaluate", str(run), "--out", str(tmp_path / "eval"), "--n_boot", "100"]) == 0
    again = tmp_path / "again.parquet"
    assert main(["predict", str(run), str(clinic), "--out", str(again)]) == 0
    assert read_predictions(again).meta["thresholds"]["folds"][0]["labels"] == pytest.approx(metrics["thresholds"])


@pytest.mark.parametrize("target", ["signs", "severity", "diagnosis"])
def test_networks_are_finetuned_for_every_kind_of_target(clinic: Path, tmp_path: Path, target: str) -> None:
    from dermlab.adapt.finetune.run import FittedFinetune, run_finetune
    from dermlab.data.dataset import Dataset

    losses = {"signs": "focal", "severity": "ordinal", "diagnosis": "cost"}
    settings = FinetuneSettings(
        encoder="timm:resnet18+random", channels=(8, 8, 8, 8), size_px=32, target=target,
        loss=losses[target], decision="cost" if target == "diagnosis" else "most_probable", mixup=0.2,
        class_weight="balanced", frozen_epochs=0, finetune_epochs=1, augmentation="none", n_boot=100, device="cpu",
        precision="fp32",
    )  # fmt: skip
    dataset = Dataset.open(clinic)
    result = run_finetune(dataset, settings, tmp_path / "run")
    table = result.predictions()
    probabilities = table.probabilities()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if target == "severity":
        assert result.metrics["mean_absolute_error"]["low"] is not None
        assert {"quadratic_kappa", "within_one"} <= result.metrics.keys()
    if target == "signs":
        assert result.metrics["micro_auroc"]["low"] is not None
    else:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    if target == "diagnosis":
        costs = dataset.card.target().cost_matrix
        cases = case_sets(table).sets[0]
        np.testing.assert_array_equal(cases.predicted, least_cost(cases.probabilities, costs))
    again, _ = FittedFinetune.open(tmp_path / "run").predict(dataset)
    own = pd.DataFrame(again, index=dataset.image_ids).loc[table.frame["image_id"]].to_numpy()
    np.testing.assert_allclose(own, probabilities, atol=1e-5)
