"""Tensors of one publication under the names of another: a checkpoint's names of its layers become timm's.

Each function takes and returns tensors by name; what belongs to a head, a decoder or a text tower is left out. Whether
all that the network needs was there is seen by the strict loading that follows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dermlab.models.weights import State

# What CAE and BEiT checkpoints hold beside the encoder's own tensors.
CAE_OTHERS = ("head.", "lm_head.", "mask_token")


def from_cae(state: State) -> State:
    """Rename a CAE or PanDerm encoder's tensors to those of timm's VisionTransformer with layer scale.

    Its queries and values have biases and its keys have none, which is one bias with noughts in its middle. The
    position embedding is fixed (2-D sine and cosine, temperature 10,000, nought for the class token), so that a
    checkpoint may lack it.

    Args:
        state: of the encoder alone, or of a whole pretraining model, whose encoder is under ``encoder.``.
    """
    if any(key.startswith("encoder.") for key in state):
        state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    renamed: State = {}
    for key, value in state.items():
        if key.startswith(CAE_OTHERS) or key.endswith(".v_bias"):
            continue
        if key.endswith(".q_bias"):
            values = state.get(key.replace("q_bias", "v_bias"), value)
            renamed[key.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros_like(value), values])
            continue
        renamed[key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    if "pos_embed" not in renamed and "cls_token" in renamed:
        renamed["pos_embed"] = _sines(renamed["cls_token"].shape[-1])
    return renamed


def from_cae_twice_normed(state: State) -> State:
    """Rename the tensors of CAE's network for fine-tuning, which norms twice with one layer: the layer becomes two."""
    renamed = from_cae(state)
    copies = {f"fc_{key}": renamed[key].clone() for key in ("norm.weight", "norm.bias") if key in renamed}
    return renamed | copies


def _sines(dim: int, side: int = 14) -> torch.Tensor:
    from timm.layers import build_sincos2d_pos_embed

    grid = build_sincos2d_pos_embed([side, side], dim=dim, temperature=10_000.0, interleave_sin_cos=False)
    # timm: both sines, then both cosines; CAE: sine and cosine of the row, then of the column.
    sine_row, sine_column, cosine_row, cosine_column = grid.chunk(4, dim=1)
    grid = torch.cat([sine_row, cosine_row, sine_column, cosine_column], dim=1)
    return torch.cat([torch.zeros(1, dim), grid])[None]


def from_swav(state: State) -> State:
    """Leave a SwAV checkpoint's projection head and prototypes out; its ResNet has torchvision's names."""
    return {key: value for key, value in state.items() if not key.startswith(("projection_head.", "prototypes."))}


def from_dino(state: State) -> State:
    """Leave a DINO or iBOT checkpoint's projection head out; its transformer has timm's or transformers' names."""
    state = {key.removeprefix("backbone.").removeprefix("model."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "masked_embed"))}
    return from_transformers(state) if is_from_transformers(state) else state


def from_transformers(state: State) -> State:
    """Rename a transformers ViT, CLIP, SigLIP or DINOv2 vision tower's tensors to those of timm's VisionTransformer.

    Args:
        state: of the vision tower alone, or of both towers.
    """
    state = _without_prefix(state)
    state = {key: value for key, value in state.items() if not key.startswith(("text_", "visual_", "logit_"))}
    kind = _kind(state)
    return _CONVERTERS[kind](state) if kind is not None else state


def is_from_transformers(state: State) -> bool:
    """Tell whether a state is a vision tower's under transformers' names."""
    return _kind(_without_prefix(state)) is not None


def _without_prefix(state: State) -> State:
    return {key.removeprefix("vision_model.").removeprefix("vit."): value for key, value in state.items()}


def _kind(state: State) -> str | None:
    if "embeddings.class_embedding" in state:
        return "clip"
    if "head.probe" in state and "embeddings.patch_embedding.weight" in state:
        return "siglip"
    if "embeddings.cls_token" in state and "encoder.layer.0.layer_scale1.lambda1" in state:
        return "dinov2"
    if "embeddings.cls_token" in state and "encoder.layer.0.layernorm_before.weight" in state:
        return "vit"
    return None


def _block(state: State, theirs: str, ours: str, names: dict[str, str], qkv: tuple[str, ...]) -> State:
    """Return one block's tensors: those of ``names``, and queries, keys and values as one matrix."""
    renamed: State = {}
    for leaf in ("weight", "bias"):
        renamed[f"{ours}.attn.qkv.{leaf}"] = torch.cat([state[f"{theirs}.{part}.{leaf}"] for part in qkv])
        for one, other in names.items():
            renamed[f"{ours}.{other}.{leaf}"] = state[f"{theirs}.{one}.{leaf}"]
    return renamed


def _depth(state: State, prefix: str) -> int:
    return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in state if key.startswith(prefix))


_CLIP_OUTER = (("pre_layrnorm", "norm_pre"), ("post_layernorm", "norm"))  # the typing error is transformers'
_CLIP_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_CLIP_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}


