"""Build or complete the pixel cache of a data set, so that later runs never decode."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from dermlab.commands.cache import bytes_text
from dermlab.core.config import Config
from dermlab.core.errors import InputError


class DataCacheConfig(Config):
    """Options of ``dermlab data cache``."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="data set folder")
    size: int = Field(ge=8, le=4096, description="side of the square in pixels; for --fit short the shorter side")
    fit: Literal["squash", "crop", "pad", "square", "short"] = Field(
        "crop",
        description="squash both sides to the size; crop: shorter side to the size, then the centre; pad: longer side "
        "to the size, black borders; short: shorter side to the size, nothing cut, for training crops",
    )
    crop_fraction: float = Field(1.0, gt=0, le=1, description="with crop: share of the resized photo that is kept")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = Field(
        "bicubic", description="resampling filter"
    )
    codec: Literal["raw", "jpeg95"] = Field("raw", description="keep pixels as they are, or as JPEG at quality 95")
    budget: float | None = Field(
        None, gt=0, description="GB the pixels may take: jpeg95 is used where raw would take more"
    )
    threads: int | None = Field(None, ge=1, description="decoding threads; default one for each CPU")


@dataclass(frozen=True)
class DataCacheResult:
    """What the cache holds of the data set now."""

    folder: Path
    n_images: int
    n_decoded: int
    n_failed: int
    failures: dict[str, int]
    recipe: dict[str, Any]
    store: Path
    store_bytes: int
    seconds: float
    kept: bool

    def lines(self) -> list[str]:
        """Return what a person reads."""
        rate = f", {self.n_decoded / self.seconds:,.0f}/s" if self.n_decoded and self.seconds > 0 else ""
        ready = self.n_images - self.n_failed
        lines = [
            f"{self.folder}: {ready:,} of {self.n_images:,} photos ready at {self.recipe['size_px']} px "
            f"({self.recipe['fit']}, {self.recipe['codec']}); {self.n_decoded:,} decoded now in "
            f"{self.seconds:.1f} s{rate}",
            f"cache: {self.store} ({bytes_text(self.store_bytes)}, shared with every data set at this recipe)",
        ]
        if not self.kept:
            lines.append("the cache could not be written: nothing new was kept")
        lines += [f"without an image: {count:,} × {reason}" for reason, count in self.failures.items()]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return asdict(self)


def run(config: DataCacheConfig) -> DataCacheResult:
    """Decode what is missing and seal it."""
    import shutil
    import time

    from dermlab.core import progress
    from dermlab.core.folders import cache_root
    from dermlab.data.dataset import Dataset
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels

    if config.fit == "short" and config.crop_fraction != 1:
        raise InputError("--crop_fraction cuts nothing with --fit short; leave it out, or use --fit crop")
    dataset = Dataset.open(config.folder)
    recipe = PixelRecipe(
        size_px=config.size,
        fit=config.fit,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
        codec=config.codec,
    )
    n = len(dataset)
    if config.budget is not None and recipe.estimated_bytes(n) > config.budget * 1e9:
        recipe = recipe.model_copy(update={"codec": "jpeg95"})
        progress.note(f"raw pixels would take more than {config.budget:g} GB: kept as JPEG at quality 95")
    start = time.perf_counter()
    pixels = open_pixels(dataset.paths, recipe, threads=config.threads)
    root = cache_root()
    missing = recipe.estimated_bytes(pixels.n_missing)
    free = shutil.disk_usage(root).free if root.is_dir() else missing
    if missing > free:
        hint = "; --codec jpeg95 takes about a sixth" if recipe.codec == "raw" else ""
        progress.warn(f"about {bytes_text(missing)} are needed in {root}, {bytes_text(free)} are free{hint}")
    pixels.fill(f"pixels of {config.folder.name}")
    return DataCacheResult(
        folder=config.folder,
        n_images=n,
        n_decoded=pixels.n_decoded,
        n_failed=len(pixels.failures),
        failures=dict(Counter(pixels.failures.values()).most_common(20)),
        recipe=recipe.model_dump(),
        store=pixels.folder,
        store_bytes=pixels.size_bytes(),
        seconds=time.perf_counter() - start,
        kept=pixels.writable,
    )
