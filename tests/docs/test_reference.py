"""The reference page says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_commands_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python docs/generate_reference.py"


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert not dead


def test_nothing_committed_names_this_machine_or_a_download_host() -> None:
    hosts = ["python" + "hosted", "pypi" + ".org", "/work" + "/main", "registry." + "npmjs", "deb." + "debian"]
    folders = ["src", "docs", "tests", "configs", "benchmarks"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".txt", ".yml"}] + [ROOT / "Makefile"]
    texts = [path for path in files if path.suffix not in {".pyc", ".png", ".jpg", ".npz"}]
    assert not [path for path in texts for host in hosts if host in path.read_text(encoding="utf-8", errors="replace")]
