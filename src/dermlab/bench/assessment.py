"""What can be said of a winner beyond its metrics, and what the data set has to tell for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dermlab.evaluate.assessment import Assessed, Assessment, Known, assess, write_parts

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import Predictions

FOLDER = "assessment"


def assess_winner(
    predictions: Predictions,
    dataset: Dataset,
    split: pd.DataFrame,
    out: str | Path,
    settings: Assessment,
    *,
    n_boot: int,
    seed: int,
) -> Assessed:
    """Assess a candidate's predictions with all that the data set knows, and write ``assessment/`` in the folder.

    Args:
        predictions: the candidate's table, ``val`` rows and all.
        dataset: the data set: columns for subgroups, hierarchy and costs of the target.
        split: the split's rows, for the number of training images of each class.
        out: the bake-off's folder.
        settings: what is asked.
        n_boot: bootstrap replicates.
        seed: of the bootstraps.
    """
    from dermlab.evaluate.levels import with_columns

    described = with_columns(predictions, dataset.manifest)
    known = known_of(dataset, predictions, split=split)
    assessed = assess(described, settings, known, n_boot=n_boot, seed=seed)
    write_parts(Path(out) / FOLDER, assessed)
    return assessed


def known_of(
    dataset: Dataset, predictions: Predictions, target: str | None = None, split: pd.DataFrame | None = None
) -> Known:
    """Return what a data set knows beyond a table: the target's hierarchy and costs, and training images by class.

    Args:
        dataset: the data set.
        predictions: a table about it; where its classes are not the target's, nothing of these is known.
        target: name of the target; None is the table's where the data set has it, else the default one.
        split: rows of the split that the model was trained on; None: the one that the table's lineage names, if any.
    """
    names = [item.column for item in dataset.card.targets]
    own = str(predictions.meta.get("target"))
    wanted = dataset.card.target(target or (own if own in names else None)) if names else None
    if wanted is None or set(wanted.classes) != set(predictions.classes):
        return Known()
    costs = wanted.cost_matrix
    if costs is not None:
        order = [wanted.classes.index(name) for name in predictions.classes]
        costs = tuple(tuple(costs[row][column] for column in order) for row in order)
    lineage = predictions.meta.get("lineage")
    trained_on = lineage.get("split") if isinstance(lineage, dict) else None
    if split is None and isinstance(trained_on, str) and trained_on in dataset.split_names():
        split = dataset.read_split(trained_on)
    counts = None
    if split is not None and wanted.kind != "multilabel":
        counts = _train_counts(dataset, wanted.column, split, predictions.classes)
    return Known(wanted.hierarchy, costs, counts)


def _train_counts(dataset: Dataset, target: str, split: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, int]:
    """Return the training images of each class, the mean over folds and repeats."""
    import pandas as pd

    rows = split[split["split"] == "train"]
    labels = pd.Series(dataset.labels(target), index=dataset.image_ids)
    n_folds = len(split[["repeat", "fold"]].drop_duplicates())
    found = labels.reindex(rows["image_id"]).value_counts()
    return {name: round(int(found.get(name, 0)) / n_folds) for name in classes}
