"""What a bake-off leaves behind to read: ``leaderboard.csv`` for scripts, ``bakeoff.json`` for the report."""

from __future__ import annotations

import csv
import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dermlab.audit.findings import Finding
from dermlab.bench.baseline import Baseline
from dermlab.bench.candidates import Setting
from dermlab.bench.decision import Decision
from dermlab.bench.description import describe_data
from dermlab.bench.outcome import Outcome
from dermlab.core.config import write_yaml
from dermlab.core.device import environment
from dermlab.core.files import atomic_path, read_json
from dermlab.core.words import METRICS

FORMAT = 1
PLANS = "checkpoints/*/questionnaire.json"  # what each fold of a run reads of the questionnaire
COLUMNS = (
    *("candidate", "encoder", "head", "verdict", "val_score", "winner", "n_test", "top1", "top1_low", "top1_high"),
    *("top3", "balanced_accuracy", "macro_f1", "auroc", "ece", "seconds", "rank"),
    *("auprc", "micro_f1", "label_accuracy", "within_one", "quadratic_kappa"),
)
"""Columns that CONTRACT promises, then those of targets of several labels and of ranks; what there is not is empty."""
MEASURED = tuple(name for name in COLUMNS if name in METRICS)


def write_leaderboard(path: str | Path, outcomes: Sequence[Outcome]) -> Path:
    """Write one row a candidate in the order given; a value that there is none of is an empty cell."""
    path = Path(path)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow({name: "" if value is None else value for name, value in leaderboard_row(outcome).items()})
    return path


def leaderboard_row(outcome: Outcome) -> dict[str, Any]:
    """Return a candidate's row of ``leaderboard.csv``."""
    metrics = outcome.metrics
    top1 = metrics.get("top1") or {}
    return {
        "candidate": outcome.name,
        "encoder": outcome.encoder,
        "head": outcome.head,
        "verdict": outcome.verdict,
        "val_score": outcome.val_score,
        "winner": outcome.winner,
        "n_test": metrics.get("n"),
        "top1_low": top1.get("low"),
        "top1_high": top1.get("high"),
        **{name: (metrics.get(name) or {}).get("value") for name in MEASURED},
        "seconds": outcome.cost.get("seconds"),
        "rank": outcome.rank,
    }


def make_record(
    setting: Setting,
    outcomes: Sequence[Outcome],
    comparison: Sequence[Mapping[str, Any]],
    decision: Decision,
    findings: Sequence[Finding],
    waivers: Sequence[str],
    baseline: Baseline | None,
    seconds: float,
) -> dict[str, Any]:
    """Return the content of ``bakeoff.json`` (docs/reference/report.md)."""
    config = setting.config
    data = describe_data(
        setting.dataset, setting.target, config.split_name, setting.split, _dropped(setting, outcomes), seed=config.seed
    )
    return {
        "format": FORMAT,
        "title": f"Which model for {setting.target} on {data['name']}?",
        "made_at": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "asked": {
            "data": data["name"],
            "target": setting.target,
            "use": config.use,
            "metric": config.metric,
            "margin": config.margin,
            "seed": config.seed,
        },
        "decision": asdict(decision),
        "data": data,
        "findings": [{**finding.to_json(), "waived": finding.code in config.waive} for finding in findings],
        "waivers": list(waivers),
        "warnings": _warnings(outcomes, baseline),
        "candidates": [
            _candidate(outcome) | {"questionnaire": _columns_read(setting, outcome, outcomes)} for outcome in outcomes
        ],
        "baseline": None
        if baseline is None
        else {"name": baseline.name, "path": str(config.baseline), "metrics": baseline.metrics},
        "comparison": list(comparison),
        "cost": {
            "seconds": seconds,
            "machine": _machine(setting),
            "n_reused": sum(outcome.reused for outcome in outcomes),
            "full_data_images": config.full_data_images,
        },
        "reproduce": _reproduce(setting, data, outcomes),
    }


