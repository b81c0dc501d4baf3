"""The benchmark's file, its plan and its tables, with runs of a toy trainer."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coft.core.errors import UserError
from scripts.comparing.benchmark import known_results, plan_units, read_benchmark
from scripts.comparing.benchmark_rows import Derived, Found, Unit, with_derived
from scripts.comparing.benchmark_tables import OURS, REFERENCES, Bar, Ratio, verdict, write_report
from scripts.comparing.compare import compare
from scripts.comparing.evidence import WITH_PHASE1, Result, identity, read_list, read_result, write_list
from scripts.comparing.plan import Run

from .toy_runs import write_summary


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("plan", "evidence"):
        monkeypatch.setattr(f"scripts.comparing.{module}.weights_of", lambda backbone: None)


def test_roles_are_fixed_and_each_form_has_its_units() -> None:
    full = read_benchmark("full")
    roles = {unit.role for unit in full.units}
    assert roles == {"development", "confirmation", "control", "spent"} and full.seeds == (1, 2, 3, 4, 5)
    assert len(set(full.units)) == len(full.units)
    assert {unit.role for unit in read_benchmark("control").units} == {"control"}
    assert {*OURS, *REFERENCES} <= {method.name for method in full.methods}
    small = read_benchmark("small")
    assert [unit.title for unit in small.units] == ["intel, photo", "digits, embedded"] and len(small.seeds) == 1
    assert dict(small.units[0].settings)["DATASET.NUM_UNLABELED"] == "1000"
    with pytest.raises(UserError, match=r"--benchmark big: expected full, small, development, .* or spent"):
        read_benchmark("big")


def test_all_runs_of_the_benchmark_can_be_planned(tmp_path: Path) -> None:
    for unit, runs in plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out").items():
        assert {run.backbone for run in runs} == {unit.backbone} and len(runs) == 4
        assert all(run.config["DATASET.NUM_TEST"] == 1000 for run in runs)


def finished(unit: Unit, runs: list[Run], rates: dict[str, float], images: int = 400) -> None:
    """Leave what finished runs leave, with a method's share of right test images."""
    for run in runs:
        write_summary(run.folder, config=run.config, seed=run.seed, seconds=12.0)
        summary = run.summary()
        assert summary is not None, unit
        right = np.random.default_rng(run.seed).random(images) < rates[run.method.name]
        table = pd.DataFrame({"image": range(images), "class": "cat", "end": np.where(right, "cat", "dog")})
        table["phase1"] = "dog"
        columns = ["image", "class", *(["phase1"] if run.method.trainer == "CoFT" else []), "end"]
        table[columns].to_csv(run.folder / "test_predictions.csv", index=False)
        if run.method.trainer == "CoFT":
            last = [("zero-shot", None), ("phase1", None), ("phase2", 0.7), ("phase2", None), ("phase2", 0.9)]
            scores = pd.DataFrame(last, columns=["stage", "auroc_p_clean"])
            metrics = scores.assign(auroc_confidence=0.6, auroc_margin=0.5)
            metrics.to_csv(run.folder / "metrics.csv", index=False)


def cells(text: str, head: str) -> dict[str, dict[str, str]]:
    """A table of a report, by its first head: by the first cell of a row, and by head."""
    (table,) = (part for part in text.split("\n\n") if part.startswith(f"| {head} "))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


@pytest.fixture
def report(tmp_path: Path) -> str:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    for unit, runs in planned.items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8})
    return reported(planned)


def reported(planned: dict[Unit, list[Run]]) -> str:
    results = {run: result for runs in planned.values() for run in runs if (result := read_result(run))}
    return write_report(planned, results, "bash scripts/compare.sh --benchmark small")


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def test_tables_say_what_was_right_and_by_how_much(report: str) -> None:
    unit = "intel, photo (development)"
    mean, low, high, seeds = numbers(cells(report, "accuracy, % (seeds)")["CoFT"][unit])
    assert seeds == 1 and len(numbers(cells(report, "accuracy, % (seeds)")["zero-shot"][unit])) == 3
    assert mean == pytest.approx(80, abs=5) and low < mean < high
    assert numbers(cells(report, "accuracy, % (seeds)")["CoFT, Phase I"][unit])[0] == 0
    for head, row, units in (("errors, by those of (units)", "CoFT", [2]), ("errors of CoFT, by those of", unit, [1])):
        mean, low, high, *having = numbers(cells(report, head)[row]["UPL"])
        assert mean == pytest.approx(0.5, abs=0.12) and low < mean < high < 1 and having == units
    assert cells(report, "errors, by those of (units)")["CoFT"]["CoFT"] == "-"
    assert cells(report, "seconds")["UPL"]["intel, photo"] == "12"


