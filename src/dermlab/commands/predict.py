"""Predict a data set with a saved run: a predictions table, with labels where the data set has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.device import Precision
from dermlab.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from dermlab.adapt.finetune.run import FittedFinetune
    from dermlab.adapt.probe import FittedProbe
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import Features


class PredictConfig(Config):
    """Options of ``dermlab predict``."""

    positional: ClassVar[tuple[str, ...]] = ("run", "data")

    run: Path = Field(
        description="run folder of a probe, of fine-tuning, or of a bake-off's ensemble (runs/ensemble); one that was "
        "pushed and downloaded too"
    )
    data: Path = Field(description="data set folder")
    out: Path = Field(description="predictions table to write, .parquet or .csv")
    split: str | None = Field(
        None,
        description="split of the data set whose parts the rows are marked with; none: train where seen, else test",
    )
    labels: bool = Field(
        True,
        description="write the data set's labels into the table; turned off where its classes are others than the "
        "model's (evaluate then takes a label map)",
    )
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")
    batch_size: int | None = Field(None, ge=1, description="photos at a time in the embedding; none chooses by device")


@dataclass(frozen=True)
class PredictResult:
    """The table written and what a reader has to know."""

    path: Path
    n: int
    n_failed: int
    n_seen: int
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        return [*(f"warning: {text}" for text in self.warnings), f"{words.plural(self.n, 'photo')}: {self.path}"]

    def to_json(self) -> Any:
        """Return path and counts."""
        return {
            "predictions": self.path,
            "n": self.n,
            "n_failed": self.n_failed,
            "n_seen": self.n_seen,
            "warnings": self.warnings,
        }


def run(config: PredictConfig) -> PredictResult:
    """Predict ``config.data`` with the model of ``config.run``, or with the ensemble whose folder it is."""
    import numpy as np

    from dermlab.adapt.finetune.run import open_fitted
    from dermlab.adapt.probe import contaminations, decisions
    from dermlab.bench.ensemble import ensemble_members
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import write_predictions

    if config.out.suffix not in (".parquet", ".csv"):
        raise InputError(f"{config.out}: --out must end in .parquet or .csv")
    mixed = ensemble_members(config.run)
    members = [(weight, open_fitted(path)) for weight, path in mixed or [(1.0, config.run)]]
    dataset = Dataset.open(config.data)
    probe = members[0][1]
    warnings: list[str] = []
    labels = _labels(probe, dataset, warnings) if config.labels else None
    total = sum(weight for weight, _ in members)
    probabilities = np.zeros((len(dataset), len(probe.classes)))
    usable, seen = np.ones(len(dataset), bool), np.zeros(len(dataset), bool)
    for weight, member in members:
        one, seen_by_it, readable = _predict(member, dataset, config)
        probabilities += weight / total * one
        seen |= seen_by_it
        usable &= readable
    if not usable.all():
        warnings.append(f"{words.plural(int((~usable).sum()), 'photo')} cannot be read and have no row")
    for _, member in members:
        warnings += [text for text in contaminations(member.model["encoder"], dataset) if text not in warnings]
    n_seen = int((seen & usable).sum())
    is_told = all(member.tells_what_it_saw for _, member in members)
    if not is_told:
        warnings.append(
            f"{config.run} does not say which photos it was trained on (what is pushed to a hub leaves that out), so "
            "whether any of these were cannot be told: figures on them hold only if they cannot have been"
        )
    if n_seen:
        warnings.append(
            f"{words.plural(n_seen, 'photo')} of {int(usable.sum()):,} were seen in training, they or another of the "
            "same patient: their rows (seen_in_training) say nothing about new patients"
            + ("" if config.split else " and are marked as split train, which evaluate does not score")
            + ("; none is left to score" if config.split is None and n_seen == int(usable.sum()) else "")
        )
    frame = _frame(probe, dataset, config.split, labels, probabilities, seen)[usable]
    if not is_told:
        frame = frame.drop(columns="seen_in_training")
    if frame.empty:
        raise InputError(f"{config.data}: no photo can be read")
    meta = {
        "run_id": config.run.resolve().name,
        "model": probe.model["name"] if mixed is None else "ensemble",
        "target": probe.model["target"]["column"],
        "kind": probe.model["target"]["kind"],
        "classes": list(probe.classes),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "pooling": dataset.card.pooling,
        "calibration": None,
        **({} if mixed is not None else decisions(config.run)),
        "fingerprint": _fingerprint(members),
        "lineage": _lineage(members, dataset, is_mixture=mixed is not None),
        "warnings": warnings,
    }
    write_predictions(config.out, frame, meta)
    return PredictResult(config.out, len(frame), int((~usable).sum()), n_seen, tuple(warnings))


def _predict(
    member: FittedProbe | FittedFinetune, dataset: Dataset, config: PredictConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities (N, C), who was seen in training and whose photo can be read, bool (N,) each."""
    import numpy as np

    from dermlab.adapt.probe import FittedProbe

    if isinstance(member, FittedProbe):
        features = _features(member, dataset, config)
        found, seen = member.predict(dataset, features)
        return found, seen, np.ones(len(dataset), bool) if features is None else features.valid
    from dermlab.core.device import resolve

    own = member.model["settings"]["precision"]
    runtime = resolve(config.device, own if config.precision == "auto" else config.precision)
    found, seen = member.predict(dataset, runtime=runtime, batch_size=config.batch_size)
    readable = ~np.isnan(found).any(axis=1)
    return np.where(readable[:, None], found, 0.0), seen, readable


