"""What the team has today: a run of dermlab or anyone's predictions, brought onto the test photos of the bake-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from dermlab.bench.config import BakeoffConfig
from dermlab.core.errors import InputError
from dermlab.core.words import metric_words
from dermlab.evaluate.columns import Columns
from dermlab.evaluate.metrics import METRICS
from dermlab.evaluate.predictions import Predictions, read_predictions, truth_columns
from dermlab.evaluate.summary import summarise

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset


@dataclass(frozen=True)
class Baseline:
    """The model in use.

    Attributes:
        name: what the report calls it.
        predictions: its rows for the photos that the bake-off tests, all as ``test``.
        metrics: as ``metrics.json``.
        warnings: what a reader should know.
    """

    name: str
    predictions: Predictions
    metrics: dict[str, Any]
    warnings: tuple[str, ...]


def read_baseline(config: BakeoffConfig, dataset: Dataset, target: str, split: pd.DataFrame) -> Baseline | None:
    """Read the baseline and keep its answers on the photos that are tested; labels come from the data set.

    Raises:
        InputError: the table cannot be read, is of other classes, or does not cover the photos that are tested.
    """
    if config.baseline is None:
        return None
    classes = dataset.card.target(target).classes
    columns = config.baseline_columns or Columns()
    if not columns.classes:
        columns = columns.model_copy(update={"classes": classes})
    wanted = dataset.card.target(target)
    labels = truth_columns(dataset.labels(target), classes)
    truth = pd.DataFrame({"image_id": dataset.image_ids, "unit": dataset.units(), "group": dataset.groups()}).join(
        labels
    )
    given = read_predictions(config.baseline, columns, truth=truth)
    labelled = truth.loc[labels.notna().any(axis=1), "image_id"]
    tested = set(split.loc[split["split"] == "test", "image_id"]) & set(labelled)
    frame = given.frame[given.frame["image_id"].isin(tested)]
    warnings = list(given.warnings)
    if (frame["split"] != "test").any():
        seen = frame.loc[frame["split"] != "test", "image_id"].nunique()
        warnings.append(f"{seen} of the photos tested here were among the ones it was chosen on: it is flattered")
    frame = frame[frame["split"] == "test"]
    lacking = sorted(tested - set(frame["image_id"]))
    if lacking:
        raise InputError(
            f"baseline {config.baseline}: has no test answer for {len(lacking):,} of the {len(tested):,} photos tested "
            f"here (such as {lacking[0]!r}); a fair comparison needs all of them"
        )
    card = dataset.card
    meta = {"unit": card.unit, "group_by": dataset.group_column(), "pooling": card.pooling, "target": target}
    meta |= {"kind": wanted.kind}
    predictions = given.with_frame(frame.reset_index(drop=True), **meta)
    if sorted(predictions.classes) != sorted(classes):
        strange = sorted(set(predictions.classes) ^ set(classes))
        raise InputError(
            f"baseline {config.baseline}: its classes differ from {dataset.folder}'s: {', '.join(strange)}"
        )
    if METRICS[config.metric].probabilities and not predictions.has_probabilities:
        label = metric_words(config.metric)[0]
        raise InputError(
            f"baseline {config.baseline}: holds hard answers, which have no {label}; choose another metric:"
        )
    name = config.baseline_name or str(given.meta.get("model") or "baseline")
    metrics = summarise(predictions, n_boot=config.n_boot, seed=config.seed)
    return Baseline(name, predictions, metrics, tuple(dict.fromkeys(warnings)))
