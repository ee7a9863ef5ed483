"""The probe: val chooses, test is only reported, a rerun repeats nothing, an interruption loses at most a fold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermlab.adapt import probe as module
from dermlab.adapt.config import HeadConfig, ProbeSettings
from dermlab.adapt.probe import FittedProbe, run_probe
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.features.extract import embed


@pytest.fixture(scope="module")
def dataset(clinic: Path) -> Dataset:
    return Dataset.open(clinic)


def settings(kind: str = "linear", **fields: object) -> ProbeSettings:
    encoder = None if kind in ("questionnaire", "majority") else "histogram"
    return ProbeSettings.model_validate({"encoder": encoder, "head": kind, "n_boot": 100, **fields})


def test_a_run_folder_holds_what_the_contract_names(dataset: Dataset, tmp_path: Path) -> None:
    result = run_probe(dataset, settings("linear"), tmp_path / "run")
    present = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "environment.json", "log.jsonl", "metrics.json", "predictions.parquet"} <= present
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    test = dataset.read_split("main").query("split == 'test'")
    assert metrics["n"] == len(test)
    assert metrics["top1"]["low"] <= metrics["top1"]["value"] <= metrics["top1"]["high"]
    frame = result.predictions().frame
    assert set(frame["split"]) == {"val", "test"}
    assert set(frame.loc[frame["split"] == "test", "image_id"]) == set(test["image_id"])
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in {".pkl", ".joblib", ".pt"}]


def test_every_image_is_tested_once_over_the_folds(dataset: Dataset, tmp_path: Path) -> None:
    result = run_probe(dataset, settings("knn", split="folds3"), tmp_path / "run")
    test = result.predictions().test().frame
    assert sorted(test["image_id"]) == sorted(dataset.image_ids)
    assert result.metrics["folds"] == 3


@pytest.mark.parametrize("kind", ["knn", "linear", "mlp", "fusion", "questionnaire", "majority"])
def test_the_same_seed_gives_the_same_bits_and_permuted_test_labels_change_no_choice(
    dataset: Dataset, tmp_path: Path, kind: str
) -> None:
    first = run_probe(dataset, settings(kind), tmp_path / "a")
    again = run_probe(dataset, settings(kind), tmp_path / "b")
    pd.testing.assert_frame_equal(first.predictions().frame, again.predictions().frame, check_exact=True)
    folder = tmp_path / "permuted"
    shutil.copytree(dataset.folder, folder)
    manifest = dataset.manifest.copy()
    target = dataset.card.target().column
    rows = np.isin(dataset.image_ids, dataset.read_split("main").query("split == 'test'")["image_id"])
    manifest.loc[rows, target] = np.roll(manifest.loc[rows, target].to_numpy(), 1)
    other = run_probe(Dataset.write(folder, manifest, dataset.card), settings(kind), tmp_path / "c")
    columns = [name for name in first.predictions().frame if name != "label"]
    pd.testing.assert_frame_equal(
        first.predictions().frame[columns], other.predictions().frame[columns], check_exact=True
    )
    assert first.val_score == other.val_score


def test_a_finished_run_is_not_repeated_and_an_interrupted_one_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_probe(dataset, settings("linear", split="folds3"), tmp_path / "whole")
    real, calls = module._fit_fold, []

    def stop_after_one(*arguments: object) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        real(*arguments)

    monkeypatch.setattr(module, "_fit_fold", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        run_probe(dataset, settings("linear", split="folds3"), tmp_path / "run")
    fitted: list[object] = []
    monkeypatch.setattr(module, "_fit_fold", lambda *arguments: (fitted.append(1), real(*arguments)))
    result = run_probe(dataset, settings("linear", split="folds3"), tmp_path / "run")
    assert len(fitted) == 2
    pd.testing.assert_frame_equal(whole.predictions().frame, result.predictions().frame, check_exact=True)
    run_probe(dataset, settings("linear", split="folds3"), tmp_path / "run")
    assert len(fitted) == 2


def test_another_config_or_other_data_in_the_same_folder_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_probe(dataset, settings("majority"), tmp_path / "run")
    with pytest.raises(InputError, match="differs in seed"):
        run_probe(dataset, settings("majority", seed=1), tmp_path / "run")
    (tmp_path / "run" / "done.json").unlink()
    monkeypatch.setitem(dataset.__dict__, "fingerprint", "other")
    with pytest.raises(InputError, match="begun with other data"):
        run_probe(dataset, settings("majority"), tmp_path / "run")


def test_caps_limit_every_class_and_are_drawn_by_seed(dataset: Dataset, tmp_path: Path) -> None:
    run_probe(dataset, settings("linear", max_train_per_class=4, max_val_per_class=2), tmp_path / "run")
    model = json.loads(next((tmp_path / "run").rglob("model.json")).read_text())
    labels = pd.Series(dataset.labels(), index=dataset.image_ids)
    split = dataset.read_split("main").set_index("image_id")["split"]
    expected = labels[split == "train"].value_counts().clip(upper=4).sum()
    assert model["report"]["n_train"] == expected
    assert model["report"]["n_val"] == labels[split == "val"].value_counts().clip(upper=2).sum()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"head": "linear"}, "needs --encoder"),
        ({"head": "majority", "encoder": "histogram"}, "looks at no photo"),
        ({"head": "majority", "split": "nowhere"}, "no split 'nowhere'"),
        ({"head": "majority", "target": "colour"}, "colour"),
        ({"head": "questionnaire", "include_columns": ("shoe_size",)}, "no questionnaire column"),
    ],
)
def test_a_wrong_turn_says_what_is_right(dataset: Dataset, tmp_path: Path, fields: dict, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        run_probe(dataset, ProbeSettings.model_validate(fields), tmp_path / "run")


def test_a_setting_of_another_head_is_refused() -> None:
    with pytest.raises(ValueError, match="has no setting 'C'"):
        HeadConfig(kind="knn", C=(1.0,))


def test_a_saved_probe_predicts_what_it_predicted_and_marks_what_it_has_seen(dataset: Dataset, tmp_path: Path) -> None:
    result = run_probe(dataset, settings("fusion"), tmp_path / "run")
    probabilities, seen = FittedProbe.open(tmp_path / "run").predict(dataset, embed(dataset, "histogram"))
    test = result.predictions().test()
    rows = pd.Index(dataset.image_ids).get_indexer(test.frame["image_id"])
    np.testing.assert_allclose(probabilities[rows], test.probabilities(), atol=1e-6)
    split = dataset.read_split("main")["split"].to_numpy()
    assert not seen[split == "test"].any()
    assert seen[split == "train"].all()


def test_a_declared_proxy_is_no_input_unless_waived(clinic: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic"
    shutil.copytree(clinic, folder)
    dataset = Dataset.open(folder)
    column = dataset.card.metadata[0].column
    dataset = Dataset.write(folder, dataset.manifest, dataset.card.model_copy(update={"label_proxies": (column,)}))
    run_probe(dataset, settings("questionnaire"), tmp_path / "a")
    plan = json.loads(next((tmp_path / "a").rglob("questionnaire.json")).read_text())["plan"]
    assert column not in [item["column"] for item in plan]
    with pytest.raises(InputError, match=f"--waive proxy:{column}"):
        run_probe(dataset, settings("questionnaire", include_columns=(column,)), tmp_path / "b")
    waived = settings("questionnaire", include_columns=(column,), waive=(f"proxy:{column}",))
    assert f"waived: proxy:{column}" in run_probe(dataset, waived, tmp_path / "c").warnings


@pytest.mark.parametrize(("said", "chosen"), [(None, "balanced_accuracy"), ("log_loss", "log_loss")])
def test_k_is_chosen_by_the_metric_of_the_run_unless_the_head_says_otherwise(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, chosen: str
) -> None:
    made = []
    real = module.make_head
    monkeypatch.setattr(module, "make_head", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    head = {"kind": "knn", "choose_by": said}
    run_probe(dataset, settings("knn", head=head, metric="balanced_accuracy"), tmp_path / "run")
    assert [one.choose_by for one in made] == [chosen]
    sweep = {row["k"]: row["val_score"] for row in made[0].head_report_["sweep"]}
    assert sweep[made[0].k_] == max(sweep.values())


def test_a_finished_run_of_data_that_have_changed_is_not_passed_off_as_theirs(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "clinic"
    shutil.copytree(dataset.folder, folder)
    run_probe(dataset, settings("majority"), tmp_path / "run")
    manifest = dataset.manifest.copy()
    target = dataset.card.target().column
    manifest[target] = manifest[target].to_numpy()[::-1]
    with pytest.raises(InputError, match="begun with other data"):
        run_probe(Dataset.write(folder, manifest, dataset.card), settings("majority"), tmp_path / "run")


def test_photos_seen_in_training_are_known_again_in_another_data_set(dataset: Dataset, tmp_path: Path) -> None:
    run_probe(dataset, settings("linear"), tmp_path / "run")
    probe = FittedProbe.open(tmp_path / "run")
    _, seen = probe.predict(dataset, embed(dataset, "histogram"))
    assert seen.any()
    assert not seen.all()
    folder = tmp_path / "clinic"
    shutil.copytree(dataset.folder, folder)
    card = dataset.card.model_copy(update={"description": "the same photos, described anew"})
    other = Dataset.write(folder, dataset.manifest.copy(), card)
    assert other.fingerprint != dataset.fingerprint
    np.testing.assert_array_equal(probe.predict(other, embed(other, "histogram"))[1], seen)


def test_the_licences_behind_a_run_are_found_in_its_folder(dataset: Dataset, tmp_path: Path) -> None:
    from dermlab.licensing import find_cards

    run_probe(dataset, settings("linear"), tmp_path / "bakeoff" / "runs" / "a")
    for place in ("bakeoff/runs/a", "bakeoff"):
        ids, own = find_cards(tmp_path / place)
        assert ids == find_cards(dataset.folder)[0]
        assert own.keys() == find_cards(dataset.folder)[1].keys()
    assert module.encoder_cards({"name": "resnet50", "licence_card": None}) == ["resnet50"]
    assert module.encoder_cards({"name": "resnet50", "licence_card": "torchvision"}) == ["torchvision"]
    assert module.encoder_cards({"name": "resnet50+random", "licence_card": None}) == []


def test_a_run_is_not_passed_off_for_photos_that_were_replaced(dataset: Dataset, tmp_path: Path) -> None:
    from PIL import Image

    folder = Path(shutil.copytree(dataset.folder, tmp_path / "clinic"))
    copied = Dataset.open(folder)
    run_probe(copied, settings("knn"), tmp_path / "run")
    Image.new("RGB", (64, 64), "white").save(copied.paths[0])
    with pytest.raises(InputError, match="other photos"):
        run_probe(Dataset.open(folder), settings("knn"), tmp_path / "run")


def test_an_encoder_that_knows_the_data_set_is_said_so(dataset: Dataset, tmp_path: Path) -> None:
    """MedSigLIP was trained on PAD-UFES-20: what a probe of it measures there comes with a warning."""
    from dataclasses import replace

    from dermlab.features.extract import embed

    features = embed(dataset, "timm:test_resnet+random", seed=0)
    knowing = replace(features, encoder={**features.encoder, "licence_card": "medsiglip"})
    known = Dataset(dataset.folder, dataset.card.model_copy(update={"licence_card": "pad-ufes-20"}), dataset.manifest)
    told = "contaminated: timm:test_resnet+random was pretrained on PAD-UFES-20"
    chosen = settings("knn", encoder="timm:test_resnet+random")
    assert told in run_probe(known, chosen, tmp_path / "a", features=knowing).metrics["warnings"]
    assert told not in run_probe(dataset, chosen, tmp_path / "b", features=knowing).metrics["warnings"]
