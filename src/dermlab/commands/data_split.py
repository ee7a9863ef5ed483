"""Split a data set by patient, site or date, and print how even it came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from dermlab.core.config import Config
from dermlab.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.data.dataset import Dataset


class DataSplitConfig(Config):
    """Options of ``dermlab data split``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: Path = Field(description="data set folder")
    name: str | None = Field(default=None, description="name of the split; default main, folds<K>, by_site or by_date")
    by: str | None = Field(
        default=None, description="column that must not be divided; default the card's, else patient, lesion, image"
    )
    fractions: tuple[float, ...] = Field(default=(0.6, 0.2, 0.2), description="share of train, val and test")
    folds: int | None = Field(default=None, description="number of folds, each the test part once")
    repeats: int = Field(default=1, ge=1, description="how often the folds are drawn anew")
    by_site: bool = Field(default=False, description="leave one site out: each site is the test part once")
    by_date: bool = Field(default=False, description="train before val before test")
    val_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="with folds and sites: share of the rest that is val"
    )
    target: str | None = Field(default=None, description="target to stratify by; default the card's")
    seed: int = Field(default=0, description="another seed is another split")
    overwrite: bool = Field(default=False, description="replace a split of that name")

    @model_validator(mode="after")
    def _is_one_way(self) -> DataSplitConfig:
        ways = [word for word, on in self.ways() if on]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} are two ways to split; choose one")
        if self.repeats > 1 and self.folds is None:
            raise ValueError("repeats needs folds")
        if "fractions" in self.model_fields_set and (self.folds is not None or self.by_site):
            raise ValueError("fractions does not go with folds or by_site; val_fraction sets the share of val")
        return self

    def ways(self) -> tuple[tuple[str, bool], ...]:
        """Return the ways of splitting and whether each was asked for."""
        return (("folds", self.folds is not None), ("by_site", self.by_site), ("by_date", self.by_date))

    def split_name(self) -> str:
        """Return the split's name."""
        if self.name is not None:
            return self.name
        if self.folds is not None:
            return f"folds{self.folds}" + (f"x{self.repeats}" if self.repeats > 1 else "")
        return "by_site" if self.by_site else "by_date" if self.by_date else "main"


@dataclass(frozen=True)
class DataSplitResult:
    """The split that was written and how even it is."""

    path: Path
    name: str
    data: Path
    group: str
    n_groups: int
    sites: dict[int, str]
    balance: pd.DataFrame

    def lines(self) -> list[str]:
        """Return what a person reads."""
        table = self.balance
        assignments = table[["repeat", "fold"]].drop_duplicates()
        lines = [f"{self.path}: {self.n_groups:,} groups by {self.group}, none divided"]
        if len(assignments) == 1:
            lines += [self._part(row) for _, row in table.iterrows()]
        else:
            repeats, folds = assignments["repeat"].nunique(), assignments["fold"].nunique()
            lines[0] += f"; {folds} folds" + (f" × {repeats} repeats" if repeats > 1 else "")
            for part, rows in table.groupby("split", sort=False):
                images, groups = rows["n_images"], rows["n_groups"]
                lines.append(
                    f"  {part:<5}  {images.min():,} to {images.max():,} images, "
                    f"{groups.min():,} to {groups.max():,} groups"
                )
            for fold, site in self.sites.items():
                lines.append(f"  fold {fold} tests on the site {site}")
        worst = table.to_dict("records")[int(table["worst_deviation"].abs().to_numpy().argmax())]
        if worst["worst_class"] is not None:
            where = worst["split"] if len(assignments) == 1 else f"{worst['split']} of fold {worst['fold']}"
            points = f"{100 * worst['worst_deviation']:+.1f} points"
            lines.append(f"  farthest from the whole: {worst['worst_class']} in {where}, {points}")
        lines.append(f"next: dermlab probe {self.data} --split {self.name} --encoder histogram --head linear --out run")
        return lines

    @staticmethod
    def _part(row: Any) -> str:
        shares = ", ".join(
            f"{column.removeprefix('share:')} {100 * row[column]:.1f} %"
            for column in row.index
            if column.startswith("share:")
        )
        size = f"  {row['split']:<5}  {row['n_images']:,} images, {row['n_groups']:,} groups"
        return f"{size}: {shares}" if shares else size

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``; ``balance`` has one entry per repeat, fold and part."""
        return {
            "path": self.path,
            "name": self.name,
            "group": self.group,
            "n_groups": self.n_groups,
            "sites": self.sites,
            "balance": self.balance.to_dict(orient="records"),
        }


def run(config: DataSplitConfig) -> DataSplitResult:
    """Draw the split, write it and measure its balance."""
    import numpy as np

    from dermlab.data import splits
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(config.data)
    by, target, seed = config.by, config.target, config.seed
    if config.folds is not None:
        frame = splits.split_by_folds(
            dataset,
            config.folds,
            n_repeats=config.repeats,
            val_fraction=config.val_fraction,
            by=by,
            target=target,
            seed=seed,
        )
    elif config.by_site:
        frame = splits.split_by_site(dataset, val_fraction=config.val_fraction, by=by, target=target, seed=seed)
    elif config.by_date:
        frame = splits.split_by_date(dataset, config.fractions, by=by)
    else:
        frame = splits.split_by_fraction(dataset, config.fractions, by=by, target=target, seed=seed)
    name = config.split_name()
    if name in dataset.split_names() and not config.overwrite and not _is_the_same(dataset, name, frame):
        raise InputError(
            f"{config.data}: the split {name!r} exists and is another one; --name gives this one its own name, "
            "--overwrite replaces it (runs on the old one can then not be repeated)"
        )
    path = dataset.write_split(name, frame)
    groups = splits.linked_groups(dataset, config.by)
    has_target = config.target is not None or bool(dataset.card.targets)
    if has_target:
        labels, classes = dataset.labels(config.target), dataset.card.target(config.target).classes
    else:
        labels, classes = np.full(len(dataset), None, dtype=object), ()
    table = splits.balance(frame, labels, groups, classes=classes)
    sites: dict[int, str] = {}
    if config.by_site:
        site = dataset.manifest.set_index("image_id")["site"]
        for fold in sorted(frame["fold"].unique().tolist()):
            tested = frame.loc[(frame["fold"] == fold) & (frame["split"] == "test"), "image_id"]
            sites[fold] = str(site[tested].mode()[0])
    return DataSplitResult(
        path=path,
        name=name,
        data=config.data,
        group=config.by or dataset.group_column(),
        n_groups=int(groups.max()) + 1,
        sites=sites,
        balance=table,
    )


def _is_the_same(dataset: Dataset, name: str, frame: pd.DataFrame) -> bool:
    """Tell whether the split of that name is ``frame``; one that no longer fits the data is another."""
    try:
        earlier = dataset.read_split(name)
    except InputError:
        return False
    return earlier["split"].astype(object).equals(frame["split"].astype(object)) and len(earlier) == len(frame)
