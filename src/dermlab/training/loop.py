"""The loop: steps with accumulation, clipping, a rate by step and averaged weights, and a position to go on from.

Nothing is drawn from a generator that remembers: before each step torch's generators are set from ``(seed, step)``, so
dropout and drop path depend on the step's number, and a run that goes on after a kill is bit-equal to one never killed
(CPU, fp32, same threads). Lightning Fabric gives precision, loss scaling and devices.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermlab.core.device import Runtime
from dermlab.core.errors import DermlabError, InputError, MissingExtraError, first_line
from dermlab.core.progress import warn
from dermlab.core.randomness import generator
from dermlab.training.checkpoint import optimiser_tensors, restore_optimiser
from dermlab.training.optimiser import AveragedWeights
from dermlab.training.speed import failed_to_compile

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(runtime: Runtime, *, devices: int = 1, nodes: int = 1, unused_parameters: bool = False) -> Fabric:
    """Return the Fabric of a runtime, launched: one device, or a process for each of several.

    Several are DDP (gloo on CPUs, NCCL on CUDA). Fabric starts this very command again for each further process of
    this machine, or finds those that torchrun or SLURM started.

    Args:
        runtime: kind of device and precision.
        devices: on each machine.
        nodes: machines.
        unused_parameters: a step may leave some trainable parameters without a gradient.

    Raises:
        InputError: torchrun or SLURM started another number of processes, or there are not so many devices.
        MissingExtraError: Lightning Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
        from lightning_fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        raise MissingExtraError("training", "lightning-fabric", "finetune") from None

    kind, _, index = runtime.device.partition(":")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started not in (1, devices * nodes):
        raise InputError(
            f"{started} processes were started, but devices: {devices} and nodes: {nodes} ask for {devices * nodes}"
        )
    first = int(index or 0)
    which: Any = list(range(first, first + devices)) if kind == "cuda" else devices
    options: dict[str, Any] = {}
    if devices * nodes > 1:
        # Each process would announce itself; what several devices change is said once, by the training.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        options = {"strategy": DDPStrategy(find_unused_parameters=unused_parameters), "num_nodes": nodes}
    precision: Any = PRECISIONS[runtime.precision]
    try:
        fabric = Fabric(accelerator=kind, devices=which, precision=precision, **options)
    except MisconfigurationException as error:
        raise InputError(f"devices: {first_line(error)}") from None
    if devices * nodes > 1:
        fabric.launch()
    return fabric


@contextlib.contextmanager
def quiet_randomness() -> Iterator[None]:
    """Give the caller's torch generator back as it was."""
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@contextlib.contextmanager
def vanished_processes_told(fabric: Fabric) -> Iterator[None]:
    """Turn torch's words for another process that is gone into one line.

    Raises:
        DermlabError: another of several processes has ended while this one waited for it.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not any(word in str(error) for word in ("gloo", "NCCL", "Connection", "peer")):
            raise
        # gloo opens with a file of its own in brackets, and ends with advice for those who program it.
        why = re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]
        raise DermlabError(
            f"another of the {fabric.world_size} processes has ended ({why}); what was saved is kept, and the same "
            "command goes on from it"
        ) from None


@dataclass
class Sums:
    """What an epoch's steps add up to; it travels in checkpoints.

    Attributes:
        loss: sum of losses × samples.
        n: samples.
        n_steps: optimiser steps.
        n_skipped: steps left out because loss or gradient was not finite.
        gradient_norm: largest norm before clipping.
    """

    loss: float = 0.0
    n: int = 0
    n_steps: int = 0
    n_skipped: int = 0
    gradient_norm: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Mean loss of a sample; NaN before the first."""
        return self.loss / self.n if self.n else math.nan


