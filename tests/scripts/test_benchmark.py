"""The benchmark's file, its plan and its tables, with runs of a toy trainer."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from coft.core.errors import UserError
from coft.core.paths import HOME
from coft.core.settings import flatten
from scripts.comparing.benchmark import (
    Entry,
    Rows,
    Unit,
    listed_results,
    plan_units,
    read_benchmark,
    rows_of,
    with_derived,
)
from scripts.comparing.benchmark_tables import OURS, REFERENCES, Ratio, verdict, write_report
from scripts.comparing.commands import compare
from scripts.comparing.list import WITH_PHASE1, Result, add_to_list, identity, read_list, read_result
from scripts.comparing.plan import Run
from tests.markdown import table_rows

from .toy_runs import write_summary

Planned = dict[Unit, list[Run]]
RATES = {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8}


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("plan", "list"):
        monkeypatch.setattr(f"scripts.comparing.{module}.weights_of", lambda backbone: None)


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """Runs of the small form, of which none is finished."""
    return plan_units(read_benchmark("small"), str(tmp_path.resolve()), tmp_path / "out")


def finish(runs: list[Run], rates: dict[str, float] = RATES, images: int = 400) -> None:
    """Leave what finished runs leave, with a method's share of right test images."""
    for run in runs:
        told = {"confidence_test": 100 * rates[run.method.name] + 3, "calibration_error_test": 4.0}
        versions = {"commit": "abc"}
        write_summary(run.folder, config=run.config, seed=run.seed, seconds=12.0, versions=versions, results=told)
        right = np.random.default_rng(run.seed).random(images) < rates[run.method.name]
        table = pd.DataFrame(
            {"image": range(images), "class": "cat", "phase1": "dog", "end": np.where(right, "cat", "dog")}
        )
        is_coft = run.method.trainer == "CoFT"
        table.drop(columns=[] if is_coft else ["phase1"]).to_csv(run.folder / "test_predictions.csv", index=False)
        if is_coft:
            last = [("zero-shot", None), ("phase1", None), ("phase2", 0.7), ("phase2", None), ("phase2", 0.9)]
            scores = pd.DataFrame(last, columns=["stage", "auroc_p_clean"])
            metrics = scores.assign(
                auroc_confidence=0.6, auroc_margin=0.5, pool_accuracy=[0.5, None, 0.625, None, 0.75]
            ).assign(mean_p_clean=[None, None, 0.66, None, 0.81])
            metrics.to_csv(run.folder / "metrics.csv", index=False)


def results_of(planned: Planned) -> dict[Run, Result]:
    return {run: result for runs in planned.values() for run in runs if (result := read_result(run))}


def report_of(planned: Planned, bars: Sequence[Entry] = (), derived: Sequence[Entry] = ()) -> str:
    return write_report(rows_of(planned, results_of(planned), derived), "a command", bars)


def cells(text: str, head: str) -> dict[str, dict[str, str]]:
    """A table of a report, by its first head: by the first cell of a row, and by head."""
    (table,) = (part for part in text.split("\n\n") if part.startswith(f"| {head} "))
    heads, *rows = table_rows(table)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


# ------------------------------------------------------------------ the file


def test_roles_are_fixed_and_each_form_has_its_units() -> None:
    full = read_benchmark("full")
    roles = {unit.role for unit in full.units}
    assert roles == {"development", "confirmation", "control", "pair", "spent"} and full.seeds == (1, 2, 3, 4, 5)
    assert len(set(full.units)) == len(full.units)
    assert {unit.role for unit in read_benchmark("control").units} == {"control"}
    assert {*OURS, *REFERENCES} <= {method.name for method in full.methods}
    small = read_benchmark("small")
    assert [unit.title for unit in small.units] == ["intel, photo", "digits, embedded"] and len(small.seeds) == 1
    assert dict(small.units[0].settings)["DATASET.NUM_UNLABELED"] == "1000"
    with pytest.raises(UserError, match="--benchmark big: "):
        read_benchmark("big")