def results_of(planned: dict[Unit, list[Run]]) -> dict[Run, Result]:
    return {run: result for runs in planned.values() for run in runs if (result := read_result(run))}


def test_bars_are_met_missed_or_not_shown(tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    for unit, runs in planned.items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.78, "UPL": 0.6, "CoFT": 0.8}, images=4000)
    hoped = {"zero-shot": (0.75, 0.2), "UPL": (0.6, 0.3)}
    bars = [Bar("CoFT", name, bar) for name, own in hoped.items() for bar in own] + [Bar("CoFT", "CoOp", 0.5)]
    assert "bar" not in reported(planned)
    assert (
        cells(write_report(planned, results_of(planned), "", bars), "errors of ")["CoFT"]["met on the mean of both?"]
        == "-"
    )
    both = {
        replace(unit, role=role): runs for role in ("development", "confirmation") for unit, runs in planned.items()
    }
    text = write_report(both, results_of(both), "", bars)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n\n")[1].splitlines()]
    assert rows[0][2:] == ["bar", "development", "confirmation", "both", "met on the mean of both?"]
    assert [row[:3] for row in rows[2:]] == [["CoFT", n, f"{bar:.2f}"] for n, own in hoped.items() for bar in own]
    table = cells(text, "errors of CoFT, by those of")
    for _, name, bar, *means, found in rows[2:]:
        assert means == [table[f"mean over units, {title}"][name] for title in ("development", "confirmation", "both")]
        mean, _, high, units = numbers(means[-1])
        assert units == 4 and (found == "yes") == (mean <= float(bar) and high < 1), name
        assert found == "yes" or float(found.removeprefix("missed by ")) == pytest.approx(mean - float(bar), abs=0.02)
    assert [row[-1].split()[0] for row in rows[2:]] == ["yes", "missed"] * 2


def test_bars_and_derived_rows_name_rows_of_the_file() -> None:
    full = read_benchmark("full")
    names = {method.name for method in full.methods}
    assert {name for row in full.derived for name in (row.source, row.instead)} <= names
    names |= {row.name for row in full.derived} | {f"{name}, Phase I" for name in names & {*WITH_PHASE1}}
    assert full.bars and {name for bar in full.bars for name in (bar.method, bar.reference)} <= names
    assert {place for row in full.derived for place in row.datasets} <= {unit.dataset for unit in full.units}


def test_a_row_may_follow_from_others(tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    (first, *_), rates = planned, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8}
    for unit, runs in planned.items():
        finished(unit, [run for run in runs if unit != first or run.method.name != "zero-shot"], rates)
    rows = [
        Derived("changed", "CoFT", "zero-shot", ["digits"]),
        Derived("without", "CoFT", "CoOp", ["digits", "intel"]),
    ]
    text = write_report(planned, results_of(planned), "", [Bar("changed", "UPL", 0.75)], rows)
    shown = cells(text, "accuracy, % (seeds)")
    assert [*shown] == ["zero-shot", "label propagation", "UPL", "CoFT, Phase I", "CoFT", "changed"]
    for place, source in (("digits, embedded", "zero-shot"), ("intel, photo", "CoFT")):
        own, other = (shown[name][f"{place} (development)"] for name in ("changed", source))
        assert numbers(own)[0] == numbers(other)[0]
    assert cells(text, "errors of ")["changed"]["by those of"] == "UPL"


def test_a_row_that_stands_in_has_its_seeds() -> None:
    ones = np.ones(4, bool)
    found = Found(["a", "b"], {"a": {1: ones, 2: ones}, "b": {2: ~ones}}, {}, {})
    unit, none = Unit("photo", "pacs", "confirmation"), replace(found, right={"a": {1: ones}, "b": {2: ~ones}})
    rows = [Derived("c", "a", "b", ["pacs"])]
    assert list(with_derived(unit, found, rows).right["c"]) == [2]
    assert with_derived(unit, none, rows).right.keys() == {"a", "b"}
    assert list(with_derived(replace(unit, dataset="other"), found, rows).right["c"]) == [1, 2]


