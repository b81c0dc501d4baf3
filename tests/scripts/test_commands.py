"""What the commands print and write: compare.sh, table.sh, ablate.sh."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from coft.core.errors import UserError
from coft.core.exit_codes import guarded
from scripts.comparing import commands
from scripts.comparing.commands import ablate, compare, table
from scripts.comparing.methods import ABLATIONS, choose_ablations, load_ablations
from scripts.comparing.plan import Grid, plan_ablations, weights_of
from scripts.launch import ROOT
from tests.golden.runs import write_data
from tests.markdown import table_rows

from .toy_runs import write_summary

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Runs of three methods."""
    for seed, accuracy in ((1, 80.0), (2, 82.0), (3, 87.0)):
        results = {"accuracy_test": accuracy}
        write_summary(tmp_path / "runs" / f"upl{seed}", "UPL", seed, results=results, labels_used=0, ensemble=1)
    write_summary(tmp_path / "runs" / "zero", "ZeroshotCLIP", results={"accuracy_test": 70.0}, labels_used=0)
    write_summary(tmp_path / "runs" / "coop", "CoOp", shots=4, results={"accuracy_test": 90.0}, labels_used=40)
    return tmp_path / "runs"


def lines(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by method."""
    return {row[2]: row for row in table_rows(text)}


@pytest.mark.parametrize("name", ["compare", "table", "ablate", "results"])
def test_the_scripts_call_commands_that_exist(name: str) -> None:
    assert f"-m scripts.comparing {name} " in (ROOT / "scripts" / f"{name}.sh").read_text()
    assert callable(getattr(commands, name))


# ------------------------------------------------------------------ tables of what is there


def test_the_tables_of_folders(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "out" / "comparisons" / "mine"
    assert compare(["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "mine"]) == 0
    rows = lines(capsys.readouterr().out)
    assert rows["UPL"][3:8] == ["3", "83.0", "3.61", "8.96", "+13.0"] and rows["UPL"][8:] == ["1", "0", "10"]
    assert rows["ZeroshotCLIP"][3:8] == ["1", "70.0", "-", "-", "+0.0"]
    assert rows["CoOp, 4 shots"][9] == "40" and list(rows)[-1] == "CoOp, 4 shots"  # the best comes last
    markdown = (folder / "comparison.md").read_text()
    assert markdown.startswith("`bash scripts/compare.sh --from ") and lines(markdown) == rows
    listed = list(csv.DictReader((folder / "runs.csv").open()))
    assert sorted(float(row["accuracy"]) for row in listed) == [70.0, 80.0, 82.0, 87.0, 90.0]
    assert {path.name for path in folder.iterdir()} == {"comparison.md", "runs.csv", "summary.tex"}


def test_table_writes_nothing_and_folders_are_where_the_user_stands(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    before = sorted(finished.parent.rglob("*"))
    monkeypatch.setenv("CALLED_FROM", str(finished.parent))
    assert table(["runs"]) == 0
    assert lines(capsys.readouterr().out)["UPL"][4] == "83.0" and sorted(finished.parent.rglob("*")) == before


def test_lists_of_results_count_as_the_folders_they_are_of(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    assert compare(["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "mine"]) == 0
    expected = lines(capsys.readouterr().out)
    listed = tmp_path / "out" / "comparisons" / "mine" / "runs.csv"
    assert compare(["--from", str(listed), "--output", str(tmp_path / "again")]) == 0
    assert lines(capsys.readouterr().out) == expected
    assert [folder.name for folder in (tmp_path / "again" / "comparisons").iterdir()] == ["runs"]
    write_summary(tmp_path / "more", "UPL", 4, results={"accuracy_test": 91.0}, labels_used=0, ensemble=1)
    assert table([str(listed), str(tmp_path / "more")]) == 0
    assert lines(capsys.readouterr().out)["UPL"][3:5] == ["4", "85.0"]


def test_tables_of_some_trainers_alone(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    argv = ["--from", str(finished), "--output", str(tmp_path / "out"), "--trainers"]
    assert compare([*argv, "ZeroshotCLIP, UPL"]) == 0
    assert list(lines(capsys.readouterr().out))[1:] == ["ZeroshotCLIP", "UPL"]
    with pytest.raises(UserError, match="--trainers: no result of 'CoFT'; did you mean"):
        compare([*argv, "CoFT"])


@pytest.mark.parametrize("words", [["digits"], ["--seeds", "4"], ["--gpus", "0"], ["--no-run"]])
def test_what_is_there_is_not_to_be_planned(words: list[str], finished: Path, tmp_path: Path, capsys: Captured) -> None:
    argv = ["--from", str(finished), "--output", str(tmp_path / "out"), *words]
    assert guarded(lambda: compare(argv)) == 2
    assert words[0] in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_data_sets_that_differ_have_a_mean(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    for name, accuracies in (("UPL", (60.0, 64.0, 65.0)), ("ZeroshotCLIP", (66.0,))):
        for seed, accuracy in enumerate(accuracies, 1):
            results, folder = {"accuracy_test": accuracy}, finished / f"{name}{seed}-icons"
            write_summary(folder, name, seed, dataset="Icons", results=results, labels_used=0)
    assert compare(["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "x"]) == 0
    parts = capsys.readouterr().out.split("\n\n")
    assert parts[::2][:2] == ["Summary", "Overall: mean over 2 pairs of data set and backbone"]
    assert ["UPL", "3", "73.0", "3.00", "+5.0"] in [row[:5] for row in table_rows(parts[3])]


def test_mistakes_are_one_line(tmp_path: Path, capsys: Captured) -> None:
    assert guarded(lambda: table([str(tmp_path)])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(tmp_path) in line
    with pytest.raises(UserError, match="--shots"):
        compare(["digits", "--trainers", "UPL", "--shots", "4", "--output", str(tmp_path)])
    with pytest.raises(UserError, match="--kept"):
        compare(["digits", "--kept", str(tmp_path / "kept.jsonl")])


# ------------------------------------------------------------------ runs


def test_runs_then_reuses_then_tabulates(tmp_path: Path, capfd: Captured) -> None:
    data, tmp_path = write_data(tmp_path / "data"), tmp_path / "output"
    argv = ["digits", "--trainers", "ZeroshotCLIP", "--seeds", "1,2", "--output", str(tmp_path), "--data", str(data)]
    assert compare([*argv, "--no-run"]) == 0
    assert not tmp_path.exists()
    assert compare(argv) == 0
    first = capfd.readouterr()
    assert "runs: 1, finished: 0" in first.err
    (place,) = tmp_path.rglob("summary.json")
    assert place.parent == tmp_path / "digits" / "ZeroshotCLIP" / "embedded" / "seed1"
    written = place.stat().st_mtime_ns
    assert compare(argv, command=["false"]) == 0
    again = capfd.readouterr()
    assert "runs: 1, finished: 1" in again.err and again.out == first.out
    assert place.stat().st_mtime_ns == written
    assert compare([*argv[:2], "UPL", *argv[3:]], command=["false"]) == 1
    failed = capfd.readouterr()
    assert failed.err.count("failed: UPL on digits") == 2 and "UPL" not in failed.out
    assert "nothing to tabulate" in failed.err
    assert compare([*argv[:2], "ZeroshotCLIP,UPL", *argv[3:]], command=["false"]) == 1
    beside = tmp_path / "comparisons" / "digits-2"
    assert (beside / "comparison.md").read_text().count("- failed: UPL on digits") == 2
    assert compare([*argv, "--jobs", "2", "--no-run"]) == 0  # the first command's tables stay where they are
    assert sorted(path.name for path in (tmp_path / "comparisons").iterdir()) == ["digits", "digits-2"]


FAKE = """
import json, sys
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--output-dir") + 1])
config = json.loads(Path(__file__).with_name("configs.json").read_text())[str(folder)]
rule, seed = config["TRAINER.COFT.FILTER"], config["SEED"]
if rule == "none":
    sys.exit("error: no such luck")
value = {"min-p-clean": 90.0, "partner": 88.0}[rule] + seed * (1 if rule == "min-p-clean" else 2)
stages = {
    stage: {"accuracy_both": value - cost, "accuracy_peer_a": 80.0, "accuracy_peer_b": 81.0, "seconds": 5.0}
    for stage, cost in (("after Phase I", 3.0), ("after Phase II", 0.0))
}
summary = {"trainer": "CoFT", "dataset": "Digits", "backbone": "embedded", "seed": seed, "shots": -1, "seconds": 5.0}
summary |= {"results": stages, "config": config["text"], "backbone_fingerprint": config["weights"]}
(folder / "summary.json").write_text(json.dumps(summary))
"""
LIST = """
trainer: CoFT
ablations:
  - {name: peer, group: filter, settings: {TRAINER.COFT.FILTER: partner}}
  - {name: both, group: filter, settings: {TRAINER.COFT.FILTER: min-p-clean}}
  - {name: none, group: filter, settings: {TRAINER.COFT.FILTER: none}}
  - {name: one peer, group: peers, measure: single}
  - {name: no Phase II, group: phases, measure: after Phase I}
"""


@pytest.fixture
def toy_ablations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Changes to CoFT, and the command of a toy that makes their runs."""
    (tmp_path / "list.yaml").write_text(LIST)
    monkeypatch.setitem(ABLATIONS, "CoFT", tmp_path / "list.yaml")
    grid = Grid(["digits"], [1, 2], output=tmp_path)
    runs, _ = plan_ablations(load_ablations(tmp_path / "list.yaml"), grid)
    more = {run: {"text": yaml.safe_dump(run.config), "weights": weights_of(run.backbone)} for run in runs}
    (tmp_path / "configs.json").write_text(json.dumps({str(run.folder): run.config | more[run] for run in runs}))
    (tmp_path / "fake.py").write_text(FAKE)
    return [sys.executable, str(tmp_path / "fake.py")]


def test_changes_are_run_and_tabulated(toy_ablations: list[str], tmp_path: Path, capfd: Captured) -> None:
    argv = ["digits", "--seeds", "1,2", "--output", str(tmp_path)]
    assert ablate([*argv, "--groups", "filter,peers,phases"], toy_ablations) == 1
    printed = capfd.readouterr()
    assert "skipped: both: is what the full method does\n" in printed.err
    assert printed.err.count("failed: none on digits, embedded, seed") == 2 and "runs: 6, finished: 0" in printed.err
    folder = tmp_path / "ablations" / "digits" / "CoFT"
    changes = pd.read_csv(folder / "runs.csv").groupby("variant", sort=False)["change"].apply(list)
    assert list(changes.index) == ["full", "peer", "one peer", "no Phase II"]
    assert changes["peer"] == pytest.approx([(88 + 2) - (90 + 1), (88 + 4) - (90 + 2)])
    assert changes["one peer"] == pytest.approx([80.5 - 91, 80.5 - 92])
    assert changes["no Phase II"] == pytest.approx([-3, -3])
    assert "- skipped: both: is what" in (folder / "ablation.md").read_text()
    assert "-0.50" in printed.out and "-3.00" in printed.out
    assert len(list(tmp_path.rglob("summary.json"))) == 4  # rows that measure otherwise need no run of their own
    assert ablate([*argv, "--groups", "peers"], ["false"]) == 0
    assert "runs: 2, finished: 2" in capfd.readouterr().err
    assert ablate([*argv, "--row", "peer"], ["false"]) == 0
    assert "runs: 4, finished: 4" in capfd.readouterr().err


def test_without_the_full_method_there_is_nothing_to_compare_with(tmp_path: Path, capfd: Captured) -> None:
    argv = ["digits", "--seeds", "1", "--output", str(tmp_path), "--row", "filter: partner"]
    assert ablate(argv, ["false"]) == 1
    printed = capfd.readouterr()
    assert "failed: full on digits" in printed.err.splitlines()[-2] and "error" not in printed.out
    ablations = choose_ablations(load_ablations(ABLATIONS["CoFT"]), [], ["filter: partner"])
    runs, _ = plan_ablations(ablations, Grid(["digits"], [1], output=tmp_path))
    (peer,) = (run for run in runs if run.method.name == "filter: partner")
    weights = weights_of("embedded")
    write_summary(peer.folder, "CoFT", config=peer.config, backbone_fingerprint=weights)
    with pytest.raises(UserError, match="no run of the unchanged method is finished"):
        ablate([*argv, "--no-run"])


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"--output {tmp_path}/file/x"):
        ablate(["digits", "--output", str(tmp_path / "file" / "x"), "--row", "filter: none"], ["false"])
