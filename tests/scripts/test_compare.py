from __future__ import annotations

import csv
import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from coft.core.errors import UserError
from coft.core.exit_codes import guarded
from scripts.comparing.compare import compare, table
from scripts.comparing.figures import uses_labels, write_bars
from scripts.comparing.statistics import summarise
from scripts.comparing.tables import render, write_tables
from scripts.paths import shown
from tests.golden.runs import write_data

from .test_results import coop_log
from .toy_runs import write_summary


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
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line]
    return {row[2]: row for row in cells}


def test_tables_of_folders_in_all_forms(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "mine"]
    assert compare(argv) == 0
    out, folder = capsys.readouterr().out, tmp_path / "out" / "comparisons" / "mine"
    shown = lines(out)
    assert shown["UPL"][3:8] == ["3", "83.0", "3.61", "8.96", "+13.0"] and shown["UPL"][8:] == ["1", "0", "10"]
    assert shown["ZeroshotCLIP"][3:8] == ["1", "70.0", "-", "-", "+0.0"]
    assert shown["CoOp, 4 shots"][9] == "40" and list(shown)[-1] == "CoOp, 4 shots"  # the best comes last
    markdown = (folder / "comparison.md").read_text()
    assert markdown.startswith("`bash scripts/compare.sh --from ") and lines(markdown) == shown
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert sorted(float(row["accuracy"]) for row in rows) == [70.0, 80.0, 82.0, 87.0, 90.0]
    with (folder / "summary.csv").open() as file:
        upl = next(row for row in csv.DictReader(file) if row["method"] == "UPL")
    assert float(upl["std"]) == pytest.approx((((80 - 83) ** 2 + (82 - 83) ** 2 + (87 - 83) ** 2) / 2) ** 0.5)
    latex = (folder / "summary.tex").read_text()
    assert latex.count(r"\\") == 4 and all(word in latex for word in (r"\toprule", r"\bottomrule", r"mean \%"))
    with Image.open(folder / "bars.png") as image:
        assert image.width > 500


def test_table_writes_nothing(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert table([str(finished)]) == 0
    assert lines(capsys.readouterr().out)["UPL"][4] == "83.0" and sorted(tmp_path.rglob("*")) == before


def test_folders_are_where_the_user_stands(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(finished.parent))
    assert table(["runs"]) == 0 and "UPL" in capsys.readouterr().out


def test_lists_of_results_count_as_the_folders_they_are_of(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "mine"]) == 0
    shown = lines(capsys.readouterr().out)
    listed = tmp_path / "out" / "comparisons" / "mine" / "runs.csv"
    assert table([str(listed)]) == 0
    assert lines(capsys.readouterr().out) == shown
    assert compare(["--from", str(listed), "--output", str(tmp_path / "again")]) == 0
    assert lines(capsys.readouterr().out) == shown
    assert [folder.name for folder in (tmp_path / "again" / "comparisons").iterdir()] == ["runs"]
    more = tmp_path / "more"
    write_summary(more / "upl", "UPL", 4, results={"accuracy_test": 91.0}, labels_used=0, ensemble=1)
    assert table([str(listed), str(more)]) == 0
    assert lines(capsys.readouterr().out)["UPL"][3:5] == ["4", "85.0"]