@pytest.mark.parametrize(
    ("mean", "high", "bar", "found"),
    [
        (0.89, 0.99, 0.9, "yes"),
        (0.89, 1.01, 0.9, "no, the interval reaches 1"),
        (1.004, 1.02, 1, "no, the interval reaches 1"),
        (0.902, 0.95, 0.9, "just missed"),
        (0.92, 1.02, 0.9, "missed by 0.02"),
    ],
)
def test_verdicts(mean: float, high: float, bar: float, found: str) -> None:
    assert verdict(Ratio(mean, 0.8, high, 2), bar) == found


def test_rows_stand_in_the_order_of_the_benchmark_whatever_is_missing(tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    for (unit, runs), names in zip(planned.items(), (["CoFT"], ["zero-shot", "UPL", "CoFT"]), strict=True):
        finished(unit, [run for run in runs if run.method.name in names], dict.fromkeys(names, 0.6))
    text = reported(planned)
    for head, phases in (("accuracy, % (seeds)", ["CoFT, Phase I"]), ("seconds", [])):
        assert list(cells(text, head)) == ["zero-shot", "UPL", *phases, "CoFT"]


def test_scores_are_of_the_first_and_the_last_labels(report: str) -> None:
    table = cells(report, "AUROC, right from wrong labels")
    row, times = table["digits, embedded"], table["p_clean above it (units that count)"]
    assert list(times.values())[1:] == ["-", "2 of 2", "2 of 2"] * 2
    assert list(table["p_clean above all, first and last"].values())[1:] == ["2 of 2", *"-----"]
    assert [row[f"{time}: p_clean"] for time in ("first", "last")] == ["0.700", "0.900"]
    assert row["last: softmax"] == "0.600" and row["first: margin"] == "0.500"


@pytest.mark.parametrize("name", ["UPL", "label propagation"])  # what others are compared with, and what is not
def test_units_without_a_run_are_left_out(name: str, tmp_path: Path) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    first, *_ = planned
    finished(first, [run for run in planned[first] if run.method.name == name], {name: 0.6})
    text = reported(planned)
    assert "intel" in text and "digits" not in text and "errors" not in text


def test_methods_are_compared_with_the_seeds_that_both_have(tmp_path: Path) -> None:
    seeds = replace(read_benchmark("small"), seeds=(1, 2, 3))
    planned = plan_units(seeds, str(tmp_path), tmp_path / "out")
    unit, runs = next(iter(planned.items()))
    rates = {"zero-shot": 0.3, "UPL": 0.5, "CoFT": 0.8}
    having = {"zero-shot": (1,), "UPL": (2, 3), "CoFT": (1, 2)}
    done = [run for run in runs if run.seed in having.get(run.method.name, ())]
    finished(unit, done, rates)
    text = reported({unit: runs})
    shown = {name: row["intel, photo (development)"] for name, row in cells(text, "accuracy, % (seeds)").items()}
    assert [shown[name].endswith(end) for name, end in (("CoFT", " (2)"), ("UPL", " (2)"), ("zero-shot", "]"))] == [
        True
    ] * 3
    right = {(run.method.name, run.seed): result.right["end"] for run in done if (result := read_result(run))}
    ratio = numbers(cells(text, "errors of CoFT, by those of")["intel, photo (development)"]["UPL"])[0]
    assert ratio == pytest.approx((1 - right["CoFT", 2].mean()) / (1 - right["UPL", 2].mean()), abs=0.005)
    both = numbers(cells(text, "errors of CoFT, by those of")["intel, photo (development)"]["zero-shot"])[0]
    errors = 1 - np.mean([right["CoFT", 1], right["CoFT", 2]])
    assert both == pytest.approx(errors / (1 - right["zero-shot", 1].mean()), abs=0.005)


# ---------------------------------------------------------------- the list of results


def test_a_list_has_all_that_tables_need_and_its_runs_are_known_elsewhere(tmp_path: Path) -> None:
    first, second = (
        plan_units(read_benchmark("small"), str(tmp_path), tmp_path / folder) for folder in ("here", "there")
    )
    for unit, runs in first.items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8}, images=403)
    kept = tmp_path / "kept.jsonl"
    assert not known_results(first, kept)
    for unit, runs in list(first.items()) * 2:  # the second time changes nothing
        write_list(kept, [(identity(run, unit.settings), result) for run in runs if (result := read_result(run))])
    assert len(kept.read_text().splitlines()) == 8 and kept.read_text().splitlines() == sorted(
        kept.open().read().splitlines()
    )
    known = known_results(second, kept)
    assert len(known) == 8 and write_report(second, known, "bash scripts/compare.sh --benchmark small") == reported(
        first
    )


