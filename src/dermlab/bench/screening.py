"""Budget-matched screening: every recipe on the same part of the photos for the same epochs; ``val`` says who goes on.

Nothing of the test part is read here. A recipe that is best on a small budget need not be best on the full one; what
screening saves is the full budget of those that are clearly behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermlab.bench.candidates import (
    Plan,
    Setting,
    alarms_of,
    collapsed,
    recipe_settings,
    run_recipe,
    val_score,
    why_not,
)
from dermlab.bench.config import Screening, folder_name
from dermlab.core.errors import DermlabError, first_line
from dermlab.core.progress import note, warn
from dermlab.evaluate.compare import A_BETTER, B_BETTER, compare_predictions

if TYPE_CHECKING:
    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.evaluate.predictions import Predictions

FOLDER = "screening"


def screened(recipe: FinetuneSettings, budget: Screening) -> FinetuneSettings:
    """Return a recipe under the screening's budget.

    A recipe of one phase alone spends both phases' epochs in it, so that every recipe sees the photos equally often.
    """
    frozen, whole = budget.frozen_epochs, budget.finetune_epochs
    if not recipe.frozen_epochs:
        frozen, whole = 0, frozen + whole
    elif not recipe.finetune_epochs:
        frozen, whole = frozen + whole, 0
    return recipe.model_copy(
        update={
            "max_train_samples": budget.max_train_samples,
            "max_val_samples": budget.max_val_samples,
            "frozen_epochs": frozen,
            "finetune_epochs": whole,
            "patience": None,
        }
    )


def screen(setting: Setting, plans: Sequence[Plan]) -> tuple[list[Plan], dict[str, Any] | None]:
    """Screen the fine-tuned candidates and return the plans without those that do not go on, and the record.

    Args:
        setting: the bake-off's; its config has the budget.
        plans: all of them; frozen encoders are cheap and go on unscreened.

    Returns:
        The plans that go on, and what was found (``screening.json``), None where no screening was asked for.
    """
    budget, metric = setting.config.screening, setting.config.metric
    tuned = [item for item in plans if item.recipe is not None]
    if budget is None or not tuned:
        return list(plans), None
    rows: dict[str, dict[str, Any]] = {}
    tables: dict[str, Predictions] = {}
    for number, item in enumerate(tuned, 1):
        title = f"screening {number} of {len(tuned)}: {item.name}"
        row: dict[str, Any] = {
            "candidate": item.name,
            "encoder": item.encoder,
            "run": f"{FOLDER}/{folder_name(item.name)}",
            "val_score": None,
            "flags": [],
            "error": "",
            "goes_on": False,
            "why": "",
        }
        rows[item.name] = row
        try:
            table = _screen_one(setting, item, budget, row, title)
        except Exception as error:  # one recipe's failure is no reason to leave the others out
            row["error"] = first_line(error)
            if not isinstance(error, DermlabError):
                row["error"] = f"{type(error).__name__}: {row['error']}"
            warn(f"{title} failed: {row['error']}")
            continue
        if not row["flags"]:
            tables[item.name] = table
    comparison: list[dict[str, Any]] = []
    if len(tables) > 1:
        comparison = compare_predictions(
            tables, metrics=(metric,), split="val", n_boot=setting.config.n_boot, seed=setting.config.seed
        )
    scores = {name: rows[name]["val_score"] for name in tables}
    chosen = finalists(scores, comparison, budget.finalists)
    for name, row in rows.items():
        row["goes_on"] = name in chosen
        row["why"] = _why(row, chosen.get(name), budget)
    told = ", ".join(chosen) or "none"
    note(f"screening on {metric} of val: {told} {'go' if len(chosen) > 1 else 'goes'} on to the full budget")
    ordered = sorted(rows.values(), key=lambda row: (row["val_score"] is None, -(row["val_score"] or 0.0)))
    record = {
        "metric": metric,
        "seed": setting.config.seed,
        "budget": budget.model_dump(mode="json"),
        "rows": ordered,
        "comparison": comparison,
        "warnings": [],
    }
    return [item for item in plans if item.recipe is None or item.name in chosen], record


def _screen_one(setting: Setting, item: Plan, budget: Screening, row: dict[str, Any], title: str) -> Predictions:
    """Train one recipe on the small budget and write what came of it into its row."""
    assert item.recipe is not None
    settings = recipe_settings(setting, screened(item.recipe, budget), setting.config.seed)
    result, _ = run_recipe(setting, settings, setting.out / row["run"], title, test=False)
    table = result.predictions()
    score = val_score(table, setting.config.metric)
    row["val_score"] = score
    row["seconds"] = result.seconds
    row["flags"] = why_not(result, finetuned=True)
    row["alarms"] = [alarm["name"] for alarm in alarms_of(result)]
    said = collapsed(table)
    if said is not None:
        row["flags"].append(said)
    note(f"  {setting.config.metric} on val {score:.3f}" + "".join(f"; {flag}" for flag in row["flags"]))
    return table


def finalists(scores: Mapping[str, float], comparison: Sequence[Mapping[str, Any]], n: int | None) -> dict[str, str]:
    """Return who goes on, best on val first, each with the reason.

    Args:
        scores: on val, of those that may go on.
        comparison: all pairs of them on val.
        n: so many; None: all that are not significantly worse than the best.
    """
    ordered = sorted(scores, key=lambda name: -scores[name])
    if n is not None:
        return {name: f"number {place} on val" for place, name in enumerate(ordered[:n], 1)}
    if not ordered:
        return {}
    best = ordered[0]
    worse = {pair["b"] for pair in comparison if pair["a"] == best and pair["verdict"] == A_BETTER}
    worse |= {pair["a"] for pair in comparison if pair["b"] == best and pair["verdict"] == B_BETTER}
    return {
        name: "the best on val" if name == best else f"val cannot tell it from {best}"
        for name in ordered
        if name not in worse
    }


def _why(row: Mapping[str, Any], chosen: str | None, budget: Screening) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    if row["flags"]:
        return "; ".join(row["flags"])
    if chosen is not None:
        return chosen
    if budget.finalists is not None:
        return f"not among the best {budget.finalists}"
    return "significantly worse on val than the best"
