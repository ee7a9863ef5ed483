"""A wrong config is one line that names the field; the command line beats YAML beats defaults."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from dermlab.cli import parse
from dermlab.core.config import Config, merge, read_yaml, validate
from dermlab.core.errors import InputError


class Head(Config):
    kind: Literal["knn", "linear"] = "linear"
    c: float = Field(1.0, gt=0, description="Strength")


class Candidate(Config):
    encoder: str
    head: Head = Head()


class Example(Config):
    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: Path = Field(description="A folder")
    seed: int = Field(0, description="A seed")
    names: tuple[str, ...] = Field((), description="Names")
    by_site: bool = Field(False, description="By site")
    limit: float | None = Field(None, description="At most")
    candidates: tuple[Candidate, ...] = ()


def fields(*words: str) -> dict:
    return parse(Example, words, program="dermlab example", summary="An example")[0]


@pytest.mark.parametrize("order", [0, 1])
def test_the_command_line_beats_the_file_in_whatever_order(tmp_path: Path, order: int) -> None:
    (tmp_path / "c.yaml").write_text("seed: 3\nlimit: 0.5\nfolder: a\n")
    words = [["--config", str(tmp_path / "c.yaml")], ["--seed", "4"]]
    config = validate(Example, fields(*words[order], *words[1 - order]))
    assert (config.seed, config.limit, config.folder) == (4, 0.5, Path("a"))


def test_dashes_and_underscores_and_lists_and_booleans() -> None:
    config = validate(Example, fields("x", "--by-site", "--names", "a,b", "--names", "[c, d]", "--limit", "none"))
    assert (config.names, config.by_site, config.limit) == (("a", "b", "c", "d"), True, None)
    assert validate(Example, fields("x", "--no-by-site")).by_site is False


def test_a_dotted_option_reaches_into_a_list(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("folder: a\ncandidates: [{encoder: resnet50}]\n")
    data = fields("--config", str(tmp_path / "c.yaml"), "--candidates.0.head.kind", "knn", "--candidates.1.encoder=x")
    config = validate(Example, data)
    assert [c.head.kind for c in config.candidates] == ["knn", "linear"]
    assert config.candidates[1].encoder == "x"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"folder": "a", "candidates": [{"encoder": "r", "head": {"kind": "svm"}}]}, "candidates.0.head.kind"),
        ({"folder": "a", "sed": 3}, "sed: no such field; did you mean 'seed'?"),
        ({"folder": "a", "seed": "many"}, "seed: "),
        ({}, "folder: is required"),
        ({"folder": "a", "candidates": [{"encoder": "r", "head": {"c": -1}}]}, "candidates.0.head.c"),
    ],
)
def test_a_wrong_field_is_named_by_its_path_in_one_line(data: dict, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(Example, data, source="c.yaml")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("c.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("x", "--sead", "3"), "did you mean --seed?"),
        (("x", "y"), "unexpected argument 'y'"),
        (("x", "--seed"), "expected one argument"),
        (("x", "--candidates.7.encoder", "r"), "'7' is not an index"),
    ],
)
def test_a_wrong_word_is_one_line_with_the_nearest_option(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        fields(*words)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\x00"])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_yaml(tmp_path / "c.yaml")


def test_merge_is_deep_for_mappings_and_replaces_lists() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"b": 3}, "d": [4]}) == {"a": {"b": 3, "c": 2}, "d": [4]}
