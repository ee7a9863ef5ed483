"""Fine-tuned candidates in a bake-off: seeds, screening, alarms, what is not run again. Tiny random networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dermlab.bench.bakeoff import BakeoffResult, run_bakeoff
from dermlab.bench.config import BakeoffConfig, CandidateConfig, Screening
from dermlab.bench.screening import finalists, screened
from dermlab.core.config import validate
from dermlab.core.errors import InputError
from dermlab.core.files import read_json
from dermlab.evaluate.assessment import PARTS

RECIPE: dict[str, Any] = {
    "encoder": "timm:test_resnet+random",
    "size_px": 32,
    "frozen_epochs": 1,
    "finetune_epochs": 1,
    "batch_size": 32,
    "max_train_samples": 64,
    "augmentation": "none",
}
CANDIDATES: list[dict[str, Any]] = [
    {"name": "adamw", "finetune": RECIPE, "changes": {"learning_rate": 0.001}, "seeds": [0, 1, 2]},
    {"name": "flips", "finetune": RECIPE, "changes": {"learning_rate": 0.001, "tta": "flips"}, "seeds": [0, 1, 2]},
    {
        "name": "wild",
        "finetune": RECIPE,
        "changes": {"optimiser": "sgd", "learning_rate": 1e4, "clip_norm": None},
    },
    {"name": "neighbours", "encoder": "histogram", "head": {"kind": "knn", "k": [5]}},
]


def config(data: Path, **over: Any) -> BakeoffConfig:
    fields = {"data": data, "candidates": CANDIDATES, "n_boot": 100, "precision": "fp32", "device": "cpu"}
    fields["assessment"] = {"skip": PARTS}  # of a winner: tested elsewhere, and not quick
    steps = [{"factor": "training", "candidate": "adamw"}, {"factor": "TTA", "candidate": "flips"}]
    fields["decomposition"] = {"baseline": "neighbours", "steps": steps}
    return validate(BakeoffConfig, {**fields, **over})


@pytest.fixture(scope="module")
def finished(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> BakeoffResult:
    return run_bakeoff(config(clinic), tmp_path_factory.mktemp("recipes") / "out")


def part(result: BakeoffResult, name: str) -> dict[str, Any]:
    return json.loads((result.folder / f"{name}.json").read_text(encoding="utf-8"))


def test_a_recipe_s_figures_are_the_mean_over_its_seeds(finished: BakeoffResult) -> None:
    from sklearn.metrics import accuracy_score

    (adamw,) = [item for item in finished.outcomes if item.name == "adamw"]
    assert adamw.trainings == {seed: f"runs/adamw-seed{seed}" for seed in (0, 1, 2)}
    shares = []
    for run in adamw.trainings.values():
        table = pd.read_parquet(finished.folder / run / "predictions.parquet").query("split == 'test'")
        columns = [name for name in table if name.startswith("p:")]
        said = table[columns].to_numpy().argmax(axis=1)
        shares.append(accuracy_score(table["label"], [columns[place][2:] for place in said]))
    assert adamw.metrics["top1"]["value"] == pytest.approx(sum(shares) / 3)
    assert adamw.metrics["n"] == len(table)
    assert adamw.run in adamw.trainings.values()
    frozen = read_json(finished.folder / "bakeoff.json")["candidates"]
    assert {item["name"] for item in frozen if item["finetuned"]} == {"adamw", "flips", "wild"}


def test_a_diverged_recipe_is_flagged_and_does_not_win(finished: BakeoffResult) -> None:
    (wild,) = [item for item in finished.outcomes if item.name == "wild"]
    assert wild.status == "failed" or wild.flags
    assert not wild.winner
    assert not wild.may_win


def test_views_at_test_time_alone_are_no_new_training(finished: BakeoffResult) -> None:
    for seed in (0, 1, 2):
        places = [
            finished.folder / "runs" / f"{name}-seed{seed}" / "checkpoints" / "repeat0-fold0"
            for name in ("adamw", "flips")
        ]
        history = [read_json(place / "model.json")["report"]["history"] for place in places]
        assert history[0] == history[1]
        log = (places[1].parents[1] / "log.jsonl").read_text(encoding="utf-8")
        assert '"event": "epoch"' not in log
    tables = [pd.read_parquet(place.parents[1] / "predictions.parquet") for place in places]
    column = next(name for name in tables[0] if name.startswith("p:"))
    assert (tables[0][column] != tables[1][column]).any()


def test_curves_seeds_and_steps_are_written(finished: BakeoffResult) -> None:
    runs = part(finished, "training")["runs"]
    assert {(run["candidate"], run["seed"]) for run in runs} >= {("adamw", 0), ("adamw", 1), ("adamw", 2), ("flips", 0)}
    assert [row["epoch"] for row in runs[0]["history"]] == [1, 2]
    recipes = part(finished, "recipes")
    assert {item["name"]: item["n_seeds"] for item in recipes["recipes"]}["neighbours"] == 3  # draws nothing
    steps = part(finished, "decomposition")["steps"]
    assert [step["factor"] for step in steps] == ["training", "TTA"]
    assert [step["over"] for step in steps] == ["seeds and groups"] * 2


def test_nothing_that_is_done_is_trained_again(finished: BakeoffResult, clinic: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.glob("runs/*/checkpoints/*/best.safetensors")}
    again = run_bakeoff(config(clinic), finished.folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [item.name for item in again.outcomes] == [item.name for item in finished.outcomes]
    assert all(item.reused for item in again.outcomes if item.finetuned and item.status == "ok")


def test_the_resolved_config_makes_the_same_bakeoff(finished: BakeoffResult, clinic: Path) -> None:
    stored = yaml.safe_load((finished.folder / "config.yaml").read_text(encoding="utf-8"))
    assert stored["candidates"][0]["finetune"]["learning_rate"] == 0.001
    assert validate(BakeoffConfig, stored).everything() == config(clinic).everything()


def test_screening_trains_all_alike_reads_no_test_and_lets_the_best_go_on(clinic: Path, tmp_path: Path) -> None:
    budget = {"max_train_samples": 48, "max_val_samples": 20, "frozen_epochs": 1, "finetune_epochs": 1, "finalists": 1}
    chosen = [
        {"name": "a", "finetune": RECIPE, "changes": {"learning_rate": 0.01}},
        {"name": "b", "finetune": RECIPE, "changes": {"frozen_epochs": 0}},
    ]
    result = run_bakeoff(
        config(clinic, candidates=chosen, decomposition=None, screening=budget, ensemble=False), tmp_path / "out"
    )
    found = part(result, "screening")
    assert [row["goes_on"] for row in found["rows"]].count(True) == 1
    winner = next(row["candidate"] for row in found["rows"] if row["goes_on"])
    assert winner == next(row["candidate"] for row in found["rows"] if not row["flags"])
    assert [item.name for item in result.outcomes if item.finetuned] == [winner]
    for row in found["rows"]:
        table = pd.read_parquet(result.folder / row["run"] / "predictions.parquet")
        assert set(table["split"]) == {"val"}
        report = read_json(result.folder / row["run"] / "checkpoints" / "repeat0-fold0" / "model.json")["report"]
        assert (report["n_train"], report["n_val"], len(report["history"])) == (48, 20, 2)
    assert {run["stage"] for run in part(result, "training")["runs"]} == {"screening", "full"}


def test_recipes_of_one_phase_spend_both_phases_epochs_in_it() -> None:
    budget = Screening(frozen_epochs=1, finetune_epochs=4)

    def epochs(**changes: Any) -> tuple[int, int]:
        found = CandidateConfig.model_validate({"finetune": {**RECIPE, **changes}}).finetune
        assert found is not None
        cut = screened(found, budget)
        return cut.frozen_epochs, cut.finetune_epochs

    assert epochs() == (1, 4)
    assert epochs(frozen_epochs=0) == (0, 5)
    assert epochs(finetune_epochs=0) == (5, 0)


def test_without_a_number_those_go_on_that_val_cannot_tell_from_the_best() -> None:
    comparison = [
        {"a": "x", "b": "y", "verdict": "b better"},
        {"a": "x", "b": "z", "verdict": "cannot tell apart"},
        {"a": "y", "b": "z", "verdict": "cannot tell apart"},
    ]
    scores = {"x": 0.5, "y": 0.7, "z": 0.6}
    assert list(finalists(scores, comparison, None)) == ["y", "z"]
    assert list(finalists(scores, comparison, 1)) == ["y"]
    assert list(finalists({}, [], None)) == []


def test_a_recipe_is_read_from_its_file_and_changed(tmp_path: Path) -> None:
    file = tmp_path / "sharp.yaml"
    file.write_text("encoder: resnet50\nhead: fusion\nseed: 17\nsplit: other\n", encoding="utf-8")
    found = validate(CandidateConfig, {"finetune": str(file), "changes": {"learning_rate": 0.5}})
    assert found.label == "sharp"
    assert found.finetune is not None
    assert (found.finetune.head, found.finetune.learning_rate, found.finetune.seed) == ("fusion", 0.5, 0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"finetune": "no/such.yaml"}, "no/such.yaml: no such file"),
        ({"finetune": {"encoder": "resnet50", "learning_rate": -1}}, "finetune.learning_rate"),
        ({"finetune": {"encoder": "resnet50"}, "changes": {"lerning_rate": 1}}, "lerning_rate: no such field"),
        ({"finetune": {"encoder": "resnet50"}, "changes": {"seed": 1}}, "name them under seeds:"),
        ({"finetune": {"encoder": "resnet50"}, "head": "linear"}, "stands in place of encoder and head"),
        ({"encoder": "resnet50", "head": "linear", "seeds": [0, 1]}, "draws nothing"),
        ({"encoder": "resnet50", "head": "mlp", "seeds": [1, 1]}, "different numbers"),
        ({"encoder": "resnet50", "head": "linear", "changes": {"tta": "flips"}}, "name it under finetune:"),
    ],
)
def test_a_wrong_recipe_is_one_line(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(CandidateConfig, fields)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"screening": {}, "candidates": [], "encoders": ["histogram"], "decomposition": None}, "there is none"),
        ({"max_train_per_class": 5}, "holds for frozen encoders alone"),
        ({"decomposition": {"baseline": "x", "steps": [{"factor": "f", "candidate": "adamw"}]}}, "'x' is none of"),
        ({"candidates": [*CANDIDATES, {"name": "adamw-seed1", "encoder": "histogram", "head": "knn"}]}, "same name"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        config(Path("clinic"), **fields)
