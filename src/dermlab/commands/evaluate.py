"""Score a predictions table, whoever wrote it: metrics with intervals, per class, with calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.files import write_json
from dermlab.evaluate.assessment import Assessment
from dermlab.evaluate.columns import Columns

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.data.card import Target
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import Predictions

FURTHER = ("brier", "kappa")


class EvaluateConfig(Columns, Assessment):
    """Options of ``dermlab evaluate``."""

    positional: ClassVar[tuple[str, ...]] = ("predictions",)

    predictions: Path = Field(description="predictions table (.parquet, .csv, .tsv) or a run folder that holds one")
    out: Path | None = Field(
        None, description="folder for evaluation.html, metrics.json, the plots and the table in dermlab's form"
    )
    split: str = Field("test", description="split to score")
    truth: Path | None = Field(
        None, description="data set folder, or table of the same id column, to take labels and patients from"
    )
    target: str | None = Field(None, description="target of the data set in --truth; none means its default one")
    data: Path | None = Field(
        None, description="data set folder: its columns for subgroups, its hierarchy and costs; default: --truth's"
    )
    join: tuple[Path, ...] = Field(
        (), description="tables of further columns by image_id, for subgroups: concept scores, a clinic's spreadsheet"
    )
    label_map: Path | None = Field(
        None, description="YAML file: class of the model -> class scored, to test it on data of other classes"
    )
    calibrate: Literal["none", "temperature", "vector", "isotonic", "chosen"] = Field(
        "none", description="calibrate on the val rows of the table before scoring"
    )
    metrics: tuple[str, ...] = Field(
        (), description="further metrics, such as sens@spec=0.9:MEL, ppv@prev=0.02:MEL or net_benefit@thr=0.1:MEL"
    )
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates")
    interval: Literal["percentile", "bca"] = Field("percentile", description="kind of bootstrap interval")
    seed: int = Field(0, description="seed of the bootstrap")


@dataclass(frozen=True)
class EvaluateResult:
    """What was found: the content of ``metrics.json``, the further analyses by name, and the files written."""

    metrics: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        metrics = self.metrics
        n, unit = metrics["n"], words.units_word(metrics["unit"], metrics["n"])
        held = f" of {words.count(metrics['n_groups'])} {words.groups_word(metrics['group_by'])}"
        folds = f", {words.plural(metrics['folds'], 'fold')} pooled" if metrics["folds"] > 1 else ""
        from dermlab.report.evaluation import of_class
        from dermlab.report.parts import ALL_OF_TOP3
        from dermlab.report.provenance import calibrated

        scaled = calibrated(metrics.get("calibration"))
        lines = [
            f"{metrics['model']}: {words.count(n)} {unit}{held if metrics['n_groups'] < n else ''}, "
            f"target {metrics['target']}, split {metrics['split']}{folds}",
            *([f"the {scaled}"] if scaled else []),
            "",
        ]
        rows = []
        for name in (*words.headline(metrics["kind"]), *FURTHER):
            always = name == "top3" and len(metrics["classes"]) <= ALL_OF_TOP3
            if metrics.get(name, {}).get("value") is not None and not always:
                title, _, kind = words.metric_words(name)
                rows.append([title, words.score(metrics[name]["value"], kind), words.span(metrics[name], kind)])
        lines += [*aligned(rows), ""]
        ranked = any(found["auroc"]["value"] is not None for found in metrics["per_class"].values())
        table = [["class", "n", "recall", "", *(["AUROC", ""] if ranked else [])]]
        for name, found in metrics["per_class"].items():
            shown = [words.score(found["recall"]["value"]), words.span(found["recall"])]
            if ranked:
                shown += [words.score(found["auroc"]["value"], "number"), words.span(found["auroc"], "number")]
            table.append([name, words.count(found["n"]), *shown])
        lines += [line.rstrip() for line in aligned(table)]
        interval = metrics["interval"]
        lines += ["", f"{interval['level']:.0%} intervals: {words.intervals_sentence(metrics)}"]
        for name, found in metrics.get("further", {}).items():
            of = of_class(name, metrics)
            lines.append(f"{name}{of}: {words.score(found['value'], 'number')} ({words.span(found, 'number')})")
        if self.parts:
            from dermlab.report.parts import lines as told

            lines += ["", *told(self.parts), ""]
        lines += [f"warning: {text}" for text in metrics["warnings"]]
        return lines + [f"wrote {path}" for path in self.written]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return self.metrics


def run(config: EvaluateConfig) -> EvaluateResult:
    """Read, check and score the table."""
    from dermlab.bench.assessment import known_of
    from dermlab.evaluate.assessment import Assessed, Known, assess, write_parts
    from dermlab.evaluate.calibration import calibrate
    from dermlab.evaluate.predictions import write_predictions
    from dermlab.evaluate.summary import summarise
    from dermlab.report.evaluation import write_evaluation
    from dermlab.report.provenance import FILE, provenance

    dataset = _dataset(config)
    predictions = read(config.predictions, config, config.truth, config.target, mapped=config.label_map)
    if dataset is not None:
        from dermlab.evaluate.levels import ITA_BAND, PAIR, with_columns

        predictions = with_columns(predictions, dataset.manifest)
        if any(ITA_BAND in name.split(PAIR) for name in config.subgroups):  # estimated only where it is asked for
            from dermlab.data.skin_tone import estimated_bands

            bands = estimated_bands(dataset)
            predictions = predictions if bands is None else with_columns(predictions, bands)
    for table in config.join:
        from dermlab.evaluate.levels import with_columns
        from dermlab.evaluate.predictions import read_table

        predictions = with_columns(predictions, read_table(table))
    splits = list(dict.fromkeys(predictions.frame["split"]))
    if config.split not in splits and len(splits) == 1 and "seen_in_training" not in predictions.frame:
        raise InputError(
            f"{predictions.source}: no rows of split {config.split!r}, all are of {splits[0]!r}; --split {splits[0]} "
            "scores them"
        )
    if config.calibrate != "none":
        predictions = calibrate(predictions, method=config.calibrate, seed=config.seed)
    how: dict[str, Any] = {"split": config.split, "n_boot": config.n_boot, "seed": config.seed}
    metrics = summarise(predictions, method=config.interval, metrics=config.metrics, **how)
    settings = Assessment.model_validate(config.model_dump(include=set(Assessment.model_fields)))
    assessed = Assessed({})
    if config.out is not None or settings != Assessment():
        known = Known() if dataset is None else known_of(dataset, predictions, config.target)
        assessed = assess(predictions, settings, known, strict=True, **how)
    written: list[Path] = []
    if config.out is not None:
        table = config.out / "predictions.parquet"
        if not (table.exists() and table.samefile(predictions.source)):  # evaluating a run folder into itself
            write_predictions(table, predictions.frame, predictions.meta)
            written.append(table)
        elif config.calibrate != "none" or config.label_map is not None:
            raise InputError(f"{table}: would be overwritten by another form of itself; choose another --out")
        written.append(write_json(config.out / "metrics.json", metrics))
        written += write_parts(config.out, assessed)
        made = provenance("evaluate", config, config.positional, [predictions])
        written.append(write_json(config.out / FILE, made))
        written += write_evaluation(config.out)
    return EvaluateResult(metrics, assessed.parts, tuple(written))


def _dataset(config: EvaluateConfig) -> Dataset | None:
    """Return the data set that describes the images: --data's, else that of the truth where it is a folder."""
    folder = config.data or (config.truth if config.truth is not None and config.truth.is_dir() else None)
    if folder is None:
        return None
    from dermlab.data.dataset import Dataset

    return Dataset.open(folder)


