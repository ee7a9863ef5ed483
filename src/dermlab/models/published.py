"""Checkpoints that no library knows: whose network they are, their tensors' names, what is done to a photo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dermlab.models import converters, towers
from dermlab.models.preprocess import Preprocess
from dermlab.models.weights import State

# PanDerm's and SwAV's evaluation code both write .228 for ImageNet's red deviation of .229: a typing error that their
# published numbers contain, so it is kept.
SLIPPED = (0.228, 0.224, 0.225)
PIL_DEFAULT = "bilinear"  # torchvision's Resize(256) without a filter, in all three repositories


@dataclass(frozen=True)
class Published:
    """One published checkpoint.

    Attributes:
        library: whose network it becomes, ``"timm"`` or ``"torchvision"``.
        architecture: that library's name of it.
        convert: renames the checkpoint's tensors to the library's.
        preprocess: what its authors do to a photo before they evaluate it.
        where: where its authors offer it, for a person to open.
        card: the name by which licence cards know it.
        arguments: beyond the architecture.
        unconfirmed: what could not be read where its authors wrote it, a sentence for a person; empty for nothing.
    """

    library: str
    architecture: str
    convert: Callable[[State], State]
    preprocess: Preprocess
    where: str
    card: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unconfirmed: str = ""


_CAE = {"init_values": 0.1}
_PANDERM = Preprocess(224, crop_fraction=224 / 256, interpolation=PIL_DEFAULT, std=SLIPPED)
PUBLISHED: dict[str, Published] = {
    # SiyuanYan1/PanDerm, classification/models/builder.py and modeling_finetune.py: normed class token, Resize(256).
    "panderm_base": Published(
        "timm",
        "vit_base_patch16_224",
        converters.from_cae,
        _PANDERM,
        "https://github.com/SiyuanYan1/PanDerm",
        "checkpoint:panderm_base",
        _CAE,
    ),
    "panderm_large": Published(
        "timm",
        "vit_large_patch16_224",
        converters.from_cae,
        _PANDERM,
        "https://github.com/SiyuanYan1/PanDerm",
        "checkpoint:panderm_large",
        _CAE,
    ),
    # SiyuanYan1/Derm1M, src/open_clip/utils.py: CAE's network for fine-tuning (SiyuanYan1/MAKE has the same file,
    # src/CAE/models/modeling_finetune.py): the patches are normed, averaged, and normed again by the same layer.
    "dermlip_panderm_tower": Published(
        "timm",
        "vit_base_patch16_224",
        converters.from_cae_twice_normed,
        _PANDERM,
        "https://huggingface.co/redlessone/DermLIP_PanDerm-base-w-PubMed-256",
        "hf:redlessone/DermLIP_PanDerm-base-w-PubMed-256",
        _CAE | {"global_pool": "avg", "fc_norm": False, towers.SECOND_NORM: True},
    ),
    # shenyue-98/SwAVDerm, get_features.py and src/resnet50.py: torchvision's ResNet-50 with the first padding apart.
    "swavderm": Published(
        "torchvision",
        "resnet50",
        converters.from_swav,
        _PANDERM,
        "https://github.com/shenyue-98/SwAVDerm",
        "checkpoint:swavderm",
    ),
    # Digital-Dermatology/self-supervised-dermatology, src/knn_figs.py: Resize((256, 256)), then the centre.
    "ssl_derm_vit_tiny": Published(
        "timm",
        "vit_tiny_patch16_224",
        converters.from_dino,
        Preprocess(224, fit="squash", crop_fraction=224 / 256, interpolation=PIL_DEFAULT),
        "https://github.com/Digital-Dermatology/self-supervised-dermatology",
        "checkpoint:ssl_derm_vit_tiny",
        unconfirmed="the code that writes its checkpoints is not public, so their layout is unconfirmed: the names of "
        "timm and of transformers are read",
    ),
}


def build(
    name: str, state: State | None, *, seed: int, size_px: int | None, source: str, device: str = "cpu"
) -> towers.Tower:
    """Build the network of a published checkpoint, loaded strictly; None draws its weights from ``seed``.

    Args:
        name: a key of :data:`PUBLISHED`.
        state: its tensors as published.
        seed: of random weights.
        size_px: another input size.
        source: what the state was read from, for errors.
        device: ``"meta"`` builds the shapes only.
    """
    spec = PUBLISHED[name]
    state = spec.convert(state) if state is not None else None
    if spec.library == "torchvision":
        tower = towers.build_torchvision(
            spec.architecture, state, seed=seed, size_px=size_px, source=source, device=device
        )
    else:
        tower = towers.build_timm(
            spec.architecture, state, seed=seed, size_px=size_px, source=source, device=device, options=spec.arguments
        )
    return replace(tower, library=spec.library, preprocess=spec.preprocess.changed(size_px=size_px))
