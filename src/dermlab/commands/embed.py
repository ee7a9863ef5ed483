"""Compute an encoder's features of a data set's photos and keep them in the feature store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from dermlab.core.config import Config
from dermlab.core.device import Precision


class EmbedConfig(Config):
    """Options of ``dermlab embed``."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="data set folder")
    encoder: str = Field(description="encoder's name, folder or weights file, or histogram (see dermlab encoders)")
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="arithmetic; auto goes by the device")
    batch_size: int | None = Field(None, ge=1, description="photos at a time; default 32 on a CPU, 128 on a GPU")
    threads: int | None = Field(None, ge=1, description="decoding threads; default one for each CPU")
    size: int | None = Field(None, ge=8, le=4096, description="input size in pixels; default the encoder's own")
    fit: Literal["squash", "crop", "pad", "square"] | None = Field(
        None, description="how a photo is fitted into the square; default the encoder's own"
    )
    seed: int = Field(0, description="of +random weights")
    out: Path | None = Field(None, description="also write them to this .npz file (image_id, features, valid)")


@dataclass(frozen=True)
class EmbedResult:
    """What the feature store holds of the data set now."""

    folder: Path
    encoder: dict[str, Any]
    runtime: dict[str, str]
    n_images: int
    n_valid: int
    n_computed: int
    seconds: float
    images_per_second: float
    failures: dict[str, int]
    out: Path | None

    def lines(self) -> list[str]:
        """Return what a person reads."""
        known = self.n_valid - self.n_computed
        rate = f" at {self.images_per_second:,.1f}/s" if self.n_computed else ""
        lines = [
            f"{self.folder}: {self.n_valid:,} of {self.n_images:,} photos × {self.encoder['dim']:,} numbers of "
            f"{self.encoder['name']}; {self.n_computed:,} computed now{rate}, {max(known, 0):,} known",
            f"on {self.runtime['device']} in {self.runtime['precision']} ({self.runtime['reason']})",
        ]
        lines += [f"without an image: {count:,} × {reason}" for reason, count in self.failures.items()]
        return lines + ([f"written to {self.out}"] if self.out is not None else [])

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return dict(vars(self))


def run(config: EmbedConfig) -> EmbedResult:
    """Embed what is not in the store yet."""
    from dermlab.core.device import resolve
    from dermlab.data.dataset import Dataset
    from dermlab.features import embed

    dataset = Dataset.open(config.folder)
    features = embed(
        dataset,
        config.encoder,
        runtime=resolve(config.device, config.precision),
        batch_size=config.batch_size,
        threads=config.threads,
        size_px=config.size,
        fit=config.fit,
        seed=config.seed,
    )
    if config.out is not None:
        _write(config.out, dataset.image_ids, features.values, features.valid)
    return EmbedResult(
        folder=config.folder,
        encoder=features.encoder,
        runtime=features.runtime,
        n_images=len(dataset),
        n_valid=int(features.valid.sum()),
        n_computed=features.n_computed,
        seconds=features.seconds,
        images_per_second=features.images_per_second,
        failures=dict(Counter(features.failures.values()).most_common()),
        out=config.out,
    )


def _write(path: Path, image_ids: Any, values: Any, valid: Any) -> None:
    import numpy as np

    from dermlab.core.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, image_id=image_ids, features=values, valid=valid)
