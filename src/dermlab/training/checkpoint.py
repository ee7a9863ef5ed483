"""The state of a training in one safetensors file: tensors beside a JSON header, whole or absent, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dermlab.core.errors import DermlabError, InputError, first_line
from dermlab.core.files import json_ready
from dermlab.models.weights import write_state

FORMAT = 1
_HEADER = "dermlab"


def save_checkpoint(path: str | Path, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
    """Write a checkpoint: one file, renamed into place, so that a kill leaves the old one or the new one.

    Args:
        path: of the file.
        tensors: any number of named tensors; they are written as they are, shared memory included.
        record: JSON-able facts: position, scores, history.

    Raises:
        DermlabError: the disk is full or the folder cannot be written; the file that was there is untouched.
    """
    from safetensors import SafetensorError

    # Tensors that share memory would be refused: each goes as a copy of its own.
    own = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **json_ready(dict(record))})
    try:
        write_state(Path(path), own, {_HEADER: text})
    except SafetensorError as error:  # safetensors' own word for a full disk
        raise DermlabError(
            f"{path}: cannot be written ({first_line(error)}); the checkpoint before is kept, and the same command "
            "goes on from it"
        ) from None


def load_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        InputError: the file is missing, broken or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            record = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not a checkpoint of dermlab ({first_line(error)}); delete it to begin anew"
        ) from None
    if record.get("format") != FORMAT:
        raise InputError(f"{path}: a checkpoint of format {record.get('format')}, this dermlab reads {FORMAT}")
    return tensors, record


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return an optimiser's state as tensors ``<parameter>.<name>`` and JSON-able numbers."""
    state = optimiser.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {"state": {}, "groups": []}
    for place, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{place}.{name}"] = value
            else:
                numbers["state"].setdefault(str(place), {})[name] = value
    for place, group in enumerate(state["param_groups"]):
        # Some of timm's count their steps in a tensor of the group.
        tensors |= {f"group{place}.{k}": v for k, v in group.items() if isinstance(v, torch.Tensor)}
        plain = {k: v for k, v in group.items() if isinstance(v, bool | int | float | str)}
        numbers["groups"].append(plain)
    return tensors, numbers


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give an optimiser built with the same groups the state of :func:`optimiser_tensors`."""
    fresh = optimiser.state_dict()
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        place, _, key = name.partition(".")
        if place.startswith("group"):
            fresh["param_groups"][int(place.removeprefix("group"))][key] = tensor.clone()
            continue
        owner = parameters[int(place)]
        value = tensor
        if tensor.shape == owner.shape and tensor.ndim:
            # In the parameter's own memory layout: another one sums in another order, and the last bit differs.
            value = torch.empty_like(owner, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(place), {})[key] = value
    for place, entries in numbers["state"].items():
        state.setdefault(int(place), {}).update(entries)
    for group, saved in zip(fresh["param_groups"], numbers["groups"], strict=True):
        group.update(saved)
    optimiser.load_state_dict({"state": state, "param_groups": fresh["param_groups"]})
