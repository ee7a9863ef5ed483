"""The card: what it refuses, and that what is written is what is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target, read_card, write_card

DX = Target(
    column="dx",
    classes=("bcc", "mel", "nv"),
    default=True,
    names={"mel": "melanoma"},
    hierarchy={"malignant": ("bcc", "mel"), "benign": ("nv",)},
    cost_matrix=((0, 1, 2), (5, 0, 5), (1, 1, 0)),
)
GRADE = Target(column="grade", kind="ordinal", classes=("0", "1", "2"))


def test_what_is_written_is_what_is_read(tmp_path):
    card = Card(
        name="clinic",
        licence="CC-BY-4.0",
        targets=(DX, GRADE),
        metadata=(
            MetadataColumn(column="age", kind="numeric", unit="years"),
            MetadataColumn(column="itch", kind="boolean"),
            MetadataColumn(column="where", kind="categorical", values=("yes", "no", "null", "12")),
        ),
        label_proxies=("biopsed",),
        unit="patient",
        pooling="max",
    )
    path = write_card(tmp_path / "card.yaml", card)
    assert read_card(path) == card
    assert "pooling: max" in path.read_text()
    assert "citation" not in path.read_text()  # what stands at its default is left out


def test_numbers_as_classes_are_text_and_a_truth_value_must_be_quoted(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("name: a\ntargets: [{column: dx, classes: [0, 1, 2]}]\n")
    assert read_card(path).target().classes == ("0", "1", "2")
    path.write_text("name: a\ntargets: [{column: dx, classes: [yes, no]}]\n")
    with pytest.raises(InputError, match=r"card\.yaml: targets\.0\.classes\.0: put it in quotes") as fault:
        read_card(path)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a", "a")}, "class 'a' of 'dx' is listed twice"),
        ({"classes": ("a", "")}, "empty text"),
        ({"classes": ("a",)}, "at least 2 classes"),
        ({"classes": ("a", "b", "c"), "kind": "binary"}, "exactly 2 classes"),
        ({"classes": ("a", "b"), "names": {"c": "see"}}, "'c' is not a class"),
        ({"classes": ("a", "b"), "hierarchy": {"x": ("c",)}}, "hierarchy: 'c' is not a class"),
        ({"classes": ("a", "b"), "hierarchy": {"x": ("a",), "y": ("a", "b")}}, "'a' stands in two groups"),
        ({"classes": ("a", "b"), "cost_matrix": ((0, 1),)}, "2 rows of 2 numbers"),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Target(column="dx", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": (DX, DX)}, "'dx' is listed twice"),
        ({"targets": (DX,), "metadata": (MetadataColumn(column="dx", kind="categorical"),)}, "'dx' is listed twice"),
        ({"targets": (Target(column="site", classes=("a", "b")),)}, "'site' is a reserved column"),
        ({"targets": (DX, GRADE.model_copy(update={"default": True}))}, "only one target can be the default"),
        ({"targets": (DX,), "label_proxies": ("dx",)}, "'dx' is a target"),
        ({"unit": "eye"}, "image', 'lesion' or 'patient"),
        ({"licens": "MIT"}, "licens"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Card(name="clinic", **fields)


def test_only_numbers_have_units_and_only_categories_have_values():
    with pytest.raises(ValidationError, match="only a numeric column has a unit"):
        MetadataColumn(column="a", kind="boolean", unit="mm")
    with pytest.raises(ValidationError, match="only a categorical column lists its values"):
        MetadataColumn(column="a", kind="numeric", values=("1",))


def test_the_default_target_is_the_marked_one_or_the_only_one():
    assert Card(name="a", targets=(GRADE, DX)).target() == DX
    assert Card(name="a", targets=(GRADE,)).target() == GRADE
    assert Card(name="a", targets=(GRADE, DX)).target("grade") == GRADE
    with pytest.raises(InputError, match="no target 'stage'; there is grade, dx"):
        Card(name="a", targets=(GRADE, DX)).target("stage")
    with pytest.raises(InputError, match="has no target"):
        Card(name="a").target()
    other = GRADE.model_copy(update={"column": "stage"})
    with pytest.raises(InputError, match=r"which target\? There are grade, stage"):
        Card(name="a", targets=(GRADE, other)).target()


def test_a_broken_card_is_one_line_with_file_and_line(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("name: a\ntargets: [\n")
    with pytest.raises(InputError, match=r"card\.yaml line \d+: not valid YAML"):
        read_card(path)
    path.write_text(yaml.safe_dump({"targets": []}))
    with pytest.raises(InputError, match=r"card\.yaml: name: is required"):
        read_card(path)


def test_the_card_in_the_reference_is_a_valid_one(tmp_path):
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "data_sets.md"
    example = re.search(r"```yaml\n(name: clinic.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "card.yaml").write_text(example.group(1))
    card = read_card(tmp_path / "card.yaml")
    assert card.target().classes == ("BCC", "MEL", "NEV")
    assert card.label_proxies == ("biopsed",)
