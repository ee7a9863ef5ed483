"""Make the synthetic clinic: a data set folder of procedural photos, with a questionnaire, masks and follow-up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dermlab.core.config import Config


class DataSynthConfig(Config):
    """Options of ``dermlab data synth``."""

    out: Path = Field(description="folder to write; must not exist or be empty")
    n: int = Field(default=600, description="number of photos")
    size: int = Field(default=128, description="side of the square photos in pixels, 28 to 1024")
    seed: int = Field(default=0, description="seed of everything")
    traps: bool = Field(default=False, description="plant faults for the audit to find; traps.json says which")
    threads: int | None = Field(default=None, description="rendering threads; default one for each CPU")


@dataclass(frozen=True)
class DataSynthResult:
    """What was written."""

    folder: Path
    n_images: int
    n_patients: int
    n_lesions: int
    classes: dict[str, int]
    traps: Path | None

    def lines(self) -> list[str]:
        """Return what a person reads."""
        classes = ", ".join(f"{name} {count:,}" for name, count in self.classes.items())
        lines = [
            f"{self.folder}: {self.n_images:,} photos of {self.n_lesions:,} lesions of {self.n_patients:,} patients",
            f"diagnosis: {classes}",
        ]
        if self.traps is not None:
            lines.append(f"faults were planted; {self.traps} says which")
        lines.append(f"next: dermlab data check {self.folder}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return asdict(self)


def run(config: DataSynthConfig) -> DataSynthResult:
    """Write the clinic and count it."""
    from dermlab.data.synthetic import make_clinic

    dataset = make_clinic(config.out, config.n, config.size, config.seed, config.traps, config.threads)
    manifest = dataset.manifest
    return DataSynthResult(
        folder=config.out,
        n_images=len(manifest),
        n_patients=int(manifest["patient_id"].nunique()),
        n_lesions=int(manifest["lesion_id"].nunique()),
        classes=dict(sorted(Counter(manifest["diagnosis"]).items())),
        traps=config.out / "traps.json" if config.traps else None,
    )
