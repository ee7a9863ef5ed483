"""Draw a bake-off's report again, with what was measured since, or write the model card of a run or an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.core.config import Config


class ReportConfig(Config):
    """Options of ``dermlab report``."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="a bake-off's folder, a run's or an encoder's")
    photos: bool = Field(True, description="put thumbnails of patients' photos into the report")


@dataclass(frozen=True)
class ReportResult:
    """What was drawn."""

    report: Path | None
    parts: tuple[str, ...]
    card: Path | None

    def lines(self) -> list[str]:
        """Return the report's path and what it shows beyond the leaderboard, and the model card's."""
        lines = [f"report: {self.report}", f"with: {', '.join(self.parts) or 'the leaderboard alone'}"]
        return [*(lines if self.report else []), *([f"model card: {self.card}"] if self.card else [])]

    def to_json(self) -> dict[str, Any]:
        """Return the report's path and the analyses it shows, and the model card's path; null where there is none."""
        return {"report": self.report, "parts": list(self.parts), "model_card": self.card}


def run(config: ReportConfig) -> ReportResult:
    """Draw the report, or write the card, from the files of the folder."""
    from dermlab.core.files import inside, read_json
    from dermlab.report.html import read_further, write_report
    from dermlab.report.model_card import CARD_FILE, describe_run, encoder_folder, write_model_card

    if not (config.folder / "bakeoff.json").is_file():
        if (config.folder / "predictions.parquet").is_file():
            return ReportResult(None, (), describe_run(config.folder))
        if encoder_folder(config.folder) is not None:
            return ReportResult(None, (), write_model_card(config.folder))
    report = write_report(config.folder, photos=config.photos)
    record = read_json(config.folder / "bakeoff.json")
    run = next((item["run"] for item in record["candidates"] if item["winner"]), None)
    card = inside(config.folder, run) / CARD_FILE if run else None
    return ReportResult(report, tuple(read_further(config.folder, record)), card)
