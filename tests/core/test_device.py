"""One function decides precision; the user's word wins; what does not exist is one line."""

from __future__ import annotations

import pytest
import torch

from dermlab.core import device
from dermlab.core.errors import InputError


@pytest.mark.parametrize(
    ("capability", "expected"), [((8, 0), "bf16"), ((9, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")]
)
def test_cuda_precision_follows_the_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    assert device.resolve("cuda").precision == expected


@pytest.mark.parametrize(("flags", "expected"), [({"avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16"), ({"avx2"}, "fp32")])
def test_cpu_precision_follows_the_instruction_set(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: str
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert device.resolve("cpu").precision == expected


def test_the_user_wins() -> None:
    assert device.resolve("cpu", "fp32").precision == "fp32"


@pytest.mark.parametrize(("name", "precision"), [("gpu", "auto"), ("cuda:99", "auto"), ("cpu", "fp8")])
def test_what_does_not_exist_is_refused(name: str, precision: str) -> None:
    with pytest.raises(InputError):
        device.resolve(name, precision)
