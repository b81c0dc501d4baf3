from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scripts.comparing.logs import last_accuracy, logged_settings
from scripts.comparing.results import found_rows

from .toy_runs import write_summary

CONFIG = """***************
** Arguments **
***************
backbone: some
root: /data
************
** Config **
************
DATALOADER:
  NUM_WORKERS: 8
DATASET:
  NAME: {dataset}
  NUM_SHOTS: {shots}
  ROOT: /data
INPUT:
  PIXEL_MEAN: [0.5, 0.5, 0.5]
MODEL:
  BACKBONE:
    NAME: {backbone}
OPTIM:
  LR: {lr}
OUTPUT_DIR: {folder}
SEED: {seed}
TRAINER:
  COOP:
    CSC: False
    Note: a: b
  NAME: {trainer}
Collecting env info ...
** System info **
SEED: 77
"""
HEAD = "Loading dataset\n---------  -----\nDataset    {dataset}\n# train_x  1,600\n# test     8,100\n---------  -----\n"
EPOCHS = "epoch [1/2][1/50]\tloss 2.1\nepoch [2/2][50/50]\tloss 1.0\n"
FINISH = "Finish training\nDo evaluation on test set\n"
RESULT = "=> result\n* total: 8,100\n* correct: 5,000\n* accuracy: {accuracy}%\n* error: 38.3%\n* macro_f1: 60.1%\n"
END = "Elapsed: 1:02:03\n"


def coop_log(
    top: Path,
    accuracy: str = "61.7",
    seed: int = 1,
    folder: str = "eurosat/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend",
    config: bool = True,
    finished: bool = True,
    name: str = "log.txt",
    **more: Any,
) -> Path:
    """Leave a log as CoOp and its kin do."""
    place = top / folder / f"seed{seed}"
    place.mkdir(parents=True, exist_ok=True)
    more = {"dataset": "EuroSAT", "backbone": "RN50", "trainer": "CoOp", "shots": 16, "lr": 0.002, **more}
    parts = [CONFIG if config else "", HEAD, EPOCHS, FINISH + RESULT + END if finished else ""]
    (place / name).write_text("".join(parts).format(accuracy=accuracy, seed=seed, folder=place, **more))
    return place


def rows(*folders: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["method"], row["seed"]): row for row in found_rows(folders).to_dict("records")}


def test_a_log_of_coop(tmp_path: Path) -> None:
    place = coop_log(tmp_path)
    found = rows(tmp_path)["CoOp, 16 shots", 1]
    assert (found["dataset"], found["backbone"], found["trainer"]) == ("EuroSAT", "RN50", "CoOp")
    assert found["accuracy"] == 61.7 and found["seconds"] == 3723 and found["folder"] == str(place)


@pytest.mark.parametrize("top", [".", "eurosat", "eurosat/CoOp/rn50_ep50_16shots"])
def test_without_a_config_the_folders_count(tmp_path: Path, top: str) -> None:
    coop_log(tmp_path, seed=3, config=False)
    found = rows(tmp_path / top)["CoOp, 16 shots", 3]
    assert (found["dataset"], found["backbone"], found["trainer"]) == ("eurosat", "rn50", "CoOp")


def test_what_is_not_finished_has_no_result(tmp_path: Path) -> None:
    place = coop_log(tmp_path, finished=False)
    (place / "log.txt").write_text((place / "log.txt").read_text() + RESULT.format(accuracy=50))  # of an epoch
    assert found_rows([tmp_path]).empty
    coop_log(tmp_path, "62.0", name="log.txt-2024-01-01-10-00-00")  # went on, with the time in its name
    assert rows(tmp_path)["CoOp, 16 shots", 1]["accuracy"] == 62.0


def test_an_evaluation_alone_counts_and_the_last_accuracy_does() -> None:
    evaluation = RESULT.format(accuracy=41.5)
    assert last_accuracy(evaluation) == 41.5
    assert last_accuracy(EPOCHS + RESULT.format(accuracy=99) + FINISH + evaluation) == 41.5
    assert last_accuracy("Finished training\n" + RESULT.format(accuracy="1.25e-05")) == 1.25e-05
    assert last_accuracy(EPOCHS + FINISH) is None and last_accuracy("") is None