def _features(probe: FittedProbe, dataset: Dataset, config: PredictConfig) -> Features | None:
    """Return the features that a probe wants, None for one that looks at no photo; other weights are refused."""
    from dermlab.core.device import resolve
    from dermlab.features.extract import embed

    if probe.model["encoder_name"] is None:
        return None
    features = embed(
        dataset,
        probe.model["encoder_name"],
        runtime=resolve(config.device, config.precision),
        batch_size=config.batch_size,
        seed=probe.model["seed"],
    )
    trained = probe.model["encoder"]
    if features.encoder["fingerprint"] != trained["fingerprint"]:
        raise InputError(
            f"{probe.path}: was fitted on {trained['name']} with weights {trained['fingerprint'][:12]}, but "
            f"the weights here are {features.encoder['fingerprint'][:12]}; install the same weights"
        )
    return features


def _fingerprint(members: Sequence[tuple[float, FittedProbe | FittedFinetune]]) -> str:
    """Return a model's fingerprint, or that of a mixture of several in these shares."""
    from dermlab.core.fingerprint import hash_json

    own = [str(probe.model["report"]["fingerprint"]) for _, probe in members]
    return own[0] if len(own) == 1 else hash_json([[weight for weight, _ in members], own])


def _lineage(
    members: Sequence[tuple[float, FittedProbe | FittedFinetune]], dataset: Dataset, *, is_mixture: bool
) -> dict[str, Any]:
    """Return where a table comes from: of a mixture each member's name, weight and lineage."""
    predicted = {"predicted": dataset.card.name, "predicted_card": dataset.card.licence_card}
    if not is_mixture:
        return {**members[0][1].model["lineage"], **predicted}
    return {
        "members": [{"model": one.model["name"], "weight": weight, **one.model["lineage"]} for weight, one in members],
        **predicted,
    }


def _labels(probe: FittedProbe | FittedFinetune, dataset: Dataset, warnings: list[str]) -> np.ndarray | None:
    """Return the data set's labels for the model's target, None where it has none; unknown classes are one line."""
    import pandas as pd

    name = probe.model["target"]["column"]
    if name not in {target.column for target in dataset.card.targets}:
        warnings.append(f"{dataset.folder} has no target {name!r}: the table holds no labels")
        return None
    labels = dataset.labels(name)
    target = dataset.card.target(name)
    if (target.kind == "multilabel") != (probe.model["target"]["kind"] == "multilabel"):
        raise InputError(
            f"{dataset.folder}: {name!r} is {target.kind}, the model's is {probe.model['target']['kind']}; --no_labels"
        )
    if target.kind == "multilabel":
        known = pd.DataFrame(labels, columns=list(target.classes))
        labels = known.reindex(columns=list(probe.classes)).to_numpy()  # a label that the data do not tell is unknown
        unknown = sorted(set(target.classes) - set(probe.classes))
    else:
        unknown = sorted({str(label) for label in pd.Series(labels).dropna()} - set(probe.classes))
    if unknown:
        raise InputError(
            f"{dataset.folder}: holds classes of {name!r} that the model does not know: {', '.join(unknown)}; it knows "
            f"{', '.join(probe.classes)}; to test it all the same: --no_labels, then 'dermlab evaluate --label_map'"
        )
    return labels


def _frame(
    probe: FittedProbe | FittedFinetune,
    dataset: Dataset,
    split: str | None,
    labels: np.ndarray | None,
    probabilities: np.ndarray,
    seen: np.ndarray,
) -> Any:
    """Return the table, one row an image."""
    import numpy as np
    import pandas as pd

    from dermlab.adapt.probe import subgroup_columns
    from dermlab.evaluate.predictions import PROBABILITY, truth_columns

    frame = pd.DataFrame(
        {
            "image_id": dataset.image_ids,
            "unit": dataset.units(),
            "group": dataset.groups(),
            "target": probe.model["target"]["column"],
            "split": np.where(seen, "train", "test"),
            "fold": 0,
            "repeat": 0,
            "seed": 0,
        }
    )
    if labels is None:
        several = probe.model["target"]["kind"] == "multilabel"
        labels = np.full((len(dataset), len(probe.classes)), np.nan) if several else np.full(len(dataset), None)
    frame = frame.join(truth_columns(labels, probe.classes))
    for code, name in enumerate(probe.classes):
        frame[PROBABILITY + name] = probabilities[:, code]
    frame["seen_in_training"] = seen
    for column in subgroup_columns(dataset):
        frame[column] = dataset.manifest[column].to_numpy()
    if split is None:
        return frame
    rows = dataset.read_split(split)
    if len(rows.groupby(["repeat", "fold"])) > 1:
        raise InputError(f"{dataset.folder}: split {split!r} has several folds; its rows have no single part")
    frame["split"] = rows["split"].to_numpy()
    return frame