def _candidate(outcome: Outcome) -> dict[str, Any]:
    kept = ("name", "kind", "encoder", "head", "status", "error", "run", "flags", "warnings", "val_score", "winner")
    return {
        **{name: getattr(outcome, name) for name in kept},
        "rank": outcome.rank,
        "finetuned": outcome.finetuned,
        "trainings": {str(seed): run for seed, run in outcome.trainings.items()},
        "weights": outcome.weights,
        "metrics": outcome.metrics,
        "mistakes": outcome.mistakes,
        "licence": {"verdict": outcome.verdict, "conditions": outcome.conditions, "reasons": outcome.reasons},
        "cost": outcome.cost,
    }


def _warnings(outcomes: Sequence[Outcome], baseline: Baseline | None) -> list[str]:
    """Return what a reader must know of the winner's figures (else of all), and of the baseline's.

    Which questionnaire columns were left out stands with the data.
    """
    winner = [outcome for outcome in outcomes if outcome.winner]
    lines = [
        line for outcome in winner or outcomes for line in outcome.warnings if not line.startswith("questionnaire")
    ]
    if baseline is not None:
        lines += [f"baseline {baseline.name}: {line}" for line in baseline.warnings]
    return list(dict.fromkeys(lines))


def _dropped(setting: Setting, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the questionnaire columns that some fold of some candidate left out, with the reason."""
    dropped: dict[str, str] = {}
    for outcome in outcomes:
        for file in sorted((setting.out / outcome.run).glob(PLANS)) if outcome.run else []:
            for column, reason in read_json(file)["dropped"].items():
                dropped.setdefault(column, reason)
    return dropped


def _columns_read(setting: Setting, outcome: Outcome, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the questionnaire columns that some fold of a candidate, or of an ensemble's members, was fitted with."""
    members = [other for other in outcomes if other.name in outcome.weights] or [outcome]
    columns: dict[str, None] = {}
    for member in members:
        for file in sorted((setting.out / member.run).glob(PLANS)) if member.run else []:
            columns |= {entry["column"]: None for entry in read_json(file)["plan"]}
    return list(columns)


def _machine(setting: Setting) -> str:
    runtime = setting.runtime
    if runtime.device == "cpu":
        from dermlab.core.words import plural

        return f"{plural(environment().get('torch_threads') or 1, 'CPU thread')} in {runtime.precision}"
    return f"{runtime.device} in {runtime.precision}"


def _reproduce(setting: Setting, data: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    config, found = setting.config, environment()
    facts: dict[str, str] = {
        "seed": str(config.seed),
        "data fingerprint": data["fingerprint"],
        "split fingerprint": data["split"]["fingerprint"],
    }
    for outcome in outcomes:
        file = setting.out / outcome.run / "inputs.json"
        if outcome.encoder is not None and outcome.run and file.exists():
            facts.setdefault(f"weights of {outcome.encoder}", str(read_json(file)["encoder"]))
    facts |= {"device, precision": f"{setting.runtime.device}, {setting.runtime.precision}: {setting.runtime.reason}"}
    facts |= {"python": found["python"], "platform": found["platform"]}
    facts |= {"instruction sets": ", ".join(found["cpu_flags"]) or "not known"}
    facts |= {"packages": ", ".join(f"{name} {version}" for name, version in found["packages"].items())}
    command = f"dermlab bakeoff {shlex.quote(str(setting.out / 'config.yaml'))} --out NEW_FOLDER"
    return {"command": command, "config_yaml": write_yaml(told(config)), "facts": facts}


def told(config: Any) -> dict[str, Any]:
    """Return a bake-off's config as it is written down: what stands at its default is left out."""
    fields = {"data": str(config.data), **config.model_dump(mode="json", exclude_defaults=True)}
    if "heads" in fields:
        fields["heads"] = [_word(head) for head in fields["heads"]]
    for candidate in fields.get("candidates", []):
        if "head" in candidate:
            candidate["head"] = _word(candidate["head"])
    return fields


def _word(head: dict[str, Any]) -> dict[str, Any] | str:
    return str(head["kind"]) if list(head) == ["kind"] else head
