"""Training seeds beside patients: what a recipe is worth, and whether one recipe is better than another.

A run scored on test patients says something about one trained checkpoint. A claim about the recipe must also allow for
another seed, and needs at least three a side. Seeds are to recipes what readers are to imaging methods, so the analysis
is that of multi-reader studies: Obuchowski & Rockette 1995, "Hypothesis testing of diagnostic accuracy for multiple
readers and multiple tests", Commun. Stat. Simul. 24:285, with the degrees of freedom of Hillis 2007 (Stat. Med.
26:596); seeds are nested in recipes (Hillis 2014, Stat. Med. 33:330, sec. 5). The error covariances come from one
bootstrap over groups in which all runs see the same draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.compare import (
    A_BETTER,
    B_BETTER,
    FEW_GROUPS,
    NEITHER,
    aligned,
    bootstrap_p,
    default_metrics,
    group_column,
    holm,
    number,
)
from dermlab.evaluate.intervals import interval, resample
from dermlab.evaluate.metrics import Evaluation, higher_is_better
from dermlab.evaluate.predictions import Predictions

ENOUGH_SEEDS = 3


def recipes_of(tables: Mapping[str, Predictions], split: str = "test") -> dict[str, list[Predictions]] | None:
    """Return the recipes among tables, each with its runs; None where no recipe has several seeds.

    Tables of the same model (``recipe`` in the sidecar, else ``model``) whose seeds differ are runs of one recipe, as
    are the seeds within a table.

    Args:
        tables: tables by name; a recipe of a single table keeps that name.
        split: the split whose seeds count.
    """

    def seeds_of(table: Predictions) -> list[int]:
        return table.part(split).frame["seed"].unique().tolist()

    homes: dict[str, list[str]] = {}
    for name, table in tables.items():
        homes.setdefault(str(table.meta.get("recipe") or table.meta.get("model") or name), []).append(name)
    recipes: dict[str, list[Predictions]] = {}
    for recipe, members in homes.items():
        seeds = [seed for name in members for seed in seeds_of(tables[name])]
        if len(members) > 1 and len(set(seeds)) == len(seeds):
            recipes[recipe] = [tables[name] for name in members]
        else:
            recipes |= {name: [tables[name]] for name in members}
    several = any(sum(len(seeds_of(table)) for table in runs) > 1 for runs in recipes.values())
    return recipes if several else None


@dataclass(frozen=True)
class _Runs:
    """One recipe on one metric: a value for each run, and how the runs vary over groups."""

    rows: slice
    values: np.ndarray
    between: float  # mean square between runs, Obuchowski & Rockette's MS(R)
    error: float  # variance of one run over groups
    shared: float  # covariance of two runs over groups

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def seeds(self) -> float:
        """Variance that is the seed's own: what the runs differ by beyond the noise of the groups."""
        return max(0.0, self.between - (self.error - self.shared))