def test_a_run_that_is_found_twice_counts_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(["--from", str(finished), "--output", str(finished.parent / "out"), "--name", "mine"]) == 0
    shown = lines(capsys.readouterr().out)
    listed = finished.parent / "out" / "comparisons" / "mine" / "runs.csv"
    for places in ([finished, finished / "upl1"], [finished / "upl1", finished, listed], [listed, listed]):
        assert table(list(map(str, places))) == 0
        assert lines(capsys.readouterr().out) == shown
    bare = finished.parent / "bare.csv"  # without folders nothing is known to be the same
    pd.read_csv(listed).drop(columns=["folder", "stage"]).to_csv(bare, index=False)
    assert table([str(bare), str(finished)]) == 0
    assert lines(capsys.readouterr().out)["UPL"][5] == "3.22"  # of six results


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["digits"], "digits"),
        (["--seeds", "4"], "--seeds"),
        (["--shots", "4"], "--shots"),
        (["--backbone", "RN50"], "--backbone"),
        (["--variant", "a:UPL:OPTIM.LR=1.0"], "--variant"),
        (["--jobs", "2"], "--jobs"),
        (["--no-run"], "--no-run"),
    ],
)
def test_what_is_there_is_not_to_be_planned(
    words: list[str], named: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--from", str(finished), "--output", str(tmp_path / "out"), *words]
    assert guarded(lambda: compare(argv)) == 2
    assert f"runs nothing; leave out {named}\n" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no table of results"),
        ("a,b\n1,2,3\n1,2,3,4\n", "is no table of results"),
        ("dataset,backbone,seed\nd,b,1\n", "has no column method, trainer, accuracy;"),
        (
            "dataset,backbone,method,trainer,seed,accuracy\nd,b,m,t,1,9.5\nd,b,m,t,2,good\n",
            "result 2: accuracy is 'good';",
        ),
        ("dataset,backbone,method,trainer,seed,accuracy\nd,b,m,t,1,\n", "result 1: accuracy is 'nan';"),
        (
            "dataset,backbone,method,trainer,seed,accuracy,seconds\nd,b,m,t,1,9,\nd,b,m,t,2,9,long\n",
            "result 2: seconds is 'long';",
        ),
    ],
)
def test_a_file_that_lists_no_results(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.csv").write_text(text)
    assert guarded(lambda: table([str(tmp_path / "runs.csv")])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "runs.csv" in error and complaint in error


def test_nothing_to_tabulate_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: table([str(tmp_path)])) == 2
    assert re.fullmatch(r"error: no summary.json or log.txt of a finished run below .*\n", capsys.readouterr().err)


def test_logs_of_other_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, accuracy in ((1, "61.7"), (2, "63.7")):
        coop_log(tmp_path, accuracy, seed)
    assert table([str(tmp_path)]) == 0
    row = lines(capsys.readouterr().out)["CoOp, 16 shots"]
    assert row[:2] == ["EuroSAT", "RN50"] and row[3:6] == ["2", "62.7", "1.41"]


def test_the_mean_over_data_sets_is_there_when_there_are_more(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, accuracy in ((1, 60.0), (2, 64.0), (3, 65.0)):
        write_summary(finished / f"icons{seed}", "UPL", seed, dataset="Icons", results={"accuracy_test": accuracy})
    table([str(finished)])
    parts = capsys.readouterr().out.split("\n\n")
    assert parts[::2] == ["Summary", "Overall: mean over 2 pairs of data set and backbone"]
    second = parts[3]
    assert [cell.strip() for cell in second.splitlines()[2].strip("| ").split("|")] == ["UPL", "3", "73.0", "3.00"]


def summary(labels: list[int]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for name, used in zip(("a_b", "c & d"), labels, strict=True):
        for seed in (1, 2):
            row = {
                "dataset": "D",
                "backbone": "B",
                "method": name,
                "trainer": "T",
                "seed": seed,
                "accuracy": 50.0 + seed,
            }
            rows.append({**row, "labels_used": used})
    return summarise(pd.DataFrame(rows))


def test_tables_of_some_trainers_alone(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--from", str(finished), "--output", str(tmp_path / "out"), "--trainers"]
    assert compare([*argv, "ZeroshotCLIP, UPL"]) == 0
    assert list(lines(capsys.readouterr().out))[2:] == ["ZeroshotCLIP", "UPL"]
    with pytest.raises(UserError, match="--trainers: no result of 'CoFT'; did you mean"):
        compare([*argv, "CoFT"])


def test_what_earlier_tables_of_a_name_have_left_is_removed(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "comparisons" / "mine"
    folder.mkdir(parents=True)
    for name in ("gain.png", "overall.csv", "overall.tex", "notes.txt"):
        (folder / name).write_text("old")
    assert compare(["--from", str(finished), "--output", str(tmp_path / "out"), "--name", "mine"]) == 0
    left = {path.name for path in folder.iterdir()}
    assert left == {"comparison.md", "runs.csv", "summary.csv", "summary.tex", "bars.png", "notes.txt"}


def test_other_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/no: no such folder or list of results"):
        table([str(tmp_path / "no")])
    with pytest.raises(UserError, match="--shots: none of these trainers learns from labelled images"):
        compare(["digits", "--trainers", "UPL", "--shots", "4", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        table(["--help"])
    assert "default: output" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_mistake(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=write_to_nobody)
    process.start()
    process.join(30)
    assert process.exitcode == 0 and capfd.readouterr().err == ""


def write_to_nobody() -> None:
    """Write to a pipe whose other end is closed, and end as a script does, which writes what is left."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (not pytest's)

    def write() -> int:
        print("x" * 100_000, flush=True)
        return 1

    code = guarded(write)
    sys.stdout.flush()
    sys.exit(code)


def test_paths_are_shown_as_the_user_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLED_FROM", raising=False)
    assert shown(Path("output")) == Path("output")
    monkeypatch.setenv("CALLED_FROM", str(tmp_path.parent))
    assert shown(Path("output")) == tmp_path / "output"


def test_cells_do_not_break_a_table() -> None:
    table = pd.DataFrame([{"method": "a|b", "mean": 1.0, "difference": -0.04}, {"method": "c", "difference": -0.06}])
    assert [line.split(" | ")[-1].strip(" |") for line in render(table).splitlines()[2:]] == ["+0.0", "-0.1"]
    assert r"a\|b" in render(table) and "a|b" in render(table, "latex_booktabs")


def test_what_reads_labels_is_known_by_the_trainer_where_the_number_is_not() -> None:
    nan = float("nan")
    cases = [("CoOp", nan, True), ("Supervised", nan, True), ("UPL", nan, False), ("Other", nan, False)]
    for trainer, used, expected in [*cases, ("Other", 5, True), ("CoOp", 0, False)]:
        assert uses_labels({"trainer": trainer, "labels_used": used}) == expected


def test_names_are_escaped_for_latex() -> None:
    text = render(summary([0, 0]), "latex_booktabs")
    assert r"a\_b" in text and r"c \& d" in text


def test_bars_that_use_labels_are_hatched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[dict[str, Any]] = []
    plain = Axes.barh

    def spy(self: Axes, *args: Any, **settings: Any) -> Any:
        drawn.append(settings | {"values": list(args[1])})
        return plain(self, *args, **settings)

    monkeypatch.setattr(Axes, "barh", spy)
    path = write_bars(tmp_path / "bars.png", summary([0, 40]), "mean", "method", "accuracy")
    (bars,) = drawn
    assert bars["hatch"] == ["", "//"] and bars["values"] == [51.5, 51.5] and path.is_file()
    assert list(bars["xerr"]) == pytest.approx([12.7062 * 0.5] * 2)  # t of two seeds that are 1 apart


def test_half_a_table_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(tmp_path, "first", {"Summary": summary([0, 0])}, pd.DataFrame())
    before = (tmp_path / "comparison.md").read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_tables(tmp_path, "second", {"Summary": summary([0, 0])}, pd.DataFrame())
    assert (tmp_path / "comparison.md").read_text() == before and not list(tmp_path.glob(".*"))


def test_runs_then_reuses_then_tabulates(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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
    assert "failed" not in (tmp_path / "comparisons" / "digits" / "comparison.md").read_text()
    assert compare([*argv, "--jobs", "2", "--no-run"]) == 0  # the first command's tables, which stay where they are
    assert sorted(path.name for path in (tmp_path / "comparisons").iterdir()) == ["digits", "digits-2"]
