"""Heads on disk: arrays as safetensors, everything else as JSON. No pickle: opening a model runs nobody's code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab import __version__
from dermlab.adapt.base import Head
from dermlab.adapt.ensemble import EnsembleHead
from dermlab.adapt.floors import MajorityHead
from dermlab.adapt.fusion import FusionHead
from dermlab.adapt.knn import KNNHead
from dermlab.adapt.linear import LinearHead
from dermlab.adapt.mlp import MLPHead
from dermlab.core.errors import InputError, first_line
from dermlab.core.files import atomic_path, json_ready, read_json, write_json

if TYPE_CHECKING:
    from dermlab.models.fusion import FusionNetwork

FORMAT = 1
HEAD_FILE, ARRAYS_FILE = "head.json", "head.safetensors"
CLASSES: dict[str, type[Head]] = {
    item.__name__: item for item in (KNNHead, LinearHead, MLPHead, FusionHead, MajorityHead, EnsembleHead)
}
ARRAYS: dict[str, tuple[str, ...]] = {
    "KNNHead": ("bank_", "bank_codes_", "mean_"),
    "LinearHead": ("coef_", "intercept_", "mean_", "scale_"),
    "MLPHead": ("mean_", "scale_"),
    "FusionHead": ("mean_", "scale_"),
    "MajorityHead": ("prior_",),
    "EnsembleHead": ("weights_",),
}
VALUES: dict[str, tuple[str, ...]] = {"KNNHead": ("k_",), "LinearHead": ("C_",)}


def save_head(head: Head, folder: str | Path) -> None:
    """Write a fitted head to ``head.json`` and ``head.safetensors`` in ``folder`` (made if need be)."""
    from safetensors.numpy import save_file

    state, arrays = _state(head)
    folder = Path(folder)
    with atomic_path(folder / ARRAYS_FILE) as temporary:
        save_file(arrays, temporary)
    write_json(folder / HEAD_FILE, {"format": FORMAT, "dermlab": __version__, **state})


def load_head(folder: str | Path) -> Head:
    """Read a head that :func:`save_head` wrote; it predicts bit for bit what the saved one did.

    Raises:
        InputError: a file is missing, broken, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    state = read_json(folder / HEAD_FILE)
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("head") not in CLASSES:
        raise InputError(f"{folder / HEAD_FILE}: not a head of format {FORMAT}; fit it again with this dermlab")
    try:
        arrays = load_file(folder / ARRAYS_FILE)
        return _restored(state, arrays)
    except FileNotFoundError:
        raise InputError(f"{folder / ARRAYS_FILE}: no such file") from None
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder / ARRAYS_FILE}: does not fit {HEAD_FILE} ({first_line(error)})") from None


def _state(head: Head) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    kind = type(head).__name__
    if kind not in CLASSES:
        raise InputError(f"{kind}: only dermlab's own heads can be saved ({', '.join(CLASSES)})")
    classes = np.asarray(head.classes_)
    parameters = {k: v for k, v in head.get_params(deep=False).items() if k not in ("classes", "heads")}
    state: dict[str, Any] = {
        "head": kind,
        "parameters": json_ready(parameters),
        # Labels that are numbers come back as numbers, names as text.
        "classes": json_ready(classes),
        "classes_dtype": "text" if classes.dtype.kind in "OUS" else classes.dtype.str,
        "seen": json_ready(head.seen_),
        "fixed": None if head.fixed_ is None else json_ready(head.fixed_),
        "n_features": head.n_features_in_,
        "report": json_ready(head.head_report_),
        "values": {},
        "networks": None,
        "members": None,
    }
    arrays: dict[str, np.ndarray] = {}
    if head.nothing_fitted_:
        return state, arrays
    state["values"] = {name: json_ready(getattr(head, name)) for name in VALUES.get(kind, ())}
    arrays = {name: np.ascontiguousarray(getattr(head, name)) for name in ARRAYS[kind]}
    if isinstance(head, MLPHead):
        shapes = [_shape_of(network) for network in head.networks_]
        state["networks"] = shapes
        for place, network in enumerate(head.networks_):
            for name, value in network.state_dict().items():
                arrays[f"networks.{place}.{name}"] = np.ascontiguousarray(value.numpy())
    if isinstance(head, EnsembleHead):
        state["members"] = []
        for name, member in head.heads_:
            inner, inner_arrays = _state(member)
            state["members"].append({"name": name, **inner})
            arrays |= {f"members.{name}.{key}": value for key, value in inner_arrays.items()}
    return state, arrays


def _restored(state: dict[str, Any], arrays: dict[str, np.ndarray]) -> Head:
    kind = state["head"]
    head = CLASSES[kind](**state["parameters"])
    dtype = state["classes_dtype"]
    head.classes_ = np.array(state["classes"], dtype=str if dtype == "text" else np.dtype(dtype))
    head.seen_ = np.array(state["seen"], dtype=np.int64)
    fixed = state.get("fixed")
    head.fixed_ = None if fixed is None else np.array(fixed, dtype=np.float64)
    head.n_features_in_ = state["n_features"]
    head.head_report_ = state["report"]
    if head.nothing_fitted_:
        return head
    for name, value in state["values"].items():
        setattr(head, name, value)
    for name in ARRAYS[kind]:
        setattr(head, name, arrays[name])
    if isinstance(head, MLPHead):
        head.networks_ = [
            _network(shape, _below(f"networks.{place}.", arrays)) for place, shape in enumerate(state["networks"])
        ]
    if isinstance(head, FusionHead) and head.n_embedding_ < head.n_features_in_:
        head.restore_blank()
    if isinstance(head, EnsembleHead):
        head.heads_ = []
        for member in state["members"]:
            head.heads_.append((member["name"], _restored(member, _below(f"members.{member['name']}.", arrays))))
    return head


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _shape_of(network: FusionNetwork) -> dict[str, int]:
    return {
        "n_embedding": network.n_embedding,
        "n_questionnaire": network.n_questionnaire,
        "n_classes": network.classifier.out_features,
        "hidden": network.hidden,
        "questionnaire_hidden": network.questionnaire_hidden,
    }


def _network(shape: dict[str, int], arrays: dict[str, np.ndarray]) -> FusionNetwork:
    import torch

    from dermlab.models.fusion import FusionNetwork

    network = FusionNetwork(
        shape["n_embedding"],
        shape["n_questionnaire"],
        shape["n_classes"],
        hidden=shape["hidden"],
        questionnaire_hidden=shape["questionnaire_hidden"],
    )
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    return network.eval()
