"""The predictions table: one row per image, split, fold, repeat and seed, with the label and a probability per class.

Reads what dermlab wrote and what others wrote (CSV or Parquet; probabilities, logits or hard labels; any column
names). See docs/reference/predictions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.delimited import find_delimiter, read_rows, read_text
from dermlab.core.errors import InputError, first_line
from dermlab.core.files import atomic_path, read_json, write_json
from dermlab.evaluate.columns import Columns

PROBABILITY = "p:"
TRUTH = "y:"
KEYS = ("split", "fold", "repeat", "seed")
LEADING = ("image_id", "unit", "group", "target", *KEYS, "label", "prediction")
POOLINGS = ("mean", "max")


@dataclass(frozen=True)
class Predictions:
    """A checked predictions table.

    Attributes:
        frame: ``image_id, unit, group, target, split, fold, repeat, seed, label`` and either ``p:<class>`` columns
            (float64, rows sum to 1) or a ``prediction`` column; multi-label tables hold ``y:<class>`` (0, 1, NaN)
            in place of ``label`` and probabilities that are independent of each other; then subgroup columns.
        classes: class names in the order of the probability columns.
        meta: the sidecar: run_id, model, target, kind, classes, unit, group_by, pooling, calibration, lineage,
            warnings; ``decision`` and ``cost_matrix`` where costs decide; ``thresholds`` of a multi-label table; and
            ``source``, the file it came from.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]
    meta: dict[str, Any]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.frame)

    @property
    def source(self) -> str:
        """The file the table came from, for messages."""
        return str(self.meta.get("source", "predictions"))

    @property
    def kind(self) -> str:
        """The target's kind: binary, multiclass, multilabel or ordinal."""
        return str(self.meta.get("kind", "multiclass"))

    @property
    def has_probabilities(self) -> bool:
        """Whether the table holds probabilities (else hard labels)."""
        return f"{PROBABILITY}{self.classes[0]}" in self.frame.columns

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures has to know about the table."""
        return list(self.meta.get("warnings", []))

    def probabilities(self) -> np.ndarray:
        """Return the probabilities as float64 of shape (rows, classes)."""
        return self.frame[[PROBABILITY + name for name in self.classes]].to_numpy(np.float64)

    def truth(self) -> np.ndarray:
        """Return the true class as int64 codes (rows,), -1 where unknown.

        Multi-label: float64 (rows, classes) of 0, 1 and NaN where unknown.
        """
        if self.kind == "multilabel":
            return self.frame[[TRUTH + name for name in self.classes]].to_numpy(np.float64)
        return class_codes(self.frame["label"], self.classes)

    def predicted(self) -> np.ndarray:
        """Return the predicted class as int64 codes (rows,): the first of the most probable, or the hard label.

        Where the sidecar says ``decision: cost`` it is the class of least expected cost under its ``cost_matrix``.
        """
        if self.has_probabilities:
            if self.meta.get("decision") == "cost":
                order = [self.meta["classes"].index(name) for name in self.classes]
                return least_cost(self.probabilities(), np.asarray(self.meta["cost_matrix"])[np.ix_(order, order)])
            return self.probabilities().argmax(axis=1)
        return class_codes(self.frame["prediction"], self.classes)

    def part(self, split: str) -> Predictions:
        """Return the rows of one split.

        Raises:
            InputError: the table has no such split.
        """
        rows = self.frame["split"] == split
        if not rows.any():
            present = ", ".join(str(name) for name in self.frame["split"].unique())
            met = self.frame["seen_in_training"] if "seen_in_training" in self.frame else pd.Series([False])
            if bool((met.astype(str).str.casefold() == "true").all()):
                raise InputError(
                    f"{self.source}: the model was trained on all of these photos, or on others of their patients, so "
                    f"that none is left for {split!r}; predict photos that it has not seen"
                )
            raise InputError(f"{self.source}: no rows of split {split!r}; there are {present}")
        return self.with_frame(self.frame[rows].reset_index(drop=True))

    def test(self) -> Predictions:
        """Return the rows of the test split."""
        return self.part("test")

    def with_frame(self, frame: pd.DataFrame, **meta: Any) -> Predictions:
        """Return a table of the same classes with other rows, and ``meta`` entries replaced."""
        return Predictions(frame, self.classes, {**self.meta, **meta})


def least_cost(probabilities: np.ndarray, cost_matrix: Any) -> np.ndarray:
    """Return the decision of least expected cost for each case, int64 (N,); ties go to the more probable class.

    Elkan 2001, "The foundations of cost-sensitive learning", eq. 1.

    Args:
        probabilities: float (N, C).
        cost_matrix: (C, C), row = the true class, column = the decision.
    """
    expected = probabilities @ np.asarray(cost_matrix, np.float64)
    cheapest = expected <= expected.min(axis=1, keepdims=True) + 1e-12
    return np.where(cheapest, probabilities, -1.0).argmax(axis=1)


def class_codes(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Return each label's place in ``classes`` as int64, -1 where it is null or none of them."""
    return pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64)


