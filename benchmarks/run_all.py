"""Run the speed ratios one after the other; what fails is told at the end.

python benchmarks/run_all.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = (
    *("training_batches.py", "views.py", "embed.py", "finetune.py", "neighbours.py", "scaling.py", "bootstrap.py"),
    "label_efficiency.py",
)


def main() -> int:
    """Run every script and return the number that failed."""
    failed = []
    for name in SCRIPTS:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, str(FOLDER / name)], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
