"""What an encoder wants done to a photo before it sees it: size, fit, resampling, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    from dermlab.data.pixel_cache import PixelRecipe

FITS = ("squash", "crop", "pad", "square")
PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}
OPEN_CLIP_FITS = {"shortest": "crop", "longest": "pad", "squash": "squash"}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "area")


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that belongs to an encoder and travels with it into every export.

    Attributes:
        size_px: side of the square input in pixels.
        fit: ``"crop"`` (short side to ``size_px / crop_fraction``, centre crop), ``"squash"`` (both sides, aspect lost)
            ``"pad"`` (long side, borders added) or ``"square"`` (borders added, then both sides).
        crop_fraction: part of the resized image that the centre crop keeps, in (0, 1].
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"lanczos"`` or ``"area"``.
        antialias: whether shrinking averages over all pixels it covers (as Pillow always does).
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
    """

    size_px: int
    fit: str = "crop"
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    antialias: bool = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise InputError(f"preprocess.fit: {self.fit!r} is not one of {', '.join(FITS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"preprocess.interpolation: {self.interpolation!r} is not one of {', '.join(INTERPOLATIONS)}"
            )
        if self.size_px < 1 or not 0 < self.crop_fraction <= 1:
            raise InputError(
                f"preprocess: size_px must be positive and crop_fraction in (0, 1], not {self.size_px} "
                f"and {self.crop_fraction}"
            )

    def recipe(self) -> PixelRecipe:
        """Return the part that the pixel cache does: everything up to the uint8 square."""
        from dermlab.data.pixel_cache import PixelRecipe

        return PixelRecipe(
            size_px=self.size_px,
            fit=self.fit,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            antialias=self.antialias,
        )

    def changed(self, *, size_px: int | None = None, fit: str | None = None) -> Preprocess:
        """Return a copy for another input size or fit; another fit than ``"crop"`` keeps the whole image."""
        result = self if size_px is None else replace(self, size_px=size_px)
        if fit is not None and fit != result.fit:
            result = replace(result, fit=fit, crop_fraction=result.crop_fraction if fit == "crop" else 1.0)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Build from :meth:`to_dict`'s dictionary. Raises :class:`InputError` where fields are missing or unknown."""
        try:
            known = dict(fields)
            known["mean"], known["std"] = _three(known["mean"]), _three(known["std"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"preprocess: not a preprocessing description ({error})") from None


def from_timm(config: Mapping[str, Any]) -> Preprocess:
    """Translate what ``timm.data.resolve_model_data_config`` returns.

    Raises:
        InputError: the model wants another number of channels or an input that is not square.
    """
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise InputError(f"the model wants {channels}×{height}×{width} inputs; dermlab gives square RGB")
    fit = {"center": "crop", "squash": "squash", "border": "pad"}[config.get("crop_mode") or "center"]
    interpolation = config.get("interpolation") or "bicubic"
    return Preprocess(
        size_px=int(height),
        fit=fit,
        crop_fraction=float(config.get("crop_pct") or 1.0),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        mean=_three(config["mean"]),
        std=_three(config["std"]),
    )


def from_open_clip(config: Mapping[str, Any], vision: Mapping[str, Any]) -> Preprocess:
    """Translate the ``preprocess_cfg`` of an open_clip config; what it leaves out is open_clip's default, CLIP's own.

    Args:
        config: ``preprocess_cfg``.
        vision: ``vision_cfg``, which has the size where the first has none.

    Raises:
        InputError: the input is not one square.
    """
    size = config.get("size") or vision.get("image_size") or 224
    if not isinstance(size, int):
        size = _square({"height": int(size[0]), "width": int(size[1])}, "the open_clip config")
    mode = config.get("resize_mode") or "shortest"
    if mode not in OPEN_CLIP_FITS:
        raise InputError(f"open_clip's resize_mode {mode!r} is not one of {', '.join(OPEN_CLIP_FITS)}")
    return Preprocess(
        size_px=size,
        fit=OPEN_CLIP_FITS[mode],
        interpolation=config.get("interpolation") or "bicubic",
        mean=_three(config.get("mean") or CLIP_MEAN),
        std=_three(config.get("std") or CLIP_STD),
    )


def from_torchvision(transforms: Any) -> Preprocess:
    """Translate a torchvision weights' ``transforms()`` (its ImageClassification preset)."""
    size_px, resize_px = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    return Preprocess(
        size_px=size_px,
        fit="crop",
        crop_fraction=crop_fraction(size_px, resize_px),
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=_three(transforms.mean),
        std=_three(transforms.std),
    )


def from_transformers(processor: Any) -> Preprocess:
    """Translate a transformers image processor: its size, crop, resampling, statistics and padding.

    Raises:
        InputError: it resizes to something that is not one square.
    """

    def value(name: str, default: Any = None) -> Any:
        found = getattr(processor, name, None)
        return default if found is None else found

    kind = type(processor).__name__
    if not value("do_resize", True):
        raise InputError(f"{kind} does not resize its images; dermlab needs inputs of one size")
    size, crop = _sides(value("size", {})), _sides(value("crop_size", {}))
    short = size.get("shortest_edge")
    fraction = 1.0
    if value("do_center_crop", False) and crop:
        size_px, fit = _square(crop, kind), "crop"
        if short is not None:
            fraction = crop_fraction(size_px, int(short))
        else:
            resized = _square(size, kind)
            fit, fraction = ("squash" if resized >= size_px else "crop"), crop_fraction(size_px, resized)
    elif short is not None and value("crop_pct") is not None:  # ConvNeXT's processors: below 384 px they crop
        size_px, fit = int(short), "crop" if int(short) < 384 else "squash"
        fraction = float(value("crop_pct")) if fit == "crop" else 1.0
    elif "height" in size:
        size_px, fit = _square(size, kind), "squash"
    elif "longest_edge" in size and value("do_pad", False):
        size_px, fit = int(size["longest_edge"]), "pad"
    else:
        raise InputError(f"{kind} resizes to {size or 'nothing'}, which is not one square; dermlab cannot follow it")
    if value("rescale_factor", 1 / 255) != 1 / 255 and abs(value("rescale_factor") * 255 - 1) > 1e-4:
        raise InputError(f"{kind} rescales by {value('rescale_factor')}, not by 1/255; dermlab cannot follow it")
    normalises = value("do_normalize", True)
    return Preprocess(
        size_px=size_px,
        fit=fit,
        crop_fraction=fraction,
        interpolation=PIL_FILTERS.get(int(value("resample", 3)), "bicubic"),
        mean=_three(value("image_mean", (0.0, 0.0, 0.0))) if normalises else (0.0, 0.0, 0.0),
        std=_three(value("image_std", (1.0, 1.0, 1.0))) if normalises else (1.0, 1.0, 1.0),
    )


def crop_fraction(size_px: int, resize_px: int) -> float:
    """Return the fraction for which ``floor(size_px / fraction)`` is exactly ``resize_px`` (232 for 224 / 0.9655…)."""
    fraction = size_px / resize_px
    while math.floor(size_px / fraction) < resize_px:
        fraction = math.nextafter(fraction, 0.0)
    return fraction


def _sides(size: Any) -> dict[str, int]:
    """Return a processor's size as a plain dictionary of the sides that are set."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    names = ("height", "width", "shortest_edge", "longest_edge")
    found = {name: size.get(name) if isinstance(size, Mapping) else getattr(size, name, None) for name in names}
    return {name: int(side) for name, side in found.items() if side is not None}


def _square(size: Mapping[str, int], kind: str) -> int:
    height, width = size.get("height"), size.get("width")
    if height is None or height != width:
        raise InputError(f"{kind} wants {height}×{width} inputs; dermlab gives squares")
    return int(height)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
