"""Results are read from what runs left, and from lists of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from scripts.comparing.results import read_places, rows_of_folders, rows_of_list

from .toy_runs import write_summary


def rows(*folders: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["method"], row["seed"]): row for row in rows_of_folders(folders).to_dict("records")}


@pytest.mark.parametrize(
    "text", ["3", "null", "[1]", "[" * 100_000, '{"config": 3}', '{"config": "a: ["}', '{"config": "- a"}', "{", "NaN"]
)
def test_a_damaged_summary_is_left_out_with_a_word(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_summary(tmp_path / "a")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "summary.json").write_text(text)
    assert len(rows(tmp_path)) == 1 and str(tmp_path / "odd") in caplog.text


def test_what_differs_in_settings_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for number, rate in enumerate((0.2, 0.1, 0.2)):
        config = {"SEED": number, "OPTIM": {"LR": rate}}
        write_summary(tmp_path / str(number), seed=number, config=config)
    assert set(rows(tmp_path)) == {("UPL", 0), ("UPL OPTIM.LR=0.1", 1), ("UPL", 2)}


# ------------------------------------------------------------------ summary.json


def test_what_has_no_accuracy_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_summary(tmp_path / "a", results={"predicted": 5})
    write_summary(tmp_path / "b", trainer="CoFT", results={"after Phase I": {"kept": 3}, "predicted": 5})
    write_summary(tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "summary.json").write_text('{"trainer": "UPL", "config": "SEED: 1"}')
    assert [row["folder"] for row in rows_of_folders([tmp_path]).to_dict("records")] == [str(tmp_path / "c")]
    assert [str(tmp_path / name) in record.message for name, record in zip("abd", caplog.records, strict=True)]


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
        f"{HEAD}\n,b,m,t,1,9\n",
        f"{HEAD}\nd,b,m,t,,9\n",
        f"{HEAD}\nd,b,m,t,1.5,9\n",
    ],
)
def test_a_file_that_lists_no_results_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(UserError, match=r"runs\.csv"):
        rows_of_list(tmp_path / "runs.csv")


def test_names_that_look_like_missing_values_are_names(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(f"{HEAD},folder,stage\nNA,b,None,t,1,9,,end\nNA,b,None,t,2,8,3,end\n")
    rows = read_places([tmp_path / "runs.csv"])
    assert rows[["dataset", "method", "accuracy"]].to_numpy().tolist() == [["NA", "None", 9], ["NA", "None", 8]]


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "no"):
        with pytest.raises(UserError, match=str(place)):
            read_places([place])
