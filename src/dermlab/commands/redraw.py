"""Redraw small test sets from prediction tables: how often they would have ranked the models differently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.core.files import write_json
from dermlab.evaluate.columns import Columns


class RedrawConfig(Columns):
    """Options of ``dermlab redraw``."""

    positional: ClassVar[tuple[str, ...]] = ("tables",)

    tables: tuple[Path, ...] = Field(description="two or more predictions tables, or run folders that hold one")
    out: Path | None = Field(None, description="folder for redraw.json")
    names: tuple[str, ...] = Field((), description="a name for each table; default: the model's, else the file's")
    metric: str = Field("top1", description="what the models are ranked by")
    n: int = Field(250, ge=2, description="units in the small test set")
    draws: int = Field(1000, ge=100, description="how many small test sets are drawn")
    sizes: tuple[int, ...] = Field((), description="further sizes; default: 50,100,250,500,… up to the whole table")
    stratified: bool = Field(True, description="keep the mix of classes in each draw")
    split: str = Field("test", description="split to draw from")
    truth: Path | None = Field(
        None, description="data set folder, or table of the same id column, to take labels and patients from"
    )
    target: str | None = Field(None, description="target of the data set in --truth; none means its default one")
    seed: int = Field(0, description="seed of the draws")


@dataclass(frozen=True)
class RedrawResult:
    """What was found: the content of ``redraw.json``, and the file written."""

    found: dict[str, Any]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        from dermlab.evaluate.redraw import lines

        return lines(self.found) + [f"wrote {path}" for path in self.written]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``redraw.json``."""
        return self.found


def run(config: RedrawConfig) -> RedrawResult:
    """Read the tables and draw from them."""
    from dermlab.commands.compare import named
    from dermlab.commands.evaluate import read
    from dermlab.evaluate.redraw import redraw

    tables = [read(path, config, config.truth, config.target) for path in config.tables]
    names = named([str(table.meta.get("model")) for table in tables], config.tables, config.names)
    found = redraw(
        dict(zip(names, tables, strict=True)),
        metric=config.metric,
        n=config.n,
        draws=config.draws,
        sizes=config.sizes or None,
        stratified=config.stratified,
        split=config.split,
        seed=config.seed,
    )
    written = () if config.out is None else (write_json(config.out / "redraw.json", found),)
    return RedrawResult(found, written)