def read(
    path: Path, columns: Columns, truth: Path | None, target: str | None, *, mapped: Path | None = None
) -> Predictions:
    """Read a predictions table, with labels, units and groups from a data set folder or a table where one is named.

    Args:
        path: the table, or a run folder.
        columns: how it names its columns; other fields of the config are passed over.
        truth: data set folder or table with the truth.
        target: of the data set; None is its default one.
        mapped: a label map: the table's classes, and the labels in the words of the truth, become the classes scored.

    Raises:
        InputError: either cannot be used.
    """
    from dermlab.evaluate.predictions import read_predictions

    names = Columns.model_validate(columns.model_dump(include=set(Columns.model_fields)))
    if mapped is not None:
        return _mapped(path, names, truth, target, mapped)
    if truth is None:
        return read_predictions(path, names)
    if not truth.is_dir():
        return read_predictions(path, names, truth=_truth_of_table(truth, names))
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(truth)
    wanted = dataset.card.target(target)
    known = _truth_of_dataset(dataset, wanted)
    if not names.classes:
        names = names.model_copy(update={"classes": wanted.classes})
    predictions = read_predictions(path, names, truth=known)
    return predictions.with_frame(
        predictions.frame.assign(target=wanted.column), target=wanted.column, kind=wanted.kind, **_scored_by(dataset)
    )