def test_a_row_has_what_the_preset_as_printed_has() -> None:
    (row,) = (method for method in read_benchmark("full").methods if method.name == "CoFT, as printed")
    preset = yaml.safe_load((HOME / "configs/trainers/CoFT/as_printed.yaml").read_text(encoding="utf-8"))
    assert dict(row.settings) == {key: str(value) for key, value in flatten(preset).items()}


def test_bars_and_derived_rows_name_rows_of_the_file() -> None:
    full = read_benchmark("full")
    names = {method.name for method in full.methods}
    assert {name for row in full.derived for name in (row["from"], row["instead"])} <= names
    names |= {row["name"] for row in full.derived} | {f"{name}, Phase I" for name in names & {*WITH_PHASE1}}
    assert full.bars and {name for bar in full.bars for name in (bar["method"], bar["by"])} <= names
    assert {place for row in full.derived for place in row["where"]} <= {unit.dataset for unit in full.units}


def test_all_runs_of_the_benchmark_can_be_planned(planned: Planned, tmp_path: Path) -> None:
    for unit, runs in planned.items():
        assert {run.backbone for run in runs} == {unit.backbone} and len(runs) == 4
        assert all(run.config["DATASET.NUM_TEST"] == 1000 for run in runs)
    other = replace(read_benchmark("small"), seeds=(4, 5))
    for runs in plan_units(other, str(tmp_path), tmp_path / "out").values():  # what draws nothing has the first seed
        assert {run.seed for run in runs if run.method.name == "zero-shot"} == {1}
        assert {run.seed for run in runs if run.method.name != "zero-shot"} == {4, 5}


# ------------------------------------------------------------------ tables


@pytest.fixture
def report(planned: Planned) -> str:
    for runs in planned.values():
        finish(runs)
    return report_of(planned)


def test_tables_say_what_was_right_and_by_how_much(report: str) -> None:
    unit = "intel, photo (development)"
    accuracies = cells(report, "accuracy, % (seeds)")
    mean, low, high, seeds = numbers(accuracies["CoFT"][unit])
    assert seeds == 1 and len(numbers(accuracies["zero-shot"][unit])) == 3
    assert mean == pytest.approx(80, abs=5) and low < mean < high
    assert numbers(accuracies["CoFT, Phase I"][unit])[0] == 0
    for head, row, units in (("errors, by those of (units)", "CoFT", [2]), ("errors of CoFT, by those of", unit, [1])):
        mean, low, high, *having = numbers(cells(report, head)[row]["UPL"])
        assert mean == pytest.approx(0.5, abs=0.12) and low < mean < high < 1 and having == units
    assert cells(report, "errors, by those of (units)")["CoFT"]["CoFT"] == "-"
    assert cells(report, "seconds")["UPL"]["intel, photo"] == "12"


def test_scores_are_of_the_first_and_the_last_labels(report: str) -> None:
    table = cells(report, "AUROC, right from wrong labels")
    row, times = table["digits, embedded"], table["p_clean above it (units that count)"]
    assert list(times.values())[1:] == ["-", "2 of 2", "2 of 2"] * 2
    assert list(table["p_clean above all, first and last"].values())[1:] == ["2 of 2", *"-----"]
    assert [row[f"{time}: p_clean"] for time in ("first", "last")] == ["0.700", "0.900"]
    assert row["last: softmax"] == "0.600" and row["first: margin"] == "0.500"


def test_what_p_clean_says_is_beside_what_is_right(report: str) -> None:
    table = cells(report, "labels of all images, %")
    assert list(table["digits, embedded"].values())[1:] == ["62.5", "66.0", "75.0", "81.0"]
    assert list(table["within 5 points (units that count)"].values())[1:] == ["-", "2 of 2", "-", "0 of 2"]
    assert list(table["the same, first and last"].values())[1:] == ["0 of 2", "-", "-", "-"]


