"""Rates, groups, averages and checkpoints, held against torch's and timm's own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from dermlab.core.device import Runtime
from dermlab.core.errors import DermlabError, InputError
from dermlab.training.checkpoint import load_checkpoint, optimiser_tensors, restore_optimiser, save_checkpoint
from dermlab.training.loop import Stepper, make_fabric
from dermlab.training.optimiser import AveragedWeights, layers_of, make_optimiser, parameter_groups, rate_factor


def test_the_cosine_with_warmup_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 10, total_iters=9),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 90),
        ],
        milestones=[10],
    )
    for step in range(100):
        assert rate_factor(step, 100, warmup_steps=10) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        schedule.step()


def test_the_steps_are_torchs_multistep() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [50, 75], 0.1)
    for step in range(100):
        assert rate_factor(step, 100, schedule="step") == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()


def test_constant_after_a_warmup_is_torchs() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / 10, total_iters=9)
    for step in range(100):
        expected = optimiser.param_groups[0]["lr"]
        assert rate_factor(step, 100, schedule="constant", warmup_steps=10) == pytest.approx(expected)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_layer_decay_and_weight_decay_are_timms(name: str) -> None:
    network = timm.create_model(name, pretrained=False, num_classes=0)
    ours = parameter_groups(network, 1.0, weight_decay=0.05, layer_decay=0.7)
    found = {name: (group["base_lr"], group["weight_decay"]) for group in ours for name in group["names"]}
    excluded = network.no_weight_decay() if hasattr(network, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(network, 0.05, no_weight_decay_list=excluded, layer_decay=0.7)
    expected = {id(p): (group["lr_scale"], group["weight_decay"]) for group in theirs for p in group["params"]}
    assert len(found) == len(list(network.parameters()))
    for parameter_name, parameter in network.named_parameters():
        assert found[parameter_name] == pytest.approx(expected[id(parameter)])


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "lamb", "lion", "nadamw", "adan", "adafactor"])
def test_an_optimiser_by_name_steps_as_torchs_or_timms_own(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 4), nn.Linear(4, 4)
    theirs.load_state_dict(ours.state_dict())
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    made = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.01),
        "sgd": lambda: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=0.01),
        "lamb": lambda: timm.optim.Lamb(groups, lr=0.01),
        "lion": lambda: timm.optim.Lion(groups, lr=0.01),
        "nadamw": lambda: timm.optim.NAdamW(groups, lr=0.01),
        "adan": lambda: timm.optim.Adan(groups, lr=0.01),
        "adafactor": lambda: timm.optim.Adafactor(groups, lr=0.01),
    }
    expected = made[name]()
    optimiser = make_optimiser(name, parameter_groups(ours, 0.01, weight_decay=0.1))
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"]
    for seed in range(3):
        images = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
        for network, one in ((ours, optimiser), (theirs, expected)):
            one.zero_grad()
            network(images).square().mean().backward()
            one.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_over_unequal_parts_is_torchs_over_the_whole_batch_clipped_as_torch_clips(
    clip_norm: float | None,
) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    images, codes = torch.randn(19, 4), torch.arange(19) % 3
    class_weights = torch.tensor([0.5, 1.0, 4.0])
    groups = [{"params": list(ours.parameters()), "base_lr": 0.1, "weight_decay": 0.0}]
    stepper = Stepper(
        fabric=make_fabric(Runtime("cpu", "fp32", "")),
        network=ours,
        optimiser=make_optimiser("sgd", groups),
        rate=lambda step: 1.0,
        seed=0,
        clip_norm=clip_norm,
    )
    expected = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(4):
        parts, weights = [], []
        for x, y in zip(images.split(8), codes.split(8), strict=True):

            def part(net: nn.Module, x: torch.Tensor = x, y: torch.Tensor = y) -> tuple[torch.Tensor, int]:
                return nn.functional.cross_entropy(net(x), y, weight=class_weights), len(x)

            parts.append(part)
            weights.append(float(class_weights[y].sum()))
        found = stepper.take(parts, weights)
        expected.zero_grad()
        loss = nn.functional.cross_entropy(theirs(images), codes, weight=class_weights)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm or torch.inf)
        expected.step()
        assert found == pytest.approx(float(loss.detach()), rel=1e-5)
        if clip_norm is not None:
            assert norm > clip_norm
    assert stepper.sums.n == 4 * 19
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), atol=1e-6, rtol=1e-5)


def test_networks_of_other_libraries_are_layered_by_their_numbered_modules() -> None:
    import torchvision

    depth = layers_of(torchvision.models.resnet18(weights=None))
    assert depth["conv1.weight"] == depth["bn1.bias"] == 0
    assert (depth["layer1.0.conv1.weight"], depth["layer1.1.conv1.weight"], depth["layer4.1.bn2.bias"]) == (1, 2, 8)
    assert depth["fc.weight"] == 9


def test_the_average_follows_its_formula() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedWeights(network, 0.3)
    expected = network[0].weight.detach().clone()
    for n in range(6):
        with torch.no_grad():
            network[0].weight.add_(1.0)
            network[1].running_mean.add_(1.0)
        average.update(network)
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
    torch.testing.assert_close(average.network[0].weight, expected)
    assert 0 < float(average.network[1].running_mean[0]) < 6
    assert not average.network[1].training


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "lamb", "lion"])
def test_an_optimiser_restored_from_a_file_goes_on_bit_equal(name: str, tmp_path: Path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)

    def built(of: nn.Module) -> torch.optim.Optimizer:
        return make_optimiser(name, parameter_groups(of, 1e-2, weight_decay=0.1))

    def step(of: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        of(images).square().mean().backward()
        optimiser.step()

    one = network()
    first = built(one)
    for seed in range(3):
        step(one, first, seed)
    tensors, numbers = optimiser_tensors(first)
    save_checkpoint(tmp_path / "x.safetensors", {**tensors}, {"numbers": numbers})
    two = network()
    two.load_state_dict(one.state_dict())
    loaded, record = load_checkpoint(tmp_path / "x.safetensors")
    second = built(two)
    restore_optimiser(second, loaded, record["numbers"])
    for seed in range(3, 6):
        step(one, first, seed)
        step(two, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_broken_checkpoint_and_an_unknown_optimiser_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"half a fi")
    with pytest.raises(InputError, match="not a checkpoint of dermlab"):
        load_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="'adamx' is none"):
        make_optimiser("adamx", parameter_groups(nn.Linear(1, 1), 1.0, weight_decay=0))


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.ones(4)}, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # a write beyond fails as on a full disk
    try:
        with pytest.raises(DermlabError, match="cannot be written"):
            save_checkpoint(path, {"a": torch.ones(4000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    tensors, record = load_checkpoint(path)
    assert record["step"] == 1
    assert torch.equal(tensors["a"], torch.ones(4))
    assert [one.name for one in tmp_path.iterdir()] == ["x.safetensors"]
