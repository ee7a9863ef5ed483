"""The command line: quick, one line for every wrong turn, the same verbs in Python."""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys

import pytest

from dermlab import verbs
from dermlab.cli import main


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dermlab.cli import main; main(['--help']); import dermlab; "
        "heavy = {'torch', 'pandas', 'sklearn', 'numpy', 'timm', 'matplotlib', 'cv2'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time, not the clock's: a busy machine is not the command's fault.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 0.5


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for words in verbs.COMMANDS:
        assert f"  {' '.join(words)} " in shown


@pytest.mark.parametrize("verb", sorted(verbs.VERBS))
def test_every_command_has_a_help_page_with_every_field_described(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = next(words for words, name in verbs.COMMANDS.items() if name == verb)
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, field in verbs.config_class(verb).model_fields.items():
        assert field.description, f"{verb}.{name} has no description"
        word = field.alias or name
        assert (f"--{word} " if field.alias else word) in shown or word.upper() in shown
    module = importlib.import_module(f"dermlab.commands.{verb}")
    assert module.__doc__.splitlines()[0].rstrip(".") == verbs.summary(verb)


@pytest.mark.parametrize("verb", sorted(verbs.VERBS))
def test_importing_a_command_imports_no_torch(verb: str) -> None:
    code = f"import sys, dermlab.commands.{verb}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bakeof"], "did you mean 'bakeoff'?"),
        (["data", "imprt"], "did you mean 'data import'?"),
        (["data"], "which one?"),
        (["probe", "--encodr", "x"], "did you mean --encoder?"),
        (["data", "check"], "required"),
        (["evaluate", "no/such/table.parquet", "--out", "x"], "no such file"),
    ],
)
def test_a_wrong_turn_is_one_line_and_status_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert error.startswith("error: ")
    assert "\n" not in error


def test_an_unexpected_failure_is_one_line_and_status_3(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("dermlab.commands.encoders")

    def fail(config: module.EncodersConfig) -> None:  # type: ignore[name-defined]
        raise RuntimeError("boom\nsecond line")

    monkeypatch.setattr(module, "run", fail)
    monkeypatch.setattr(verbs, "config_class", lambda verb: module.EncodersConfig)
    assert main(["encoders"]) == 3
    assert capsys.readouterr().err == "error: RuntimeError: boom (unexpected; --debug shows the traceback)\n"
    monkeypatch.setattr(module, "run", lambda config: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["encoders"]) == 130


def test_json_is_one_value_on_standard_output(clinic, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["data", "check", str(clinic), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert isinstance(shown, list)
    assert status == (1 if any(row["severity"] == "error" for row in shown) else 0)


def test_print_config_prints_yaml_that_gives_the_same_config(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "a", "--encoder", "resnet50", "--out", "b", "--seed", "5", "--print_config"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(first)
    assert main(["probe", "--print-config", "--config", str(tmp_path / "c.yaml")]) == 0
    assert capsys.readouterr().out == first


def test_python_offers_the_same_verbs(clinic) -> None:
    import dermlab

    assert set(verbs.VERBS) <= set(dir(dermlab))
    findings = dermlab.data_check([clinic]).to_json()
    assert isinstance(findings, list)
    assert callable(dermlab.evaluate)
    assert callable(dermlab.evaluate.bootstrap)
    with pytest.raises(AttributeError):
        _ = dermlab.no_such_verb


@pytest.mark.parametrize(
    ("words", "option", "does"),
    [
        (["data", "check"], "--no_photos", "put thumbnails"),
        (["data", "check"], "--no_closely", "look for wrong labels"),
        (["redraw"], "--no_stratified", "keep the mix of classes"),
        (["predict"], "--no_labels", "write the data set's labels"),
    ],
)
def test_an_option_that_turns_something_off_says_so(
    words: list[str], option: str, does: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{option} turn off: {does}" in shown
