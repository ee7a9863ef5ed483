"""How the trainings of a bake-off went: every learning curve, and what the candidates are worth over training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermlab.bench.candidates import Setting
from dermlab.bench.config import DRAWS_NOTHING
from dermlab.bench.outcome import Outcome
from dermlab.core.errors import DermlabError
from dermlab.core.files import read_json

if TYPE_CHECKING:
    from dermlab.evaluate.predictions import Predictions

KEPT = (
    *("epoch", "phase", "train_loss", "val_loss", "val_top1", "val_balanced_accuracy", "val_macro_f1", "val_auroc"),
    *("val_auprc", "val_quadratic_kappa"),
)


def read_trainings(
    setting: Setting, outcomes: Sequence[Outcome], screening: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return every fine-tuning's curves by epoch, of the screening and of the full budget; None where there is none.

    Returns:
        ``{"metric", "runs": [{"candidate", "stage", "seed", "repeat", "fold", "best_epoch", "history", "alarms"}],
        "warnings"}``; ``stage`` is ``screening`` or ``full``.
    """
    runs: list[dict[str, Any]] = []
    for row in (screening or {}).get("rows", []):
        runs += _curves(setting.out / row["run"], row["candidate"], "screening", setting.config.seed)
    for outcome in outcomes:
        if outcome.finetuned:
            for seed, run in outcome.trainings.items():
                runs += _curves(setting.out / run, outcome.name, "full", seed)
    return {"metric": setting.config.metric, "runs": runs, "warnings": []} if runs else None


def _curves(run: Path, candidate: str, stage: str, seed: int) -> list[dict[str, Any]]:
    """Read the curves of a run's folds; folds that never ended have none."""
    found = []
    for file in sorted(run.glob("checkpoints/*/model.json")):
        model = read_json(file)
        report = model["report"]
        found.append(
            {
                "candidate": candidate,
                "stage": stage,
                "seed": seed,
                "repeat": model["repeat"],
                "fold": model["fold"],
                "best_epoch": report["best_epoch"],
                "history": [{key: row.get(key) for key in KEPT} for row in report["history"]],
                "alarms": [
                    {"name": alarm["name"], "epoch": alarm["epoch"], "disqualifies": alarm["disqualifies"]}
                    for alarm in report["alarms"]
                ],
            }
        )
    return found


def as_recipe(outcome: Outcome, seeds: Sequence[int]) -> list[Predictions]:
    """Return an outcome's table as the runs of a recipe.

    A head that draws nothing comes out the same for each seed. It is entered once for each of ``seeds``, so that its
    part of the variance over seeds is the 0 that it is.
    """
    assert outcome.table is not None
    if outcome.finetuned or outcome.head not in DRAWS_NOTHING:
        return [outcome.table]
    return [outcome.table.with_frame(outcome.table.frame.assign(seed=seed)) for seed in seeds]


def most_seeds(outcomes: Sequence[Outcome]) -> list[int]:
    """Return the seeds of the outcome that was trained most often."""
    return max((list(outcome.trainings) for outcome in outcomes), key=len, default=[])


def compare_seeds(setting: Setting, outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Compare the candidates as recipes, over training seeds and groups; None where none was trained several times."""
    from dermlab.evaluate.seeds import compare_recipes

    config = setting.config
    able = [item for item in outcomes if item.scored and item.table is not None and item.kind != "ensemble"]
    seeds = most_seeds(able)
    if len(seeds) < 2:
        return None
    shown = [item for item in able if item.kind == "candidate" or item.winner]
    try:
        return compare_recipes(
            {item.name: as_recipe(item, seeds) for item in shown},
            metrics=(config.metric,),
            n_boot=config.n_boot,
            seed=config.seed,
        )
    except DermlabError as error:  # photos that one of them could not read: said, and no reason to lose the rest
        return {"skipped": str(error)}
