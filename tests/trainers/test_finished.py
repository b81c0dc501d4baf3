"""The model that a run leaves predicts as the run did, to the bit, without Dassl or a config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coft.backbones.load import load_clip
from coft.core.errors import UserError
from coft.inference.locate_model import description_of, find_model, with_checksum
from coft.inference.store import load

Run = Callable[..., Any]
OF_A_KIND = ("CoFT", "CoFTPlus", "UPL", "LaFTer", "SelfTraining", "NormAdaptation", "CoOp", "ZeroshotCLIP2")
FORMS = [(trainer, "resnet") for trainer in OF_A_KIND]
FORMS += [("CoFT", "vit"), ("DeFT", "vit"), ("LaFTer", "vit"), ("NormAdaptation", "vit")]


def batches_of(trainer: Any) -> Iterator[Tensor]:
    for batch in trainer.test_loader:
        yield trainer.parse_batch_test(batch)[0]


def assert_predicts_as(trainer: Any) -> Any:
    model = load(Path(trainer.output_dir))
    trainer.set_model_mode("eval")
    seen = 0
    for images in batches_of(trainer):
        assert torch.equal(model.log_probabilities(images), trainer.engine.predict(images))
        seen += len(images)
    assert seen == len(trainer.dm.dataset.test)
    return model


@pytest.mark.parametrize(("trainer", "backbone"), FORMS)
def test_the_loaded_model_predicts_the_same_bits(trained: Run, trainer: str, backbone: str) -> None:
    assert_predicts_as(trained(trainer, backbone))


def test_descriptions_and_low_rank_updates_come_along(run: Run, described: Path) -> None:
    plus = run("CoFTPlus", TRAINER__COFTPLUS__DESCRIPTIONS__FROM=str(described))
    assert plus.method.describe is not None
    assert_predicts_as(plus)
    assert_predicts_as(run("LaFTer", "vit", out="lora", TRAINER__LAFTER__VISUAL="lora"))


def test_bf16_is_kept_where_the_machine_is_fast_with_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = run("UPL", TRAINER__UPL__PREC="bf16")
    monkeypatch.setattr("coft.inference.store.faster_precision", lambda device: "bf16")
    assert assert_predicts_as(rounded).precision == "bf16"
    monkeypatch.setattr("coft.inference.store.faster_precision", lambda device: "fp32")
    assert load(Path(rounded.output_dir)).precision == "fp32"


def test_images_are_read_as_in_the_test(trained: Run) -> None:
    built = trained("CoFT")
    model = load(Path(built.output_dir))
    paths = [item.impath for item in built.dm.dataset.test]
    mine = model.batch([model.view(path) for path in paths])
    assert torch.equal(mine, torch.cat(list(batches_of(built))))
    expected = torch.cat([built.engine.predict(batch).softmax(dim=1) for batch in batches_of(built)])
    torch.testing.assert_close(model.predict_proba(paths, batch_size=7), expected)


def test_p_clean_is_there_where_negative_prompts_were_trained(trained: Run) -> None:
    built = trained("CoFT")
    images = next(batches_of(built))
    prediction = load(Path(built.output_dir)).predict(images)
    each = []
    for name, model in built.method.inference_models().items():
        _, temperature = built.method.temperatures[name]
        each.append((model.eval()(images)[1] / temperature).softmax(dim=1))
    torch.testing.assert_close(prediction.p_clean, torch.stack(each).mean(dim=0))
    assert load(Path(trained("SelfTraining").output_dir)).predict(images).p_clean is None


def test_only_what_training_changed_is_stored(trained: Run) -> None:
    sizes = {t: (find_model(Path(trained(t).output_dir)) / "model.safetensors").stat().st_size for t in ("UPL", "CoFT")}
    vectors = 2 * 3 * 32 * 4  # two prompts, three classes
    assert sizes["UPL"] < vectors + 1000
    visual = sum(p.numel() for p in trained("CoFT").clip_model.visual.parameters())
    assert 2 * 4 * visual < sizes["CoFT"] < 2 * 4 * visual + 20_000


def test_the_description_names_what_a_person_asks_for(trained: Run) -> None:
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


def test_training_free_adaptation_leaves_none(trained: Run) -> None:
    folder = Path(trained("TrainingFree").output_dir)
    assert not (folder / "model").exists()
    (folder / "config.yaml").write_text("")  # which train.py writes
    with pytest.raises(UserError, match=r"no model .*take another trainer"):
        load(folder)


# -------------------------------------------------------------------- what can be wrong


@pytest.fixture
def saved(trained: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(trained("CoFT").output_dir) / "model", tmp_path / "run" / "model"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(with_checksum(json.loads(path.read_text()) | changes)))


def test_a_folder_without_a_finished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model; give the output folder"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match="not finished; give its command again"):
        load(tmp_path)


def test_another_version_is_named(saved: Path) -> None:
    edit(saved, format="coft-model/99")
    with pytest.raises(UserError, match=r"another version .*coft-model/99"):
        load(saved.parent)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_damaged_file_is_named(saved: Path, name: str) -> None:
    path = saved / name
    whole = path.read_bytes()
    for broken in (whole[:100], b"", whole[:-1] + bytes([whole[-1] ^ 1]), None):
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"{name}: is damaged|holds no model"):
            load(saved)


def test_a_flipped_bit_of_the_description_changes_nothing_without_a_word(saved: Path) -> None:
    path = saved / "model.json"
    whole, right = path.read_bytes(), description_of(saved)
    del right["sha256"]
    places, refused = range(0, len(whole), len(whole) // 200), 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            content = description_of(saved)  # as where the bit is one of the checksum's name
        except UserError as error:
            refused += 1
            assert "model.json: is " in str(error)
        else:
            assert {key: content[key] for key in right} == right
    assert refused > len(places) - 5


def test_a_description_without_a_checksum_is_of_an_earlier_version_or_changed_on_purpose(saved: Path) -> None:
    content = json.loads((saved / "model.json").read_text())
    with pytest.raises(UserError, match="if you edited the file on purpose, remove the key 'sha256'"):
        (saved / "model.json").write_text(json.dumps(content | {"templates": ["a {}."]}))
        load(saved)
    del content["sha256"]
    (saved / "model.json").write_text(json.dumps(content | {"templates": ["a {}."]}))
    assert load(saved).templates == ("a {}.",)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["one"]},
        {"score": "none"},
        {"inputs": {}},
        {"backbone": None},
    ],
)
def test_a_description_that_does_not_fit_is_damaged(saved: Path, change: dict[str, Any]) -> None:
    edit(saved, **change)
    with pytest.raises(UserError, match=r"model\.json: is damaged"):
        load(saved)


def test_another_backbone_is_named(saved: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the one that the model was trained with"):
        load(saved, backbone=str(checkpoints["other"]))
    moved = tmp_path / "moved.pt"
    torch.save(load_clip(str(checkpoints["resnet"])).state_dict(), moved)
    edit(saved, backbone=json.loads((saved / "model.json").read_text())["backbone"] | {"name": str(tmp_path / "no.pt")})
    with pytest.raises(UserError, match=r"no\.pt: no such file"):
        load(saved)
    assert load(saved, backbone=str(moved)).classes


def test_a_full_disk_is_one_line(trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from coft.inference import store

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    model = load(Path(trained("ZeroshotCLIP").output_dir))
    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(UserError, match=r"cannot be written to .*No space left"):
        store.save(model, tmp_path / "model")
    assert not list((tmp_path / "model").glob("*"))
