"""Audit data set folders: files, duplicates, splits, columns that give the label away; worst first."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.core.files import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.audit import Finding
    from dermlab.data.dataset import Dataset

_WIDTH = 100


class DataCheckConfig(Config):
    """Options of ``dermlab data check``."""

    positional: ClassVar[tuple[str, ...]] = ("folders",)

    folders: tuple[Path, ...] = Field(min_length=1, description="data set folders; with several, photos they share too")
    split: str | None = Field(default=None, description="check this split only; default: every split there is")
    target: str | None = Field(default=None, description="target of the checks that need labels; default: the card's")
    waive: tuple[str, ...] = Field(
        default=(), description="error-level findings to let pass, by name: label-conflict, proxy:biopsed, …"
    )
    encoder: str | None = Field(
        default=None, description="look for copies, odd photos and wrong labels with this encoder's features too"
    )
    join: tuple[Path, ...] = Field(
        default=(), description="tables of further columns by image_id (concepts.parquet): do they betray the label?"
    )
    pretraining: tuple[Path, ...] = Field(
        default=(), description="which of the folders an encoder is pretrained on: is the other's test part in it?"
    )
    closely: bool = Field(
        default=True, description="look for wrong labels, faces and burnt-in text too: each photo at its full size"
    )
    out: Path | None = Field(
        default=None, description="folder for findings.json, a CSV of every case of each finding, and check.html"
    )
    photos: bool = Field(default=True, description="put thumbnails of the photos into check.html")


@dataclass(frozen=True)
class DataCheckResult:
    """What was found."""

    folders: tuple[Path, ...]
    findings: tuple[Finding, ...]
    waived: tuple[str, ...]
    written: tuple[Path, ...]

    @property
    def standing(self) -> int:
        """Number of error-level findings that are not waived."""
        return sum(finding.severity == "error" and finding.code not in self.waived for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """1 where an error-level finding stands."""
        return int(self.standing > 0)

    def lines(self) -> list[str]:
        """Return what a person reads: each finding with what resolves it, worst first, and the count."""
        lines: list[str] = []
        for finding in self.findings:
            severity = "waived" if self._is_waived(finding) else finding.severity
            lines.append(f"{severity.upper():<8}{finding.code}")
            lines += textwrap.wrap(finding.message, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
            lines += textwrap.wrap(
                finding.remedy,
                _WIDTH,
                initial_indent=" " * 6 + "→ ",
                subsequent_indent=" " * 8,
                break_long_words=False,
                break_on_hyphens=False,
            )
        counts = [sum(finding.severity == severity for finding in self.findings) for severity in ("warning", "info")]
        waived = sum(map(self._is_waived, self.findings))
        total = f"{words.plural(self.standing, 'error')}, {words.plural(counts[0], 'warning')}, "
        total += words.plural(counts[1], "note") + (f", {waived} waived" if waived else "")
        lines.append(f"{', '.join(map(str, self.folders))}: {total}")
        return [*lines, *(f"wrote {path}" for path in self.written)]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the findings, each with ``waived``."""
        return [{**finding.to_json(), "waived": self._is_waived(finding)} for finding in self.findings]

    def _is_waived(self, finding: Finding) -> bool:
        return finding.severity == "error" and finding.code in self.waived


def run(config: DataCheckConfig) -> DataCheckResult:
    """Audit the folders."""
    from dermlab.audit import audit
    from dermlab.audit.findings import check_waivers
    from dermlab.data.dataset import Dataset

    check_waivers(config.waive)
    resolved = [folder.expanduser().resolve() for folder in config.folders]
    if len(set(resolved)) < len(resolved):
        raise InputError("folders: one folder is named twice")
    for folder in config.pretraining:
        if folder.expanduser().resolve() not in resolved:
            raise InputError(f"pretraining: {folder} is not among the folders that are checked")
    findings = audit(
        _joined([Dataset.open(folder) for folder in config.folders], config.join),
        split=config.split,
        target=config.target,
        encoder=config.encoder,
        closely=config.closely,
        pretraining=config.pretraining,
    )
    result = DataCheckResult(config.folders, tuple(findings), config.waive, ())
    if config.out is None:
        return result
    written = _write(result, config.out)
    from dermlab.report.check_page import write_check

    page = write_check(config.out, photos=config.photos)
    return DataCheckResult(config.folders, tuple(findings), config.waive, (*written, page))


def _as_numbers(column: pd.Series) -> pd.Series:
    """Return a column of text as numbers where every value is one: delimited files hold nothing but text."""
    import pandas as pd

    if not pd.api.types.is_string_dtype(column):
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if bool((numbers.notna() == column.notna()).all()) else column


def _joined(datasets: list[Dataset], tables: tuple[Path, ...]) -> list[Dataset]:
    """Return the data sets with further columns of their photos, which no model gets unless a card lists them."""
    import pandas as pd

    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import read_table

    for path in tables:
        table = read_table(path)
        if "image_id" not in table or table["image_id"].duplicated().any():
            raise InputError(f"{path}: needs a column image_id that names each photo once")
        table = table.apply(_as_numbers).assign(image_id=table["image_id"].astype(str))
        if not any(table["image_id"].isin(dataset.image_ids).any() for dataset in datasets):
            raise InputError(f"{path}: no image of it is in {', '.join(str(one.folder) for one in datasets)}")
        joined = []
        for dataset in datasets:
            new = [column for column in table if column == "image_id" or column not in dataset.manifest]
            manifest = pd.merge(dataset.manifest, table[new], on="image_id", how="left")
            joined.append(Dataset(dataset.folder, dataset.card, manifest))
        datasets = joined
    return datasets


def _write(result: DataCheckResult, out: Path) -> tuple[Path, ...]:
    """Write the table of each finding that has one, and findings.json, which names them."""
    written: list[Path] = []
    taken: set[str] = set()
    entries = []
    for finding, entry in zip(result.findings, result.to_json(), strict=True):
        entry |= {"table": None, "folders": [str(folder) for folder in finding.folders]}
        entries.append(entry)
        if finding.table is None:
            continue
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in finding.code)
        name = stem
        while name in taken:  # one code may be found in several data sets and splits
            name = f"{stem}-{sum(other.startswith(stem) for other in taken) + 1}"
        taken.add(name)
        entry["table"] = f"{name}.csv"
        written.append(write_text(out / f"{name}.csv", finding.table.to_csv(index=False)))
    return write_json(out / "findings.json", entries), *written
