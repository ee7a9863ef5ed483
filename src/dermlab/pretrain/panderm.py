"""PanDerm's masked latent modelling: from half of the patches, say what CLIP would say of every patch.

Yan et al. 2025, "A multimodal vision foundation model for clinical dermatology", methods; the objective is that of CAE
v2 (Zhang et al. 2022). Written from the papers' descriptions. Nothing is decoded to pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dermlab.core.errors import InputError
from dermlab.pretrain.masks import block_masks
from dermlab.pretrain.networks import positions, visible_tokens
from dermlab.pretrain.targets import Step, Values, full_precision

PROJECTIONS = ("visual_projection.weight", "head.weight", "visual.proj", "proj", "visual.head.proj.weight")
"""Under which names CLIP-like checkpoints keep the projection of their image tower."""


def alignment_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean of 1 - cosine over all tokens; outputs and targets (B, N, D)."""
    return (1 - nn.functional.cosine_similarity(outputs, targets, dim=-1)).mean()


def panderm_step(
    encoder: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    regressor: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    head: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    visible: torch.Tensor,
    masked: torch.Tensor,
) -> Step:
    """Return the loss of a batch: cosine alignment with the teacher's tokens, on visible and on masked patches.

    Args:
        encoder: (images, visible) → latents (B, V, D) of the visible patches, the only ones it sees.
        regressor: (latents, visible, masked) → latents (B, M, D) foreseen for the masked patches.
        head: latents → vectors of the teacher's dimension (…, T).
        images: (B, 3, S, S), normalised.
        targets: the frozen teacher's projected tokens (B, N, T), in reading order, N = V + M.
        visible: int64 (B, V), numbers of the visible patches.
        masked: int64 (B, M), numbers of the others.
    """
    latents = encoder(images, visible)
    foreseen = regressor(latents, visible, masked)
    outputs = head(torch.cat([latents, foreseen], dim=1))
    order = torch.cat([visible, masked], dim=1)
    with full_precision(images):
        outputs = outputs.float()
        wanted = targets.float().gather(1, order[..., None].expand(-1, -1, targets.shape[-1]))
        loss = alignment_loss(outputs, wanted)
        with torch.no_grad():
            n_visible = visible.shape[1]
            parts = {
                "visible_loss": alignment_loss(outputs[:, :n_visible], wanted[:, :n_visible]),
                "masked_loss": alignment_loss(outputs[:, n_visible:], wanted[:, n_visible:]),
            }
        return Step(loss, {"loss": loss.detach(), **parts})