def _from_clip(state: State) -> State:
    renamed = {
        "cls_token": state["embeddings.class_embedding"][None, None],
        "pos_embed": state["embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": state["embeddings.patch_embedding.weight"],
    }
    for theirs, ours in _CLIP_OUTER:
        renamed |= {f"{ours}.{leaf}": state[f"{theirs}.{leaf}"] for leaf in ("weight", "bias")}
    return renamed | _clip_blocks(state)


def _clip_blocks(state: State) -> State:
    renamed: State = {}
    for i in range(_depth(state, "encoder.layers.")):
        renamed |= _block(state, f"encoder.layers.{i}", f"blocks.{i}", _CLIP_BLOCK, _CLIP_QKV)
    return renamed


def to_clip(state: State) -> State:
    """Rename the tensors of timm's CLIP vision tower to those of transformers' CLIPVisionModel: the way back.

    Args:
        state: of timm's ``vit_*_clip_*``; its projection (``head``), which CLIPVisionModel has not, is left out.
    """
    renamed = {
        "embeddings.class_embedding": state["cls_token"].flatten(),
        "embeddings.position_embedding.weight": state["pos_embed"][0],
        "embeddings.patch_embedding.weight": state["patch_embed.proj.weight"],
    }
    for theirs, ours in _CLIP_OUTER:
        renamed |= {f"{theirs}.{leaf}": state[f"{ours}.{leaf}"] for leaf in ("weight", "bias")}
    for i in range(_depth(state, "blocks.")):
        theirs, ours = f"encoder.layers.{i}", f"blocks.{i}"
        for leaf in ("weight", "bias"):
            for part, value in zip(_CLIP_QKV, state[f"{ours}.attn.qkv.{leaf}"].chunk(3), strict=True):
                renamed[f"{theirs}.{part}.{leaf}"] = value.clone()
            for one, other in _CLIP_BLOCK.items():
                renamed[f"{theirs}.{one}.{leaf}"] = state[f"{ours}.{other}.{leaf}"]
    return renamed


def _from_siglip(state: State) -> State:
    dim = state["head.probe"].shape[-1]
    renamed = {
        "pos_embed": state["embeddings.position_embedding.weight"][None],
        "attn_pool.latent": state["head.probe"],
    }
    for leaf in ("weight", "bias"):
        renamed[f"patch_embed.proj.{leaf}"] = state[f"embeddings.patch_embedding.{leaf}"]
        renamed[f"norm.{leaf}"] = state[f"post_layernorm.{leaf}"]
        merged = state[f"head.attention.in_proj_{leaf}"]
        renamed[f"attn_pool.q.{leaf}"], renamed[f"attn_pool.kv.{leaf}"] = merged[:dim], merged[dim:]
        renamed[f"attn_pool.proj.{leaf}"] = state[f"head.attention.out_proj.{leaf}"]
        renamed[f"attn_pool.norm.{leaf}"] = state[f"head.layernorm.{leaf}"]
        for layer in ("fc1", "fc2"):
            renamed[f"attn_pool.mlp.{layer}.{leaf}"] = state[f"head.mlp.{layer}.{leaf}"]
    return renamed | _clip_blocks(state)


def _from_dinov2(state: State) -> State:
    positions = state["embeddings.position_embeddings"]
    renamed = {"cls_token": state["embeddings.cls_token"], "pos_embed": positions}
    if "embeddings.register_tokens" in state:
        # timm's registers have no positions, and its class token bears its own.
        renamed["reg_token"] = state["embeddings.register_tokens"]
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    for leaf in ("weight", "bias"):
        renamed[f"patch_embed.proj.{leaf}"] = state[f"embeddings.patch_embeddings.projection.{leaf}"]
        renamed[f"norm.{leaf}"] = state[f"layernorm.{leaf}"]
    names = {"norm1": "norm1", "norm2": "norm2", "attention.output.dense": "attn.proj"}
    gated = "encoder.layer.0.mlp.weights_in.weight" in state
    names |= (
        {"mlp.weights_in": "mlp.fc1", "mlp.weights_out": "mlp.fc2"}
        if gated
        else {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    )
    qkv = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
    for i in range(_depth(state, "encoder.layer.")):
        renamed |= _block(state, f"encoder.layer.{i}", f"blocks.{i}", names, qkv)
        for n in (1, 2):
            renamed[f"blocks.{i}.ls{n}.gamma"] = state[f"encoder.layer.{i}.layer_scale{n}.lambda1"]
    return renamed


def _from_vit(state: State) -> State:
    renamed = {"cls_token": state["embeddings.cls_token"], "pos_embed": state["embeddings.position_embeddings"]}
    for leaf in ("weight", "bias"):
        renamed[f"patch_embed.proj.{leaf}"] = state[f"embeddings.patch_embeddings.projection.{leaf}"]
        renamed[f"norm.{leaf}"] = state[f"layernorm.{leaf}"]
    names = {"layernorm_before": "norm1", "layernorm_after": "norm2", "attention.output.dense": "attn.proj"}
    names |= {"intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}
    qkv = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
    for i in range(_depth(state, "encoder.layer.")):
        renamed |= _block(state, f"encoder.layer.{i}", f"blocks.{i}", names, qkv)
    return renamed


_CONVERTERS: dict[str, Callable[[State], State]] = {
    "clip": _from_clip,
    "siglip": _from_siglip,
    "dinov2": _from_dinov2,
    "vit": _from_vit,
}


def without_text(state: State) -> State:
    """Return the tensors of an open_clip model's vision tower, under ``visual.`` as published."""
    return {key: value for key, value in state.items() if key.startswith("visual.")}
