"""The tables of the licence page are what the cards and the rules say, and its examples are true."""

import importlib.util
from pathlib import Path

from dermlab.cli import main

ROOT = Path(__file__).resolve().parents[2]


def generator():
    spec = importlib.util.spec_from_file_location("generate_licences", ROOT / "docs" / "generate_licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_cards_and_rules_say():
    module = generator()
    text = module.PAGE.read_text(encoding="utf-8")
    assert text == module.page(text), "run: python docs/generate_licences.py"


def test_a_changed_table_would_be_noticed():
    module = generator()
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.page(text.replace("| `panderm` | CC-BY-NC-ND-4.0 |", "| `panderm` | MIT |")) == text


def test_the_pages_example_is_what_the_command_prints(capsys):
    assert main(["triage", "ham10000-classifier", "--use", "commercial"]) == 1
    printed = capsys.readouterr().out.splitlines()
    page = generator().PAGE.read_text(encoding="utf-8")
    for line in printed[2:4]:
        assert f"    {line}\n" in page