def test_confidence_on_test_images_is_beside_accuracy(report: str) -> None:
    table = cells(report, "CoFT on test images, %")
    accuracy, confidence, error = map(float, list(table["digits, embedded"].values())[1:4])
    assert accuracy == pytest.approx(80, abs=5) and (confidence, error) == (83.0, 4.0)
    last = table["within 5 points (units that count)"]
    units = [row for title, row in table.items() if not title.startswith("within")]
    close = sum(abs(float(row["accuracy"]) - float(row["mean confidence"])) <= 5 for row in units)
    assert list(last.values())[1:] == ["-", f"{close} of {len(units)}", "4.0", "-", "-"]


def test_bars_are_met_missed_or_not_shown(planned: Planned) -> None:
    for runs in planned.values():
        finish(runs, RATES | {"label propagation": 0.78}, images=4000)
    hoped = {"zero-shot": (0.75, 0.2), "UPL": (0.6, 0.3)}
    bars = [{"method": "CoFT", "by": name, "at_most": bar} for name, both in hoped.items() for bar in both]
    bars.append({"method": "CoFT", "by": "CoOp", "at_most": 0.5})
    assert "bar" not in report_of(planned)
    assert cells(report_of(planned, bars), "errors of ")["CoFT"]["met on the mean of both?"] == "-"
    both = {
        replace(unit, role=role): runs for role in ("development", "confirmation") for unit, runs in planned.items()
    }
    text = report_of(both, bars)
    heads, *rows = table_rows(text.split("\n\n")[1])
    assert heads[2:] == ["bar", "development", "confirmation", "both", "met on the mean of both?"]
    assert [row[:3] for row in rows] == [["CoFT", n, f"{bar:.2f}"] for n, pair in hoped.items() for bar in pair]
    table = cells(text, "errors of CoFT, by those of")
    for _, name, bar, *means, met in rows:
        assert means == [table[f"mean over units, {title}"][name] for title in ("development", "confirmation", "both")]
        mean, _, high, units = numbers(means[-1])
        assert units == 4 and (met == "yes") == (mean <= float(bar) and high < 1), name
        assert met == "yes" or float(met.removeprefix("missed by ")) == pytest.approx(mean - float(bar), abs=0.02)
    assert [row[-1].split()[0] for row in rows] == ["yes", "missed"] * 2


@pytest.mark.parametrize(
    ("mean", "high", "bar", "words"),
    [
        (0.89, 0.99, 0.9, "yes"),
        (0.89, 1.01, 0.9, "no, the interval reaches 1"),
        (1.004, 1.02, 1, "no, the interval reaches 1"),
        (0.902, 0.95, 0.9, "just missed"),
        (0.92, 1.02, 0.9, "missed by 0.02"),
    ],
)
def test_verdicts(mean: float, high: float, bar: float, words: str) -> None:
    assert verdict(Ratio(mean, 0.8, high, 2), bar) == words


def test_a_row_that_stands_in_has_its_seeds() -> None:
    ones = np.ones(4, bool)
    rows = Rows(["a", "b"], {"a": {1: ones, 2: ones}, "b": {2: ~ones}}, {}, {})
    unit, none = Unit("photo", "pacs", "confirmation"), replace(rows, right={"a": {1: ones}, "b": {2: ~ones}})
    derived = [{"name": "c", "from": "a", "instead": "b", "where": ["pacs"]}]
    assert list(with_derived(unit, rows, derived).right["c"]) == [2]
    assert with_derived(unit, none, derived).right.keys() == {"a", "b"}
    assert list(with_derived(replace(unit, dataset="other"), rows, derived).right["c"]) == [1, 2]


def test_units_without_a_run_are_left_out(planned: Planned) -> None:
    first, *_ = planned
    finish([run for run in planned[first] if run.method.name == "label propagation"])
    text = report_of(planned)
    assert "intel" in text and "digits" not in text and "errors" not in text


