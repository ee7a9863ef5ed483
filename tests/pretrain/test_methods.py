"""Losses against lightly, the authors' formulas and numbers by hand; who moves, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.utils.scheduler import cosine_schedule
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, normalize, softmax

import dermlab.pretrain
from dermlab.core.errors import InputError
from dermlab.pretrain.byol import BYOL, byol_step
from dermlab.pretrain.dino import DINO, dino_step
from dermlab.pretrain.ibot import IBOT, ibot_step, patch_criterion
from dermlab.pretrain.masks import block_mask, block_masks
from dermlab.pretrain.networks import (
    build_backbone,
    check_masks,
    grid_of,
    masked_tokens,
    positions,
    visible_tokens,
)
from dermlab.pretrain.panderm import PanDerm, panderm_step
from dermlab.pretrain.schedules import cosine, linear_warmup
from dermlab.pretrain.simclr import SimCLR, nt_xent, simclr_step
from dermlab.pretrain.targets import Values, update_target

VIT: dict[str, Any] = {"network": "timm:test_vit", "size_px": 32, "patch_size": 8}
VALUES = Values(weight_decay=0.04, momentum=0.9, teacher_temperature=0.05, patch_teacher_temperature=0.06)


def random_tensors(n: int, *shape: int, seed: int = 0) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=draws) for _ in range(n)]


# ---------------------------------------------------------------- losses


def test_dino_is_lightlys_and_the_authors_loss_and_its_centre_moves_after_it() -> None:
    views = random_tensors(5, 6, 16)
    student, teacher = nn.Linear(16, 12), nn.Linear(16, 12)
    ours, theirs = DINOLoss(12, student_temp=0.1, center_momentum=0.9), DINOLoss(12)
    ours.center.fill_(0.3)
    theirs.center.fill_(0.3)
    found = dino_step(student, teacher, views, ours, teacher_temperature=0.05)
    with torch.no_grad():
        taught, learned = [teacher(view) for view in views[:2]], [student(view) for view in views]
        expected = theirs(taught, learned, teacher_temp=0.05)
        # main_dino.py of the authors: every pair of a teacher's view and another view.
        pairs = [
            -(softmax((t - 0.3) / 0.05, -1) * log_softmax(s / 0.1, -1)).sum(-1).mean()
            for i, t in enumerate(taught)
            for j, s in enumerate(learned)
            if i != j
        ]
    assert found.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert found.loss.item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-5)
    torch.testing.assert_close(ours.center[0, 0], 0.9 * torch.full((12,), 0.3) + 0.1 * torch.cat(taught).mean(0))
    uniform = dino_step(student, lambda view: torch.zeros(len(view), 12), views, DINOLoss(12), teacher_temperature=0.05)
    assert uniform.seen["teacher_entropy"].item() == pytest.approx(math.log(12), abs=1e-5)


def test_ibot_patch_loss_is_lightlys_and_its_centre_counts_tokens() -> None:
    teacher, student = random_tensors(2, 7, 10)
    mask = torch.zeros(3, 2, 4, dtype=torch.bool)
    mask.view(3, 8)[0, :5] = True
    mask.view(3, 8)[1, 3:5] = True
    ours, theirs = patch_criterion(10), IBOTPatchLoss(10)
    for _ in range(2):  # the second time with centres that have moved
        found, expected = (one(teacher, student, mask, teacher_temp=0.06) for one in (ours, theirs))
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(ours.center.value, theirs.center.value)
    before = ours.center.value.clone()
    nothing = ours(teacher[:0], student[:0], torch.zeros_like(mask))
    assert nothing.item() == 0
    torch.testing.assert_close(ours.center.value, before)


def test_ibot_weighs_classes_across_views_and_masked_patches_within_them() -> None:
    views = random_tensors(3, 2, 8, seed=3)
    masks = [torch.tensor([[[True, False]], [[False, False]]]), torch.tensor([[[True, True]], [[False, True]]])]
    layer = nn.Linear(8, 6)

    def network(images: torch.Tensor, hidden: Any, asked: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logits = layer(images) if hidden is None else layer(images) * 2
        patches = torch.stack([logits, logits + 1], dim=1)
        return logits, patches[:0, 0] if asked is None else patches[asked]

    found = ibot_step(
        network,
        network,
        views,
        masks,
        DINOLoss(6),
        patch_criterion(6),
        teacher_temperature=0.05,
        patch_teacher_temperature=0.07,
        class_weight=0.5,
        patch_weight=2.0,
    )
    with torch.no_grad():
        taught = [layer(view) for view in views[:2]]
        learned = [2 * taught[0], 2 * taught[1], layer(views[2])]
        class_loss = DINOLoss(6)(taught, learned, teacher_temp=0.05)
        hidden = torch.cat(masks).flatten(1)
        rows = torch.stack([torch.cat(taught), torch.cat(taught) + 1], dim=1)
        own = torch.stack([2 * torch.cat(taught), 2 * torch.cat(taught) + 1], dim=1)
        patch_loss = IBOTPatchLoss(6)(rows[hidden], own[hidden], torch.cat(masks), teacher_temp=0.07)
    assert found.loss.item() == pytest.approx((0.5 * class_loss + 2 * patch_loss).item(), abs=1e-5)


def test_nt_xent_is_lightlys_and_a_cross_entropy_over_all_other_views() -> None:
    first, second = random_tensors(2, 5, 9)
    found = simclr_step(nn.Identity(), [first, second], nt_xent(0.2)).loss.item()
    everything = normalize(torch.cat([first, second]), dim=1)
    logits = (everything @ everything.T / 0.2).fill_diagonal_(-math.inf)
    assert found == pytest.approx(NTXentLoss(temperature=0.2)(first, second).item(), abs=1e-5)
    assert found == pytest.approx(cross_entropy(logits, torch.arange(10).roll(5)).item(), abs=1e-5)


def test_byol_is_lightlys_loss_in_both_directions() -> None:
    views = random_tensors(2, 5, 9)
    online, predictor, target = (nn.Linear(9, 9) for _ in range(3))
    found = byol_step(online, predictor, target, views).loss.item()
    criterion = NegativeCosineSimilarity()
    guesses, answers = [predictor(online(view)) for view in views], [target(view) for view in views]
    expected = (criterion(guesses[0], answers[1]) + criterion(guesses[1], answers[0])) / 2
    assert found == pytest.approx(expected.item(), abs=1e-5)


def test_panderm_s_loss_of_eight_patches_is_the_one_by_hand() -> None:
    """Visible patches 1, 2, 5, 6 are seen rightly but for one at a right angle; of the masked two are opposite."""
    targets = torch.tensor([[[3.0, 4.0]] * 8])  # direction (.6, .8)
    visible, masked = torch.tensor([[1, 2, 5, 6]]), torch.tensor([[0, 3, 4, 7]])
    latents = torch.tensor([[[0.6, 0.8], [6.0, 8.0], [-0.8, 0.6], [0.3, 0.4]]])  # 1 - cos: 0, 0, 1, 0
    foreseen = torch.tensor([[[-0.6, -0.8], [0.6, 0.8], [-3.0, -4.0], [1.0, 0.0]]])  # 2, 0, 2, 1 - 0.6
    found = panderm_step(
        lambda images, seen: latents,
        lambda latents, visible, masked: foreseen,
        nn.Identity(),
        torch.zeros(1, 3, 1, 1),
        targets,
        visible,
        masked,
    )
    assert found.loss.item() == pytest.approx((0 + 0 + 1 + 0 + 2 + 0 + 2 + 0.4) / 8, abs=1e-6)
    assert found.seen["visible_loss"].item() == pytest.approx(1 / 4, abs=1e-6)
    assert found.seen["masked_loss"].item() == pytest.approx(4.4 / 4, abs=1e-6)


def test_panderm_s_targets_are_put_in_the_order_of_the_outputs() -> None:
    targets = torch.eye(4)[None]
    visible, masked = torch.tensor([[3, 1]]), torch.tensor([[0, 2]])
    rows = torch.eye(4)
    found = panderm_step(
        lambda images, seen: rows[seen],
        lambda latents, visible, masked: rows[masked],
        nn.Identity(),
        torch.zeros(1, 3, 1, 1),
        targets,
        visible,
        masked,
    )
    assert found.loss.item() == pytest.approx(0, abs=1e-6)


def test_losses_are_in_full_precision_under_autocast() -> None:
    views = random_tensors(2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        layer = nn.Linear(8, 8)
        assert layer(views[0]).dtype == torch.bfloat16
        steps = [
            dino_step(layer, layer, views, DINOLoss(8), teacher_temperature=0.04),
            simclr_step(layer, views, nt_xent(0.1)),
            byol_step(layer, layer, layer, views),
        ]
    assert [step.loss.dtype for step in steps] == [torch.float32] * 3


# ---------------------------------------------------------------- networks and masks


def test_tokens_without_a_mask_are_timm_s_own_and_a_mask_hides_the_pixels() -> None:
    network: Any = build_backbone(**VIT).network
    images = random_tensors(1, 2, 3, 32, 32)[0]
    with torch.no_grad():
        tokens = masked_tokens(network, images)
        torch.testing.assert_close(tokens.patches, network.forward_features(images)[:, network.num_prefix_tokens :])
        torch.testing.assert_close(tokens.pooled, network(images))
        small = masked_tokens(network, images[..., :16, :16])
        torch.testing.assert_close(small.pooled, network(images[..., :16, :16]))
        mask = torch.zeros(2, 16, dtype=torch.bool)
        mask[:, 5] = True
        changed = images.clone()
        changed[:, :, 8:16, 8:16] = 0.7  # patch 5 of 4 × 4
        one, other = (masked_tokens(network, x, mask, torch.zeros(network.embed_dim)) for x in (images, changed))
        torch.testing.assert_close(one.patches, other.patches)
        assert not torch.equal(masked_tokens(network, changed).pooled, tokens.pooled)


def test_the_encoder_of_visible_patches_never_sees_the_others_and_seeing_all_is_the_network() -> None:
    network: Any = build_backbone(**VIT).network
    images = random_tensors(1, 2, 3, 32, 32)[0]
    with torch.no_grad():
        _, patches = visible_tokens(network, images, torch.arange(16).repeat(2, 1))
        torch.testing.assert_close(patches, network.forward_features(images)[:, network.num_prefix_tokens :])
        visible = torch.tensor([[0, 1, 2, 3]] * 2)  # the first row of patches
        changed = images.clone()
        changed[:, :, 8:] = 5.0
        torch.testing.assert_close(
            visible_tokens(network, images, visible)[1], visible_tokens(network, changed, visible)[1]
        )


def test_positions_are_the_networks_own_and_resampled_for_another_grid() -> None:
    network: Any = build_backbone(**VIT).network
    n_prefix = 0 if network.no_embed_class else network.num_prefix_tokens
    torch.testing.assert_close(positions(network, (4, 4)), network.pos_embed[0, n_prefix:])
    assert positions(network, (6, 6)).shape == (36, network.embed_dim)
    assert grid_of(network, 48) == (6, 6)
    with pytest.raises(InputError, match="no multiple of the patch"):
        grid_of(network, 36)


def test_only_timm_s_transformers_can_be_masked() -> None:
    with pytest.raises(InputError, match="masks need a vision transformer"):
        check_masks(build_backbone("resnet18", size_px=32).network, "resnet18")


@pytest.mark.parametrize("n_masked", [0, 1, 7, 98, 195, 196])
def test_a_block_mask_hides_exactly_as_many(n_masked: int) -> None:
    assert block_mask((14, 14), n_masked, np.random.default_rng(n_masked), min_block=16).sum() == n_masked


def test_masks_are_blocks_in_the_wanted_shares_and_belong_to_the_image() -> None:
    masks = block_masks((14, 14), range(400), seed=1, epoch=2, view=0, ratios=((0.0, 0.0), (0.3, 0.2)))
    shares = masks.mean((1, 2))
    assert 0.4 < (shares == 0).mean() < 0.6
    some = shares[shares > 0]
    assert 0.09 <= some.min() < 0.15
    assert 0.45 < some.max() <= 0.5
    assert some.mean() == pytest.approx(0.3, abs=0.03)
    # Rectangles have long borders in common with themselves: neighbours agree far oftener than at random.
    middling = masks[(shares > 0.25) & (shares < 0.35)]
    agree = (middling[:, :, 1:] == middling[:, :, :-1]).mean()
    assert agree > 0.75  # scattered at 30 %: 0.58
    alone = block_masks((14, 14), [17], seed=1, epoch=2, view=0, ratios=((0.0, 0.0), (0.3, 0.2)))
    np.testing.assert_array_equal(alone[0], masks[17])
    other = block_masks((14, 14), range(400), seed=1, epoch=2, view=1, ratios=((0.0, 0.0), (0.3, 0.2)))
    assert not np.array_equal(masks, other)


# ---------------------------------------------------------------- schedules and targets


@pytest.mark.parametrize(("start", "end"), [(0.996, 1.0), (0.04, 0.4)])
def test_cosines_are_lightlys_and_their_closed_form(start: float, end: float) -> None:
    for step in (0, 1, 50, 99, 100):
        assert cosine(step, 101, start, end) == pytest.approx(cosine_schedule(step, 101, start, end), abs=1e-12)
    assert cosine(0, 101, start, end) == pytest.approx(start, abs=1e-12)
    assert cosine(50, 101, start, end) == pytest.approx((start + end) / 2)
    assert cosine(100, 101, start, end) == cosine(101, 101, start, end) == end


def test_the_warm_up_is_a_line() -> None:
    found = [linear_warmup(step, 10, 0.04, 0.07) for step in (0, 5, 10, 11)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_a_target_is_the_closed_form_of_a_moving_average() -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    start = target.weight.detach().clone()
    for _ in range(20):
        update_target(target, source, 0.9)
    expected = 0.9**20 * start + (1 - 0.9**20) * source.weight.detach()
    torch.testing.assert_close(target.weight.detach(), expected)
    update_target(target, source, 1.0)
    torch.testing.assert_close(target.weight.detach(), expected)


# ---------------------------------------------------------------- every method


class Teacher:
    """Stands in for a CLIP: fixed random tokens of the pixels."""

    dim = 10

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        patches = nn.functional.unfold(images, 8, stride=8).transpose(1, 2)
        return patches @ torch.linspace(-1, 1, 192 * 10).view(192, 10).sin()


def build(method: str) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone(**VIT, pool_patches=method == "panderm")
    dim = backbone.dim
    heads: dict[str, Any] = {"hidden_dim": 24, "bottleneck_dim": 12}
    if method == "dino":
        return DINO(backbone, dim, out_dim=20, norm_last_layer=False, **heads)
    if method.startswith("ibot"):
        return IBOT(backbone, dim, out_dim=20, patch_out_dim=20, shared_head=method == "ibot-shared", **heads)
    if method == "simclr":
        return SimCLR(backbone, dim, hidden_dim=24, out_dim=12)
    if method == "byol":
        return BYOL(backbone, dim, hidden_dim=24, out_dim=12)
    return PanDerm(backbone, dim, Teacher(), depth=2)


def inputs(method: str) -> tuple[Sequence[torch.Tensor], dict[str, Any]]:
    views = random_tensors(1 if method == "panderm" else 2, 6, 3, 32, 32, seed=5)
    if method == "dino" or method.startswith("ibot"):
        views += random_tensors(2, 6, 3, 16, 16, seed=6)
    if method == "panderm":
        return views, {"masks": [torch.from_numpy(np.stack([np.arange(16).reshape(4, 4) % 2 == 0] * 6))]}
    if method.startswith("ibot"):
        return views, {"masks": [torch.from_numpy(np.arange(96).reshape(6, 4, 4) % 3 == place) for place in (0, 1)]}
    return views, {}


METHODS = ["dino", "ibot-shared", "ibot-separate", "simclr", "byol", "panderm"]


@pytest.mark.parametrize("method", METHODS)
def test_every_trainable_tensor_moves_and_targets_follow_by_average_alone(method: str) -> None:
    model: Any = build(method)
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    targets = {name: value for name, value in model.named_parameters() if not value.requires_grad}
    assert bool(targets) == (method not in ("simclr", "panderm"))
    optimiser = torch.optim.SGD(trainable.values(), lr=0.5)
    views, extra = inputs(method)
    for _ in range(2):  # a first step moves the student away from its twin
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimiser.zero_grad()
        step = model(views, VALUES, **extra)
        assert step.loss.dtype == torch.float32
        step.loss.backward()
        optimiser.step()
        for name, value in targets.items():
            assert torch.equal(value, before[name]), name  # the optimiser leaves them alone
        model.after_step(VALUES.momentum)
    still = [name for name, value in trainable.items() if torch.equal(value, before[name])]
    assert still == []
    now = dict(model.named_parameters())
    for name in targets:
        source = name.replace("teacher", "student", 1).replace("target", "student", 1)
        torch.testing.assert_close(now[name], 0.9 * before[name] + 0.1 * now[source], rtol=1e-5, atol=1e-6)


def test_the_steps_are_public() -> None:
    assert dermlab.pretrain.dino_step is dino_step
    assert {name for name in dermlab.pretrain.__all__ if callable(getattr(dermlab.pretrain, name))} == set(
        dermlab.pretrain.__all__
    )
    with pytest.raises(AttributeError, match="no attribute"):
        _ = dermlab.pretrain.barlow_step
