"""Losses against torch's own, mixing, alarms, and every config of ``configs/finetune`` at toy size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dermlab.adapt.finetune import fit
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.finetune.health import examine
from dermlab.adapt.finetune.losses import Objective, classification_loss, mixed, soft_labels
from dermlab.adapt.finetune.network import build_network, freeze, set_drop_path
from dermlab.core.config import read_yaml
from dermlab.core.errors import InputError
from dermlab.models.encoders import create_encoder, save_encoder
from dermlab.training.optimiser import rate_factor

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "finetune").glob("*.yaml"))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    return torch.randn(32, 4, generator=draw), torch.randint(0, 4, (32,), generator=draw), weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(batch: Any, smoothing: float, weighted: bool) -> None:
    logits, codes, weights = batch
    own = weights if weighted else None
    ours = classification_loss(logits, soft_labels(codes, 4), smoothing=smoothing, class_weights=own)
    torch.testing.assert_close(ours, cross_entropy(logits, codes, weight=own, label_smoothing=smoothing))


def test_focal_loss_is_its_definition(batch: Any) -> None:
    logits, codes, _ = batch
    terms = cross_entropy(logits, codes, reduction="none")
    expected = ((1 - torch.exp(-terms)) ** 2 * terms).mean()
    torch.testing.assert_close(classification_loss(logits, soft_labels(codes, 4), gamma=2.0), expected)
    plain = classification_loss(logits, soft_labels(codes, 4), gamma=0.0)
    torch.testing.assert_close(plain, cross_entropy(logits, codes))


def test_the_loss_is_fp32_inside_autocast(batch: Any) -> None:
    logits, codes, _ = batch
    with torch.autocast("cpu", torch.bfloat16):
        assert classification_loss(logits.bfloat16(), soft_labels(codes, 4)).dtype == torch.float32


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_labels_are_the_share_of_each_photo(mixup: float, cutmix: float) -> None:
    codes = torch.arange(8)
    images = codes.float()[:, None, None, None].expand(8, 3, 16, 16).contiguous()
    for seed in range(20):
        made, labels = mixed(images, soft_labels(codes, 8), np.random.default_rng(seed), mixup=mixup, cutmix=cutmix)
        torch.testing.assert_close(labels.sum(1), torch.ones(8))
        # A photo's mean grey is the mean of its parts' numbers in their shares.
        torch.testing.assert_close(made.mean((1, 2, 3)), labels @ codes.float(), atol=1e-4, rtol=1e-4)
    assert torch.equal(images[3], torch.full_like(images[3], 3.0))


def row(epoch: int, train: float, val: float, top1: float = 0.6, **more: Any) -> dict[str, Any]:
    fixed = {"phase": "finetune", "n_predicted": 3, "n_skipped": 0, "n_steps": 10}
    return {"epoch": epoch, "train_loss": train, "val_loss": val, "val_top1": top1, **fixed, **more}


def names(history: list[dict[str, Any]]) -> dict[str, bool]:
    found = examine(history, n_classes=4, majority_share=0.4, optimiser="rmsprop", learning_rate=1e-3)
    return {alarm.name: alarm.disqualifies for alarm in found}


def test_alarms_name_what_went_wrong() -> None:
    assert names([row(1, 1.0, 1.0), row(2, 0.9, 0.9), row(3, 0.8, 0.85)]) == {}
    # The seeds' ConvNeXt under RMSprop at 1e-3: val loss 0.092 → 10.6 → 6.9 → 32.7 → 4.0.
    seeds = [row(place, 1.0, loss) for place, loss in enumerate([0.092, 10.6, 6.9, 32.7, 4.0], 1)]
    assert names(seeds) == {"diverged": True}
    assert names([row(1, 1.0, 1.0), row(2, 1.0, float("nan"))]) == {"non-finite": True}
    assert names([row(1, 1.0, 1.0, n_skipped=1, n_steps=100)]) == {"non-finite": False}
    assert names([row(1, 1.0, 1.0, n_predicted=1)]) == {"one-class": True}
    assert names([row(1, 1.0, 1.0, top1=0.4), row(2, 1.0, 1.0, top1=0.39)]) == {"no-better-than-majority": False}
    overfits = [row(1, 1.0, 1.0), row(2, 0.5, 0.8), row(3, 0.3, 0.9), row(4, 0.2, 1.0), row(5, 0.1, 1.1)]
    assert names(overfits) == {"overfitting": False}
    (alarm,) = examine(overfits, n_classes=4, majority_share=0.4, optimiser="adamw", learning_rate=1e-4)
    assert alarm.epoch == 3
    assert "from epoch 3" in alarm.says


RANDOM = None
TOYS = {
    # Each recipe, and the tiny tower that stands for its pretrained backbone; one from scratch is built as it is.
    "blood_28_best": RANDOM,
    "convnextv2_base_strong": "test_convnext",
    "convnextv2_tiny": "test_convnext",
    "dinov2_s_frozen": "test_vit",
    "dinov2_s_full": "test_vit",
    "dinov2_vits14": "test_vit",
    "efficientnetv2_s": "test_efficientnet",
    "medsiglip_448": "test_vit",  # as transformers' own network: tests/models/test_adaptors.py
    "resnet18_scratch_28": RANDOM,
    "resnet50_adamw": "test_resnet",
    "resnet50_rmsprop": "test_resnet",
    "screening": "test_resnet",
    "swinv2_tiny": "test_vit",
    "vit_tiny_frozen": "test_vit",
    "vit_tiny_full": "test_vit",
}


def test_each_config_has_its_toy() -> None:
    assert {path.stem for path in CONFIGS} == set(TOYS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_builds_and_steps_at_toy_size(path: Path, tmp_path: Path) -> None:
    recipe = FinetuneSettings.model_validate(read_yaml(path))
    changes: dict[str, Any] = {}
    toy = TOYS[path.stem]
    assert (toy is RANDOM) == recipe.encoder.endswith("+random")
    if toy is not RANDOM:
        # Weights are saved and found as anybody's encoder folder is.
        save_encoder(create_encoder(f"timm:{toy}+random", size_px=32)[0], tmp_path / "encoder")
        changes = {"encoder": str(tmp_path / "encoder"), "size_px": None}
    network = build_network(recipe.model_copy(update=changes), 5, 7 if recipe.head == "fusion" else 0)
    size = network.backbone.preprocess.size_px
    answers = (torch.zeros(2, 7),) if recipe.head == "fusion" else ()
    loss = classification_loss(network(torch.randn(2, 3, size, size), *answers), soft_labels(torch.tensor([0, 1]), 5))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in network.head.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize("loss", ["cross_entropy", "ordinal", "cost", "hierarchy"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_losses_of_unequal_parts_by_their_weights_are_that_of_the_whole_batch(
    batch: Any, loss: str, weighted: bool
) -> None:
    logits, codes, weights = batch
    costs = tuple(tuple(float(abs(a - b)) for a in range(4)) for b in range(4))
    aim = Objective(4, loss=loss, costs=costs, groups=(0, 0, 1, 1), smoothing=0.1)
    logits, own = logits[:, : aim.n_outputs], weights if weighted else None
    parts = [slice(0, 5), slice(5, 6), slice(6, 32)]
    labels = soft_labels(codes, 4)
    counts = [aim.weight(labels[part], own) for part in parts]
    mean = sum(float(aim(logits[part], labels[part], own)) * n for part, n in zip(parts, counts, strict=True))
    assert mean / sum(counts) == pytest.approx(float(aim(logits, labels, own)), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_so_are_those_of_several_labels_some_unknown(batch: Any, weighted: bool) -> None:
    logits, codes, _ = batch
    labels = soft_labels(codes, 4)
    labels[::3, 1] = torch.nan
    aim = Objective(4, kind="multilabel")
    own = aim.class_weights(labels.numpy()) if weighted else None
    parts = [slice(0, 5), slice(5, 6), slice(6, 32)]
    counts = [aim.weight(labels[part], own) for part in parts]
    mean = sum(float(aim(logits[part], labels[part], own)) * n for part, n in zip(parts, counts, strict=True))
    assert mean / sum(counts) == pytest.approx(float(aim(logits, labels, own)), rel=1e-5)


def rates(phase: str, **changes: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Return rate and weight decay of every trained parameter of a tiny ViT in a phase."""
    settings = FinetuneSettings(encoder="timm:test_vit+random", size_px=32, weight_decay=0.3, **changes)
    network = build_network(settings, 3, 0)
    (one,) = [one for one in fit.phases_of(settings) if one.name == phase]
    freeze(network, settings.train_from, whole_backbone=one.whole_backbone_frozen)
    training: Any = SimpleNamespace(settings=settings, network=network, _rate_factor=lambda: 1.0)
    groups = fit._Training._optimiser(training, one).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(p)]: group for group in groups for p in group["params"]}
    return ({n: g["base_lr"] for n, g in found.items()}, {n: g["weight_decay"] for n, g in found.items()})


