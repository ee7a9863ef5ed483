"""Which device and which precision: one function decides, says why, and the answer is recorded with every run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
BF16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")
RECORDED_PACKAGES = (
    "dermlab",
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "pillow",
    "opencv-python-headless",
    "pydantic",
)


@dataclass(frozen=True)
class Runtime:
    """A device and a precision, with the reason for the choice.

    Attributes:
        device: a torch device name, ``"cpu"``, ``"cuda:0"`` or ``"mps"``.
        precision: ``"fp32"`` (no autocast), ``"bf16"`` (autocast) or ``"fp16"`` (autocast; training scales the loss).
        reason: one sentence for the log.
    """

    device: str
    precision: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype in which matrix products run."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the autocast context of this precision; fp32 is a null context, on CUDA one without TF32.

        cuDNN convolves fp32 in TF32, with ten bits of mantissa, unless it is told not to.
        """
        if self.precision == "fp32" and not self.device.startswith("cuda"):
            return contextlib.nullcontext()
        import torch

        if self.precision == "fp32":
            cudnn = torch.backends.cudnn
            return cudnn.flags(
                enabled=cudnn.enabled,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=False,
            )

        return torch.autocast(self.device.split(":")[0], dtype=self.dtype)

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a dictionary for logs and sidecars."""
        return asdict(self)


def resolve(device: str = "auto", precision: str = "auto") -> Runtime:
    """Choose device and precision.

    Rules of precision: CUDA capability ≥ 8.0 → bf16; 7.x → fp16 with loss scaling; older → fp32, because Pascal runs
    fp16 at 1/64 of its speed; a CPU with AVX512-BF16 or AMX → bf16; other CPUs and MPS → fp32.

    Args:
        device: ``"auto"`` (the first CUDA device, else MPS, else the CPU) or a torch device name.
        precision: ``"auto"`` or the user's own choice, which wins.

    Raises:
        InputError: the device does not exist here, or the precision is not one of the four words.
    """
    import torch

    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise InputError(f"precision: {precision!r} is not one of auto, fp32, bf16, fp16")
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    elif device == "cuda":
        device = "cuda:0"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise InputError(f"device: {device!r} is not a device name; write auto, cpu, cuda:0 or mps") from None
    if parsed.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"device: {device!r} asked for, but torch sees no CUDA device; write cpu or auto")
        if (parsed.index or 0) >= torch.cuda.device_count():
            raise InputError(f"device: {device!r} asked for, but there are {torch.cuda.device_count()} CUDA devices")
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device: 'mps' asked for, but this torch has no MPS; write cpu or auto")
    chosen, reason = _precision_for(parsed)
    if precision != "auto":
        chosen, reason = precision, f"{precision} was asked for"
    return Runtime(device=device, precision=chosen, reason=reason)


def _precision_for(device: torch.device) -> tuple[str, str]:
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{torch.cuda.get_device_name(device)} (capability {major}.{minor})"
        if major >= 8:
            return "bf16", f"{name} computes in bf16"
        if major == 7:
            return "fp16", f"{name} computes in fp16 with loss scaling"
        return "fp32", f"{name} is slower in fp16 than in fp32"
    if device.type == "cpu":
        flags = cpu_flags()
        found = [flag for flag in BF16_CPU_FLAGS if flag in flags]
        if found:
            return "bf16", f"this CPU has {' and '.join(found)}"
        return "fp32", "this CPU has no bf16 arithmetic"
    return "fp32", f"{device.type} runs in fp32"


def is_first_process() -> bool:
    """Tell whether this is the only process, or the first of those that Fabric, torchrun or SLURM started."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(os.environ.get(name, "0") not in ("", "0") for name in names)


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of this CPU as Linux names them (empty where they cannot be read)."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def environment() -> dict[str, Any]:
    """Return what a rerun must match to be bit-equal: Python, platform, CPU, threads and library versions."""
    versions = {}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "cpu_flags": sorted(cpu_flags() & {"avx2", "avx512f", *BF16_CPU_FLAGS, "asimd", "bf16"}),
        "packages": versions,
    }
    import sys

    if "torch" in sys.modules:
        import torch

        result["torch_threads"] = torch.get_num_threads()
        result["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return result
