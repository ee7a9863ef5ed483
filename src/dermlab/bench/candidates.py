"""The candidates of a bake-off: run one after the other, each in its folder; what is there already is not run again."""

from __future__ import annotations

import contextlib
import math
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dermlab.adapt.config import HeadConfig, ProbeSettings
from dermlab.bench.config import BakeoffConfig, folder_name
from dermlab.bench.outcome import COSTS, Outcome
from dermlab.bench.terms import Terms, contamination, encoder_terms
from dermlab.core.config import read_yaml
from dermlab.core.errors import DermlabError, first_line
from dermlab.core.files import read_json, write_json, write_text
from dermlab.core.progress import note, warn

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.adapt.probe import ProbeResult
    from dermlab.core.device import Runtime
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import Predictions
    from dermlab.features.extract import Features

N_MISTAKES = 12
COST_FILE = "cost.json"


@dataclass(frozen=True)
class Plan:
    """One row of the table to be: what is run under which name."""

    name: str
    kind: Literal["candidate", "floor"]
    encoder: str | None
    head: HeadConfig

    @property
    def folder(self) -> str:
        """Its run folder below the bake-off's."""
        return f"runs/{folder_name(self.name)}"


@dataclass(frozen=True)
class Setting:
    """What all candidates have in common."""

    config: BakeoffConfig
    out: Path
    dataset: Dataset
    target: str
    split: pd.DataFrame
    data_terms: Terms
    runtime: Runtime


def plan(config: BakeoffConfig, dataset: Dataset) -> list[Plan]:
    """Return what is run: the candidates as the config lists them, then the floors that are not among them."""
    plans = [Plan(item.label, "candidate", item.encoder, item.head) for item in config.everything()]
    floors = [Plan("majority", "floor", None, HeadConfig(kind="majority"))]
    if dataset.questionnaire().shape[1]:
        floors.append(Plan("questionnaire", "floor", None, HeadConfig(kind="questionnaire")))
    floors.append(Plan("histogram-knn", "floor", "histogram", HeadConfig(kind="knn")))
    taken = {item.folder for item in plans}
    return plans + [floor for floor in floors if floor.folder not in taken]


def run_candidates(setting: Setting, plans: Sequence[Plan]) -> list[Outcome]:
    """Run every plan, those of one encoder together, and return their outcomes in the plans' order.

    A candidate that fails is an outcome that says why; the others go on.
    """
    outcomes: dict[str, Outcome] = {}
    embedded: dict[str, Features] = {}
    encoders = list(dict.fromkeys(item.encoder for item in plans))
    number = 0
    for encoder in encoders:
        for item in (item for item in plans if item.encoder == encoder):
            number += 1
            title = f"candidate {number} of {len(plans)}: {item.name}"
            try:
                outcomes[item.name] = _run(setting, item, embedded, title)
            except Exception as error:  # whatever goes wrong in one candidate, the others still have their turn
                outcomes[item.name] = _failed(setting, item, error, title)
        embedded.clear()  # one encoder's features at a time
    return [outcomes[item.name] for item in plans]


def _run(setting: Setting, item: Plan, embedded: dict[str, Features], title: str) -> Outcome:
    """Run one candidate, or read what an earlier run of the very same left."""
    from dermlab.adapt.probe import inputs_of, read_probe, run_probe

    config, folder = setting.config, setting.out / item.folder
    settings = ProbeSettings(
        encoder=item.encoder,
        head=item.head,
        split=config.split_name,
        target=setting.target,
        metric=config.metric,
        seed=config.seed,
        max_train_per_class=config.max_train_per_class,
        max_val_per_class=config.max_val_per_class,
        include_columns=config.include_columns,
        waive=tuple(name for name in config.waive if name.startswith("proxy:")),
        n_boot=config.n_boot,
    )
    inputs = inputs_of(setting.dataset, setting.split, item.encoder)
    inputs["encoder"] = _fingerprint(setting, item.encoder, embedded)
    if folder.exists() and not _is_of(folder, settings, inputs):
        note(f"{item.name}: was made with other data or settings, and is made again")
        shutil.rmtree(folder)
    reused = (folder / "done.json").exists()
    if reused:
        note(f"{title} (done before)")
        result = read_probe(folder)
    else:
        note(title)
        features = _embedded(setting, item.encoder, embedded)
        result = run_probe(setting.dataset, settings, folder, features=features, runtime=setting.runtime)
        _keep_cost(folder, result, features)
    outcome = _outcome(setting, item, result)
    outcome.reused = reused
    shown = "–" if outcome.val_score is None else f"{outcome.val_score:.3f}"
    note(f"  {config.metric} on val {shown}" + "".join(f"; {flag}" for flag in outcome.flags))
    return outcome


def _fingerprint(setting: Setting, encoder: str | None, embedded: dict[str, Features]) -> str | None:
    """Return the fingerprint of an encoder's weights; they are looked at only where nobody remembers it."""
    if encoder is None:
        return None
    if encoder in embedded:
        return str(embedded[encoder].encoder["fingerprint"])
    if encoder == "histogram":
        from dermlab.features.histogram import describe

        return str(describe()["fingerprint"])
    from dermlab.models.encoders import identify_encoder

    return identify_encoder(encoder, seed=setting.config.seed).fingerprint