def compare_recipes(
    recipes: Mapping[str, Sequence[Predictions]],
    *,
    metrics: Sequence[str] | None = None,
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return each recipe's metrics with intervals over seeds and groups, and the recipes compared pairwise.

    Args:
        recipes: for each recipe its tables; each seed in each table is a run. All runs score the same units.
        metrics: names; None: those of ``compare``.
        split: the split scored.
        n_boot: bootstrap replicates, from which the covariances of the runs over groups are taken.
        seed: of the bootstrap.
        level: coverage of the intervals; ``1 - level`` is the level of the verdicts.

    Returns:
        ``{"n", "n_groups", "unit", "group_by", "split", "level",
        "recipes": [{"name", "n_seeds", "seeds", "metrics": {metric: {"value", "low", "high", "sd_runs", "sd_seeds",
        "sd_groups", "share_seeds", "by_seed"}}}],
        "comparisons": [{"a", "b", "metric", "n", "n_groups", "n_seeds": [a, b], "difference", "low", "high", "p",
        "p_adjusted", "test", "sd_seeds", "sd_groups", "verdict", "warnings"}], "warnings"}``.
        ``sd_runs`` is the plain standard deviation of ``by_seed``. ``sd_seeds`` and ``sd_groups`` are estimates for one
        run's value: what the seed adds beyond the noise that runs have by themselves on test sets of this size (cut at
        0, so that 0 says no more than that the runs differ less than that noise), and the standard deviation over such
        test sets. Of a comparison they are the two parts of the difference's standard error. With fewer than three
        seeds a side there is no interval, no p, and the verdict is ``cannot tell apart``.

    Raises:
        InputError: no recipe, or the runs do not score the same units.
    """
    runs = _runs(recipes, split)
    if not runs:
        raise InputError("seeds: needs at least one recipe with a run")
    tables = {f"{name} (run {place})": table for name, found in runs.items() for place, (_, table) in enumerate(found)}
    sets = aligned(tables, split)
    wanted = list(metrics) if metrics else default_metrics(sets)
    evaluations = [Evaluation(found.sets, wanted) for found in sets]
    draws = resample(evaluations, n_boot=n_boot, seed=seed, names=wanted)
    values = [evaluation.value() for evaluation in evaluations]
    first, n_groups = sets[0], len(sets[0].groups)
    leader = next(iter(tables.values()))
    edges = np.cumsum([0, *(len(found) for found in runs.values())])
    rows = {name: slice(edges[place], edges[place + 1]) for place, name in enumerate(runs)}
    described: dict[str, dict[str, Any]] = {
        name: {"name": name, "n_seeds": len(found), "seeds": [seed for seed, _ in found], "metrics": {}}
        for name, found in runs.items()
    }
    comparisons: list[dict[str, Any]] = []
    for metric in wanted:
        covariance = _covariance(np.stack([drawn[metric] for drawn in draws]), n_groups)
        ours = {
            name: _of_recipe(np.array([found[metric] for found in values[where]]), where, covariance)
            for name, where in rows.items()
        }
        for name, one in ours.items():
            described[name]["metrics"][metric] = _recipe_entry(one, n_groups, level)
        entries = [
            _pair_entry((a, ours[a]), (b, ours[b]), metric, covariance, n_groups, level)
            for a, b in itertools.combinations(ours, 2)
        ]
        ps = holm([np.nan if entry["p"] is None else entry["p"] for entry in entries])
        for entry, adjusted in zip(entries, ps, strict=True):
            entry |= {"n": len(first.units), "n_groups": n_groups, "p_adjusted": number(adjusted)}
            if adjusted < 1 - level and entry["difference"]:
                entry["verdict"] = A_BETTER if (entry["difference"] > 0) == higher_is_better(metric) else B_BETTER
        comparisons += entries
    few = [name for name, found in runs.items() if len(found) < ENOUGH_SEEDS]
    warnings = [
        f"fewer than {ENOUGH_SEEDS} seeds of {', '.join(few)}: nothing is claimed about them as recipes"
    ] * bool(few)
    if n_groups < FEW_GROUPS:
        warnings.append(f"only {n_groups} groups: intervals are rough")
    return {
        "n": len(first.units),
        "n_groups": n_groups,
        "unit": leader.meta.get("unit", "image"),
        "group_by": group_column(tables),
        "split": split,
        "level": level,
        "recipes": list(described.values()),
        "comparisons": comparisons,
        "warnings": warnings,
    }


def contrasts(
    recipes: Mapping[str, Sequence[Predictions]],
    wanted: Mapping[str, Mapping[str, float]],
    *,
    metric: str,
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return weighted sums of recipes' values with intervals: a step from one to the next, an average over orders.

    Args:
        recipes: for each recipe its tables; each seed in each table is a run. All runs score the same units.
        wanted: for each sum its name, and the weight of each recipe in it.
        metric: what is summed.
        split: the split scored.
        n_boot: bootstrap replicates over groups; all runs see the same draws.
        seed: of the bootstrap.
        level: coverage of the intervals; ``1 - level`` is the level of the verdicts.

    Returns:
        ``{"n", "n_groups", "unit", "group_by", "recipes": {name: {"value", "low", "high", "n_seeds", …}},
        "contrasts": {name: {"difference", "low", "high", "p", "p_adjusted", "over", "n_seeds", "verdict"}}}``. ``over``
        is ``seeds and groups`` where every recipe in the sum has at least three seeds (variance as in
        :func:`compare_recipes`), else ``groups``: then it is about these trained models (percentile bootstrap).
        ``p_adjusted`` is Holm's over the sums; ``verdict`` is ``gain``, ``loss`` or ``cannot tell``.

    Raises:
        InputError: the runs do not score the same units.
    """
    runs = _runs(recipes, split)
    tables = {f"{name} (run {place})": table for name, found in runs.items() for place, (_, table) in enumerate(found)}
    sets = aligned(tables, split)
    evaluations = [Evaluation(found.sets, [metric]) for found in sets]
    draws = np.stack([drawn[metric] for drawn in resample(evaluations, n_boot=n_boot, seed=seed, names=[metric])])
    values = np.array([evaluation.value()[metric] for evaluation in evaluations])
    n_groups, first = len(sets[0].groups), next(iter(tables.values()))
    covariance = _covariance(draws, n_groups)
    edges = np.cumsum([0, *(len(found) for found in runs.values())])
    ours = {
        name: _of_recipe(values[edges[place] : edges[place + 1]], slice(edges[place], edges[place + 1]), covariance)
        for place, name in enumerate(runs)
    }
    sums = {
        name: _contrast([(weight, ours[one]) for one, weight in weights.items()], draws, covariance, n_groups, level)
        for name, weights in wanted.items()
    }
    ps = holm([np.nan if entry["p"] is None else entry["p"] for entry in sums.values()])
    for entry, adjusted in zip(sums.values(), ps, strict=True):
        entry["p_adjusted"] = number(adjusted)
        entry["verdict"] = "cannot tell"
        if adjusted < 1 - level and entry["difference"]:
            entry["verdict"] = "gain" if (entry["difference"] > 0) == higher_is_better(metric) else "loss"
    return {
        "n": len(sets[0].units),
        "n_groups": n_groups,
        "unit": first.meta.get("unit", "image"),
        "group_by": group_column(tables),
        "recipes": {
            name: {**_contrast([(1.0, one)], draws, covariance, n_groups, level), "value": number(one.values.mean())}
            for name, one in ours.items()
        },
        "contrasts": sums,
    }


