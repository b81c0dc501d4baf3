from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coft.core.errors import UserError
from scripts.comparing.ablate import FILES, ablate, leave_out, plan_ablations
from scripts.comparing.ablations import FULL, Ablation, choose, load_ablations, missing
from scripts.comparing.differences import measured, overall_changes, summarise_changes, with_changes
from scripts.comparing.methods import Method
from scripts.comparing.plan import Grid, weights_of
from scripts.launch import ROOT

STAGES = ("after Phase I", "after Phase II")
PAIRS = (("Digits", "embedded"), ("Icons", "embedded"))
NOT_YET = {"filter: both-hard"}  # for a version whose filter has no such name
MEASURES = {FULL: "both", "rule": "both", "alone": "single", "short": "after Phase I", "rare": "both"}


def grid_of(output: Path, backbones: Sequence[str | None] = (None,), settings: Any = ()) -> Grid:
    return Grid(["digits"], [1], backbones, output=output, settings=settings)


# ------------------------------------------------------------------ the lists


@pytest.mark.parametrize("trainer", FILES)
def test_the_lists_can_be_run(trainer: str, tmp_path: Path) -> None:
    ablations = load_ablations(FILES[trainer])
    assert {ablation.method.trainer for ablation in ablations} == {trainer}
    there, notes = leave_out(ablations)
    assert {note.split(": TRAINER")[0] for note in notes} <= NOT_YET
    runs, notes = plan_ablations(there, grid_of(tmp_path, ["embedded", "embedded-vit"]))
    assert {run.method.name for run in runs} == {ablation.method.name for ablation in there} and not notes


def test_a_change_that_is_none_is_left_out_with_a_note(tmp_path: Path) -> None:
    key = "TRAINER.COFT.FILTER"
    ablations = [Ablation(Method(FULL, "CoFT"), FULL)]
    ablations += [Ablation(Method(rule, "CoFT", ((key, rule),)), "filter") for rule in ("both", "peer")]
    ablations.append(Ablation(Method("one peer", "CoFT"), "peers", measure="single"))
    runs, notes = plan_ablations(ablations, grid_of(tmp_path))
    assert [run.method.name for run in runs] == [FULL, "peer", "one peer"]
    assert notes == ["both: is what the full method does"]
    runs, notes = plan_ablations(ablations, grid_of(tmp_path, settings=((key, "peer"),)))
    assert [run.method.name for run in runs] == [FULL, "both", "one peer"] and notes[0].startswith("peer:")


