"""What a pretraining config may say; light to import. The files in ``configs/pretrain`` are examples."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from dermlab.core.config import Config
from dermlab.core.device import Precision
from dermlab.pretrain.views import ViewGroup, default_views

Method = Literal["dino", "ibot", "simclr", "byol", "panderm"]
DISTILLING = ("dino", "ibot")
SIZES = ((20_000, 1024), (50_000, 2048), (100_000, 4096), (200_000, 16_384), (500_000, 32_768))
"""Up to so many photos, so many prototypes; beyond, 65,536. From lightly-train's defaults for DINO."""


class PretrainSettings(Config):
    """A recipe. What is none here is filled in by method and number of photos, and stands in the run's config.yaml."""

    model_config = ConfigDict(populate_by_name=True)

    method: Method = Field(description="dino, ibot, simclr, byol or panderm")
    network: str = Field("vit_tiny", description="vit_tiny/small/base/large, resnet18/50, convnext_tiny, timm:NAME")
    from_encoder: str | None = Field(None, alias="from", description="go on from this encoder's weights")
    size_px: int = Field(224, ge=16, le=1024, description="side of a global view, and the encoder's input")
    patch_size: int | None = Field(None, ge=1, description="transformers: side of a patch; none: the network's own")
    small_stem: bool = Field(False, description="ResNets: a 3×3 stem of stride 1 without pooling, for under 64 px")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the student's last block")

    split: str = Field("main", description="whose test photos, and all of their groups, are left out")
    fold: int = Field(0, ge=0, description="of that split, where it has several")
    include_test: bool = Field(False, description="pretrain on test photos too; every test on them is then no test")

    cache_px: int | None = Field(None, ge=16, description="shorter side of the cached photos; none: 8/7 of size_px")
    local_views: int | None = Field(None, ge=0, description="dino, ibot: small views; none: 8, 6 for up to 20,000")
    local_size_px: int | None = Field(None, ge=8, description="their side; none: 3/7 of size_px, in whole patches")
    global_scale: tuple[float, float] | None = Field(None, description="share of the photo in a global view")
    local_scale: tuple[float, float] = Field((0.05, 0.4), description="share of the photo in a local view")
    view_changes: dict[str, Any] = Field({}, description="fields of every view's augmentation changed")
    views: tuple[ViewGroup, ...] | None = Field(None, description="all views written out; wins over the fields above")

    epochs: int | None = Field(None, ge=1, description="passes over the photos; none: by their number, 100 to 400")
    batch_size: int = Field(64, ge=2, description="photos in a batch; the last, smaller one is left out")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    optimiser: str = Field("adamw", description="adamw, sgd, or a name of timm's, as lars")
    learning_rate: float | None = Field(
        None, gt=0, description="at the top; none: 5e-4 (dino, ibot, a 10th with --from)"
    )
    warmup_epochs: float | None = Field(None, ge=0, description="of the rate; none: a tenth, at most 10")
    final_learning_rate: float = Field(0.002, ge=0, le=1, description="at the end, as a share of the top")
    weight_decay: float = Field(0.04, ge=0, description="at the start")
    final_weight_decay: float | None = Field(None, ge=0, description="at the end; none: .4 (dino, ibot), else the same")
    clip_norm: float | None = Field(3.0, gt=0, description="gradients above this norm are scaled down; none: never")
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="rate of a layer over the one above; none: 1, .75 from"
    )
    backbone_warmup_epochs: int | None = Field(
        None, ge=0, description="the backbone stands still; none: 0, 1 with --from"
    )

    momentum: float | None = Field(None, ge=0, lt=1, description="of the target at the start; none: .99 to .996")
    final_momentum: float = Field(1.0, ge=0, le=1, description="of the target at the end")
    out_dim: int | None = Field(
        None, ge=2, description="prototypes, or length of the projections; none: by method, size"
    )
    hidden_dim: int | None = Field(None, ge=1, description="of the heads; none: 2048, byol 4096")
    bottleneck_dim: int = Field(256, ge=1, description="of the heads of dino and ibot")
    norm_last_layer: bool = Field(True, description="dino, ibot: rows of the last layer keep unit length")
    freeze_last_layer_epochs: float = Field(1.0, ge=0, description="dino, ibot: the last layer stands still at first")
    student_temperature: float = Field(0.1, gt=0, description="dino, ibot")
    warmup_teacher_temperature: float | None = Field(None, gt=0, description="at first; none: .02 to .04 by size")
    teacher_temperature: float | None = Field(None, gt=0, description="later; none: .02 to .07 by number of photos")
    patch_teacher_temperature: float = Field(0.07, gt=0, description="ibot: of the patches, later")
    teacher_temperature_warmup_epochs: float | None = Field(None, ge=0, description="none: 30 % of the run, at most 30")
    center_momentum: float = Field(0.9, ge=0, lt=1, description="dino, ibot: of the centres")
    shared_head: bool = Field(True, description="ibot: one head for class and patches")
    patch_out_dim: int | None = Field(None, ge=2, description="ibot: prototypes of the patches; none: as out_dim")
    class_weight: float = Field(1.0, ge=0, description="ibot: of the class loss")
    patch_weight: float = Field(1.0, ge=0, description="ibot: of the patch loss")
    mask_ratios: tuple[tuple[float, float], ...] = Field(
        ((0.0, 0.0), (0.3, 0.2)), description="ibot: pairs ratio ± spread, one drawn for each view"
    )
    temperature: float = Field(0.1, gt=0, description="simclr")
    head_batch_norm: bool = Field(True, description="simclr, byol: heads norm over the batch of one process")
    teacher: str = Field("clip_vit_b16", description="panderm: the CLIP whose tokens are foretold")
    mask_ratio: float = Field(0.5, gt=0, lt=1, description="panderm: share of the patches that is hidden")
    regressor_depth: int = Field(4, ge=1, description="panderm: blocks of cross-attention")

    monitor_epochs: int | None = Field(None, ge=1, description="epochs between two looks; none: a twentieth of the run")
    monitor_photos: int = Field(2000, ge=10, description="labelled photos of train, and of val, that are looked at")
    monitor_k: int = Field(20, ge=1, description="neighbours asked")
    monitor_target: str | None = Field(None, description="labels of the look; none: each card's default target")
    rollback_drop: float = Field(
        0.05, gt=0, description="--from: kNN fallen by so much below its best thrice in a row ends"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which weights become encoder/: best by kNN on val, or last"
    )
    seed: int = Field(0, ge=0, description="seed of everything")
    checkpoint_steps: int = Field(500, ge=1, description="steps between savings within an epoch")
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    devices: int = Field(1, ge=1, description="devices of this kind, a process each; each has batch_size photos a step")
    nodes: int = Field(1, ge=1, description="machines, each with so many devices (torchrun or SLURM starts them)")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")

    @model_validator(mode="after")
    def _fields_go_together(self) -> PretrainSettings:
        if self.from_encoder and (self.patch_size or self.small_stem):
            raise ValueError(
                "patch_size and small_stem change the network: they go with random weights, not with --from"
            )
        if (
            self.method in ("ibot", "panderm")
            and self.network.startswith(("resnet", "convnext"))
            and not self.from_encoder
        ):
            raise ValueError(f"network: {self.method} hides patches, which {self.network} has not; write vit_tiny")
        if self.small_stem and not self.network.startswith("resnet"):
            raise ValueError("small_stem: only ResNets have that stem")
        if self.shared_head and self.patch_out_dim not in (None, self.out_dim):
            raise ValueError("patch_out_dim: a shared head has one number of prototypes, out_dim")
        if self.views is not None:
            self._check_views(self.views)
        return self

    def _check_views(self, views: tuple[ViewGroup, ...]) -> None:
        n_global = sum(group.count for group in views if group.name == "global")
        if n_global != (1 if self.method == "panderm" else 2):
            raise ValueError(f"views: {self.method} takes {1 if self.method == 'panderm' else 2} global views")
        names = [group.name for group in views]
        if names != sorted(names):
            raise ValueError("views: the global ones come first")
        if "local" in names and self.method not in DISTILLING:
            raise ValueError(f"views: {self.method} has no local views")

    def resolved(self, n_photos: int) -> PretrainSettings:
        """Return the recipe for a number of photos with nothing left open.

        DINO's by size are lightly-train's: prototypes in steps, teacher temperatures and momentum between 20,000
        photos and a million by the logarithm of their number.
        """
        share = float(np.clip(np.log(max(1, n_photos) / 20_000) / np.log(50), 0, 1))
        distils, fresh = self.method in DISTILLING, self.from_encoder is None
        epochs = self.epochs or int(np.clip(round(4_000_000 / max(1, n_photos) / 10) * 10, 100, 400))
        prototypes = next((k for most, k in SIZES if n_photos <= most), 65_536)
        dims = {"dino": prototypes, "ibot": min(prototypes, 8192), "simclr": 128, "byol": 256, "panderm": 2}
        rates = {"dino": 5e-4, "ibot": 5e-4, "simclr": 1e-3, "byol": 1e-3, "panderm": 1e-3}
        patch = self.patch_size or 16
        local_px = self.local_size_px or max(patch, round(self.size_px * 3 / 7 / patch) * patch)
        scales = {"panderm": (0.4, 1.0), "ibot": (0.25, 1.0), "dino": (0.4, 1.0)}
        global_scale = self.global_scale or scales.get(self.method, (0.2, 1.0))
        local_views = self.local_views if self.local_views is not None else (6 if n_photos <= 20_000 else 8)
        temperature = self.teacher_temperature or round(0.02 + 0.05 * share, 4)
        filled: dict[str, Any] = {
            "epochs": epochs,
            "cache_px": self.cache_px or round(self.size_px * 8 / 7),
            "local_views": local_views if distils else 0,
            "local_size_px": local_px,
            "global_scale": global_scale,
            "learning_rate": self.learning_rate or rates[self.method] * (1.0 if fresh else 0.1),
            "warmup_epochs": self.warmup_epochs if self.warmup_epochs is not None else min(10.0, epochs / 10),
            "final_weight_decay": (0.4 if distils else self.weight_decay)
            if self.final_weight_decay is None
            else self.final_weight_decay,
            "layer_decay": self.layer_decay or (1.0 if fresh else 0.75),
            "backbone_warmup_epochs": (0 if fresh else 1)
            if self.backbone_warmup_epochs is None
            else self.backbone_warmup_epochs,
            "momentum": (round(0.99 + 0.006 * share, 4) if distils else 0.99)
            if self.momentum is None
            else self.momentum,
            "out_dim": self.out_dim or dims[self.method],
            "hidden_dim": self.hidden_dim or (4096 if self.method == "byol" else 2048),
            "patch_out_dim": self.patch_out_dim or self.out_dim or dims[self.method],
            "teacher_temperature": temperature,
            "warmup_teacher_temperature": self.warmup_teacher_temperature
            or min(temperature, round(0.02 + 0.02 * share, 4)),
            "teacher_temperature_warmup_epochs": min(30.0, 0.3 * epochs)
            if self.teacher_temperature_warmup_epochs is None
            else self.teacher_temperature_warmup_epochs,
            "monitor_epochs": self.monitor_epochs or max(1, epochs // 20),
            "views": self.views
            or default_views(
                self.method,
                self.size_px,
                local_views=local_views,
                local_size_px=local_px,
                global_scale=global_scale,
                local_scale=self.local_scale,
                changes=self.view_changes,
            ),
        }
        return type(self).model_validate({**dict(self), **filled})
