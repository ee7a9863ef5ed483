"""Which lever gave what: the gain from a baseline to the last candidate, taken apart by the factors that were changed.

In the order run, each step is the paired difference of two candidates; the steps add up to the whole gain, but a
factor's share depends on the order. Where candidates with every set of the factors exist, the mean over all orders
(Shapley 1953, "A value for n-person games") does not, and adds up to the same gain.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermlab.bench.config import Decomposition
from dermlab.bench.training import as_recipe, most_seeds
from dermlab.core.errors import DermlabError
from dermlab.evaluate.seeds import ENOUGH_SEEDS, contrasts

if TYPE_CHECKING:
    from dermlab.bench.candidates import Setting
    from dermlab.bench.outcome import Outcome
    from dermlab.evaluate.predictions import Predictions

MOST_LISTED = 12  # missing sets of factors that are named one by one
Subset = frozenset[str]


def shapley_weights(factors: Sequence[str]) -> dict[str, dict[Subset, float]]:
    """Return for each factor the weight of each set's value in its Shapley value.

    The mean over all k! orders of what the factor adds to those before it: a set S without the factor stands before it
    in ``|S|! (k - |S| - 1)!`` of them.

    Args:
        factors: k names.
    """
    k = len(factors)
    found: dict[str, dict[Subset, float]] = {}
    for factor in factors:
        weights: dict[Subset, float] = {}
        for before in subsets([name for name in factors if name != factor]):
            share = math.factorial(len(before)) * math.factorial(k - len(before) - 1) / math.factorial(k)
            weights[before] = -share
            weights[before | {factor}] = share
        found[factor] = weights
    return found


def subsets(factors: Sequence[str]) -> list[Subset]:
    """Return all 2^k sets of factors, small ones first."""
    sizes = range(len(factors) + 1)
    return [frozenset(some) for size in sizes for some in itertools.combinations(factors, size)]


def decompose(
    tables: Mapping[str, Sequence[Predictions]], plan: Decomposition, *, metric: str, n_boot: int, seed: int
) -> dict[str, Any]:
    """Take the gain of the last step's candidate over the baseline apart.

    Args:
        tables: the predictions tables of each candidate that the plan names; each seed is a run.
        plan: which candidate has which factors.
        metric: what is taken apart, on test.
        n_boot: bootstrap replicates over groups.
        seed: of the bootstrap.

    Returns:
        ``{"metric", "n", "n_groups", "unit", "group_by", "factors", "baseline", "runs": [{"factors", "candidate",
        "value", "low", "high", "n_seeds"}], "steps": [{"factor", "candidate", "before", "value", "difference", "low",
        "high", "p", "p_adjusted", "over", "n_seeds", "verdict"}], "total", "shapley": {"factors", "values"} or None,
        "missing": [[factor]], "warnings"}``.
    """
    tables = _common_photos(tables)
    factors, runs = plan.factors, plan.runs()
    chain = [plan.baseline, *(step.candidate for step in plan.steps)]
    wanted: dict[str, Mapping[str, float]] = {
        f"step {place}": _sum([(after, 1.0), (before, -1.0)])
        for place, (before, after) in enumerate(itertools.pairwise(chain))
    }
    steps = contrasts(tables, wanted, metric=metric, n_boot=n_boot, seed=seed)
    total = contrasts(
        tables, {"total": _sum([(chain[-1], 1.0), (chain[0], -1.0)])}, metric=metric, n_boot=n_boot, seed=seed
    )
    values = steps["recipes"]
    covered = _covered(factors, runs)
    shapley = None
    if len(covered) > 1:
        averaged = {
            factor: _sum([(runs[some], weight) for some, weight in weights.items()])
            for factor, weights in shapley_weights(covered).items()
        }
        found = contrasts(tables, averaged, metric=metric, n_boot=n_boot, seed=seed)["contrasts"]
        shapley = {"factors": list(covered), "values": [{"factor": name, **found[name]} for name in covered]}
    missing = [sorted(some, key=factors.index) for some in subsets(factors) if some not in runs]
    return {
        "metric": metric,
        **{key: steps[key] for key in ("n", "n_groups", "unit", "group_by")},
        "factors": list(factors),
        "baseline": {"candidate": plan.baseline, **values[plan.baseline]},
        "runs": [
            {"factors": sorted(some, key=factors.index), "candidate": name, **values[name]}
            for some, name in runs.items()
        ],
        "steps": [
            {
                "factor": step.factor,
                "candidate": step.candidate,
                "before": chain[place],
                "value": values[step.candidate]["value"],
                **steps["contrasts"][f"step {place}"],
            }
            for place, step in enumerate(plan.steps)
        ],
        "total": total["contrasts"]["total"],
        "shapley": shapley,
        "missing": missing,
        "warnings": _warnings(values, factors, covered, missing),
    }


def _sum(terms: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the weight of each candidate; one that stands for two sets of factors has the weights of both."""
    weights: dict[str, float] = {}
    for name, weight in terms:
        weights[name] = weights.get(name, 0.0) + weight
    return weights


