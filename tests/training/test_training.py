"""Rates, groups, averages and checkpoints, held against torch's and timm's own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from dermlab.core.errors import DermlabError, InputError
from dermlab.training.checkpoint import load_checkpoint, optimiser_tensors, restore_optimiser, save_checkpoint
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
    assert rate_factor(99, 100, schedule="constant") == 1.0


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
