"""The list of benchmark results, and commands that use it."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from coft.core.errors import UserError
from scripts.comparing.benchmark import (
    Unit,
    listed_results,
    plan_units,
    read_benchmark,
    rows_of,
)
from scripts.comparing.benchmark_tables import write_report
from scripts.comparing.commands import compare
from scripts.comparing.list import add_to_list, identity, read_list, read_result
from scripts.comparing.plan import Run

from .toy_benchmark import RATES, Planned, finish, report_of

pytestmark = pytest.mark.usefixtures("no_weights")


# ------------------------------------------------------------------ the list of results


def add(path: Path, unit: Unit, runs: list[Run]) -> None:
    """Add the results of finished runs to a list."""
    add_to_list(path, [(identity(run, unit.settings), result) for run in runs if (result := read_result(run))])


def test_list_is_sufficient_for_the_tables(planned: Planned, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    assert not listed_results(planned, kept)
    for unit, runs in planned.items():
        finish(runs, images=403)
        add(kept, unit, runs)
    lines = kept.read_text().splitlines()
    assert len(lines) == 8 and all(json.loads(line)["commit"] == "abc" for line in lines)
    elsewhere = plan_units(read_benchmark("small"), str(tmp_path), tmp_path / "there")
    listed = listed_results(elsewhere, kept)
    assert len(listed) == 8 and write_report(rows_of(elsewhere, listed), "a command") == report_of(planned)


def test_list_has_predictions_pool_accuracies_and_calibration(planned: Planned, tmp_path: Path) -> None:
    unit, runs = next(iter(planned.items()))
    finish(runs)
    run = next(run for run in runs if run.method.name == "CoFT")
    confidence = [0.4, 0.49, 0.5]  # the first prediction is wrong
    table = pd.DataFrame(
        {"class": ["cat", "ant", "cat"], "phase1": "bee", "end": ["ant", "ant", "cat"], "confidence": confidence}
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


def test_last_line_of_a_repeated_run_counts(planned: Planned, tmp_path: Path) -> None:
    unit, runs = next(iter(planned.items()))
    kept, lines = tmp_path / "kept.jsonl", []
    for images in (403, 200):
        finish(runs, images=images)
        add(kept, unit, runs)
        lines.append(kept.read_text())
    assert lines[1].startswith(lines[0]) and lines[1] != lines[0]
    rows = lines[1].splitlines()
    kept.write_text("\n".join([*rows[: len(rows) // 2], rows[-1]]) + "\n")
    with pytest.raises(UserError, match="results of 200 and of 403 test images"):
        listed_results({unit: runs}, kept)
    kept.write_text(lines[1])
    assert {len(result.right["end"]) for result in listed_results({unit: runs}, kept).values()} == {200}


def test_another_row_seed_or_checkpoint_is_not_in_the_list(
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
def test_invalid_line_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "kept.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"kept.jsonl, line 1: "):
        read_list(tmp_path / "kept.jsonl")


# ------------------------------------------------------------------ command


def test_command_uses_results_of_a_list(planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, arguments = tmp_path / "kept.jsonl", ["--benchmark", "small", "--no-run", "--data", str(tmp_path)]
    for runs in planned.values():
        finish(runs)
    assert compare([*arguments, "--output", str(tmp_path / "out"), "--kept", str(kept)]) == 0
    first = capsys.readouterr().out
    assert len(kept.read_text().splitlines()) == 8
    assert compare([*arguments, "--output", str(tmp_path / "there"), "--kept", str(kept)]) == 0
    printed = capsys.readouterr()
    assert "runs: 0, finished: 0; known from elsewhere: 8\n" in printed.err
    assert printed.out.replace("/there", "/out") == first


@pytest.mark.parametrize(("seeds", "count"), [([], 8), (["--seeds", "1,2,1"], 14)])
def test_seeds_flag_overrides_the_form(
    seeds: list[str], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--benchmark", "small", "--no-run", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert compare([*arguments, *seeds]) == 0
    assert f"runs: {count}, finished: 0\n" in capsys.readouterr().err


def test_listed_runs_provide_their_phase_one(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], list[str]]] = []

    def run_all(todo: list[Run], finished: dict[Run, float], **_: object) -> dict[Run, str]:
        calls.append(([run.method.name for run in todo], [run.method.name for run in finished]))
        return {}

    monkeypatch.setattr("scripts.comparing.run.run_all", run_all)
    for unit, runs in planned.items():
        finish(runs)
        add(tmp_path / "kept.jsonl", unit, [run for run in runs if run.method.name in ("zero-shot", "CoFT")])
        for run in runs:
            if run.method.name in ("label propagation", "UPL"):
                (run.folder / "summary.json").unlink()
    arguments = ["--benchmark", "small", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    compare([*arguments, "--kept", str(tmp_path / "kept.jsonl")])
    assert calls == [(["label propagation", "UPL"] * 2, ["zero-shot", "CoFT"] * 2)]


@pytest.mark.parametrize(
    "flags", [["--again", "UPL"], ["--benchmark", "small", "--kept", "list.jsonl", "--again", "UPLL"]]
)
def test_again_needs_a_list_and_a_row(flags: list[str]) -> None:
    with pytest.raises(UserError, match=r"^--again"):
        compare([*flags, "--no-run"])