def _covered(factors: Sequence[str], runs: Mapping[Subset, str]) -> tuple[str, ...]:
    """Return the first factors, as many as have a run for each of their sets."""
    for n in range(len(factors), 0, -1):
        if all(some in runs for some in subsets(factors[:n])):
            return tuple(factors[:n])
    return ()


def _warnings(
    values: Mapping[str, Mapping[str, Any]],
    factors: Sequence[str],
    covered: Sequence[str],
    missing: Sequence[Sequence[str]],
) -> list[str]:
    warnings = []
    few = [name for name, value in values.items() if value["n_seeds"] < ENOUGH_SEEDS]
    if few:
        warnings.append(
            f"fewer than {ENOUGH_SEEDS} training seeds of {', '.join(few)}: a step with one of them says something "
            "about these trained models, and nothing about what the change is worth in another training"
        )
    if missing and len(factors) > 1:
        told = ", ".join(" + ".join(some) or "none" for some in missing[:MOST_LISTED])
        more = f" and {len(missing) - MOST_LISTED} more" if len(missing) > MOST_LISTED else ""
        which = f"the average over orders is of {' and '.join(covered)} alone" if len(covered) > 1 else "no average"
        warnings.append(
            f"{len(missing)} of {2 ** len(factors)} sets of factors have no run ({told}{more}): {which}; the other "
            "steps stand in the order run, and in another order their shares could be others"
        )
    return warnings


def _common_photos(tables: Mapping[str, Sequence[Predictions]]) -> dict[str, list[Predictions]]:
    """Keep the photos that all could read."""
    everybody = [table for found in tables.values() for table in found]
    shared = set.intersection(*(set(table.frame["image_id"]) for table in everybody))
    return {
        name: [
            table.with_frame(table.frame[table.frame["image_id"].isin(shared)].reset_index(drop=True))
            for table in found
        ]
        for name, found in tables.items()
    }


def decompose_outcomes(setting: Setting, outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Take apart what a bake-off's ``decomposition:`` names; None where it names nothing.

    Candidates that are flagged take part and are told: that a recipe diverges is what a decomposition may be about.
    """
    config = setting.config
    if config.decomposition is None:
        return None
    by_name = {item.name: item for item in outcomes if item.scored and item.table is not None}
    names = list(dict.fromkeys(config.decomposition.runs().values()))
    absent = [name for name in names if name not in by_name]
    if absent:
        return {"skipped": f"no full result of {', '.join(absent)} (failed, or not chosen by the screening)"}
    members = [by_name[name] for name in names]
    seeds = most_seeds(members)
    try:
        found = decompose(
            {item.name: as_recipe(item, seeds) for item in members},
            config.decomposition,
            metric=config.metric,
            n_boot=config.n_boot,
            seed=config.seed,
        )
    except DermlabError as error:
        return {"skipped": str(error)}
    found["warnings"] += [f"{item.name} is not ranked: {flag}" for item in members for flag in item.flags]
    return found