def test_changes_go_with_the_backbone_they_are_for(tmp_path: Path) -> None:
    change = (("TRAINER.COFT.VISUAL", "norms-and-biases"),)
    ablations = [Ablation(Method(FULL, "CoFT"), FULL), Ablation(Method("v", "CoFT", change), "visual", only="vit")]
    runs, _ = plan_ablations(ablations, grid_of(tmp_path, ["embedded", "embedded-vit"]))
    assert [(run.method.name, run.backbone) for run in runs] == [
        (FULL, "embedded"),
        (FULL, "embedded-vit"),
        ("v", "embedded-vit"),
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ((("TRAINER.COFT.NOT_YET", "1"),), "there is no key TRAINER.COFT.NOT_YET"),
        ((("TRAINER.COFT.VISUAL", "wings"),), "TRAINER.COFT.VISUAL is 'wings'"),
        ((("TRAINER.COFT.FILTER", "peer"), ("TRAINER.COFT.CLEAN_RULE", "x")), "TRAINER.COFT.CLEAN_RULE is 'x'"),
        ((("TRAINER.COFT.PHASE1.EPOCHS", "0"),), "TRAINER.COFT.PHASE1.EPOCHS is 0"),
        ((("TRAINER.COFT.VISUAL", "auto"), ("OPTIM.LR", "0.0")), None),
    ],
)
def test_what_does_not_exist_yet_is_named(settings: Any, reason: str | None) -> None:
    ablation = Ablation(Method("x", "CoFT", settings), "g")
    found, notes = missing(ablation), leave_out([ablation])[1]
    assert notes == ([f"x: {found}"] if reason else [])
    assert str(found).startswith(str(reason))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ablations: []", "expected the keys trainer and ablations"),
        ("trainer: [", "expected the keys"),
        (b"trainer: \xff", "expected the keys"),
        ("{trainer: [CoFT], ablations: []}", "unknown trainer"),
        ("{trainer: CoFT, ablations: }", "ablations should be a list of changes, not None"),
        ("{trainer: CoFT, ablations: [{name: a, group: g, settings: [b]}]}", "a: settings should be KEY: VALUE"),
        ("{trainer: CoFT, ablations: [{name: a, group: g, settings: }]}", "a: settings should be KEY: VALUE, not None"),
        ("{trainer: CoFd, ablations: []}", "unknown trainer 'CoFd'; did you mean 'CoFT'"),
        ("{trainer: CoFT, ablations: [{name: a}]}", "should have name, group"),
        ("{trainer: CoFT, ablations: [{name: a, group: g, setting: {}}]}", "should have name, group"),
        ("{trainer: CoFT, ablations: [{name: a, group: g, measure: singl}]}", "a: 'singl'; did you mean 'single'"),
        ("{trainer: CoFT, ablations: [{name: a, group: g}, {name: a, group: g}]}", "two ablations are called 'a'"),
    ],
)
def test_mistakes_in_a_list_are_named(text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        load_ablations(tmp_path / "list.yaml")


def test_groups_and_rows() -> None:
    ablations = load_ablations(FILES["CoFT"])
    assert {ablation.group for ablation in choose(ablations, ["filter", "phases"])} == {FULL, "filter", "phases"}
    assert choose(ablations, []) == ablations
    with pytest.raises(UserError, match="--groups: unknown group 'filters'; did you mean 'filter'"):
        choose(ablations, ["filters"])
    rows = ["filter: none", "no negative prompt, filter: none"]
    assert [ablation.method.name for ablation in choose(ablations, [], rows)] == [FULL, *rows]
    assert {ablation.group for ablation in choose(ablations, ["peers"], rows[:1])} == {FULL, "peers", "filter"}
    with pytest.raises(UserError, match="--row: unknown row 'filter: non'; did you mean 'filter: none'"):
        choose(ablations, [], ["filter: non"])
    with pytest.raises(UserError, match="no such file"):
        load_ablations(Path("nowhere.yaml"))


# ------------------------------------------------------------------ the numbers


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Made-up results of five variants; `rare` lacks a pair."""
    rng = np.random.default_rng(0)
    lines = []
    for variant in MEASURES:
        for dataset, backbone in PAIRS[: 1 if variant == "rare" else 2]:
            for seed in (1, 2, 3):
                for stage in STAGES:
                    line = {"variant": variant, "dataset": dataset, "backbone": backbone, "seed": seed, "stage": stage}
                    numbers = {name: rng.uniform(50, 90) for name in ("accuracy", "peer_a", "peer_b", "seconds")}
                    lines.append({**line, **numbers, "coverage": rng.uniform(), "precision": rng.uniform()})
    return pd.DataFrame(lines)


def naive(rows: pd.DataFrame, variant: str, pair: tuple[str, str], seed: int, stage: str) -> float:
    """The accuracy that counts, of one run after one phase."""
    (row,) = (
        row
        for row in rows.to_dict("records")
        if (row["variant"], row["dataset"], row["backbone"]) == (variant, *pair)
        and (row["seed"], row["stage"]) == (seed, stage)
    )
    return (row["peer_a"] + row["peer_b"]) / 2 if variant == "alone" else row["accuracy"]


T = 4.302653  # Student's t of three values, 95 %


def spread(numbers: Sequence[float]) -> tuple[float, float]:
    mean = sum(numbers) / len(numbers)
    return mean, (sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)) ** 0.5


def test_differences_are_paired_by_seed(rows: pd.DataFrame) -> None:
    table = summarise_changes(with_changes(measured(rows, MEASURES), FULL))
    assert len(table) == 9
    for row in table.to_dict("records"):
        variant, pair = row["variant"], (row["dataset"], row["backbone"])
        last = STAGES[0] if variant == "short" else STAGES[1]
        first = [naive(rows, variant, pair, seed, STAGES[0]) for seed in (1, 2, 3)]
        end = [naive(rows, variant, pair, seed, last) for seed in (1, 2, 3)]
        assert row["phase1"] == pytest.approx(spread(first)[0]) and row["final"] == pytest.approx(spread(end)[0])
        assert np.isnan(row["phase2"]) if variant == "short" else row["phase2"] == pytest.approx(spread(end)[0])
        if variant == FULL:
            assert np.isnan(row["change"]) and np.isnan(row["phase1_change"])
            continue
        for numbers, stage, columns in (
            (first, STAGES[0], ("phase1_change", "phase1_std")),
            (end, STAGES[1], ("change", "std")),
        ):
            pairs = [x - naive(rows, FULL, pair, seed, stage) for x, seed in zip(numbers, (1, 2, 3), strict=True)]
            assert [row[name] for name in columns] == pytest.approx(spread(pairs))
        assert row["interval"] == pytest.approx(T * row["std"] / 3**0.5)


def test_the_mean_over_pairs_is_taken_seed_by_seed(rows: pd.DataFrame) -> None:
    changes = with_changes(measured(rows, MEASURES), FULL)
    over = {row["variant"]: row for row in overall_changes(changes).to_dict("records")}
    assert set(over) == set(MEASURES) - {"rare"}
    by_seed = [
        sum(naive(rows, "rule", p, seed, STAGES[1]) - naive(rows, FULL, p, seed, STAGES[1]) for p in PAIRS) / 2
        for seed in (1, 2, 3)
    ]
    assert [over["rule"][name] for name in ("change", "std")] == pytest.approx(spread(by_seed))
    by_pair = [
        sum(naive(rows, "rule", p, seed, STAGES[1]) - naive(rows, FULL, p, seed, STAGES[1]) for seed in (1, 2, 3)) / 3
        for p in PAIRS
    ]
    assert over["rule"]["between"] == pytest.approx(12.7062 * spread(by_pair)[1] / 2**0.5)  # t of two values
    assert overall_changes(changes[changes["dataset"] == "Icons"]).empty


def test_numbers_of_the_filter_are_those_of_the_last_phase(rows: pd.DataFrame) -> None:
    line = measured(rows, MEASURES).iloc[0]
    last = rows[rows["stage"] == STAGES[1]].iloc[0]
    assert (line["coverage"], line["precision"], line["seconds"]) == (
        last["coverage"],
        last["precision"],
        last["seconds"],
    )


def test_a_run_without_a_partner_is_left_out(rows: pd.DataFrame) -> None:
    some = rows[(rows["variant"] != FULL) | (rows["seed"] != 2)]
    table = summarise_changes(with_changes(measured(some, MEASURES), FULL))
    assert set(table["seeds"]) == {2}


# ------------------------------------------------------------------ the script

FAKE = """
import json, sys
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--output-dir") + 1])
config = json.loads(Path(__file__).with_name("configs.json").read_text())[str(folder)]
rule, seed = config["TRAINER.COFT.FILTER"], config["SEED"]
if rule == "none":
    sys.exit("error: no such luck")
value = {"both": 90.0, "peer": 88.0}[rule] + seed * (1 if rule == "both" else 2)
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
  - {name: peer, group: filter, settings: {TRAINER.COFT.FILTER: peer}}
  - {name: both, group: filter, settings: {TRAINER.COFT.FILTER: both}}
  - {name: none, group: filter, settings: {TRAINER.COFT.FILTER: none}}
  - {name: one peer, group: peers, measure: single}
  - {name: no Phase II, group: phases, measure: after Phase I}
  - {name: wings, group: visual, settings: {TRAINER.COFT.VISUAL: wings}}
"""


def test_runs_tabulates_and_says_what_was_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.yaml").write_text(LIST)
    ablations, _ = leave_out(load_ablations(tmp_path / "list.yaml"))
    runs, _ = plan_ablations(ablations, replace(grid_of(tmp_path), seeds=[1, 2]))
    more = {run: {"text": yaml.safe_dump(run.config), "weights": weights_of(run.backbone)} for run in runs}
    (tmp_path / "configs.json").write_text(json.dumps({str(run.folder): run.config | more[run] for run in runs}))
    (tmp_path / "fake.py").write_text(FAKE)
    argv = ["digits", "--seeds", "1,2", "--output", str(tmp_path), "--ablations", str(tmp_path / "list.yaml")]
    command = [sys.executable, str(tmp_path / "fake.py")]
    assert ablate([*argv, "--groups", "filter,peers,phases,visual"], command) == 1
    said = capfd.readouterr()
    assert "skipped: both: is what the full method does\n" in said.err
    assert "skipped: wings: TRAINER.COFT.VISUAL is 'wings'" in said.err
    assert said.err.count("failed: none on digits, embedded, seed") == 2 and "runs: 6, finished: 0" in said.err
    folder = tmp_path / "ablations" / "digits" / "CoFT"
    with (folder / "ablation.csv").open() as file:
        table = {row["variant"]: row for row in csv.DictReader(file)}
    assert list(table) == ["full", "peer", "one peer", "no Phase II"]
    changes = [(88 + 2) - (90 + 1), (88 + 4) - (90 + 2)]
    assert [float(table["peer"][name]) for name in ("change", "std")] == pytest.approx(spread(changes))
    assert float(table["one peer"]["change"]) == pytest.approx(80.5 - 91.5)
    assert float(table["no Phase II"]["change"]) == pytest.approx(-3) and not table["no Phase II"]["phase2"]
    markdown = (folder / "ablation.md").read_text()
    assert "- skipped: wings" in markdown and (folder / "bars.png").is_file()
    assert "-0.50" in said.out and "-3.00" in said.out
    assert len(list(tmp_path.rglob("summary.json"))) == 4  # rows that measure otherwise need no run of their own
    assert ablate([*argv, "--groups", "peers"], ["false"]) == 0
    assert "runs: 2, finished: 2" in capfd.readouterr().err
    assert ablate([*argv, "--row", "peer"], ["false"]) == 0
    assert "runs: 4, finished: 4" in capfd.readouterr().err


def test_without_the_full_method_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(LIST)
    argv = ["digits", "--seeds", "1", "--output", str(tmp_path), "--ablations", str(tmp_path / "list.yaml")]
    runs, _ = plan_ablations(load_ablations(tmp_path / "list.yaml")[:2], grid_of(tmp_path))
    (peer,) = (run for run in runs if run.method.name == "peer")
    peer.folder.mkdir(parents=True)
    summary = {"trainer": "CoFT", "dataset": "Digits", "backbone": "embedded", "seed": 1, "seconds": 1.0}
    summary |= {"config": yaml.safe_dump(peer.config), "backbone_fingerprint": weights_of("embedded")}
    summary |= {"results": {"accuracy_test": 1.0}}
    (peer.folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="no run of the unchanged method is finished"):
        ablate([*argv, "--no-run"])


def test_the_script_calls_what_is_there() -> None:
    assert "scripts.comparing.ablate" in (ROOT / "scripts" / "ablate.sh").read_text()


def test_a_failed_run_of_the_full_method_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["digits", "--seeds", "1", "--output", str(tmp_path), "--row", "filter: none"]
    assert ablate(argv, ["false"]) == 1
    said = capfd.readouterr()
    assert "failed: full on digits" in said.err.splitlines()[-2] and "error" not in said.out


def test_a_list_of_another_trainer_than_the_flag_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(LIST.replace("CoFT", "UPL"))
    argv = ["digits", "--output", str(tmp_path), "--ablations", str(tmp_path / "list.yaml"), "--no-run"]
    with pytest.raises(UserError, match=r"list\.yaml is of UPL; leave out --trainer CoFT"):
        ablate([*argv, "--trainer", "CoFT"])
    with pytest.raises(UserError, match=rf"--ablations {tmp_path}: cannot be read \(Is a directory\)"):
        ablate(["digits", "--ablations", str(tmp_path)])


def test_an_output_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"--output {tmp_path}/file/x: no folder can be there \(Not a directory\)"):
        ablate(["digits", "--output", str(tmp_path / "file" / "x"), "--row", "filter: none"], ["false"])