def truth_columns(labels: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Return the columns of a table that hold the truth: ``label``, or ``y:<class>`` of a multi-label target.

    Args:
        labels: class names, object (N,), None where missing; or float (N, C) of 0, 1 and NaN.
        classes: the classes in order.
    """
    if labels.ndim == 1:
        return pd.DataFrame({"label": pd.Series(labels, dtype="string")})
    return pd.DataFrame(labels, columns=[TRUTH + name for name in classes])


def sidecar_path(path: str | Path) -> Path:
    """Return where the sidecar of a predictions table lies: the file's name with ``.json`` appended."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def write_predictions(path: str | Path, frame: pd.DataFrame, meta: dict[str, Any]) -> Predictions:
    """Check a predictions table and write it with its sidecar, each file whole or not at all.

    Args:
        path: ``.parquet`` or ``.csv``.
        frame: at least ``image_id``, the truth and the ``p:<class>`` columns; ``unit`` and ``group`` default to the
            image, ``split`` to ``test``, ``fold``, ``repeat`` and ``seed`` to 0, ``target`` to the sidecar's.
        meta: the sidecar; ``classes`` gives the order of the classes where given.

    Returns:
        The table as :func:`read_predictions` would return it.

    Raises:
        InputError: the table is unusable; the text names row and column.
    """
    from dermlab.evaluate.intake import admit

    path = Path(path)
    columns = Columns(classes=tuple(meta.get("classes") or ()))
    predictions = admit(frame.reset_index(drop=True), dict(meta), columns, source=str(path))
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            predictions.frame.to_csv(temporary, index=False)
        else:
            predictions.frame.to_parquet(temporary, index=False)
    write_json(sidecar_path(path), {key: value for key, value in predictions.meta.items() if key != "source"})
    return predictions


def read_predictions(
    path: str | Path, columns: Columns | None = None, *, truth: pd.DataFrame | None = None
) -> Predictions:
    """Read and check a predictions table.

    Args:
        path: a CSV or Parquet file, or a run folder that holds ``predictions.parquet``.
        columns: the column names of a table that another tool wrote; a table with a dermlab sidecar needs none.
        truth: labels for a table that has none: ``image_id``, ``label``, and perhaps ``unit``, ``group`` and subgroup
            columns, which win over the table's own.

    Raises:
        InputError: the file is missing, unreadable or cannot be scored honestly; the text names row and column.
    """
    from dermlab.evaluate.intake import admit

    path = Path(path)
    if path.is_dir():
        path = path / "predictions.parquet"
    sidecar = sidecar_path(path)
    meta = read_json(sidecar) if sidecar.exists() else {}
    if not isinstance(meta, dict):
        raise InputError(f"{sidecar}: must hold a JSON object, not a {type(meta).__name__}")
    if meta.get("classes"):
        columns = Columns(classes=tuple(meta["classes"]))
    return admit(read_table(path), meta, columns or Columns(), source=str(path), truth=truth)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read delimited text (all columns as text, so that a class called ``NA`` or ``01`` keeps its name) or Parquet.

    Delimiter and encoding are found by themselves, as in an import.

    Raises:
        InputError: the file is missing, empty or neither.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            text, _ = read_text(path)
            rows = [[value.strip() for value in row] for _, row in read_rows(path, text, find_delimiter(text))]
            if not rows:
                raise InputError(f"{path}: is empty; a predictions table has a header and one row per image")
            return pd.DataFrame(rows[1:], columns=pd.Index(rows[0]), dtype=str).replace("", None)
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise InputError(f"{path}: cannot be read as a table ({first_line(error)})") from None
    raise InputError(f"{path}: not a .csv, .tsv or .parquet file")


def pool_units(predictions: Predictions) -> Predictions:
    """Pool the rows of one unit (the images of one lesion or patient) into one, within split, fold, repeat and seed.

    Probabilities are averaged (``pooling: mean``) or the largest is taken and the row divided by its sum (``max``);
    hard labels are put to the vote, the first class winning a tie. A table of one row per unit comes back as it is.

    Raises:
        InputError: a unit has several labels, so that no single answer could be right.
    """
    frame = predictions.frame
    keys = ["unit", *KEYS]
    if not frame.duplicated(keys).any():
        return predictions
    groups = frame.groupby(keys, sort=False)
    pooled = groups.first()  # the first value that is there: subgroup columns, group, target
    if predictions.kind == "multilabel":
        truth = [TRUTH + name for name in predictions.classes]
        pooled[truth] = groups[truth].max()
    else:
        several = groups["label"].nunique() > 1
        if several.any():
            unit = str(frame["unit"][frame.set_index(keys).index == several[several].index[0]].iloc[0])
            labels = ", ".join(frame.loc[frame["unit"] == unit, "label"].dropna().unique())
            raise InputError(
                f"{predictions.source}: unit {unit!r} has images of several classes ({labels}); "
                "score by image, or make the unit a lesion of one diagnosis"
            )
    if predictions.has_probabilities:
        columns = [PROBABILITY + name for name in predictions.classes]
        rule = predictions.meta.get("pooling", "mean")
        if rule not in POOLINGS:
            raise InputError(f"{predictions.source}: pooling {rule!r} is not one of {', '.join(POOLINGS)}")
        values = groups[columns].agg(rule)
        if predictions.kind != "multilabel":
            values = values.div(values.sum(axis=1), axis=0)
        pooled[columns] = values
    else:
        votes = pd.get_dummies(frame["prediction"])[
            [name for name in predictions.classes if name in set(frame["prediction"])]
        ]
        counted = votes.groupby([frame[key] for key in keys], sort=False).sum()
        pooled["prediction"] = counted.idxmax(axis=1)
    pooled["n_images"] = groups.size()
    pooled = pooled.reset_index()
    pooled["image_id"] = pooled["unit"]
    front = [name for name in LEADING if name in pooled]
    return predictions.with_frame(pooled[front + [name for name in pooled if name not in front]])