def _scored_by(dataset: Dataset) -> dict[str, Any]:
    return {"unit": dataset.card.unit, "pooling": dataset.card.pooling, "group_by": dataset.group_column()}


def _truth_of_dataset(dataset: Dataset, wanted: Target) -> pd.DataFrame:
    """Return a data set's labels, units, groups and the columns that describe its photos."""
    import pandas as pd

    known = pd.DataFrame({"image_id": dataset.image_ids, "unit": dataset.units(), "group": dataset.groups()})
    labels = dataset.labels(wanted.column)
    if wanted.kind == "multilabel":
        known[[f"y:{name}" for name in wanted.classes]] = labels
    else:
        known["label"] = labels
    for name in ("site", "skin_type", "modality"):
        if name in dataset.manifest:
            known[name] = dataset.manifest[name].to_numpy(dtype=object)
    return known


def _mapped(path: Path, names: Columns, truth: Path | None, target: str | None, mapped: Path) -> Predictions:
    """Read a table whose classes are not those of the truth, and bring both to the classes of a label map.

    The file holds ``class of the model: class scored`` (null drops a class), or such mappings under ``classes`` and,
    for the labels, under ``labels``.
    """
    from dermlab.core.config import read_yaml
    from dermlab.evaluate.predictions import read_predictions
    from dermlab.evaluate.shift import map_labels

    content = read_yaml(mapped)
    nested = isinstance(content.get("classes"), dict)
    classes = content["classes"] if nested else content
    labels = content.get("labels") if nested else None
    for mapping in (classes, labels or {}):
        if not isinstance(mapping, dict) or any(isinstance(value, (dict, list)) for value in mapping.values()):
            raise InputError(f"{mapped}: must hold class: class scored, or classes: and labels: of such mappings")
    text = {str(name): None if to is None else str(to) for name, to in classes.items()}
    of_labels = None if labels is None else {str(name): None if to is None else str(to) for name, to in labels.items()}
    if truth is None:
        return map_labels(read_predictions(path, names), text, label_mapping=of_labels)
    if truth.is_dir():
        from dermlab.data.dataset import Dataset

        dataset = Dataset.open(truth)
        known, scored_by = _truth_of_dataset(dataset, dataset.card.target(target)), _scored_by(dataset)
    else:
        known, scored_by = _truth_of_table(truth, names), {}
    given = known.set_index("image_id")["label"]
    predictions = read_predictions(path, names, truth=known.assign(label=None))
    predictions = predictions.with_frame(predictions.frame, **scored_by)
    return map_labels(predictions, text, labels=given, label_mapping=of_labels)


def _truth_of_table(path: Path, columns: Columns) -> Any:
    """Return a table's labels, units and groups under dermlab's names."""
    from dermlab.evaluate.predictions import read_table

    frame = read_table(path)
    names = {columns.id: "image_id", columns.label: "label"}
    names |= {given: name for given, name in ((columns.unit, "unit"), (columns.group, "group")) if given}
    for given, name in names.items():
        if given not in frame and name in ("image_id", "label"):
            option = "--id" if name == "image_id" else "--label"
            raise InputError(
                f"{path}: no column {given!r}; name it with {option} (columns: {', '.join(frame.columns)})"
            )
    kept = [given for given in names if given in frame]
    return frame[kept].rename(columns=names)


def aligned(rows: list[list[str]]) -> list[str]:
    """Return a table's rows as lines of one width: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
