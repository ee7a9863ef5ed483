"""A network made ready for frozen use gives its own features, in half precision closer than plain autocast."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from dermlab.core.device import Runtime
from dermlab.models.inference import FullPrecision, for_inference
from dermlab.models.towers import seeded

FP32, BF16 = Runtime("cpu", "fp32", "a test"), Runtime("cpu", "bf16", "a test")


def lively(network: nn.Module) -> nn.Module:
    """Give BatchNorms the uneven statistics that training gives them."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 1.5, generator=draw)
                module.weight.uniform_(0.7, 1.3, generator=draw)
    return network.eval()


def build(name: str) -> nn.Module:
    with seeded(1):
        if name.startswith("torchvision:"):
            return lively(torchvision.models.get_model(name.partition(":")[2]))
        return lively(timm.create_model(name, num_classes=0))


def images(size: int = 64) -> torch.Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def outputs(network: nn.Module, runtime: Runtime, values: torch.Tensor) -> torch.Tensor:
    with runtime.autocast():
        return network(values).float()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(a, b).min())


@pytest.mark.parametrize("name", ["test_resnet", "torchvision:resnet18"])
def test_in_fp32_it_is_the_network_itself_bit_for_bit(name):
    network = build(name)
    ready = for_inference(network, FP32, 64)
    values = images().contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        outputs(ready, FP32, values), outputs(network.to(memory_format=torch.channels_last), FP32, values)
    )


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "torchvision:resnet18", "torchvision:mobilenet_v3_small"]
)
def test_folding_leaves_no_batchnorm_and_the_same_function(name):
    network = build(name)
    ready = for_inference(network, BF16, 64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert sum(isinstance(module, FullPrecision) for module in ready.modules()) == 3
    torch.testing.assert_close(outputs(ready, FP32, images()), outputs(network, FP32, images()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "torchvision:resnet18"])
def test_half_precision_comes_closer_than_plain_autocast(name):
    network = build(name)
    exact = outputs(network, FP32, images())
    ours = cosine(outputs(for_inference(network, BF16, 64), BF16, images()), exact)
    assert ours > 0.999
    assert ours >= cosine(outputs(network, BF16, images()), exact) - 1e-5


def test_the_first_convolutions_run_in_fp32_in_the_order_they_run():
    ready = for_inference(build("torchvision:resnet18"), BF16, 64)
    kept = [name for name, module in ready.named_modules() if isinstance(module, FullPrecision)]
    assert kept == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]


class Forked(nn.Module):
    """A convolution whose output goes to a BatchNorm and elsewhere too: folding would change the other path."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        made = self.second(self.first(values))
        return self.fourth(self.third(self.norm(made) + made)).mean((2, 3))


def test_a_batchnorm_that_cannot_be_folded_stays():
    network = lively(Forked())
    ready = for_inference(network, BF16, 16)
    assert any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    torch.testing.assert_close(outputs(ready, FP32, images(16)), outputs(network, FP32, images(16)))


def test_the_callers_network_is_left_as_it_was_and_shares_its_weights():
    network = build("vit_tiny_patch16_224").train()
    names = [name for name, _ in network.named_modules()]
    ready = for_inference(network, BF16, 224)
    assert network.training
    assert not ready.training
    assert [name for name, _ in network.named_modules()] == names
    with torch.no_grad():
        network.norm.bias.add_(1)
    assert torch.equal(ready.norm.bias, network.norm.bias)


def test_the_network_itself_is_left_on_one_device_buffers_and_all():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    for_inference(network, Runtime("meta", "fp32", "a test"), 8)
    assert {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]} == {"meta"}