@dataclass
class Stepper:
    """One optimiser over one network: batches in, weights moved.

    Attributes:
        fabric: precision and device.
        network: the network itself; :attr:`forward` is what is called.
        optimiser: built with :func:`dermlab.training.optimiser.make_optimiser`, whose groups carry ``base_lr``.
        rate: factor on each group's ``base_lr`` by optimiser step of this phase.
        seed: of dropout and drop path.
        clip_norm: gradients above this norm are scaled down; None leaves them.
        accumulate: batches whose gradients make one step.
        average: averaged weights, updated after each step.
        compiled: the network is compiled; where that fails, a line says so and it is trained as it is.
        step: optimiser steps done in this phase.
        offset: added to the step in what the randomness is drawn from, so that phases differ.
    """

    fabric: Fabric
    network: nn.Module
    optimiser: torch.optim.Optimizer
    rate: Callable[[int], float]
    seed: int
    clip_norm: float | None = None
    accumulate: int = 1
    average: AveragedWeights | None = None
    compiled: bool = False
    step: int = 0
    offset: int = 0
    sums: Sums = field(default_factory=Sums)

    def __post_init__(self) -> None:
        self._set_up()

    def _set_up(self) -> None:
        network: Any = torch.compile(self.network) if self.compiled else self.network
        forward, wrapped = self.fabric.setup(network, self.optimiser, move_to_device=False)
        self.forward: nn.Module = forward
        self._wrapped = wrapped

    def rate_at(self, step: int) -> float:
        """Return the largest rate among the groups at a step of this phase."""
        return max(group["base_lr"] for group in self.optimiser.param_groups) * self.rate(step)

    def take(
        self, parts: list[Callable[[nn.Module], tuple[torch.Tensor, int]]], weights: Sequence[float] | None = None
    ) -> float:
        """Take one step over the batches of one accumulation and return the mean loss, over all processes.

        Args:
            parts: each gives its mean loss (a scalar, fp32) and its number of samples when called with the network.
            weights: what each part's mean counts: its samples, or the sum of their weights. The step is then that of
                one batch of all parts of all processes, equal or not. None: the parts of a process count alike, those
                of several processes by their samples.

        A step whose loss or gradient is not finite moves nothing and is counted in ``sums.n_skipped``.
        """
        factor = self.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss_sum, n_own, world = 0.0, 0, self.fabric.world_size
        whole = None if weights is None else max(self._summed(sum(weights))[0], 1e-12)
        # The first process draws what a single one would.
        names = ("rank", self.fabric.global_rank) if self.fabric.global_rank else ()
        draw = generator(self.seed, "step", self.offset + self.step, *names)
        for place, part in enumerate(parts):
            seed = int(draw.integers(2**62))
            with self.fabric.no_backward_sync(self.forward, enabled=place < len(parts) - 1):  # type: ignore[arg-type]
                loss, size = self._called(part, seed)
                if weights is not None and whole is not None:
                    share = weights[place] / whole
                    loss_sum += float(loss.detach()) * share
                else:
                    share = size / self._summed(size)[0] / len(parts)
                    loss_sum += float(loss.detach()) * size
                # DDP takes the mean over processes, and this is a sum of shares.
                self.fabric.backward(loss * (world * share))
            n_own += size
        loss_sum, n_samples = self._summed(loss_sum, n_own)
        n = int(n_samples)
        total = loss_sum * n if weights is not None else loss_sum
        finite = math.isfinite(total)
        if finite and self.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self.forward, self._wrapped, max_norm=self.clip_norm, error_if_nonfinite=False
            )
            size_of = float(norm) if norm is not None else 0.0
            # In fp16 the scaler skips such a step and lowers its scale; nobody else would.
            finite = math.isfinite(size_of) or self._scaler() is not None
            if math.isfinite(size_of):
                self.sums.gradient_norm = max(self.sums.gradient_norm, size_of)
        if finite:
            self._wrapped.step()
            if self.average is not None:
                self.average.update(self.network)
            self.sums.loss += total
            self.sums.n += n
        else:
            self.sums.n_skipped += 1
        self.sums.n_steps += 1
        self.step += 1
        return total / n if n else math.nan

    def _summed(self, *numbers: float) -> list[float]:
        """Return numbers added up over the processes."""
        if self.fabric.world_size == 1:
            return list(numbers)
        own = torch.tensor(numbers, dtype=torch.float64, device=self.fabric.device)
        whole: torch.Tensor = self.fabric.all_reduce(own, reduce_op="sum")  # type: ignore[assignment]
        return [float(value) for value in whole.tolist()]

    def _called(self, part: Callable[[nn.Module], tuple[torch.Tensor, int]], seed: int) -> tuple[torch.Tensor, int]:
        torch.manual_seed(seed)
        try:
            return part(self.forward)
        except Exception as error:
            if not (self.compiled and failed_to_compile(error)):
                raise
            warn(f"compile: torch.compile fails here ({first_line(error)}); the network is trained as it is")
        self.compiled = False
        self._set_up()
        torch.manual_seed(seed)
        return part(self.forward)

    def _scaler(self) -> Any:
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return everything that a run needs to go on, as tensors and JSON-able numbers."""
        optimiser, numbers = optimiser_tensors(self.optimiser)
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"optimiser/{name}": value for name, value in optimiser.items()}
        record: dict[str, Any] = {"step": self.step, "optimiser": numbers, "sums": vars(self.sums)}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.network.state_dict().items()}
            record["n_updates"] = self.average.n_updates
        scaler = self._scaler()
        if scaler is not None:
            record["scaler"] = scaler.state_dict()
        return tensors, record

    def restore(self, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
        """Take up the state of :meth:`tensors`."""
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "optimiser": {}, "average": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind in parts:
                parts[kind][rest] = value
        try:
            self.network.load_state_dict(parts["network"])
            restore_optimiser(self.optimiser, parts["optimiser"], record["optimiser"])
            if self.average is not None:
                self.average.network.load_state_dict(parts["average"])
                self.average.n_updates = record["n_updates"]
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise DermlabError(f"the checkpoint does not fit this network: {str(error).splitlines()[0]}") from None
        scaler = self._scaler()
        if scaler is not None and "scaler" in record:
            scaler.load_state_dict(record["scaler"])
        self.step = record["step"]
        self.sums = Sums(**record["sums"])