def test_another_row_seed_or_checkpoint_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "out")
    unit, runs = next(iter(planned.items()))
    finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8})
    kept = tmp_path / "kept.jsonl"
    write_list(kept, [(identity(run, unit.settings), result) for run in runs if (result := read_result(run))])
    others = [
        {unit: [replace(run, seed=7) for run in runs]},
        {unit: [replace(run, method=replace(run.method, settings=(("OPTIM.LR", "1"),))) for run in runs]},
        {replace(unit, settings=()): runs},
    ]
    assert len(known_results({unit: runs}, kept)) == len(runs)
    assert not any(known_results(other, kept) for other in others)
    monkeypatch.setattr("scripts.comparing.evidence.weights_of", lambda backbone: "of another file")
    assert not known_results({unit: runs}, kept)


@pytest.mark.parametrize(
    "line", ["", "{}", '{"of": {}, "seconds": 1, "images": 9, "auroc": {}, "right": {"end": "ff"}}']
)
def test_a_line_that_is_no_result_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "kept.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"kept.jsonl, line 1: this is no result of the benchmark; remove the line"):
        read_list(tmp_path / "kept.jsonl")


def test_the_command_goes_on_from_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, words = tmp_path / "kept.jsonl", ["--benchmark", "small", "--no-run", "--data", str(tmp_path)]
    for unit, runs in plan_units(read_benchmark("small"), str(tmp_path.resolve()), tmp_path / "here").items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8})
    assert compare([*words, "--output", str(tmp_path / "here"), "--kept", str(kept)]) == 0
    first = capsys.readouterr().out
    assert len(kept.read_text().splitlines()) == 8
    assert compare([*words, "--output", str(tmp_path / "there"), "--kept", str(kept)]) == 0
    shown = capsys.readouterr()
    assert "runs: 0, finished: 0; known from elsewhere: 8\n" in shown.err
    assert shown.out.replace("/there", "/here") == first


@pytest.mark.parametrize(
    ("seeds", "count"), [([], 8), (["--seeds", "1,2"], 14), (["--seeds", "1,2,3"], 20), (["--seeds", "3,3"], 8)]
)
def test_seeds_are_those_of_the_form_unless_some_are_named(
    seeds: list[str], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--benchmark", "small", "--no-run", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert compare([*words, *seeds]) == 0
    assert f"runs: {count}, finished: 0\n" in capsys.readouterr().err


def test_what_draws_nothing_has_the_first_seed(tmp_path: Path) -> None:
    planned = plan_units(replace(read_benchmark("small"), seeds=(4, 5)), str(tmp_path), tmp_path / "out")
    for runs in planned.values():
        assert {run.seed for run in runs if run.method.name == "zero-shot"} == {1}
        assert {run.seed for run in runs if run.method.name != "zero-shot"} == {4, 5}


def test_runs_that_a_list_has_lend_their_phase_one_where_their_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[list[str], list[str]]] = []

    def run_all(todo: list[Run], known: dict[Run, float], **_: object) -> dict[Run, str]:
        given.append(([run.method.name for run in todo], [run.method.name for run in known]))
        return {}

    monkeypatch.setattr("scripts.comparing.session.run_all", run_all)
    planned = plan_units(read_benchmark("small"), str(tmp_path.resolve()), tmp_path / "out")
    for unit, runs in planned.items():
        finished(unit, runs, {"zero-shot": 0.5, "label propagation": 0.6, "UPL": 0.6, "CoFT": 0.8})
        done = [run for run in runs if run.method.name in ("zero-shot", "CoFT")]
        write_list(tmp_path / "kept.jsonl", [(identity(run, unit.settings), read_result(run)) for run in done])  # type: ignore[misc]
        for run in runs:
            if run not in done:
                (run.folder / "summary.json").unlink()
    words = ["--benchmark", "small", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    compare([*words, "--kept", str(tmp_path / "kept.jsonl")])
    assert given == [(["label propagation", "UPL"] * 2, ["zero-shot", "CoFT"] * 2)]


def test_a_list_without_the_benchmark_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--kept is a list of results of --benchmark; leave it out"):
        compare(["digits", "--kept", str(tmp_path / "kept.jsonl")])
