"""A finding: what is wrong, how bad, the evidence, and the line or command that resolves or waives it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermlab.core.errors import InputError, MissingExtraError
from dermlab.core.files import json_ready

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "info"]

_RANK = {"error": 0, "warning": 1, "info": 2}

WAIVABLE: dict[str, str] = {
    "group-overlap": "a patient or lesion in two parts of a split",
    "duplicates": "one identical photo in two parts of a split",
    "near-duplicates": "one photo in two parts of a split, re-encoded, resized, turned, mirrored or slightly cropped",
    "label-conflict": "one photo under two labels",
    "contamination": "one photo in two data sets",
    "proxy:COLUMN": "a column that gives the label away, used as an input",
    "unreadable": "too many photos that are missing or cannot be decoded",
}
"""What can stop a run, by the name that waives it. ``proxy`` is waived column by column, ``proxy:biopsed``."""

EXAMPLES = 20
"""A finding's evidence lists this many examples; its table has them all."""


FOLDER = "FOLDER"
"""Stands for the data set's folder in a remedy until :meth:`Finding.in_folder` names it."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data.

    Attributes:
        code: what kind it is, and the name that waives it: ``duplicates``, ``proxy:biopsed``.
        severity: ``error`` stops a run unless waived; ``warning`` is for a person to judge; ``info`` is good to know.
        message: one sentence with the counts.
        evidence: counts and up to :data:`EXAMPLES` examples, ready for JSON.
        remedy: the config line, card line or command that resolves it, and what waives it.
        table: every case of it, one row each; None where the evidence says it all.
        folders: the data sets it speaks of.
    """

    code: str
    severity: Severity
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    remedy: str = ""
    table: pd.DataFrame | None = field(default=None, compare=False, repr=False)
    folders: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    def in_folder(self, *folders: Path) -> Finding:
        """Return the finding with its data sets' folders in its remedy, so that the command can be run as it stands."""
        named = " ".join(shlex.quote(str(folder)) for folder in folders)
        return replace(self, remedy=self.remedy.replace(FOLDER, named), folders=folders)

    def to_json(self) -> dict[str, Any]:
        """Return code, severity, message, evidence and remedy as JSON-ready values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "evidence": json_ready(self.evidence),
            "remedy": self.remedy,
        }


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by severity; within one severity they stay as they were found."""
    return sorted(findings, key=lambda finding: _RANK[finding.severity])


def examples(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the first :data:`EXAMPLES` rows of a table as JSON-ready records."""
    return [json_ready(record) for record in table.head(EXAMPLES).to_dict(orient="records")]


def not_looked_for(name: str, error: MissingExtraError) -> Finding:
    """Return the finding that a check was left out because the package it needs is not installed."""
    return Finding("not-looked-for", "info", f"{name}: a check was left out.", {}, str(error))


def check_waivers(waive: Sequence[str]) -> None:
    """Raise :class:`InputError` where a waiver's name is not one of :data:`WAIVABLE`, naming those."""
    for name in waive:
        kind, _, column = name.partition(":")
        if name in WAIVABLE or (kind == "proxy" and column):
            continue
        known = [known for known in WAIVABLE if known != "proxy:COLUMN"]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if kind == "proxy":
            hint = "; a proxy is waived by its column's name, as in 'proxy:biopsed'"
        raise InputError(f"waive: {name!r} is not a finding that can be waived{hint} (names: {', '.join(WAIVABLE)})")


def gate(findings: Sequence[Finding], waive: Sequence[str] = (), *, split: str | None = None) -> list[str]:
    """Let a run go on only where every error-level finding is waived by name.

    Args:
        findings: what :func:`dermlab.audit.audit` found.
        waive: names of findings, as in :data:`WAIVABLE`.
        split: name of the split that was checked, for the command that shows the findings in full.

    Returns:
        One line per waiver for the report: what was waived and what it covers; a waiver that covers nothing says so.

    Raises:
        InputError: for an error-level finding that is not waived, or an unknown waiver; one line, naming every such
            finding in short, the command that tells all of it and the line that waives it.
    """
    check_waivers(waive)
    standing = [finding for finding in findings if finding.severity == "error" and finding.code not in waive]
    if standing:
        codes = list(dict.fromkeys(finding.code for finding in standing))
        told = "; ".join(dict.fromkeys(f"{finding.code} ({_short(finding.message)})" for finding in standing))
        count = "a finding stops" if len(codes) == 1 else f"{len(codes)} findings stop"
        folders = dict.fromkeys(folder for finding in standing for folder in finding.folders)
        where = "".join(f" {shlex.quote(str(folder))}" for folder in folders) or f" {FOLDER}"
        command = f"dermlab data check{where}" + (f" --split {shlex.quote(split)}" if split else "")
        raise InputError(
            f"{count} the run: {told}. '{command}' says what to do; to go on regardless: waive: [{', '.join(codes)}]"
        )
    lines = []
    for name in dict.fromkeys(waive):
        covered = [finding.message for finding in findings if finding.severity == "error" and finding.code == name]
        lines.append(f"waived {name}: {' '.join(covered)}" if covered else f"waived {name}: nothing of it was found")
    return lines


def _short(message: str) -> str:
    """Return what a finding's message counts, without its place, examples and consequences."""
    counted = re.sub(r"^[^:;']*(?:, split '[^']*')?: ", "", message)
    return re.split(r"[;(]|\. |\.$|, which", counted, maxsplit=1)[0].strip()
