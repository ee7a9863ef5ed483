"""Write docs/benchmarks.md from the results of suites, so that the page holds no number that no run has.

python docs/generate_benchmarks.py FOLDER [FOLDER …]

Each folder is one that ``dermlab suite`` wrote. Their diagrams are copied into docs/images.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dermlab.bench.suites.config import read_suite, suite_names
from dermlab.core import words
from dermlab.core.files import write_text
from dermlab.report.suite import as_markdown, read_results

PAGE = Path(__file__).parent / "benchmarks.md"
IMAGES = Path(__file__).parent / "images"

HEAD = """# Benchmarks

Written by `docs/generate_benchmarks.py` from the folders that `dermlab suite` wrote. A suite is a file of
`configs/suites` that names tasks, protocol and published numbers; [Run a published benchmark](how-to/suites.md) says
how to run one. Every value is on test, with a 95% interval over patients (else lesions, else photos); a mean is only
over the tasks that all models of a table have, and says over how many.
"""


def overview() -> list[str]:
    """Return the table of suites that come with dermlab."""
    lines = ["| suite | what it is | tasks | published numbers |", "|---|---|---:|---:|"]
    for name in suite_names():
        suite = read_suite(name)
        lines.append(f"| `{name}` | {suite.title} | {len(suite.tasks)} | {words.count(len(suite.values()))} |")
    return lines


def diagrams(folder: Path) -> list[str]:
    """Copy a suite's diagrams and return the lines that show them."""
    record = read_results(folder)
    wanted = [
        (f"Mean ranks over tasks: {table['method']}", table["diagram"])
        for table in record["tables"]
        if table["diagram"]
    ]
    for task in record["tasks"]:
        wanted += [(text, file) for text, file in (task.get("resolution") or {}).get("figures", [])]
    lines = []
    for text, name in wanted:
        copied = IMAGES / f"suite-{record['suite']}-{Path(name).name}"
        IMAGES.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, copied)
        lines += [f"![{text}](images/{copied.name})", ""]
    return lines


def page(folders: list[Path]) -> str:
    """Return the page of some suites' folders."""
    parts = [HEAD, *overview(), ""]
    for folder in folders:
        parts += [as_markdown(read_results(folder)), *diagrams(folder)]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    write_text(PAGE, page([Path(name) for name in sys.argv[1:]]))
