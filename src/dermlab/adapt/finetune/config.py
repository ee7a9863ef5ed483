"""What a fine-tuning config may say; light to import. The files in ``configs/finetune`` are examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dermlab.adapt.config import DEFAULT_SPLIT, Decision
from dermlab.core.config import Config
from dermlab.core.device import Precision

NetworkHead = Literal["linear", "mlp", "fusion"]
Metric = Literal["top1", "balanced_accuracy", "macro_f1", "auroc", "auprc", "quadratic_kappa", "log_loss"]


class Lora(Config):
    """Adapters of low rank beside the backbone's frozen layers (Hu et al. 2022)."""

    rank: int = Field(8, ge=1, le=1024, description="rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="their weight is alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="before the adapters")
    targets: tuple[str, ...] = Field((), description="layers, by the end of their names; none: every linear layer")


class FinetuneSettings(Config):
    """A recipe: data, network, phases, optimiser, loss, views, choice. Defaults suit a pretrained ConvNet."""

    encoder: str = Field(
        description="the backbone: any encoder's name, with +random for weights from scratch, or a path"
    )
    size_px: int | None = Field(None, ge=16, le=2048, description="another input size than the encoder's own")
    fit: Literal["squash", "crop", "pad"] | None = Field(None, description="another fit than the encoder's own")
    small_stem: bool = Field(
        False, description="random ResNets: a 3×3 stem of stride 1 without pooling, for photos under 64 px"
    )
    channels: tuple[int, int, int, int] | None = Field(
        None, description="random timm ResNets: widths of the four stages in place of 64, 128, 256, 512"
    )
    head: NetworkHead = Field("linear", description="linear, mlp, or fusion (with the questionnaire's branch)")
    dropout: float = Field(0.0, ge=0, lt=1, description="before the linear layer; in mlp and fusion of the branches")
    input_dropout: float = Field(0.0, ge=0, lt=1, description="mlp and fusion: of the pooled vector")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last block; earlier ones less")
    questionnaire_dropout: float = Field(0.1, ge=0, lt=1, description="fusion: share of questionnaires blanked")

    case: Literal["image", "lesion", "patient", "unit"] = Field(
        "image",
        description="what the network is shown at once: an image, or the photos of a lesion, patient or unit",
    )
    modalities: tuple[str, ...] = Field((), description="case: which modalities it shows, as clinical, dermoscopy")
    case_photos: int = Field(4, ge=1, le=64, description="case: photos it shows at once, of each modality")
    case_pooling: Literal["attention", "concatenation"] = Field(
        "attention", description="case: gated attention over its photos, or modalities (else places) side by side"
    )
    towers: Literal["shared", "separate"] = Field("shared", description="case: one backbone, or one for each modality")
    photo_dropout: float = Field(0.1, ge=0, lt=1, description="case: share of photos left out in training, never all")

    split: str = Field(DEFAULT_SPLIT, description="name of the split; main is made (60/20/20, grouped) where missing")
    target: str | None = Field(None, description="what is predicted; none means the card's default target")
    max_train_samples: int | None = Field(None, ge=2, description="a seeded, stratified part of train")
    max_val_samples: int | None = Field(None, ge=1, description="a seeded, stratified part of val")
    val_sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: the val that chooses the epoch holds as many of each class, seeded"
    )
    waive: tuple[str, ...] = Field((), description="what may pass by name, as group-overlap; told in every result")

    frozen_epochs: int = Field(
        1, ge=0, description="epochs in which only the head is trained, the backbone in eval mode"
    )
    finetune_epochs: int = Field(10, ge=0, description="epochs in which the backbone is trained too")
    lora: Lora | None = Field(
        None, description="finetune adapters in place of the backbone's weights: {rank: 8, alpha: 16, targets: [qkv]}"
    )
    train_from: str | None = Field(None, description="finetune only from this block of the backbone up, as layer3")
    batch_size: int = Field(64, ge=1, description="photos (cases, where case says so) in a batch of one device")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")

    optimiser: str = Field("adamw", description="adamw, sgd, rmsprop, or a name of timm's")
    learning_rate: float = Field(1e-4, gt=0, description="of the backbone while it is finetuned")
    head_learning_rate: float | None = Field(None, gt=0, description="of the head then; none: as the backbone")
    frozen_learning_rate: float = Field(1e-3, gt=0, description="of the head while the backbone is frozen")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer over that of the layer above")
    weight_decay: float = Field(0.05, ge=0, description="of matrices and filters; norms and biases get none")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["cosine", "step", "constant", "one_cycle"] = Field(
        "cosine", description="cosine, step (÷ 10 at 50 and 75 %), constant; one_cycle: cosine after 30 % warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up at the start of each phase")
    clip_norm: float | None = Field(1.0, gt=0, description="gradients above this norm are scaled down; none: never")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="average the weights, as .999; the average is judged")

    loss: Literal["cross_entropy", "focal", "ordinal", "cost", "hierarchy"] = Field(
        "cross_entropy",
        description="cross_entropy, focal; ordinal (CORN), cost or hierarchy (by the card's cost matrix or branches)",
    )
    cost_weight: float = Field(1.0, ge=0, description="loss cost: of the expected cost beside cross-entropy")
    hierarchy_alpha: float = Field(0.5, ge=0, description="loss hierarchy: 0 is cross-entropy, more favours the branch")
    decision: Decision = Field(
        "most_probable", description="most_probable, or cost: of least expected cost by the card"
    )
    focal_gamma: float = Field(2.0, ge=0, description="focal: how much easy photos count less")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over all classes")
    class_weight: Literal["balanced"] | None = Field(None, description="balanced weighs the classes alike in the loss")
    sampling: Literal["natural", "balanced"] = Field("natural", description="balanced draws classes equally often")

    augmentation: Literal["none", "light", "strong"] = Field("light", description="preset of random views")
    augmentation_changes: dict[str, Any] = Field({}, description="single fields of the preset changed")
    mixup: float = Field(0.0, ge=0, description="MixUp's alpha; 0: off")
    cutmix: float = Field(0.0, ge=0, description="CutMix's alpha; 0: off; with mixup one of the two, half the batches")
    crop_from_px: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="shorter side of the cached photos that random crops are cut from; none: 8/7 of the network's size "
        "where augmentation crops photos over 64 px and the fit is crop or squash, else the network's own photo",
    )
    colour_constancy: Literal["none", "grey_world", "shades_of_grey"] = Field(
        "none", description="none, grey_world or shades_of_grey (p = 6): of every photo, at train and at test alike"
    )
    tta: Literal["none", "flips", "dihedral"] = Field("none", description="views averaged at val and test: 1, 4 or 8")

    metric: Metric = Field("log_loss", description="on val: chooses the epoch and stops")
    stop_on: tuple[Literal["diverged", "non-finite"], ...] = Field(
        (), description="alarms that end the training at once: diverged, non-finite"
    )
    patience: int | None = Field(None, ge=1, description="epochs without a better val after which a phase ends")
    seed: int = Field(0, ge=0, description="seed of everything")
    checkpoint_steps: int = Field(500, ge=1, description="steps between savings within an epoch")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates of the intervals")
    logger: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        None, description="write the curves for tensorboard, mlflow or wandb too, into the fold's folder"
    )
    logger_online: bool = Field(False, description="mlflow, wandb: to the server that their variables name instead")
    devices: int = Field(1, ge=1, description="devices of this kind, a process each")
    nodes: int = Field(1, ge=1, description="machines, started by SLURM or torchrun")
    rate_scaling: Literal["none", "linear", "sqrt"] = Field(
        "none", description="with several devices: multiply the rates by their number, or by its root"
    )
    channels_last: bool = Field(True, description="memory layout of filters that CPUs and tensor cores prefer")
    compile: bool = Field(False, description="torch.compile the network; where that fails it is trained as it is")
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice in place of keeping them: less memory, about a third more time"
    )
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")

    @model_validator(mode="after")
    def _fields_go_together(self) -> FinetuneSettings:
        if self.frozen_epochs + self.finetune_epochs == 0:
            raise ValueError("frozen_epochs and finetune_epochs are both 0: nothing would be trained")
        if self.frozen_epochs and not self.finetune_epochs and self.train_from:
            raise ValueError("train_from says where finetuning begins, but finetune_epochs is 0")
        if (self.small_stem or self.channels) and not self.encoder.endswith("+random"):
            raise ValueError("small_stem and channels change the network: they need an encoder with +random")
        if self.channels and not self.encoder.startswith("timm:"):
            raise ValueError("channels: only timm's ResNets take widths, as timm:resnet18+random")
        if self.lora is not None and (self.train_from or not self.finetune_epochs):
            raise ValueError(
                "lora trains adapters in finetune_epochs, of which there must be some; not with train_from"
            )
        if self.case == "image" and (self.modalities or self.towers == "separate"):
            raise ValueError("modalities and towers are of cases: set case: lesion, patient or unit")
        if self.towers == "separate" and len(self.modalities) < 2:
            raise ValueError("towers: separate wants a tower for each modality: name at least two in modalities")
        if self.case != "image" and (self.mixup or self.cutmix):
            raise ValueError("mixup and cutmix mix single photos, not cases: set both to 0")
        if "size_px" in self.augmentation_changes:
            raise ValueError("augmentation_changes: size_px is the network's, set at the top level")
        from dermlab.data.augment import preset

        preset(self.augmentation, self.size_px or 224, **self.augmentation_changes)
        return self