def test_methods_are_compared_with_the_seeds_that_both_have(tmp_path: Path) -> None:
    three = plan_units(replace(read_benchmark("small"), seeds=(1, 2, 3)), str(tmp_path), tmp_path / "out")
    unit, runs = next(iter(three.items()))
    having = {"zero-shot": (1,), "UPL": (2, 3), "CoFT": (1, 2)}
    done = [run for run in runs if run.seed in having.get(run.method.name, ())]
    finish(done)
    text, column = report_of({unit: runs}), "intel, photo (development)"
    accuracies = {name: row[column] for name, row in cells(text, "accuracy, % (seeds)").items()}
    assert [accuracies[name][-4:] for name in ("CoFT", "UPL")] == [" (2)"] * 2 and accuracies["zero-shot"][-1] == "]"
    wrong = {
        (run.method.name, run.seed): 1 - result.right["end"].mean() for run in done if (result := read_result(run))
    }
    ratios = cells(text, "errors of CoFT, by those of")[column]
    assert numbers(ratios["UPL"])[0] == pytest.approx(wrong["CoFT", 2] / wrong["UPL", 2], abs=0.005)
    both = np.mean([wrong["CoFT", 1], wrong["CoFT", 2]])
    assert numbers(ratios["zero-shot"])[0] == pytest.approx(both / wrong["zero-shot", 1], abs=0.005)


# ------------------------------------------------------------------ the list of results


def add(path: Path, unit: Unit, runs: list[Run]) -> None:
    """Add finished runs to a list."""
    add_to_list(path, [(identity(run, unit.settings), result) for run in runs if (result := read_result(run))])


def test_a_list_has_all_that_tables_need_and_its_runs_are_known_elsewhere(planned: Planned, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    assert not listed_results(planned, kept)
    for unit, runs in planned.items():
        finish(runs, images=403)
        add(kept, unit, runs)
    written = kept.read_text().splitlines()
    assert len(written) == 8 and all(json.loads(line)["commit"] == "abc" for line in written)
    elsewhere = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "there")
    listed = listed_results(elsewhere, kept)
    assert len(listed) == 8 and write_report(rows_of(elsewhere, listed), "a command") == report_of(planned)


def test_a_list_has_predictions_and_how_many_labels_of_the_pool_are_right(planned: Planned, tmp_path: Path) -> None:
    unit, runs = next(iter(planned.items()))
    finish(runs)
    run = next(run for run in runs if run.method.name == "CoFT")
    sure = [0.4, 0.49, 0.5]  # the first one is wrong
    table = pd.DataFrame(
        {"class": ["cat", "ant", "cat"], "phase1": "bee", "end": ["ant", "ant", "cat"], "confidence": sure}
    )
    table.to_csv(run.folder / "test_predictions.csv", index=False)
    add(tmp_path / "kept.jsonl", unit, [run])
    result = listed_results({unit: [run]}, tmp_path / "kept.jsonl")[run]
    assert {stage: numbers.tolist() for stage, numbers in result.predicted.items()} == {
        "phase1": [-1, -1, -1],
        "end": [0, 0, 1],
    }
    assert result.pool == {"zero-shot": 50.0, "first": 62.5, "last": 75.0}
    assert result.calibration == {
        **{"confidence": 100 * RATES["CoFT"] + 3, "error": 4.0},
        **{"unsure": pytest.approx(200 / 3, abs=0.01), "caught": 100.0},
    }