def test_each_phase_and_part_has_its_own_rate_and_norms_and_biases_no_decay() -> None:
    given = {"frozen_learning_rate": 0.5, "learning_rate": 0.02, "head_learning_rate": 0.25}
    assert rates("frozen", **given)[0] == {"head.weight": 0.5, "head.bias": 0.5}
    found, decay = rates("finetune", **given)
    assert {found["head.weight"], found["head.bias"]} == {0.25}
    assert {rate for name, rate in found.items() if not name.startswith("head")} == {0.02}
    assert decay["head.weight"] == decay["backbone.network.blocks.0.attn.qkv.weight"] == 0.3
    spared = [n for n in decay if n.endswith(".bias") or ".norm" in n or n.endswith(("pos_embed", "cls_token"))]
    assert {decay[name] for name in spared} == {0.0}
    assert rates("finetune", learning_rate=0.02)[0]["head.weight"] == 0.02


def test_one_cycle_is_torchs_warmup_of_thirty_percent_and_cosine() -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 30, total_iters=29),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 70),
        ],
        milestones=[30],
    )
    training: Any = SimpleNamespace(settings=FinetuneSettings(encoder="resnet50", schedule="one_cycle"))
    options = fit._Training._schedule(training, 100)
    for step in range(100):
        assert rate_factor(step, 100, **options) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)
        optimiser.step()
        schedule.step()


def test_a_narrow_resnet_with_a_small_stem_keeps_28_pixels() -> None:
    recipe = FinetuneSettings(
        encoder="timm:resnet18+random", size_px=28, small_stem=True, channels=(8, 16, 32, 64), drop_path=0.1
    )
    network: Any = build_network(recipe, 3, 0)
    assert network.head.in_features == 64
    assert network.backbone.network.conv1.stride == (1, 1)
    assert network.backbone.network.forward_features(torch.zeros(1, 3, 28, 28)).shape[2:] == (4, 4)


def test_drop_path_rises_evenly_and_is_refused_where_nothing_can_drop() -> None:
    network: Any = create_encoder("timm:test_vit+random", size_px=32)[0].network
    set_drop_path(network, 0.2, "test_vit")
    rates = [block.drop_path1.drop_prob for block in network.blocks]
    assert rates == pytest.approx(np.linspace(0, 0.2, len(rates)))
    with pytest.raises(InputError, match="drop_path: x has no residual blocks"):
        set_drop_path(torch.nn.Linear(1, 1), 0.2, "x")
