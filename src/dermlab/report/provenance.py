"""Where the figures of a page come from: which tables, of which data, scored when and by which command."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermlab.core import words
from dermlab.core.files import read_json

if TYPE_CHECKING:
    from dermlab.core.config import Config
    from dermlab.evaluate.predictions import Predictions

FILE = "provenance.json"
Json = dict[str, Any]


def provenance(verb: str, config: Config, positional: Iterable[str], tables: Iterable[Predictions]) -> Json:
    """Return the content of ``provenance.json``.

    Args:
        verb: the command, ``evaluate`` or ``compare``.
        config: its options; those at their defaults are left out of the command.
        positional: names of the options that stand without a name.
        tables: the tables read, as they were scored.

    Returns:
        JSON-able: ``{"made_at", "command", "tables": [{"source", "model", "target", "dataset", "data_fingerprint",
        "split", "lineage", "fingerprint", "n_images", "folds", "repeats", "seeds", "calibration"}]}``; null where a
        table does not tell. ``fingerprint`` is that of the predictions, as their run wrote it, and ``lineage`` what its
        sidecar says: ``dermlab triage`` finds the licence cards there.
    """
    given = config.model_dump(mode="json", exclude_defaults=True)
    line = ["dermlab", verb]
    for name in positional:
        value = given.pop(name, None)
        line += [str(part) for part in value] if isinstance(value, list) else [str(value)]
    for name, value in given.items():
        if isinstance(value, bool):
            line.append(f"--{name}" if value else f"--no_{name}")
        elif isinstance(value, dict):
            line += [f"--{name}", "{" + ", ".join(f"{key}: {part}" for key, part in value.items()) + "}"]
        else:
            line += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return {
        "made_at": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(line),
        "tables": [_table(table) for table in tables],
    }


def _table(table: Predictions) -> Json:
    lineage = table.meta.get("lineage")
    known = lineage if isinstance(lineage, dict) else {}
    return {
        "source": str(table.source),
        **{key: table.meta.get(key) for key in ("model", "target", "fingerprint", "calibration")},
        **{key: known.get(key) for key in ("dataset", "data_fingerprint", "split")},
        "lineage": lineage,
        "n_images": int(table.frame["image_id"].nunique()),
        **{f"{key}s": int(table.frame[key].nunique()) for key in ("fold", "repeat", "seed")},
    }


def shown(folder: str | Path) -> Json:
    """Return what a page shows of ``provenance.json`` in its folder: ``{"made_at", "command", "rows"}``, or nothing."""
    file = Path(folder) / FILE
    if not file.exists():
        return {"made_at": "", "command": "", "rows": []}
    content = read_json(file)
    return {
        **{key: content[key] for key in ("made_at", "command")},
        "rows": [_row(table) for table in content["tables"]],
    }


def _row(table: Json) -> Json:
    """Return one table's line: the file, and what is known of its data, folds and calibration."""
    told = [f"{words.count(table['n_images'])} photos in the table"]
    if table["dataset"]:
        told.append(f"data set {table['dataset']} (fingerprint {table['data_fingerprint'] or 'not known'})")
    else:
        told.append("which data set it was made on the table does not tell")
    if table["split"]:
        told.append(f"model fitted on the train part, and chosen on val, of split {table['split']}")
    for key, what in (("folds", "fold"), ("repeats", "repeat"), ("seeds", "training seed")):
        if table[key] > 1:
            told.append(f"{words.plural(table[key], what)} pooled")
    told.append(calibrated(table["calibration"]) or "probabilities scored as they stand in the table")
    if table["fingerprint"]:
        told.append(f"fingerprint of the predictions {table['fingerprint']}")
    return {"source": table["source"], "model": table["model"] or "", "told": "; ".join(told)}


def calibrated(calibration: Mapping[str, Any] | None) -> str:
    """Say that probabilities were calibrated before they were scored, on what and by how much; empty if not."""
    if not calibration:
        return ""
    fits = calibration.get("temperatures") or []
    values = sorted(fit["temperature"] for fit in fits if fit.get("temperature") is not None)
    by = (
        f", temperature {values[0]:.2f}" + (f" to {values[-1]:.2f}" if values[-1] != values[0] else "")
        if values
        else ""
    )
    return f"probabilities calibrated on {calibration['fitted_on']} before scoring ({calibration['method']}{by})"
