"""Compare predictions tables of the same images pairwise: differences with intervals, tests and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.files import write_json
from dermlab.evaluate.columns import Columns


class CompareConfig(Columns):
    """Options of ``dermlab compare``."""

    positional: ClassVar[tuple[str, ...]] = ("tables",)

    tables: tuple[Path, ...] = Field(description="two or more predictions tables, or run folders that hold one")
    out: Path | None = Field(None, description="folder for comparison.json")
    names: tuple[str, ...] = Field((), description="a name for each table; default: the model's, else the file's")
    metrics: tuple[str, ...] = Field(
        (), description="what to compare by; default: top1,balanced_accuracy,macro_f1,auroc where all tables have them"
    )
    split: str = Field("test", description="split to compare on")
    margin: float | None = Field(
        None, gt=0, description="difference that would not matter (0.02): adds non-inferiority and equivalence"
    )
    truth: Path | None = Field(
        None, description="data set folder, or table of the same id column, to take labels and patients from"
    )
    target: str | None = Field(None, description="target of the data set in --truth; none means its default one")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates")
    n_permutations: int = Field(9999, ge=99, description="draws of the permutation tests")
    interval: Literal["percentile", "bca"] = Field("percentile", description="kind of bootstrap interval")
    seed: int = Field(0, description="seed of bootstrap and permutations")


@dataclass(frozen=True)
class CompareResult:
    """What was found: the content of ``comparison.json``, and the files written."""

    comparison: list[dict[str, Any]]
    names: tuple[str, ...]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads: a table for each metric, then the ranks."""
        from dermlab.commands.evaluate import aligned
        from dermlab.evaluate.compare import ranks

        first = self.comparison[0]
        held = f" of {words.count(first['n_groups'])} {words.groups_word(first['group_by'])}"
        lines = [f"{words.count(first['n'])} units{held if first['n_groups'] < first['n'] else ''}, paired"]
        for metric in dict.fromkeys(entry["metric"] for entry in self.comparison):
            title, _, kind = words.metric_words(metric)
            entries = [entry for entry in self.comparison if entry["metric"] == metric]
            head = ["", "a − b", "95% interval", "p", "p (Holm)", "only a : only b right", "verdict"]
            rows = [head[:-1]]
            verdicts = [head[-1]]
            for entry in entries:
                rows.append(
                    [
                        f"{entry['a']} − {entry['b']}",
                        words.points(entry["difference"], kind),
                        _span(entry, kind),
                        words.p_value(entry["p"]),
                        words.p_value(entry["p_adjusted"]),
                        f"{entry['discordant'][0]:,} : {entry['discordant'][1]:,}",
                    ]
                )
                verdicts.append(_verdict(entry))
            unit = " (percentage points)" if kind == "share" else ""
            tests = "; ".join(dict.fromkeys(entry["test"] for entry in entries))
            lines += ["", f"{title}{unit}, {tests}"]
            lines += [
                f"{line.ljust(max(map(len, aligned(rows))))}  {verdict}"
                for line, verdict in zip(aligned(rows), verdicts, strict=True)
            ]
            placed = ranks(self.comparison, self.names, metric)
            lines.append(
                "rank: "
                + ", ".join(f"{name} {placed[name]}" for name in sorted(self.names, key=lambda name: placed[name]))
            )
        told = dict.fromkeys(text for entry in self.comparison for text in entry["warnings"])
        lines += [""] * bool(told) + [f"warning: {text}" for text in told]
        return lines + [f"wrote {path}" for path in self.written]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the content of ``comparison.json``."""
        return self.comparison


def run(config: CompareConfig) -> CompareResult:
    """Read the tables and compare each pair."""
    from dermlab.commands.evaluate import read
    from dermlab.evaluate.compare import compare_predictions

    if len(config.tables) < 2:
        raise InputError("compare: needs at least two predictions tables")
    tables = [read(path, config, config.truth, config.target) for path in config.tables]
    names = _named([str(table.meta.get("model")) for table in tables], config)
    comparison = compare_predictions(
        dict(zip(names, tables, strict=True)),
        metrics=config.metrics or None,
        split=config.split,
        margin=config.margin,
        n_boot=config.n_boot,
        n_permutations=config.n_permutations,
        seed=config.seed,
        method=config.interval,
    )
    written = () if config.out is None else (write_json(config.out / "comparison.json", comparison),)
    return CompareResult(comparison, names, written)


def _named(models: list[str], config: CompareConfig) -> tuple[str, ...]:
    """Return a name for each table: the user's, else the model's, else the path's where models share one."""
    if config.names:
        if len(config.names) != len(config.tables) or len(set(config.names)) < len(config.names):
            raise InputError(f"names: needs {len(config.tables)} different names, not {', '.join(config.names)}")
        return config.names
    for candidates in (models, [path.stem for path in config.tables], [str(path) for path in config.tables]):
        if len(set(candidates)) == len(candidates):
            return tuple(candidates)
    raise InputError("compare: the same table is named twice; --names gives each its own name")


def _span(entry: dict[str, Any], kind: str) -> str:
    """Write the interval of a difference, its ends signed."""
    if entry["low"] is None:
        return "no interval"
    return f"{words.points(entry['low'], kind)} to {words.points(entry['high'], kind)}"


def _verdict(entry: dict[str, Any]) -> str:
    """Put the verdict into words with the names in place of a and b."""
    text = entry["verdict"].replace("a better", f"{entry['a']} better").replace("b better", f"{entry['b']} better")
    text = str(entry["verdict"]) if entry["verdict"] == "cannot tell apart" else text
    if entry.get("margin") is None:
        return text
    found = [
        name
        for name, holds in (
            ("equivalent", entry["equivalent"]),
            (f"{entry['a']} not worse", entry["a_not_worse"]),
            (f"{entry['b']} not worse", entry["b_not_worse"]),
        )
        if holds
    ]
    return f"{text} (within {entry['margin']:g}: {', '.join(found) or 'not shown'})"
