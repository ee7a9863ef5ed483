"""The network that is fine-tuned: an encoder, a head, and what of it is trained in a phase."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dermlab.adapt.finetune.cases import CasePooling
from dermlab.adapt.finetune.lora import ADAPTER, add_adapters
from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.models.fusion import FusionNetwork
from dermlab.models.surgery import set_drop_path, shrink_stem
from dermlab.models.towers import seeded
from dermlab.models.weights import state_fingerprint
from dermlab.training.optimiser import layers_of

if TYPE_CHECKING:
    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.models.encoders import Encoder


class FinetuneNetwork(nn.Module):
    """An encoder and a head in one: normalised photos, and perhaps questionnaires, to logits.

    Args:
        encoder: of :func:`dermlab.models.create_encoder`; its ``network`` is trained in place.
        head: ``linear``, or a :class:`dermlab.models.fusion.FusionNetwork`.
        dropout: before a linear head.
        pool: turns the photos of a case into one vector; None: a photo is a case.
        others: encoders of the second modality, the third and so on; none: all photos see the first.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Linear | FusionNetwork,
        dropout: float = 0.0,
        pool: CasePooling | None = None,
        others: Sequence[Encoder] = (),
    ) -> None:
        super().__init__()
        self.backbone = encoder
        if others:
            self.others = nn.ModuleList(others)
        if pool is not None:
            self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(
        self,
        images: torch.Tensor,
        questionnaire: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        case: torch.Tensor | None = None,
        slot: torch.Tensor | None = None,
        n_cases: int = 0,
    ) -> torch.Tensor:
        """Return logits (B, C).

        Args:
            images: normalised, (B, 3, H, W); of cases (P, 3, H, W) with B the number of cases.
            questionnaire: encoded, float (B, Q).
            present: whether anything of each questionnaire was filled in, bool (B,).
            case: which case each photo belongs to, int64 (P,).
            slot: its modality or place, int64 (P,).
            n_cases: B.
        """
        if case is None or slot is None:
            pooled = self.backbone(images)
        else:
            pooled = self.pool(self._of_towers(images, slot), case, slot, n_cases)
        if isinstance(self.head, FusionNetwork):
            return self.head(pooled, questionnaire, present)
        return self.head(self.dropout(pooled))

    def _of_towers(self, images: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """Return a vector of each photo, (P, D), by its modality's own tower where each has one."""
        encoders = self.encoders()
        if len(encoders) == 1:
            found: torch.Tensor = self.backbone(images)
            return found
        vectors = images.new_zeros(len(images), self.backbone.dim)
        for place, (_, encoder) in enumerate(encoders):
            mine = torch.nonzero(slot == place)[:, 0]
            if len(mine):
                vectors = vectors.index_copy(0, mine, encoder(images[mine]).to(vectors.dtype))
        return vectors

    def encoders(self) -> list[tuple[str, Encoder]]:
        """Return the towers with the beginning of their networks' parameters' names."""
        towers = [("backbone.network.", self.backbone)]
        if hasattr(self, "others"):
            others: list[Any] = list(self.others)
            towers += [(f"others.{place}.network.", tower) for place, tower in enumerate(others)]
        return towers


def build_network(settings: FinetuneSettings, n_classes: int, n_questionnaire: int) -> FinetuneNetwork:
    """Return the network of a recipe with its first weights, on the CPU, in fp32.

    Raises:
        InputError: the encoder will not do, or has nothing that stochastic depth could drop.
    """
    from dermlab.models.encoders import create_encoder

    encoder, _ = create_encoder(settings.encoder, seed=settings.seed, size_px=settings.size_px, fit=settings.fit)
    with seeded(int(generator(settings.seed, "network").integers(2**62))):
        if settings.channels is not None:
            encoder = _with_channels(encoder, settings.channels)
        if settings.small_stem:
            shrink_stem(encoder.network, settings.encoder)
        if settings.drop_path:
            set_drop_path(encoder.network, settings.drop_path, settings.encoder)
        if settings.lora is not None:
            add_adapters(encoder.network, settings.lora, settings.encoder)
        others = [copy.deepcopy(encoder) for _ in settings.modalities[1:]] if settings.towers == "separate" else []
        pool, dim = None, encoder.dim
        if settings.case != "image":
            n_slots = len(settings.modalities) or (
                settings.case_photos if settings.case_pooling == "concatenation" else 1
            )
            pool = CasePooling(encoder.dim, n_slots, settings.case_pooling)
            dim = pool.dim
        head: nn.Linear | FusionNetwork
        if settings.head == "linear":
            head = nn.Linear(dim, n_classes)
        else:
            head = FusionNetwork(
                dim,
                n_questionnaire,
                n_classes,
                input_dropout=settings.input_dropout,
                dropout=settings.dropout,
            )
    network = FinetuneNetwork(encoder, head, settings.dropout, pool, others)
    return network.to(memory_format=torch.channels_last) if settings.channels_last else network


def _with_channels(encoder: Encoder, channels: tuple[int, ...]) -> Encoder:
    """Return an encoder of the same timm architecture with other widths, its weights drawn."""
    from dataclasses import replace

    import timm

    from dermlab.models.encoders import Encoder, fingerprint

    old = encoder.identity
    arguments: dict[str, Any] = {"channels": tuple(channels)}
    try:
        network: Any = timm.create_model(
            old.architecture.partition(".")[0], pretrained=False, num_classes=0, **arguments
        )
    except TypeError:
        raise InputError(f"channels: {old.architecture} takes no widths; only timm's ResNets do") from None
    identity = replace(
        old,
        name=f"{old.name} {'-'.join(map(str, channels))}",
        arguments={**old.arguments, **arguments},
        dim=int(network.num_features),
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        fingerprint=fingerprint(network, old.library, old.architecture, {**old.arguments, **arguments}),
    )
    return Encoder(network.eval(), identity)


def freeze(network: FinetuneNetwork, train_from: str | None, *, whole_backbone: bool) -> list[str]:
    """Decide what a phase trains and return the names of the parameters that it does not.

    Where the backbone has LoRA's adapters, they are trained in place of its own weights.

    Args:
        network: its parameters' ``requires_grad`` are set.
        train_from: the backbone's first block that is trained, by the beginning of its parameters' names; None: all.
        whole_backbone: freeze all of the backbone.

    Raises:
        InputError: the backbone has no such block.
    """
    network.requires_grad_(True)
    inner = network.backbone.network
    names = [name for name, _ in inner.named_parameters()]
    adapters = {name for name in names if ADAPTER in name}
    frozen: set[str] = set()
    if whole_backbone:
        frozen = set(names)
    elif adapters:
        frozen = set(names) - adapters
    elif train_from is not None:
        mine = [name for name in names if name == train_from or name.startswith(f"{train_from}.")]
        if not mine:
            blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise InputError(f"train_from: the backbone has no block {train_from!r}; there are {', '.join(blocks)}")
        depth = layers_of(inner)
        first = min(depth[name] for name in mine)
        frozen = {name for name in names if depth[name] < first}
    for _, encoder in network.encoders():
        for name, parameter in encoder.network.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return [f"{prefix}{name}" for prefix, _ in network.encoders() for name in names if name in frozen]


def train_mode(network: nn.Module) -> None:
    """Set training mode, but eval mode where every parameter below a module is frozen: BatchNorm stays still too."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def frozen_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return all tensors of the modules that a phase does not train: frozen parameters and their modules' buffers."""
    state: dict[str, torch.Tensor] = {}
    state |= {name: value for name, value in network.named_parameters() if not value.requires_grad}
    for prefix, module in network.named_modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            state |= {f"{prefix}.{name}" if prefix else name: value for name, value in module.named_buffers()}
    return state


def frozen_hash(network: nn.Module) -> str:
    """Return the content name of :func:`frozen_state`, which a phase must leave as it was."""
    return state_fingerprint(frozen_state(network))


def trainable_words(network: FinetuneNetwork, frozen: list[str]) -> str:
    """Say in one line what is trained."""
    total = sum(parameter.numel() for parameter in network.parameters())
    moving = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    inner = [name for name, parameter in network.backbone.network.named_parameters() if parameter.requires_grad]
    what = "the head alone, the backbone frozen and in eval mode"
    if inner:
        what = f"the head and the backbone from {inner[0].rpartition('.')[0]} up" if frozen else "head and backbone"
        if all(ADAPTER in name for name in inner):
            what = "the head and LoRA's adapters, the backbone frozen"
    return f"training {what}: {moving:,} of {total:,} parameters"