def _embedded(setting: Setting, encoder: str | None, embedded: dict[str, Features]) -> Features | None:
    if encoder is None:
        return None
    if encoder not in embedded:
        from dermlab.features.extract import embed

        embedded[encoder] = embed(setting.dataset, encoder, runtime=setting.runtime, seed=setting.config.seed)
    return embedded[encoder]


def _is_of(folder: Path, settings: ProbeSettings, inputs: dict[str, Any]) -> bool:
    """Tell whether a run folder was made, or begun, with these settings on these inputs."""
    if not (folder / "config.yaml").exists() or not (folder / "inputs.json").exists():
        return False
    same = read_yaml(folder / "config.yaml").get("config") == settings.model_dump(mode="json")
    return same and read_json(folder / "inputs.json") == inputs


def _keep_cost(folder: Path, result: ProbeResult, features: Features | None) -> None:
    """Write what the candidate took: fitting and predicting, the encoder, and the encoder's rate."""
    write_json(
        folder / COST_FILE,
        {
            "fit_seconds": result.seconds,
            "embed_seconds": features.seconds if features is not None else None,
            "images_per_second": features.images_per_second or None if features is not None else None,
        },
    )


def _outcome(setting: Setting, item: Plan, result: ProbeResult) -> Outcome:
    """Read a run into an outcome; what decides who may win is taken from train and val only."""
    predictions = result.predictions()
    outcome = _base(setting, item)
    outcome.table = predictions
    outcome.metrics = result.metrics
    outcome.val_score = result.val_score if math.isfinite(result.val_score) else None
    outcome.warnings = list(result.warnings)
    outcome.cost = read_cost(setting.out / item.folder, setting)
    if not result.converged:
        outcome.flags.append("the head did not converge")
    said = collapsed(predictions)
    if said is not None and item.head.kind != "majority":
        outcome.flags.append(f"on validation it names one class only ({said})")
    outcome.mistakes = confident_mistakes(predictions)
    return outcome


def _base(setting: Setting, item: Plan) -> Outcome:
    """Return a candidate's outcome before anything has run: what it is, and the terms it stands under."""
    from dermlab.models.encoders import identify_encoder

    identity = None
    if item.encoder is not None and item.encoder != "histogram":
        with contextlib.suppress(DermlabError):
            identity = identify_encoder(item.encoder, seed=setting.config.seed)
    terms = encoder_terms(item.encoder, identity, setting.config.use)
    outcome = Outcome(item.name, item.kind, item.encoder, str(item.head.kind), run=item.folder)
    outcome.under(terms, setting.data_terms)
    seen = contamination(identity, setting.dataset.card.licence_card)
    if seen is not None:
        outcome.flags.append(seen)
    return outcome


def _failed(setting: Setting, item: Plan, error: Exception, title: str) -> Outcome:
    """Return the outcome of a candidate that failed; the traceback of the unexpected stays in its folder."""
    told = first_line(error)
    if not isinstance(error, DermlabError):
        path = setting.out / f"{item.folder}-error.txt"
        write_text(path, "".join(traceback.format_exception(error)))
        told = f"{type(error).__name__}: {told} (unexpected; the traceback is in {path})"
    warn(f"{title} failed and is left out: {told}")
    outcome = _base(setting, item)
    outcome.status, outcome.error = "failed", told
    return outcome


def read_cost(folder: Path, setting: Setting) -> dict[str, float | None]:
    """Return what a candidate took, and what it would take on all of the user's photos."""
    if not (folder / COST_FILE).exists():
        return dict.fromkeys(COSTS)
    kept = read_json(folder / COST_FILE)
    fit, embed, rate = kept["fit_seconds"], kept["embed_seconds"], kept["images_per_second"]
    full = None
    n_full = setting.config.full_data_images
    if n_full is not None and (embed is None or rate):
        full = fit * n_full / len(setting.dataset) + (n_full / rate if rate else 0.0)
    return {"seconds": fit + (embed or 0.0), "embed_seconds": embed, "images_per_second": rate, "full_seconds": full}


def collapsed(predictions: Predictions) -> str | None:
    """Return the only class that a model names on val, or None where it names several."""
    from dermlab.evaluate.predictions import pool_units

    codes = np.unique(pool_units(predictions.part("val")).predicted())
    return predictions.classes[int(codes[0])] if len(codes) == 1 else None


def confident_mistakes(predictions: Predictions, n: int = N_MISTAKES) -> list[dict[str, Any]]:
    """Return the test units that a model got wrong with the highest probability, most confident first."""
    from dermlab.evaluate.predictions import pool_units

    test = predictions.test()
    first_photo = test.frame.drop_duplicates("unit").set_index("unit")["image_id"]
    pooled = pool_units(test)
    truth, predicted = pooled.truth(), pooled.predicted()
    confidence = pooled.probabilities().max(axis=1)
    units = pooled.frame["unit"].to_numpy(dtype=object)
    result: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in np.argsort(-confidence, kind="stable"):
        unit = str(units[row])
        if truth[row] < 0 or truth[row] == predicted[row] or unit in seen:
            continue
        seen.add(unit)
        result.append(
            {
                "image_id": str(first_photo[unit]),
                "unit": unit,
                "label": predictions.classes[truth[row]],
                "predicted": predictions.classes[predicted[row]],
                "confidence": float(confidence[row]),
            }
        )
        if len(result) == n:
            break
    return result