class _Block(nn.Module):
    """Cross-attention from the masked patches to all, then a two-layer network; norms before both."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.norm_query, self.norm_key, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, n_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self, masked: torch.Tensor, visible: torch.Tensor, at_masked: torch.Tensor, at_visible: torch.Tensor
    ) -> torch.Tensor:
        everything = torch.cat([visible, masked], dim=1)
        keys = self.norm_key(everything + torch.cat([at_visible, at_masked], dim=1))
        query = self.norm_query(masked + at_masked)
        masked = masked + self.attention(query, keys, self.norm_key(everything), need_weights=False)[0]
        return masked + self.mlp(self.norm_mlp(masked))


class Regressor(nn.Module):
    """Foresees the latents of masked patches from those of the visible ones (CAE, Chen et al. 2023, section 3.1).

    Args:
        dim: of the latents.
        depth: blocks of cross-attention.
        n_heads: of the attention.
    """

    def __init__(self, dim: int, *, depth: int = 4, n_heads: int = 4) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.blocks = nn.ModuleList(_Block(dim, n_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, latents: torch.Tensor, visible: torch.Tensor, masked: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """Return latents (B, M, D).

        Args:
            latents: of the visible patches, (B, V, D).
            visible: int64 (B, V).
            masked: int64 (B, M).
            places: position embeddings of all patches, (N, D).
        """
        at_visible, at_masked = places[visible], places[masked]
        queries = self.mask_token.expand(*masked.shape, -1)
        for block in self.blocks:
            queries = block(queries, latents, at_masked, at_visible)
        return self.norm(queries)


class ClipTeacher:
    """The image tower of a CLIP, frozen: its projected patch tokens at a wanted grid.

    Args:
        name: of the encoder factory.
        grid: rows (and columns) of tokens; the tower gets images of grid × its own patch (CLIP-L/14 at 196 px for 14).
        mean: by which the student's images were normalised.
        std: likewise.

    Raises:
        InputError: the tower has no patch tokens.
        MissingWeightsError: its weights are not here.
    """

    def __init__(self, name: str, grid: int, *, mean: Sequence[float], std: Sequence[float]) -> None:
        from dermlab.models.encoders import create_encoder, locate_weights
        from dermlab.models.weights import read_state, weights_in_folder

        first, _ = create_encoder(name)
        self.size_px = grid * _patch_of(first, name)
        encoder, _ = create_encoder(name, size_px=self.size_px)
        self.encoder = encoder.requires_grad_(False)
        self.card, self.fingerprint = encoder.licence_card, encoder.fingerprint
        self.projection: torch.Tensor | None = None
        found = locate_weights(name)
        file = weights_in_folder(found) if found is not None and found.is_dir() else found
        if file is not None:
            state = read_state(file)
            key = next((key for key in PROJECTIONS if key in state), None)
            if key is not None and encoder.dim in state[key].shape:
                matrix = state[key].float()
                self.projection = matrix.T if matrix.shape[1] == encoder.dim else matrix
        self.dim = encoder.dim if self.projection is None else int(self.projection.shape[1])
        self._undo = torch.tensor(std).view(1, 3, 1, 1), torch.tensor(mean).view(1, 3, 1, 1)
        own = encoder.preprocess
        self._do = torch.tensor(own.std).view(1, 3, 1, 1), torch.tensor(own.mean).view(1, 3, 1, 1)

    @torch.no_grad()
    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Return the projected tokens (B, grid², T) of the student's images (B, 3, S, S)."""
        device = images.device
        self.encoder.to(device)
        (std, mean), (own_std, own_mean) = ((a.to(device), b.to(device)) for a, b in (self._undo, self._do))
        pixels = images.float() * std + mean
        if images.shape[-1] != self.size_px:
            pixels = nn.functional.interpolate(
                pixels, size=(self.size_px, self.size_px), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        tokens = self.encoder.tokens((pixels - own_mean) / own_std).float()
        return tokens if self.projection is None else tokens @ self.projection.to(device)


def _patch_of(encoder: Any, name: str) -> int:
    """Return the side of an encoder's patches in pixels."""
    embedding = getattr(encoder.network, "patch_embed", None)
    patch = embedding.patch_size[0] if embedding is not None else getattr(encoder.network.config, "patch_size", None)
    if not encoder.has_tokens or not isinstance(patch, int):
        raise InputError(f"teacher {name}: has no patch tokens; PanDerm needs the image tower of a CLIP")
    return patch


class PanDerm(nn.Module):
    """Encoder, regressor and head, as a run trains them; the teacher stands beside and is in no checkpoint.

    Args:
        backbone: an encoder over timm's VisionTransformer, pooled over its patches.
        dim: length of its tokens.
        teacher: has ``dim`` and ``tokens(images) → (B, N, dim)`` at the student's grid.
        depth: of the regressor.
        n_heads: of the regressor.
        mask_ratio: share of the patches that the encoder does not see.
    """

    n_outputs = 0

    def __init__(
        self, backbone: Any, dim: int, teacher: Any, *, depth: int = 4, n_heads: int = 4, mask_ratio: float = 0.5
    ) -> None:
        super().__init__()
        self.student = backbone
        self.regressor = Regressor(dim, depth=depth, n_heads=n_heads)
        self.student_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, teacher.dim))
        self.mask_ratio = mask_ratio
        self._teacher = (teacher,)  # in a tuple it is no part of the module's state

    def draw_masks(
        self, grid: tuple[int, int], images: np.ndarray, *, seed: int, epoch: int, n_global: int
    ) -> list[torch.Tensor]:
        """Return the mask of a batch's only view, bool (B, rows, columns); every image has equally many hidden."""
        ratios = [(self.mask_ratio, 0.0)]
        masks = block_masks(grid, images, seed=seed, epoch=epoch, view=0, ratios=ratios, min_block=min(16, grid[0]))
        return [torch.from_numpy(masks)]

    def forward(self, views: Sequence[torch.Tensor], values: Values, masks: Sequence[torch.Tensor]) -> Step:
        """Return the step's loss; the schedules touch nothing in it."""
        grid = masks[0].shape[-2:]
        hidden = masks[0].flatten(1)
        # A stable sort of False and True: the visible ones first, each kind in reading order.
        order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
        n_visible = hidden.shape[1] - int(hidden[0].sum())
        network = self.student.network
        places = positions(network, (int(grid[0]), int(grid[1])))
        return panderm_step(
            lambda images, visible: visible_tokens(network, images, visible)[1],
            lambda latents, visible, masked: self.regressor(latents, visible, masked, places),
            self.student_head,
            views[0],
            self._teacher[0].tokens(views[0]),
            order[:, :n_visible],
            order[:, n_visible:],
        )

    def after_step(self, momentum: float) -> None:
        """Do nothing: the teacher is frozen."""

    @property
    def encoder(self) -> nn.Module:
        """What is exported and monitored."""
        return self.student
