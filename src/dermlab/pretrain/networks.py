"""The networks that are pretrained: transformers of any patch and size, ResNets, ConvNeXts, or public weights.

And what masked methods ask of a vision transformer: tokens with some replaced, tokens of the visible patches alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from dermlab.core.errors import InputError
from dermlab.models.encoders import Encoder, EncoderIdentity, create_encoder, fingerprint
from dermlab.models.towers import SMALL_STEM, build_timm

NETWORKS = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "convnext_atto": "convnext_atto",
    "convnext_nano": "convnext_nano",
    "convnext_tiny": "convnext_tiny",
}
"""Short names of timm's architectures; ``timm:NAME`` is any other."""


def build_backbone(
    network: str,
    *,
    size_px: int,
    patch_size: int | None = None,
    small_stem: bool = False,
    pool_patches: bool = False,
    seed: int = 0,
) -> Encoder:
    """Return an encoder with random weights, in timm's initialisation for it.

    Args:
        network: one of :data:`NETWORKS`, or ``timm:NAME``.
        size_px: side of the input; transformers take other multiples of their patch too.
        patch_size: transformers: side of a patch in pixels; None: the architecture's own.
        small_stem: ResNets: a 3×3 stem of stride 1 without pooling.
        pool_patches: transformers: the pooled vector is the mean of the patch tokens, not the class token.
        seed: of the weights.

    Raises:
        InputError: timm has no such network, or it does not take these arguments.
    """
    architecture = NETWORKS.get(network, network.removeprefix("timm:"))
    if network not in NETWORKS and not network.startswith("timm:"):
        raise InputError(f"network: {network!r} is none of {', '.join(NETWORKS)}, timm:NAME")
    options: dict[str, Any] = {}
    if patch_size is not None:
        options["patch_size"] = patch_size
    if pool_patches:
        options |= {"global_pool": "avg", "fc_norm": False}
    if small_stem:
        options[SMALL_STEM] = True
    if patch_size is not None and "vit" in architecture and size_px % patch_size:
        raise InputError(f"size_px: {size_px} is no multiple of patch_size {patch_size}")
    tower = build_timm(architecture, None, seed=seed, size_px=size_px, source=network, options=options)
    identity = EncoderIdentity(
        name=network,
        library="timm",
        architecture=tower.architecture,
        arguments=tower.arguments,
        dim=tower.dim,
        n_parameters=sum(parameter.numel() for parameter in tower.network.parameters()),
        has_tokens=tower.has_tokens,
        preprocess=replace(tower.preprocess, crop_fraction=1.0),
        fingerprint=fingerprint(tower.network, "timm", tower.architecture, tower.arguments),
    )
    return Encoder(tower.network, identity)


def load_backbone(name: str, *, size_px: int) -> Encoder:
    """Return a public encoder to go on from, for inputs of ``size_px`` and of other sizes beside it.

    Raises:
        InputError: no such encoder, or it takes one size only.
        MissingWeightsError: its weights are not here.
    """
    encoder, _ = create_encoder(name, size_px=size_px)
    if encoder.identity.library == "transformers":
        encoder._interpolate = True  # local crops have another size than the photos
    return encoder


class Tokens(NamedTuple):
    """What a vision transformer makes of a batch.

    Attributes:
        pooled: (B, D).
        patches: (B, N, D), one a patch in reading order, after the last norm.
    """

    pooled: torch.Tensor
    patches: torch.Tensor


def check_masks(network: nn.Module, name: str) -> None:
    """Raise InputError unless a network's tokens can be masked: timm's VisionTransformer and no other."""
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(network, VisionTransformer):
        raise InputError(
            f"{name}: masks need a vision transformer of timm (vit_tiny, vit_small, vit_base, vit_large), and this is "
            f"a {type(network).__name__}"
        )


def grid_of(network: Any, size_px: int) -> tuple[int, int]:
    """Return rows and columns of patches that a timm transformer makes of a square input.

    Raises:
        InputError: the side is no multiple of the patch.
    """
    rows, columns = network.patch_embed.patch_size
    if size_px % rows or size_px % columns:
        raise InputError(f"size_px: {size_px} is no multiple of the patch, {rows} px")
    return size_px // rows, size_px // columns


def masked_tokens(
    network: Any, images: torch.Tensor, mask: torch.Tensor | None = None, mask_token: torch.Tensor | None = None
) -> Tokens:
    """Return the tokens of a timm transformer, masked patches replaced by one learned vector before the positions.

    That is where BEiT and iBOT put it; with no mask the result is the network's own, bit for bit.

    Args:
        network: timm's VisionTransformer.
        images: (B, 3, H, W), normalised.
        mask: bool (B, N), True where a patch is hidden.
        mask_token: (D,), what stands there instead.
    """
    embedded = network.patch_embed(images)
    if mask is not None and mask_token is not None:
        hidden = mask.view(*embedded.shape[:-1], 1)
        embedded = torch.where(hidden, mask_token.to(embedded.dtype), embedded)
    tokens = network.norm_pre(network.patch_drop(network._pos_embed(embedded)))
    tokens = network.norm(network.blocks(tokens))
    return Tokens(network.forward_head(tokens), tokens[:, network.num_prefix_tokens :])


def visible_tokens(network: Any, images: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return class and register tokens (B, P, D) and the tokens of the visible patches (B, V, D); others never enter.

    Args:
        network: timm's VisionTransformer.
        images: (B, 3, H, W), normalised.
        visible: int64 (B, V), which patches are seen, by their number in reading order.
    """
    n_prefix = network.num_prefix_tokens
    tokens = network._pos_embed(network.patch_embed(images))
    patches = tokens[:, n_prefix:].gather(1, visible[..., None].expand(-1, -1, tokens.shape[-1]))
    tokens = network.norm_pre(torch.cat([tokens[:, :n_prefix], patches], dim=1))
    tokens = network.norm(network.blocks(tokens))
    return tokens[:, :n_prefix], tokens[:, n_prefix:]


def positions(network: Any, grid: tuple[int, int]) -> torch.Tensor:
    """Return the position embeddings of a grid's patches, (N, D), resampled from the network's own where it differs."""
    from timm.layers import resample_abs_pos_embed

    n_prefix = 0 if network.no_embed_class else network.num_prefix_tokens
    embedded = network.pos_embed
    if tuple(network.patch_embed.grid_size) != grid:
        embedded = resample_abs_pos_embed(
            embedded, new_size=list(grid), old_size=list(network.patch_embed.grid_size), num_prefix_tokens=n_prefix
        )
    return embedded[0, n_prefix:]
