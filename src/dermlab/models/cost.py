"""What a run will cost before it is begun: hours, money and memory, from steps that were measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    from dermlab.core.device import Runtime
    from dermlab.models.encoders import Encoder

# fp32 bytes a parameter: the weight; and for training with AdamW its gradient and two moments too.
FROZEN_BYTES, TRAINED_BYTES = 4, 16


@dataclass(frozen=True)
class Pace:
    """How fast an encoder runs on a device, and what it needs there.

    Attributes:
        images_per_second: the median of the measured steps.
        weights_bytes: of weights, gradients and optimizer, in fp32.
        bytes_per_image: kept for the backward pass by one image; 0 for frozen use.
        batch_size: of the measured steps.
        device: where it was measured.
        precision: of the measured steps.
    """

    images_per_second: float
    weights_bytes: int
    bytes_per_image: int
    batch_size: int
    device: str
    precision: str


@dataclass(frozen=True)
class Cost:
    """What going through ``n_images`` ``epochs`` times takes.

    Attributes:
        n_images: photos in an epoch.
        epochs: how often each is seen.
        images_per_second: the pace that was assumed or measured.
        hours: of all epochs.
        hours_per_epoch: of one.
        price: in the currency of ``price_per_hour``, or None where no price was given.
    """

    n_images: int
    epochs: float
    images_per_second: float
    hours: float
    hours_per_epoch: float
    price: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return asdict(self)


def estimate(
    n_images: int, images_per_second: float, *, epochs: float = 1, price_per_hour: float | None = None
) -> Cost:
    """Return time and price of ``epochs`` passes over ``n_images`` at a pace.

    Args:
        n_images: photos, at least 1.
        images_per_second: measured on the hardware in question, positive.
        epochs: passes, positive.
        price_per_hour: of that hardware.

    Raises:
        InputError: a number is not positive.
    """
    for name, value in (("images", n_images), ("images_per_second", images_per_second), ("epochs", epochs)):
        if not value > 0:
            raise InputError(f"{name}: must be positive, not {value}")
    hours = n_images / images_per_second / 3600
    price = hours * epochs * price_per_hour if price_per_hour is not None else None
    return Cost(n_images, epochs, images_per_second, hours * epochs, hours, price)


def measure(encoder: Encoder, runtime: Runtime, *, batch_size: int = 4, steps: int = 3, train: bool = False) -> Pace:
    """Run an encoder on noise for a few steps and return its pace.

    Reading and decoding photos come on top; with a pixel cache they are hidden behind the network.

    Args:
        encoder: left on the runtime's device, its weights as they were.
        runtime: device and precision.
        batch_size: images a step.
        steps: measured after one that warms up.
        train: forward and backward instead of frozen use.
    """
    import torch

    side = encoder.preprocess.size_px
    images = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(runtime.device)
    encoder.to(runtime.device)

    def step() -> None:
        with torch.set_grad_enabled(train), runtime.autocast():
            pooled = encoder(images)
        if train:
            pooled.float().square().mean().backward()
            encoder.zero_grad(set_to_none=True)

    seconds, activations = measure_steps(step, encoder.parameters(), runtime.device, steps=steps)
    n_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return Pace(
        images_per_second=batch_size / seconds,
        weights_bytes=n_parameters * (TRAINED_BYTES if train else FROZEN_BYTES),
        bytes_per_image=activations // batch_size,
        batch_size=batch_size,
        device=runtime.device,
        precision=runtime.precision,
    )


def measure_steps(
    step: Callable[[], object], parameters: Iterable[Any], device: str, *, steps: int = 3
) -> tuple[float, int]:
    """Take a step once to warm up, then a few times, and return the median seconds and the bytes kept for backward.

    Args:
        step: does one whole step; it may load photos, and move the weights.
        parameters: of the network, which are not counted among what is kept.
        device: that is waited for.
        steps: that are timed.
    """
    import torch

    kept: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    seconds = []
    for number in range(steps + 1):
        _synchronise(device)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if not number:
                hooks = torch.autograd.graph.saved_tensors_hooks(lambda one: _note(one, kept), lambda one: one)
                stack.enter_context(hooks)
            step()
        _synchronise(device)
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[1:])[(steps - 1) // 2]
    return median, sum(size for address, size in kept.items() if address not in own)


def _note(tensor: Any, kept: dict[int, int]) -> Any:
    """Count a tensor's storage once: what autograd keeps is often several views of one block."""
    storage = tensor.untyped_storage()
    kept[storage.data_ptr()] = storage.nbytes()
    return tensor


def _synchronise(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
