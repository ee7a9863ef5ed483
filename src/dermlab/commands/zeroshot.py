"""Classify a data set's photos by sentences alone, with a model of two towers: a predictions table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.core.config import Config


class ZeroshotConfig(Config):
    """Options of ``dermlab zeroshot``."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="data set folder")
    encoder: str = Field(description="a CLIP or SigLIP with its text tower: medsiglip, monet, hf:OWNER/NAME, a folder")
    prompts: Path = Field(description="YAML file: templates, classes and, if wanted, concepts and reference")
    out: Path = Field(description="predictions table to write (.parquet or .csv)")
    target: str | None = Field(None, description="target column; default the data set's first")
    batch_size: int = Field(32, ge=1, description="photos at a time")


class Prompts(Config):
    """The prompts file."""

    templates: tuple[str, ...] = Field(("a photo of {}",), description="sentences with {} where the word goes")
    classes: dict[str, tuple[str, ...]] = Field(min_length=2, description="class of the data set → words for it")
    concepts: dict[str, tuple[str, ...]] = Field({}, description="concept → words; a column concept:NAME each")
    reference: tuple[str, ...] = Field(("skin",), description="words that say nothing, against which concepts count")


@dataclass(frozen=True)
class ZeroshotResult:
    """The table that was written."""

    out: Path
    n_images: int
    n_left_out: int
    classes: tuple[str, ...]
    concepts: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [f"{self.out}: {self.n_images:,} photos × {len(self.classes)} classes, from sentences alone"]
        if self.concepts:
            lines.append(f"concepts as columns: {', '.join(self.concepts)}")
        if self.n_left_out:
            lines.append(f"{self.n_left_out:,} photos hold no image and are left out")
        return [*lines, f"next: dermlab evaluate {self.out} --out DIR"]

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return dict(vars(self))


def run(config: ZeroshotConfig) -> ZeroshotResult:
    """Embed the sentences once, the photos in batches, and write the table."""
    import numpy as np
    import pandas as pd

    from dermlab.core.config import read_yaml, validate
    from dermlab.core.errors import InputError
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import PROBABILITY, write_predictions
    from dermlab.models.two_tower import class_probabilities, concept_scores, open_two_tower, prompt_vectors

    prompts = validate(Prompts, read_yaml(config.prompts), source=str(config.prompts))
    dataset = Dataset.open(config.folder)
    known = {target.column: target for target in dataset.card.targets}
    target = config.target or next(iter(known), None)
    if target not in known:
        raise InputError(f"{config.folder}: has no target {target!r}; it has {', '.join(known) or 'none'}")
    labels = dataset.labels(target)
    unknown = sorted({str(one) for one in pd.Series(labels).dropna()} - set(prompts.classes))
    if unknown:
        raise InputError(f"{config.prompts}: classes: has no words for {', '.join(unknown)}")
    model = open_two_tower(config.encoder)
    vectors = prompt_vectors(model, prompts.classes, prompts.templates)
    images, valid = _embed(model, dataset, config.batch_size)
    frame = pd.DataFrame(
        {
            "image_id": dataset.image_ids,
            "unit": dataset.units(),
            "group": dataset.groups(),
            "target": target,
            "split": "test",
            "fold": 0,
            "repeat": 0,
            "seed": 0,
            "label": pd.Series(labels, dtype="string"),
        }
    )
    probabilities = class_probabilities(model, images, vectors)
    for code, name in enumerate(prompts.classes):
        frame[PROBABILITY + name] = probabilities[:, code]
    if prompts.concepts:
        concepts = prompt_vectors(model, prompts.concepts, prompts.templates)
        reference = prompt_vectors(model, {"reference": prompts.reference}, prompts.templates)[0]
        scores = concept_scores(model, images, concepts, reference)
        for code, name in enumerate(prompts.concepts):
            frame[f"concept:{name}"] = scores[:, code]
    frame = frame[valid]
    if frame.empty:
        raise InputError(f"{config.folder}: no photo can be read")
    meta = {
        "run_id": "zeroshot",
        "model": f"{config.encoder} zero-shot",
        "target": target,
        "kind": known[target].kind,
        "classes": list(prompts.classes),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "pooling": dataset.card.pooling,
        "calibration": None,
        "lineage": {"encoder": config.encoder, "predicted": dataset.card.name},
        "warnings": ["probabilities are a softmax over the prompts and not calibrated"],
    }
    write_predictions(config.out, frame, meta)
    n_left_out = int(np.sum(~valid))
    return ZeroshotResult(config.out, len(frame), n_left_out, tuple(prompts.classes), tuple(prompts.concepts))


def _embed(model: Any, dataset: Any, batch_size: int) -> tuple[Any, Any]:
    """Return the photos' unit vectors (N, D) and which rows hold an image."""
    import numpy as np
    import torch

    from dermlab.core.progress import progress
    from dermlab.data.loader import Normalise
    from dermlab.data.pixel_cache import open_pixels

    pixels = open_pixels(dataset.paths, model.preprocess.recipe())
    normalise = Normalise(model.preprocess.mean, model.preprocess.std)
    parts = []
    with progress(f"embed {model.name}", len(pixels)) as advance:
        for start in range(0, len(pixels), batch_size):
            batch = pixels.batch(np.arange(start, min(start + batch_size, len(pixels))))
            parts.append(model.images(normalise(torch.from_numpy(batch))))
            advance(len(batch))
    pixels.flush()
    valid = np.array([i not in pixels.failures for i in range(len(pixels))], bool)
    return np.concatenate(parts), valid
