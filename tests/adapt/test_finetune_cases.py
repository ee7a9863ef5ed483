"""Cases of several photos: which are shown, how they become one vector, and a run over lesions from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dermlab.adapt.finetune.cases import Bags, CasePooling, find_bags, first_photos
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.finetune.network import build_network
from dermlab.adapt.finetune.run import FittedFinetune, run_finetune
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset

CASES = {
    "encoder": "timm:test_resnet+random",
    "size_px": 32,
    "case": "lesion",
    "modalities": ("clinical", "dermoscopy"),
    "frozen_epochs": 0,
    "finetune_epochs": 1,
    "batch_size": 16,
    "precision": "fp32",
    "device": "cpu",
    "n_boot": 100,
}


def test_bags_hold_the_photos_of_a_case_and_their_modality(pairs: Path) -> None:
    dataset = Dataset.open(pairs)
    options: dict[str, Any] = {"modalities": ("clinical", "dermoscopy"), "most": 1, "in_order": False}
    bags = find_bags(dataset, "lesion", readable=np.ones(len(dataset), bool), **options)
    expected = dataset.manifest.groupby("lesion_id").size()
    assert len(bags) == len(expected)
    rows, slots, counts = bags.shown(np.arange(len(bags)))
    assert counts.tolist() == expected.tolist()
    lesions = dataset.manifest["lesion_id"].to_numpy(str)[rows]
    assert (lesions == np.repeat(expected.index.to_numpy(str), counts)).all()
    assert [("clinical", "dermoscopy")[slot] for slot in slots] == dataset.manifest["modality"].iloc[rows].tolist()
    readable = np.ones(len(dataset), bool)
    readable[rows[0]] = False
    fewer = find_bags(dataset, "lesion", readable=readable, **options)
    assert rows[0] not in fewer.rows
    with pytest.raises(InputError, match=r"no photo of .* is 'tbp'; there are clinical, dermoscopy"):
        find_bags(dataset, "lesion", readable=readable, modalities=("tbp",), most=1, in_order=False)


def test_left_out_photos_depend_on_seed_and_epoch_alone_and_never_empty_a_case() -> None:
    starts = np.arange(0, 301, 3)
    bags = Bags(np.arange(300), np.tile([0, 1, 1], 100), starts, np.repeat(np.arange(100), 3), 2, 1)
    rows, slots, counts = bags.shown(np.arange(100), seed=3, epoch=1, dropout=0.5)
    assert counts.min() >= 1
    assert counts.max() <= 2
    again = bags.shown(np.arange(50, 100), seed=3, epoch=1, dropout=0.5)[0]
    np.testing.assert_array_equal(again, rows[rows >= 150])
    assert not np.array_equal(rows, bags.shown(np.arange(100), seed=3, epoch=2, dropout=0.5)[0])
    assert len(bags.shown(np.arange(100), seed=3, epoch=1, dropout=0.999)[0]) == 100
    # Of two photos of a modality one is shown, now the one and now the other.
    seconds = rows[slots == 1] % 3
    assert set(seconds.tolist()) == {1, 2}


def test_attention_is_ilses_equation_and_ignores_what_is_missing() -> None:
    torch.manual_seed(0)
    pool = CasePooling(6, 1, "attention", hidden=4)
    vectors = torch.randn(5, 6)
    case = torch.tensor([0, 0, 0, 1, 1])
    made = pool(vectors, case, torch.zeros(5, dtype=torch.long), 2)
    for number in (0, 1):
        own = vectors[case == number]
        scores = torch.stack([
            pool.weight.weight[0] @ (torch.tanh(pool.value.weight @ h + pool.value.bias)
                                     * torch.sigmoid(pool.gate.weight @ h + pool.gate.bias)) for h in own
        ])  # fmt: skip
        torch.testing.assert_close(made[number], scores.softmax(0) @ own)


def test_a_missing_modality_has_a_learned_vector_and_no_picture() -> None:
    pool = CasePooling(3, 2, "concatenation")
    with torch.no_grad():
        pool.slot[1] = torch.tensor([7.0, 8.0, 9.0])
    vectors = torch.tensor([[1.0, 1, 1], [2.0, 2, 2], [4.0, 4, 4]])
    made = pool(vectors, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    assert made.tolist() == [[1, 1, 1, 7, 8, 9], [2, 2, 2, 4, 4, 4]]
    made.sum().backward()
    assert pool.slot.grad is not None
    assert pool.slot.grad.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_photos_of_a_case_must_agree(pairs: Path) -> None:
    dataset = Dataset.open(pairs)
    bags = find_bags(dataset, "lesion", readable=np.ones(len(dataset), bool), modalities=(), most=4, in_order=True)
    values = np.zeros(len(dataset), np.int64)
    everyone = np.ones(len(dataset), bool)
    assert (values[first_photos(bags, everyone, values, dataset, "label")] == 0).all()
    values[bags.rows[bags.starts[np.diff(bags.starts).argmax()] + 1]] = 1
    with pytest.raises(InputError, match="differs in label from"):
        first_photos(bags, everyone, values, dataset, "label")


@pytest.mark.parametrize(
    "changes", [{"towers": "separate", "case_pooling": "concatenation"}, {"head": "fusion", "ema_decay": 0.9}]
)
def test_a_run_over_lesions_predicts_each_lesion_once(pairs: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset = Dataset.open(pairs)
    result = run_finetune(dataset, FinetuneSettings(**{**CASES, **changes}), tmp_path / "run")
    frame = result.predictions().frame
    columns = [name for name in frame if name.startswith("p:")]
    assert (frame.groupby(["unit"])[columns].nunique() == 1).all().all()
    assert result.metrics["n"] == frame.loc[frame["split"] == "test", "unit"].nunique()
    probabilities, _ = FittedFinetune.open(result.path).predict(dataset)
    rows = pd.Index(dataset.image_ids).get_indexer(frame["image_id"])
    np.testing.assert_allclose(probabilities[rows], frame[columns].to_numpy(), atol=1e-5)


def test_separate_towers_begin_alike_and_see_their_own_modality() -> None:
    network = build_network(FinetuneSettings(**{**CASES, "towers": "separate"}), 3, 0).eval()
    first, second = (encoder for _, encoder in network.encoders())
    images, slot = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(network._of_towers(images, slot), first(images), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        next(second.parameters()).zero_()
    moved = (network._of_towers(images, slot) != first(images)).any(dim=1)
    assert moved[slot == 1].all()
    torch.testing.assert_close(network._of_towers(images, slot)[slot == 0], first(images[slot == 0]), atol=1e-5, rtol=0)


def test_mixing_whole_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="mix single photos"):
        FinetuneSettings(**{**CASES, "mixup": 0.2})
    with pytest.raises(ValueError, match="set case"):
        FinetuneSettings(**{**CASES, "case": "image"})