def _contrast(
    terms: Sequence[tuple[float, _Runs]], draws: np.ndarray, covariance: np.ndarray, n_groups: int, level: float
) -> dict[str, Any]:
    """Return one weighted sum of recipes with its interval."""
    value = float(sum(weight * one.values.mean() for weight, one in terms))
    n_seeds = min(one.n for _, one in terms)
    if n_seeds >= ENOUGH_SEEDS:
        by_groups = sum(
            a * b * (one.shared if one is other else float(covariance[one.rows, other.rows].mean()))
            for a, one in terms
            for b, other in terms
        )
        parts = [(weight**2 * one.between / one.n, float(one.n - 1)) for weight, one in terms]
        low, high, p, _ = _interval(value, [*parts, (max(0.0, by_groups), float(n_groups - 1))], level)
    else:
        drawn = sum((weight * draws[one.rows].mean(axis=0) for weight, one in terms), np.zeros(draws.shape[1]))
        found = interval(value, drawn, n_groups, level=level)
        low, high, p = found.low, found.high, bootstrap_p(drawn, n_groups)
    return {
        "difference": number(value),
        "low": number(low),
        "high": number(high),
        "p": number(p),
        "over": "seeds and groups" if n_seeds >= ENOUGH_SEEDS else "groups",
        "n_seeds": n_seeds,
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return what :func:`compare_recipes` found in words, a line a recipe and a line a comparison, by metric."""
    told = [
        f"recipes, over training seeds and {result['n_groups']:,} groups ({result['group_by']}), {result['n']:,} units"
    ]
    metrics = dict.fromkeys(metric for recipe in result["recipes"] for metric in recipe["metrics"])
    for metric in metrics:
        told.append(f"{metric}:")
        for entry in result["comparisons"]:
            if entry["metric"] == metric:
                p = "" if entry["p"] is None else f", p {entry['p']:.3g} (Holm {entry['p_adjusted']:.3g})"
                verdict = {A_BETTER: f"{entry['a']} better", B_BETTER: f"{entry['b']} better"}
                said = verdict.get(entry["verdict"], entry["verdict"])
                told.append(f"  {entry['a']} − {entry['b']}: {_span(entry, 'difference')}{p}: {said}")
        for recipe in result["recipes"]:
            found = recipe["metrics"][metric]
            spread = (
                ""
                if found["sd_seeds"] is None
                else f"; SD over its seeds {found['sd_runs']:.4f} (beyond the test set's noise "
                f"{found['sd_seeds']:.4f}), over test sets {found['sd_groups']:.4f}"
            )
            told.append(f"  {recipe['name']}: {_span(found, 'value')}, {recipe['n_seeds']} seeds{spread}")
    return told + [f"warning: {text}" for text in result["warnings"]]


def _span(found: Mapping[str, Any], key: str) -> str:
    if found[key] is None:
        return "undefined"
    between = "no interval" if found["low"] is None else f"{found['low']:.4f} to {found['high']:.4f}"
    return f"{found[key]:.4f} ({between})"


def _runs(recipes: Mapping[str, Sequence[Predictions]], split: str) -> dict[str, list[tuple[int, Predictions]]]:
    """Return for each recipe its runs: the rows of each seed of each table, with the seed set to 0 for alignment."""
    result: dict[str, list[tuple[int, Predictions]]] = {}
    for name, tables in recipes.items():
        result[name] = []
        for table in tables:
            frame = table.part(split).frame
            for seed, rows in frame.groupby("seed", sort=True):
                result[name].append((int(str(seed)), table.with_frame(rows.assign(seed=0).reset_index(drop=True))))
    return {name: found for name, found in result.items() if found}


def _covariance(draws: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the covariance (runs, runs) of bootstrap replicates (runs, n_boot), with the bootstrap's bias undone."""
    known = draws[:, ~np.isnan(draws).any(axis=0)]
    if known.shape[1] < 2 or n_groups < 2:
        return np.full((len(draws), len(draws)), np.nan)
    return np.atleast_2d(np.cov(known)) * n_groups / (n_groups - 1)


def _of_recipe(values: np.ndarray, where: slice, covariance: np.ndarray) -> _Runs:
    n, own = len(values), covariance[where, where]
    between = float(values.var(ddof=1)) if n > 1 else np.nan
    shared = float((own.sum() - np.trace(own)) / (n * (n - 1))) if n > 1 else np.nan
    return _Runs(where, values, between, float(np.trace(own) / n), shared)


def _interval(value: float, parts: Sequence[tuple[float, float]], level: float) -> tuple[float, float, float, float]:
    """Return low, high, p against 0 and the standard error from variances with degrees of freedom (Satterthwaite)."""
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if np.isnan(variance) or np.isnan(value):
        return np.nan, np.nan, np.nan, np.nan
    if variance == 0:  # all runs alike on all patients drawn, which is no certainty
        return np.nan, np.nan, 1.0 if value == 0 else np.nan, 0.0
    df = variance**2 / sum(part**2 / freedom for part, freedom in parts if part > 0)
    error = float(np.sqrt(variance))
    reach = float(t.ppf((1 + level) / 2, df)) * error
    return value - reach, value + reach, float(2 * t.sf(abs(value) / error, df)), error


def _recipe_entry(one: _Runs, n_groups: int, level: float) -> dict[str, Any]:
    value, low, high = float(one.values.mean()), np.nan, np.nan
    if one.n >= ENOUGH_SEEDS:
        parts = [(one.between / one.n, one.n - 1), (max(0.0, one.shared), n_groups - 1)]
        low, high, _, _ = _interval(value, parts, level)
    several = one.n > 1
    return {
        "value": number(value),
        "low": number(low),
        "high": number(high),
        "sd_runs": number(np.sqrt(one.between)) if several else None,
        "sd_seeds": number(np.sqrt(one.seeds)) if several else None,
        "sd_groups": number(np.sqrt(one.error)),
        "share_seeds": number(one.seeds / (one.seeds + one.error)) if several and one.seeds + one.error > 0 else None,
        "by_seed": [number(value) for value in one.values],
    }


def _pair_entry(
    first: tuple[str, _Runs],
    second: tuple[str, _Runs],
    metric: str,
    covariance: np.ndarray,
    n_groups: int,
    level: float,
) -> dict[str, Any]:
    (name_a, a), (name_b, b) = first, second
    difference = float(a.values.mean() - b.values.mean())
    low = high = p = by_seeds = by_groups = np.nan
    warnings = []
    if min(a.n, b.n) >= ENOUGH_SEEDS:
        crossed = float(covariance[a.rows, b.rows].mean())
        by_groups = max(0.0, a.shared + b.shared - 2 * crossed)
        by_seeds = a.between / a.n + b.between / b.n
        parts = [(a.between / a.n, a.n - 1), (b.between / b.n, b.n - 1), (by_groups, n_groups - 1)]
        low, high, p, _ = _interval(difference, parts, level)
    else:
        warnings.append(
            f"{a.n} and {b.n} seeds: a claim about recipes needs at least {ENOUGH_SEEDS} a side; "
            "the paired comparison says something about these checkpoints"
        )
    return {
        "a": name_a,
        "b": name_b,
        "metric": metric,
        "n_seeds": [a.n, b.n],
        "difference": number(difference),
        "low": number(low),
        "high": number(high),
        "p": number(p),
        "test": "Obuchowski-Rockette, seeds nested in recipes",
        "sd_seeds": number(np.sqrt(by_seeds)),
        "sd_groups": number(np.sqrt(by_groups)),
        "verdict": NEITHER,
        "warnings": warnings,
    }
