"""The saved model of a run predicts the same bits as the run, without Dassl or a config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import coft
from coft.backbones.load import load_clip
from coft.core.errors import UserError
from coft.inference.locate_model import find_model, with_checksum
from coft.inference.store import load
from tests.trainers.runs import Run

TRAINERS = ("CoFT", "CoFTPlus", "UPL", "LaFTer", "SelfTraining", "CoOp", "ZeroshotCLIP2")
MODELS = [(trainer, "resnet") for trainer in TRAINERS]
MODELS += [("CoFT", "vit"), ("DeFT", "vit"), ("LaFTer", "vit")]


def batches_of(trainer: Any) -> Iterator[Tensor]:
    for batch in trainer.test_loader:
        yield trainer.parse_batch_test(batch)[0]


def assert_same_predictions(trainer: Any) -> Any:
    model = load(Path(trainer.output_dir))
    trainer.set_model_mode("eval")
    count = 0
    for images in batches_of(trainer):
        assert torch.equal(model.log_probabilities(images), trainer.engine.predict(images))
        count += len(images)
    assert count == len(trainer.dm.dataset.test)
    return model


@pytest.mark.parametrize(("trainer", "backbone"), MODELS)
def test_the_loaded_model_predicts_the_same_bits(trained: Run, trainer: str, backbone: str) -> None:
    assert_same_predictions(trained(trainer, backbone))


def test_descriptions_and_low_rank_updates_are_saved(run: Run, described: Path) -> None:
    plus = run("CoFTPlus", TRAINER__COFTPLUS__DESCRIPTIONS__FROM=str(described))
    assert plus.method.describe is not None
    assert_same_predictions(plus)
    assert_same_predictions(run("LaFTer", "vit", out="lora", TRAINER__LAFTER__VISUAL="lora"))


def test_bf16_is_kept_only_where_it_is_faster(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = run("UPL", TRAINER__UPL__PREC="bf16")
    monkeypatch.setattr("coft.inference.store.faster_precision", lambda device: "bf16")
    assert assert_same_predictions(rounded).precision == "bf16"
    monkeypatch.setattr("coft.inference.store.faster_precision", lambda device: "fp32")
    assert load(Path(rounded.output_dir)).precision == "fp32"


def test_images_are_preprocessed_as_in_the_test_of_the_run(trained: Run) -> None:
    built = trained("CoFT")
    model = load(Path(built.output_dir))
    paths = [item.impath for item in built.dm.dataset.test]
    images = model.batch([model.view(path) for path in paths])
    assert torch.equal(images, torch.cat(list(batches_of(built))))
    expected = torch.cat([built.engine.predict(batch).softmax(dim=1) for batch in batches_of(built)])
    probabilities = coft.Adapted.load(built.output_dir).predict_proba(paths, batch_size=7)
    torch.testing.assert_close(torch.from_numpy(probabilities), expected)


def test_p_clean_is_the_mean_over_peers_and_absent_without_negative_prompts(trained: Run) -> None:
    built = trained("CoFT")
    images = next(batches_of(built))
    prediction = load(Path(built.output_dir)).predict(images)
    p_clean = []
    for name, model in built.method.inference_models().items():
        _, temperature = built.method.temperatures[name]
        p_clean.append((model.eval()(images)[1] / temperature).softmax(dim=1))
    torch.testing.assert_close(prediction.p_clean, torch.stack(p_clean).mean(dim=0))
    assert load(Path(trained("SelfTraining").output_dir)).predict(images).p_clean is None


def test_only_trained_weights_are_stored(trained: Run) -> None:
    sizes = {t: (find_model(Path(trained(t).output_dir)) / "model.safetensors").stat().st_size for t in ("UPL", "CoFT")}
    vectors = 2 * 3 * 32 * 4  # two prompts, three classes
    assert sizes["UPL"] < vectors + 1000
    visual = sum(p.numel() for p in trained("CoFT").clip_model.visual.parameters())
    assert 2 * 4 * visual < sizes["CoFT"] < 2 * 4 * visual + 20_000


def test_the_description_of_a_model_records_its_run(trained: Run) -> None:
    built = trained("CoFT")
    content = json.loads((Path(built.output_dir) / "model" / "model.json").read_text())
    about = content["about"]
    assert (
        content["classes"] == list(built.classnames) and content["backbone"]["fingerprint"] == built.session.backbone_id
    )
    assert about["trainer"] == "CoFT" and about["unlabeled_images"] == 36 and about["labels_used"] == 0
    assert about["not_default"]["TRAINER.COFT.PHASE2.LR"] == 1e-3
    assert "TRAINER.COFT.PHASE2.EMA" in about["settings"].keys() - about["not_default"].keys()
    assert about["results"]["accuracy_test"] == built.results["accuracy_test"]
    content = json.loads((Path(trained("Supervised").output_dir) / "model" / "model.json").read_text())
    assert (content["about"]["unlabeled_images"], content["about"]["labels_used"]) == (0, 36)


def test_training_free_adaptation_saves_no_model(trained: Run) -> None:
    folder = Path(trained("TrainingFree").output_dir)
    assert not (folder / "model").exists()
    (folder / "config.yaml").write_text("")  # which train.py writes
    with pytest.raises(UserError, match=r"no model .*take another trainer"):
        load(folder)


@pytest.fixture
def saved(trained: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(trained("CoFT").output_dir) / "model", tmp_path / "run" / "model"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(with_checksum(json.loads(path.read_text()) | changes)))


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model; give the output folder"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match="not finished; give its command again"):
        load(tmp_path)


def test_a_model_of_another_version_is_refused(saved: Path) -> None:
    edit(saved, format="coft-model/99")
    with pytest.raises(UserError, match=r"another version .*coft-model/99"):
        load(saved.parent)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_damaged_file_is_refused(saved: Path, name: str) -> None:
    path = saved / name
    whole = path.read_bytes()
    for damaged in (whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1]), None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name}: is damaged|holds no model"):
            load(saved)


def test_an_edited_description_is_read_only_without_its_checksum(saved: Path) -> None:
    content = json.loads((saved / "model.json").read_text())
    with pytest.raises(UserError, match="if you edited the file on purpose, remove the key 'sha256'"):
        (saved / "model.json").write_text(json.dumps(content | {"templates": ["a {}."]}))
        load(saved)
    del content["sha256"]
    (saved / "model.json").write_text(json.dumps(content | {"templates": ["a {}."]}))
    assert load(saved).templates == ("a {}.",)


def test_another_backbone_is_refused_and_a_moved_one_accepted(
    saved: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not the one that the model was trained with"):
        load(saved, backbone=str(checkpoints["other"]))
    moved = tmp_path / "moved.pt"
    torch.save(load_clip(str(checkpoints["resnet"])).state_dict(), moved)
    edit(saved, backbone=json.loads((saved / "model.json").read_text())["backbone"] | {"name": str(tmp_path / "no.pt")})
    with pytest.raises(UserError, match=r"no\.pt: no such file"):
        load(saved)
    assert load(saved, backbone=str(moved)).classes


def test_a_full_disk_is_an_error_of_one_line(trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from coft.inference import store

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    model = load(Path(trained("ZeroshotCLIP").output_dir))
    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(UserError, match=r"cannot be written to .*No space left"):
        store.save(model, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*"))