def test_settings_end_where_the_config_does() -> None:
    more = {"dataset": "D", "shots": 4, "backbone": "RN50", "lr": 0.1, "folder": "f", "seed": 5, "trainer": "T"}
    for text in (CONFIG, CONFIG.replace("************\n** Config **\n************", "** Config **")):
        settings = dict(logged_settings(text.format(**more)))
        assert settings["SEED"] == "5" and settings["MODEL.BACKBONE.NAME"] == "RN50"
        assert settings["TRAINER.COOP.Note"] == "a: b" and settings["TRAINER.NAME"] == "T"
        assert not {"root", "backbone"} & settings.keys()


def test_what_differs_in_settings_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        coop_log(tmp_path, seed=seed)
        coop_log(tmp_path, seed=seed, folder="eurosat/CoOp/rn50_other", lr=0.1)
    coop_log(tmp_path, seed=3)
    names = {name for name, _ in rows(tmp_path)}
    assert names == {"CoOp, 16 shots", "CoOp, 16 shots OPTIM.LR=0.1"}


def test_settings_that_differ_between_data_sets_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for dataset, epochs in (("Digits", 10), ("Icons", 10), ("Emoji", 3)):
        config = {"SEED": 1, "TRAINER": {"NAME": "UPL"}, "OPTIM": {"MAX_EPOCH": epochs}, "DATASET": {"NAME": dataset}}
        write_summary(tmp_path / dataset, dataset=dataset, config=config)
        if dataset == "Icons":
            assert len(found_rows([tmp_path])) == 2 and not caplog.records
    assert len(found_rows([tmp_path])) == 3
    assert [r.message for r in caplog.records] == [
        "UPL, embedded: data sets differ in OPTIM.MAX_EPOCH; so do their results"
    ]


def test_own_images_without_labels_are_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_summary(tmp_path / "a", results={"predicted": 5})
    write_summary(tmp_path / "b", trainer="CoFT", results={"after Phase I": {"kept": 3}, "predicted": 5})
    write_summary(tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "summary.json").write_text('{"trainer": "UPL", "config": "SEED: 1"}')
    assert [row["folder"] for row in found_rows([tmp_path]).to_dict("records")] == [str(tmp_path / "c")]
    assert [str(tmp_path / name) in record.message for name, record in zip("abd", caplog.records, strict=True)]
    assert caplog.text.count("have no accuracy") == 2 and "no key 'dataset'" in caplog.text


def test_ours_and_others_side_by_side(tmp_path: Path) -> None:
    coop_log(tmp_path / "theirs")
    write_summary(tmp_path / "ours" / "a", seed=2, dataset="EuroSAT", backbone="RN50", ensemble=2, labels_used=0)
    (tmp_path / "ours" / "a" / "log.txt").write_text("** Config **\n")  # of the same run; counted once
    table = found_rows([tmp_path / "ours", tmp_path / "theirs"])
    assert sorted(table["method"]) == ["CoOp, 16 shots", "UPL"]
    assert table.set_index("method").loc["UPL", ["ensemble", "labels_used"]].tolist() == [2, 0]


def phases() -> dict[str, Any]:
    stages = {}
    for i, stage in enumerate(("after Phase I", "after Phase II")):
        stages[stage] = {"accuracy_both": 90.0 + i, "accuracy_peer_a": 88.0 + i, "accuracy_peer_b": 89.0 + i}
        stages[stage] |= {"seconds": 5.0 + i, "precision": 0.9, "stage": "phase1", "epoch": 10}
    return {"accuracy_test": 91.0, **stages}


def test_a_line_after_each_phase(tmp_path: Path) -> None:
    write_summary(tmp_path / "a", "CoFT", results=phases())
    found = rows(tmp_path)
    first, second = found["CoFT, after Phase I", 1], found["CoFT, after Phase II", 1]
    assert (first["accuracy"], first["peer_a"], first["seconds"]) == (90.0, 88.0, 5.0)
    assert (second["accuracy"], second["peer_b"], second["stage"]) == (91.0, 90.0, "after Phase II")
    assert first["ensemble"] == 2 and first["precision"] == 0.9 and first["labels_used"] == 0


def test_old_summaries_do_without_the_newer_numbers(tmp_path: Path) -> None:
    place = write_summary(tmp_path / "a", "CoOp", shots=16)
    (place / "log.txt").write_text(HEAD.format(dataset="Digits"))
    found = rows(tmp_path)["CoOp, 16 shots", 1]
    assert (found["labels_used"], found["ensemble"]) == (1600, 1)
    assert pd.isna(rows(write_summary(tmp_path / "b", "Strange"))["Strange", 1]["labels_used"])
