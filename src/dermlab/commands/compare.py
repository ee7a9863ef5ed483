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
    out: Path | None = Field(None, description="folder for comparison.html and comparison.json")
    names: tuple[str, ...] = Field((), description="a name for each table; default: the model's, else the file's")
    metrics: tuple[str, ...] = Field(
        (), description="what to compare by; default: top1,balanced_accuracy,macro_f1,auroc where all tables have them"
    )
    split: str = Field("test", description="split to compare on")
    margin: float | None = Field(
        None,
        gt=0,
        description="difference that would not matter, the same for every metric compared (0.02: two percentage points "
        "of a share): adds non-inferiority and equivalence",
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
    """What was found: the content of ``comparison.json``, of ``seeds.json`` if there are several, the files written."""

    comparison: list[dict[str, Any]]
    names: tuple[str, ...]
    written: tuple[Path, ...]
    seeds: dict[str, Any] | None = None

    def lines(self) -> list[str]:
        """Return what a person reads: recipes over seeds if there are any, a table for each metric with its ranks."""
        from dermlab.evaluate.compare import margin_sentence, ranks

        first = self.comparison[0]
        held = f" of {words.count(first['n_groups'])} {words.groups_word(first['group_by'])}"
        lines = []
        if self.seeds is not None:
            from dermlab.evaluate.seeds import lines as over_seeds

            lines += [*over_seeds(self.seeds), ""]
            lines.append(
                "these trained models only (narrower: another training of the same recipe is not allowed for):"
            )
        lines.append(f"{words.count(first['n'])} units{held if first['n_groups'] < first['n'] else ''}, paired")
        for metric in dict.fromkeys(entry["metric"] for entry in self.comparison):
            entries = [entry for entry in self.comparison if entry["metric"] == metric]
            title, _, kind = words.metric_words(metric)
            unit = " (percentage points)" if kind == "share" else ""
            tests = "; ".join(dict.fromkeys(entry["test"] for entry in entries))
            placed = ranks(self.comparison, self.names, metric)
            order = sorted(self.names, key=lambda name: placed[name])
            lines += ["", f"{title}{unit}, {tests}", *_table(entries, metric, kind)]
            lines.append("rank: " + ", ".join(f"{name} {placed[name]}" for name in order))
        if first.get("margin") is not None:
            lines += ["", margin_sentence(self.comparison)]
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
    from dermlab.evaluate.seeds import compare_recipes, recipes_of

    if len(config.tables) < 2:
        raise InputError("compare: needs at least two predictions tables")
    tables = [read(path, config, config.truth, config.target) for path in config.tables]
    names = named([str(table.meta.get("model")) for table in tables], config.tables, config.names)
    by_name = dict(zip(names, tables, strict=True))
    comparison = compare_predictions(
        by_name,
        metrics=config.metrics or None,
        split=config.split,
        margin=config.margin,
        n_boot=config.n_boot,
        n_permutations=config.n_permutations,
        seed=config.seed,
        method=config.interval,
    )
    recipes, seeds = recipes_of(by_name, config.split), None
    if recipes is not None:
        how: dict[str, Any] = {"metrics": config.metrics or None, "split": config.split}
        seeds = compare_recipes(recipes, **how, n_boot=config.n_boot, seed=config.seed)
    written: tuple[Path, ...] = ()
    if config.out is not None:
        from dermlab.report.comparison import write_comparison
        from dermlab.report.provenance import FILE, provenance

        written = (write_json(config.out / "comparison.json", comparison),)
        (config.out / "seeds.json").unlink(missing_ok=True)  # of an earlier comparison
        if seeds is not None:
            written += (write_json(config.out / "seeds.json", seeds),)
        made = provenance("compare", config, config.positional, tables)
        written += (write_json(config.out / FILE, made), write_comparison(config.out))
    return CompareResult(comparison, names, written, seeds)


def named(models: list[str], paths: tuple[Path, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a name for each table: the user's, else the model's, else the path's where models share one.

    Raises:
        InputError: the user's names are too few, too many or not different, or a table is named twice.
    """
    if names:
        if len(names) != len(paths) or len(set(names)) < len(names):
            raise InputError(f"names: needs {len(paths)} different names, not {', '.join(names)}")
        return names
    for candidates in (models, [path.stem for path in paths], [str(path) for path in paths]):
        if len(set(candidates)) == len(candidates):
            return tuple(candidates)
    raise InputError("the same table is named twice; --names gives each its own name")


def _table(entries: list[dict[str, Any]], metric: str, kind: str) -> list[str]:
    """Return one line a pair: difference, interval, p, verdict; for accuracy the units that only one got right."""
    from dermlab.commands.evaluate import aligned

    counts = metric == "top1"
    rows = [["", "difference", "95% interval", "p", "p (Holm)", *["right: first only, second only"] * counts]]
    for entry in entries:
        shown = [words.points(entry["difference"], kind), words.gap_span(entry, kind)]
        shown += [words.p_value(entry["p"]), words.p_value(entry["p_adjusted"])]
        shown += [", ".join(words.count(n) for n in entry["discordant"])] * counts
        rows.append([f"{entry['a']} − {entry['b']}", *shown])
    verdicts = ["verdict", *map(_verdict, entries)]
    return [f"{line}   {verdict}" for line, verdict in zip(aligned(rows), verdicts, strict=True)]


def _verdict(entry: dict[str, Any]) -> str:
    """Put the verdict into words with the names in place of a and b, and what a margin showed."""
    from dermlab.evaluate.compare import within_margin

    names = {"a better": f"{entry['a']} better", "b better": f"{entry['b']} better"}
    text = names.get(entry["verdict"], str(entry["verdict"]))
    found = within_margin(entry)
    return f"{text} ({', '.join(found) or 'nothing shown by the margin'})" if entry.get("margin") is not None else text