def test_of_a_run_made_again_the_last_line_counts_and_the_first_stays(planned: Planned, tmp_path: Path) -> None:
    unit, runs = next(iter(planned.items()))
    kept, lines = tmp_path / "kept.jsonl", []
    for images in (403, 200):
        finish(runs, images=images)
        add(kept, unit, runs)
        lines.append(kept.read_text())
    assert lines[1].startswith(lines[0]) and lines[1] != lines[0]
    some = lines[1].splitlines()
    kept.write_text("\n".join([*some[: len(some) // 2], some[-1]]) + "\n")
    with pytest.raises(UserError, match="results of 200 and of 403 test images"):
        listed_results({unit: runs}, kept)
    kept.write_text(lines[1])
    assert {len(result.right["end"]) for result in listed_results({unit: runs}, kept).values()} == {200}


def test_another_row_seed_or_checkpoint_is_not_known(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, runs = next(iter(planned.items()))
    finish(runs)
    kept = tmp_path / "kept.jsonl"
    add(kept, unit, runs)
    others = [
        {unit: [replace(run, seed=7) for run in runs]},
        {unit: [replace(run, method=replace(run.method, settings=(("OPTIM.LR", "1"),))) for run in runs]},
        {replace(unit, settings=()): runs},
    ]
    assert len(listed_results({unit: runs}, kept)) == len(runs)
    assert not any(listed_results(other, kept) for other in others)
    monkeypatch.setattr("scripts.comparing.list.weights_of", lambda backbone: "of another file")
    assert not listed_results({unit: runs}, kept)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        '{"of": {}, "seconds": 1, "images": 9, "auroc": {}, "right": {"end": "ff"}}',
        '{"of": {}, "seconds": 1, "images": 8, "auroc": {}, "right": {"phase1": "ff"}}',
        '{"of": {}, "seconds": 1, "images": 8, "auroc": {}, "right": {"end": "ff"}, "predicted": {"end": "0000"}}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_result_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "kept.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"kept.jsonl, line 1: "):
        read_list(tmp_path / "kept.jsonl")


# ------------------------------------------------------------------ the command


def test_the_command_goes_on_from_a_list(planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, words = tmp_path / "kept.jsonl", ["--benchmark", "small", "--no-run", "--data", str(tmp_path)]
    for runs in planned.values():
        finish(runs)
    assert compare([*words, "--output", str(tmp_path / "out"), "--kept", str(kept)]) == 0
    first = capsys.readouterr().out
    assert len(kept.read_text().splitlines()) == 8
    assert compare([*words, "--output", str(tmp_path / "there"), "--kept", str(kept)]) == 0
    printed = capsys.readouterr()
    assert "runs: 0, finished: 0; known from elsewhere: 8\n" in printed.err
    assert printed.out.replace("/there", "/out") == first


@pytest.mark.parametrize(("seeds", "count"), [([], 8), (["--seeds", "1,2,1"], 14)])
def test_seeds_are_those_of_the_form_unless_some_are_named(
    seeds: list[str], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--benchmark", "small", "--no-run", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert compare([*words, *seeds]) == 0
    assert f"runs: {count}, finished: 0\n" in capsys.readouterr().err


def test_runs_that_a_list_has_lend_their_phase_one_where_their_folder_is(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[list[str], list[str]]] = []

    def run_all(todo: list[Run], finished: dict[Run, float], **_: object) -> dict[Run, str]:
        given.append(([run.method.name for run in todo], [run.method.name for run in finished]))
        return {}

    monkeypatch.setattr("scripts.comparing.run.run_all", run_all)
    for unit, runs in planned.items():
        finish(runs)
        add(tmp_path / "kept.jsonl", unit, [run for run in runs if run.method.name in ("zero-shot", "CoFT")])
        for run in runs:
            if run.method.name in ("label propagation", "UPL"):
                (run.folder / "summary.json").unlink()
    words = ["--benchmark", "small", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    compare([*words, "--kept", str(tmp_path / "kept.jsonl")])
    assert given == [(["label propagation", "UPL"] * 2, ["zero-shot", "CoFT"] * 2)]


@pytest.mark.parametrize(
    "flags", [["--again", "UPL"], ["--benchmark", "small", "--kept", "list.jsonl", "--again", "UPLL"]]
)
def test_a_row_to_run_again_is_one_of_a_list(flags: list[str]) -> None:
    with pytest.raises(UserError, match=r"^--again"):
        compare([*flags, "--no-run"])
