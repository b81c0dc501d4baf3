"""Results are read from what runs left: ours, and those of others' plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from scripts.comparing.results import last_accuracy, logged_settings, read_places, rows_of_folders, rows_of_list

from .toy_runs import CONFIG, EPOCHS, FINISH, RESULT, coop_log, write_summary


def rows(*folders: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["method"], row["seed"]): row for row in rows_of_folders(folders).to_dict("records")}


@pytest.mark.parametrize(
    "text", ["3", "null", "[1]", "[" * 100_000, '{"config": 3}', '{"config": "a: ["}', '{"config": "- a"}', "{", "NaN"]
)
def test_a_damaged_summary_is_left_out_with_a_word(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coop_log(tmp_path)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "summary.json").write_text(text)
    assert len(rows(tmp_path)) == 1 and str(tmp_path / "odd") in caplog.text


# ------------------------------------------------------------------ log.txt


def test_a_log_of_coop(tmp_path: Path) -> None:
    place = coop_log(tmp_path)
    row = rows(tmp_path)["CoOp, 16 shots", 1]
    assert (row["dataset"], row["backbone"], row["trainer"]) == ("EuroSAT", "RN50", "CoOp")
    assert row["accuracy"] == 61.7 and row["seconds"] == 3723 and row["folder"] == str(place)


@pytest.mark.parametrize("odd", [{"config": False}, {"dataset": "Euro\x1b[31mSAT"}, {"seed": "9" * 30}])
def test_a_log_without_a_config_of_a_run_is_left_out_with_a_word(
    odd: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = coop_log(tmp_path, **odd)
    assert rows_of_folders([tmp_path]).empty and str(place) in caplog.text


def test_what_is_not_finished_has_no_result(tmp_path: Path) -> None:
    place = coop_log(tmp_path, finished=False)
    (place / "log.txt").write_text((place / "log.txt").read_text() + RESULT.format(accuracy=50))  # of an epoch
    assert rows_of_folders([tmp_path]).empty
    coop_log(tmp_path, "62.0", name="log.txt-2024-01-01-10-00-00")  # went on, with the time in its name
    assert rows(tmp_path)["CoOp, 16 shots", 1]["accuracy"] == 62.0


def test_an_evaluation_alone_counts_and_the_last_accuracy_does() -> None:
    evaluation = RESULT.format(accuracy=41.5)
    assert last_accuracy(evaluation) == 41.5
    assert last_accuracy(EPOCHS + RESULT.format(accuracy=99) + FINISH + evaluation) == 41.5
    assert last_accuracy("Finished training\n" + RESULT.format(accuracy="1.25e-05")) == 1.25e-05
    assert last_accuracy(EPOCHS + FINISH) is None and last_accuracy("") is None
    assert [last_accuracy(RESULT.format(accuracy=text)) for text in ("1.2.3", "...", "1e999", "101.0")] == [None] * 4


def test_settings_end_where_the_config_does() -> None:
    more = {"dataset": "D", "shots": 4, "backbone": "RN50", "lr": 0.1, "folder": "f", "seed": 5, "trainer": "T"}
    for text in (CONFIG, CONFIG.replace("************\n** Config **\n************", "** Config **")):
        settings = logged_settings(text.format(**more))
        assert settings["SEED"] == "5" and settings["MODEL.BACKBONE.NAME"] == "RN50"
        assert settings["TRAINER.COOP.Note"] == "a: b" and settings["TRAINER.NAME"] == "T"
        assert not {"root", "backbone"} & settings.keys()


def test_what_differs_in_settings_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        coop_log(tmp_path, seed=seed)
        coop_log(tmp_path, seed=seed, folder="eurosat/CoOp/rn50_other", lr=0.1)
    coop_log(tmp_path, seed=3)
    assert {name for name, _ in rows(tmp_path)} == {"CoOp, 16 shots", "CoOp, 16 shots OPTIM.LR=0.1"}


# ------------------------------------------------------------------ summary.json


def test_what_has_no_accuracy_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_summary(tmp_path / "a", results={"predicted": 5})
    write_summary(tmp_path / "b", trainer="CoFT", results={"after Phase I": {"kept": 3}, "predicted": 5})
    write_summary(tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "summary.json").write_text('{"trainer": "UPL", "config": "SEED: 1"}')
    assert [row["folder"] for row in rows_of_folders([tmp_path]).to_dict("records")] == [str(tmp_path / "c")]
    assert [str(tmp_path / name) in record.message for name, record in zip("abd", caplog.records, strict=True)]


def test_ours_and_others_side_by_side(tmp_path: Path) -> None:
    coop_log(tmp_path / "theirs")
    write_summary(tmp_path / "ours" / "a", seed=2, dataset="EuroSAT", backbone="RN50", ensemble=2, labels_used=0)
    (tmp_path / "ours" / "a" / "log.txt").write_text("** Config **\n")  # of the same run; counted once
    table = rows_of_folders([tmp_path / "ours", tmp_path / "theirs"])
    assert sorted(table["method"]) == ["CoOp, 16 shots", "UPL"]
    assert table.set_index("method").loc["UPL", ["ensemble", "labels_used"]].tolist() == [2, 0]


def test_a_line_after_each_phase(tmp_path: Path) -> None:
    results: dict[str, Any] = {"accuracy_test": 91.0}
    for i, stage in enumerate(("after Phase I", "after Phase II")):
        results[stage] = {"accuracy_both": 90.0 + i, "accuracy_peer_a": 88.0 + i, "accuracy_peer_b": 89.0 + i}
        results[stage] |= {"seconds": 5.0 + i, "precision": 0.9, "stage": "phase1", "epoch": 10}
    write_summary(tmp_path / "a", "CoFT", results=results, ensemble=2, labels_used=0)
    by_name = rows(tmp_path)
    first, second = by_name["CoFT, after Phase I", 1], by_name["CoFT, after Phase II", 1]
    assert (first["accuracy"], first["peer_a"], first["seconds"]) == (90.0, 88.0, 5.0)
    assert (second["accuracy"], second["peer_b"], second["stage"]) == (91.0, 90.0, "after Phase II")
    assert first["ensemble"] == 2 and first["precision"] == 0.9 and first["labels_used"] == 0


# ------------------------------------------------------------------ lists


def test_a_run_that_is_found_twice_counts_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_summary(tmp_path / "runs" / str(seed), seed=seed)
    once = read_places([tmp_path / "runs"])
    listed = tmp_path / "runs.csv"
    once.to_csv(listed, index=False)
    for places in ([tmp_path / "runs", tmp_path / "runs" / "1"], [tmp_path / "runs", listed], [listed, listed]):
        assert sorted(read_places(places)["seed"]) == [1, 2]
    once.drop(columns=["folder", "stage"]).to_csv(listed, index=False)  # nothing is known to be the same
    assert len(read_places([listed, tmp_path / "runs"])) == 4


HEAD = "dataset,backbone,method,trainer,seed,accuracy"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2,3\n1,2,3,4\n",
        "dataset,backbone,seed\nd,b,1\n",
        f"{HEAD}\nd,b,m,t,1,9.5\nd,b,m,t,2,good\n",
        f"{HEAD}\nd,b,m,t,1,\n",
        f"{HEAD}\nd,b,m,t,1,inf\n",
        f"{HEAD}\nd,b,m,t,1,9.5,2\n",
        f"{HEAD}\nd\x1b[31m,b,m,t,1,9.5\n",
        f"{HEAD},seconds\nd,b,m,t,1,9,\nd,b,m,t,2,9,long\n",
    ],
)
def test_a_file_that_lists_no_results_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(UserError, match=r"runs\.csv"):
        rows_of_list(tmp_path / "runs.csv")


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "no"):
        with pytest.raises(UserError, match=str(place)):
            read_places([place])
