"""Compare models over several data sets: Wilcoxon, Friedman and Nemenyi, with a critical-difference diagram."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

LONG = ("model", "dataset", "value")


class AcrossConfig(Config):
    """Options of ``dermlab across``."""

    positional: ClassVar[tuple[str, ...]] = ("results",)

    results: tuple[Path, ...] = Field(
        description="a table with columns model, dataset, value, or with a column dataset and one for each model; or "
        "bake-off folders, one a data set; or metrics.json files and their folders, laid out as DATASET/MODEL/"
    )
    out: Path | None = Field(None, description="folder for across.json and the diagram")
    metric: str = Field("macro_f1", description="metric read from bake-off folders and metrics.json")
    lower_is_better: bool = Field(False, description="whether a lower value is better, in a table of one's own")


@dataclass(frozen=True)
class AcrossResult:
    """What was found: the content of ``across.json``, and the files written."""

    found: dict[str, Any]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        from dermlab.evaluate.across import lines

        return lines(self.found) + [f"wrote {path}" for path in self.written]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``across.json``."""
        return self.found


def run(config: AcrossConfig) -> AcrossResult:
    """Read the values and compare the models."""
    from dermlab.evaluate.across import across
    from dermlab.evaluate.metrics import higher_is_better
    from dermlab.report.critical_difference import draw_critical_difference

    if not config.results:
        raise InputError("across: name a table of results, or folders")
    if len(config.results) == 1 and config.results[0].is_file() and config.results[0].suffix != ".json":
        table, upward = _of_table(config.results[0]), not config.lower_is_better
    else:
        table, upward = _of_folders(config.results, config.metric), higher_is_better(config.metric)
    found = across(table, higher_is_better=upward)
    written: list[Path] = []
    if config.out is not None:
        written.append(write_json(config.out / "across.json", found))
        if found["critical_difference"] is not None:
            written += [draw_critical_difference(found, config.out / f"across{kind}") for kind in (".svg", ".png")]
    return AcrossResult(found, tuple(written))


def _of_table(path: Path) -> pd.DataFrame:
    """Return data sets × models from a long or a wide table."""
    import pandas as pd

    from dermlab.evaluate.predictions import read_table

    frame = read_table(path)
    if "dataset" not in frame:
        raise InputError(
            f"{path}: no column 'dataset'; it needs model, dataset, value, or dataset and a column a model"
        )
    if set(LONG) <= set(frame.columns):
        twice = frame.duplicated(["model", "dataset"])
        if twice.any():
            row = int(twice.to_numpy().argmax())
            name, place = frame["model"].iloc[row], frame["dataset"].iloc[row]
            raise InputError.at(path, f"{name!r} has a second value on {place!r}", row=row + 2, column="value")
        frame = frame.pivot(index="dataset", columns="model", values="value")[list(dict.fromkeys(frame["model"]))]
    else:
        frame = frame.set_index("dataset")
    numbers = frame.apply(pd.to_numeric, errors="coerce")
    strange = (numbers.isna() & frame.notna()).to_numpy()
    if strange.any():
        row, column = (int(place[0]) for place in strange.nonzero())
        raise InputError(
            f"{path}: {frame.iat[row, column]!r} of {frame.columns[column]} on {frame.index[row]} is not a number"
        )
    return numbers


def _of_folders(paths: tuple[Path, ...], metric: str) -> pd.DataFrame:
    """Return data sets × models from bake-off folders (``leaderboard.csv``) and from ``metrics.json`` files."""
    import pandas as pd

    values: dict[str, dict[str, float]] = {}

    def note(source: Path, dataset: str, model: str, value: Any) -> None:
        held = values.setdefault(dataset, {})
        if model in held:
            raise InputError(f"{source}: {model!r} has a second value on {dataset!r}")
        if value is None or pd.isna(value):
            raise InputError(f"{source}: no {metric} of {model!r}")
        held[model] = float(value)

    for path in paths:
        board = path / "leaderboard.csv"
        if board.exists():
            frame = pd.read_csv(board)
            if metric not in frame:
                raise InputError(f"{board}: no column {metric!r}")
            for model, value in zip(frame["candidate"], frame[metric], strict=True):
                note(board, path.resolve().name, str(model), value)
            continue
        file = path if path.suffix == ".json" else path / "metrics.json"
        if not file.exists():
            raise InputError(f"{path}: holds neither leaderboard.csv nor metrics.json")
        found = read_json(file)
        if not isinstance(found, dict) or not isinstance(found.get(metric), dict):
            raise InputError(f"{file}: has no {metric}")
        folder = file.resolve().parent
        note(file, folder.parent.name, folder.name, found[metric].get("value"))
    shared = [model for model in next(iter(values.values())) if all(model in held for held in values.values())]
    return pd.DataFrame({model: {dataset: held[model] for dataset, held in values.items()} for model in shared})
