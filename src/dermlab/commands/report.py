"""Draw a bake-off's report again, with what was measured since: robustness, unseen classes, label efficiency."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.core.config import Config


class ReportConfig(Config):
    """Options of ``dermlab report``."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="a bake-off's folder")
    photos: bool = Field(True, description="put thumbnails of patients' photos into the report")


@dataclass(frozen=True)
class ReportResult:
    """What was drawn."""

    report: Path
    parts: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report's path and what it shows beyond the leaderboard."""
        return [f"report: {self.report}", f"with: {', '.join(self.parts) or 'the leaderboard alone'}"]

    def to_json(self) -> dict[str, Any]:
        """Return the report's path and the analyses it shows."""
        return {"report": self.report, "parts": list(self.parts)}


def run(config: ReportConfig) -> ReportResult:
    """Draw the report from the files of the folder."""
    from dermlab.core.files import read_json
    from dermlab.report.html import read_further, write_report

    report = write_report(config.folder, photos=config.photos)
    return ReportResult(report, tuple(read_further(config.folder, read_json(config.folder / "bakeoff.json"))))
