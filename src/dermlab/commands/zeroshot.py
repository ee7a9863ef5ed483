"""Classify a data set's photos by sentences alone, with a model of two towers: a predictions table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.device import Precision


class Photos(Config):
    """Which photos, read by which model of two towers, and how."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="data set folder")
    encoder: str = Field(
        description="model with a text tower: medsiglip, monet, biomedclip, dermlip_vit_b16, hf:OWNER/NAME, a folder"
    )
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="arithmetic; auto goes by the device")
    batch_size: int | None = Field(None, ge=1, description="photos at a time; default 32 on a CPU, 128 on a GPU")


class ZeroshotConfig(Photos):
    """Options of ``dermlab zeroshot``."""

    prompts: str | None = Field(
        None, description="YAML file of words for the classes, or the name of a set; default: the set of these classes"
    )
    out: Path = Field(description="predictions table to write (.parquet or .csv)")
    target: str | None = Field(None, description="target column; default the card's default one")


@dataclass(frozen=True)
class ZeroshotResult:
    """The table that was written."""

    out: Path
    prompts: str
    n_images: int
    n_left_out: int
    classes: tuple[str, ...]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [
            f"{self.out}: {words.plural(self.n_images, 'photo')} × {len(self.classes)} classes, from sentences alone "
            f"(prompts {self.prompts})"
        ]
        if self.n_left_out:
            lines.append(f"{words.plural(self.n_left_out, 'photo')} cannot be read and have no row")
        lines += [f"warning: {text}" for text in self.warnings]
        return [*lines, f"next: dermlab evaluate {self.out} --out DIR"]

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return dict(vars(self))


def run(config: ZeroshotConfig) -> ZeroshotResult:
    """Embed the sentences once, take the photos' vectors from the feature store, and write the table."""
    import numpy as np
    import pandas as pd

    from dermlab.adapt.probe import contaminations, subgroup_columns
    from dermlab.core.errors import InputError
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import PROBABILITY, TRUTH, write_predictions
    from dermlab.models.prompt_sets import find_prompts
    from dermlab.models.two_tower import class_probabilities, label_probabilities, open_two_tower, prompt_vectors

    dataset = Dataset.open(config.folder)
    if not dataset.card.targets:
        raise InputError(f"{config.folder}: its card names no target, so there are no classes to tell apart")
    target = dataset.card.target(config.target)
    name, prompts = find_prompts(config.prompts, target.classes, data_set=dataset.card.name)
    model = open_two_tower(config.encoder)
    vectors = prompt_vectors(model, prompts.words_for(target.classes), prompts.templates)
    images, valid, encoder = embed_photos(config, dataset, model)
    labels = dataset.labels(target.column)
    frame = pd.DataFrame(
        {
            "image_id": dataset.image_ids,
            "unit": dataset.units(),
            "group": dataset.groups(),
            "target": target.column,
            "split": "test",
            "fold": 0,
            "repeat": 0,
            "seed": 0,
        }
    )
    several = target.kind == "multilabel"
    if several:
        frame[[TRUTH + one for one in target.classes]] = labels
    else:
        frame["label"] = pd.Series(labels, dtype="string")
    probabilities = (label_probabilities if several else class_probabilities)(model, images, vectors)
    frame[[PROBABILITY + one for one in target.classes]] = probabilities
    described = dataset.manifest[[one for one in subgroup_columns(dataset) if one not in frame]]
    frame = pd.concat([frame, described], axis=1)
    told = contaminations(encoder, dataset)
    meta = {
        "run_id": "zeroshot",
        "model": f"{config.encoder} zero-shot ({name})",
        "target": target.column,
        "kind": target.kind,
        "classes": list(target.classes),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "pooling": dataset.card.pooling,
        "calibration": None,
        "lineage": lineage(encoder, dataset),
        "prompts": prompts.model_dump(mode="json"),
        "warnings": ["probabilities come from similarities to sentences and are not calibrated", *told],
    }
    write_predictions(config.out, frame[valid], meta)
    return ZeroshotResult(config.out, name, int(valid.sum()), int(np.sum(~valid)), tuple(target.classes), tuple(told))


def embed_photos(config: Photos, dataset: Any, model: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the photos' unit vectors (N, D), which rows hold an image (N,), and what embedded them.

    The encoder's own vectors come from the feature store, so a second set of sentences costs no second pass.

    Raises:
        InputError: no photo can be read.
    """
    from dermlab.core.device import resolve
    from dermlab.core.errors import InputError
    from dermlab.features import embed

    features = embed(
        dataset,
        config.encoder,
        runtime=resolve(config.device, config.precision),
        batch_size=config.batch_size,
    )
    if not features.valid.any():
        raise InputError(f"{config.folder}: no photo can be read")
    return model.images(features.values), features.valid, features.encoder


def lineage(encoder: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Return where a table comes from that a model of two towers made of a data set without training."""
    from dermlab.adapt.probe import made_from

    terms = made_from(dataset, encoder)
    return {
        "encoder": encoder["name"],
        "encoder_fingerprint": encoder["fingerprint"],
        **{key: terms[key] for key in ("cards", "own_cards")},  # nothing was fitted to the data set: not its card
        "predicted": dataset.card.name,
        "predicted_card": dataset.card.licence_card,
    }
