"""The ensemble of a bake-off: the weighted mean of the candidates that may ship, weights chosen on val."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermlab.bench.candidates import Setting, collapsed, confident_mistakes
from dermlab.bench.outcome import Outcome
from dermlab.bench.terms import Terms
from dermlab.core.config import read_yaml, write_yaml
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_json, write_text
from dermlab.core.progress import note
from dermlab.licensing.triage import worst

if TYPE_CHECKING:
    from dermlab.evaluate.predictions import Predictions

NAME = "ensemble"
FOLDER = f"runs/{NAME}"
COMMAND = "bakeoff ensemble"


def run_ensemble(setting: Setting, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Mix the candidates that may win; a floor, or what may not ship, is no member.

    Returns:
        The ensemble's outcome; nothing where there are fewer than two members.
    """
    from dermlab.evaluate.predictions import read_predictions

    members = [outcome for outcome in outcomes if outcome.kind == "candidate" and outcome.may_win]
    if len(members) < 2:
        return []
    config = setting.config
    # Of several trainings the one that would ship; rows are matched by seed, which is the members' own affair.
    tables = {
        member.name: table.with_frame(table.frame.assign(seed=config.seed))
        for member in members
        if (table := member.own_table) is not None
    }
    folder = setting.out / FOLDER
    record: dict[str, object] = {
        "command": COMMAND,
        "config": {
            "members": {name: str(table.meta.get("fingerprint")) for name, table in tables.items()},
            "runs": {member.name: member.run for member in members},
            "metric": config.metric,
            "n_boot": config.n_boot,
            "seed": config.seed,
        },
    }
    if not (folder / "done.json").exists() or read_yaml(folder / "config.yaml") != record:
        note(f"ensemble of {len(members)} candidates")
        shutil.rmtree(folder, ignore_errors=True)
        _make(setting, tables, record)
    done = read_json(folder / "done.json")
    weights = {name: weight for name, weight in done["weights"].items() if weight > 0}
    predictions = read_predictions(folder)
    used = [member for member in members if member.name in weights]
    terms = Terms(
        worst(member.encoder_verdict for member in used),
        tuple(dict.fromkeys(line for member in used for line in member.conditions)),
        tuple(dict.fromkeys(line for member in used for line in member.reasons)),
    )
    score = done["val_score"]
    outcome = Outcome(
        NAME,
        "ensemble",
        None,
        NAME,
        run=FOLDER,
        metrics=read_json(folder / "metrics.json"),
        val_score=score if score is not None and math.isfinite(score) else None,
        weights=weights,
        warnings=list(predictions.warnings),
        cost=_cost(used),
        table=predictions,
        mistakes=confident_mistakes(predictions),
    )
    outcome.under(terms, setting.data_terms)
    said = collapsed(predictions)
    if said is not None:
        outcome.flags.append(said)
    return [outcome]


def ensemble_members(folder: str | Path) -> list[tuple[float, Path]] | None:
    """Return (mean weight over the folds, run folder) of the members that count; None where it is no ensemble's folder.

    Raises:
        InputError: it is one, but a member's run folder is not where the bake-off left it.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").exists() or not (folder / "done.json").exists():
        return None
    record = read_yaml(folder / "config.yaml")
    if not isinstance(record, dict) or record.get("command") != COMMAND:
        return None
    runs, members = record["config"].get("runs", {}), []
    for name, weight in read_json(folder / "done.json")["weights"].items():
        if weight > 0:
            run = folder.parents[1] / runs.get(name, f"runs/{name}")
            if not run.is_dir():
                raise InputError(f"{folder}: mixes {name!r}, whose run folder {run} is not there")
            members.append((float(weight), run))
    return members


def _make(setting: Setting, tables: dict[str, Predictions], record: dict[str, object]) -> None:
    """Mix the members' tables, score the mixture and write its run folder."""
    from dermlab.adapt.ensemble import ensemble_predictions
    from dermlab.evaluate.cases import case_sets
    from dermlab.evaluate.metrics import Evaluation
    from dermlab.evaluate.predictions import write_predictions
    from dermlab.evaluate.summary import summarise

    config, folder = setting.config, setting.out / FOLDER
    readable = set.intersection(*(set(table.frame["image_id"]) for table in tables.values()))
    tables = {
        name: table.with_frame(table.frame[table.frame["image_id"].isin(readable)].reset_index(drop=True))
        for name, table in tables.items()
    }
    mixed, weights = ensemble_predictions(tables)
    warnings = [f"{name}: {line}" for name, table in tables.items() for line in table.warnings]
    write_text(folder / "config.yaml", write_yaml(record))
    meta = {**mixed.meta, "warnings": list(dict.fromkeys(warnings))}
    predictions = write_predictions(folder / "predictions.parquet", mixed.frame, meta)
    write_json(folder / "metrics.json", summarise(predictions, n_boot=config.n_boot, seed=config.seed))
    value = Evaluation(case_sets(predictions, "val").sets, [config.metric]).value()[config.metric]
    write_json(folder / "done.json", {"val_score": value, "weights": weights})


def _cost(members: Sequence[Outcome]) -> dict[str, float | None]:
    """Return what the members take together; an encoder that several share runs once."""
    by_encoder = {member.encoder: member for member in members}
    embed = sum(member.cost.get("embed_seconds") or 0.0 for member in by_encoder.values())
    total = sum((member.cost.get("seconds") or 0.0) - (member.cost.get("embed_seconds") or 0.0) for member in members)
    full = [member.cost.get("full_seconds") for member in members]
    known = [value for value in full if value is not None]
    return {
        "seconds": total + embed,
        "embed_seconds": embed,
        "images_per_second": None,
        "full_seconds": sum(known) if len(known) == len(full) and full else None,
    }
