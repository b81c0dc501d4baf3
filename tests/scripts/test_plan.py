from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from coft.core.errors import UserError
from scripts.comparing import methods as methods_module
from scripts.comparing.methods import RIVALS, Method, choose_methods, parse_variant, runnable
from scripts.comparing.plan import Grid, Run, finished_folders, plan, weights_of
from scripts.comparing.session import make_grid, make_parser
from scripts.launch import ROOT

UPL = Method("UPL", "UPL")
ZERO_SHOT = Method("ZeroshotCLIP", "ZeroshotCLIP", seeded=False)


def grid_of(output: Path, seeds: Sequence[int] = (1,), settings: tuple[tuple[str, str], ...] = ()) -> Grid:
    return Grid(["digits"], seeds, output=output, settings=settings)


def finish(run: Run, folder: Path | None = None, **changes: object) -> None:
    """Leave the summary of a run."""
    folder = folder or run.folder
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump({**run.config, "OUTPUT_DIR": str(folder), **changes})
    summary = {"config": config, "backbone_fingerprint": weights_of(run.backbone), "seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_a_run_for_each_seed_where_seeds_matter(tmp_path: Path) -> None:
    runs = plan([ZERO_SHOT, UPL, Method("CoOp, 4 shots", "CoOp", shots=4)], grid_of(tmp_path, (1, 2)))
    assert [(run.method.name, run.seed) for run in runs] == [
        ("ZeroshotCLIP", 1),
        ("UPL", 1),
        ("UPL", 2),
        ("CoOp, 4 shots", 1),
        ("CoOp, 4 shots", 2),
    ]
    assert runs[1].folder == tmp_path / "digits" / "UPL" / "embedded" / "seed1"  # where run.sh puts it
    assert runs[3].folder == tmp_path / "digits" / "CoOp" / "embedded_4shots" / "seed1"
    assert runs[3].config["DATASET.NUM_SHOTS"] == 4 and runs[3].config["OPTIM.MAX_EPOCH"] == 100
    assert str(runs[3].folder) in runs[3].arguments


def test_settings_go_to_those_who_have_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    upl, zero_shot = plan([UPL, ZERO_SHOT], grid_of(tmp_path, settings=(("TRAINER.UPL.N_CTX", "4"),)))
    assert upl.config["TRAINER.UPL.N_CTX"] == 4 and "TRAINER.UPL.N_CTX" not in zero_shot.config
    assert upl.folder.parent == tmp_path / "digits" / "UPL" / "embedded" and upl.folder.name != "seed1"
    with pytest.raises(UserError, match=r"TRAINER\.UPL\.N_CTX: none of the trainers that are compared has this key"):
        plan([ZERO_SHOT], grid_of(tmp_path, settings=(("TRAINER.UPL.N_CTX", "4"),)))
    with pytest.raises(UserError, match=r"unknown config key 'OPTIM.EPOCHS'; did you mean 'OPTIM.MAX_EPOCH'"):
        plan([UPL], grid_of(tmp_path, settings=(("OPTIM.EPOCHS", "4"),)))
    caplog.clear()
    plan([ZERO_SHOT, UPL], grid_of(tmp_path, settings=(("TRAINER.UPL.N_CTX", "4"), ("OPTIM.LR", "0.1"))))
    assert [r.message for r in caplog.records] == ["TRAINER.UPL.N_CTX 4 is for UPL alone; others have no such key"]
    wrong = (("TRAINER.COFT.FILTER", "bothh"),)
    with pytest.raises(UserError, match=r"TRAINER\.COFT\.FILTER is 'bothh'; .*did you mean 'both'"):
        plan([Method("CoFT", "CoFT")], grid_of(tmp_path, settings=wrong))
    with pytest.raises(UserError, match=r"TRAINER\.COFT\.FILTER is 'bothh'; .*did you mean 'both'"):
        plan([Method("a variant", "CoFT", wrong)], grid_of(tmp_path))


def test_finished_runs_are_known_by_their_config_wherever_they_are(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    assert run.summary() is None
    elsewhere = tmp_path / "moved" / "here"
    finish(run, elsewhere, **{"DATALOADER.NUM_WORKERS": 7, "DATASET.ROOT": "/elsewhere", "TRAIN.PRINT_FREQ": 3})
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.folder == elsewhere and again.summary()
    (changed,) = plan([UPL], grid_of(tmp_path, settings=(("OPTIM.LR", "0.1"),)))
    assert changed.folder != elsewhere and changed.summary() is None
    (seed2,) = plan([UPL], grid_of(tmp_path, (2,)))
    assert seed2.summary() is None


@pytest.mark.parametrize("key", ["OPTIM.LR", "TRAINER.UPL.SEEDS_PER_CLASS", "SEED", "INPUT.AUGMENT", "A.NEW_KEY"])
def test_a_summary_with_another_setting_is_another_run(tmp_path: Path, key: str) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    finish(run, **{key: 7})
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.summary() is None and again.folder != run.folder  # what is there is left alone
    assert again.folder.name.startswith("seed1-")
    (third,) = plan([UPL], grid_of(tmp_path))
    assert third.folder == again.folder


def test_other_weights_under_the_same_name_are_another_run(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    finish(run)
    summary = json.loads((run.folder / "summary.json").read_text())
    (run.folder / "summary.json").write_text(json.dumps({**summary, "backbone_fingerprint": "other"}))
    (again,) = plan([UPL], grid_of(tmp_path))
    assert again.summary() is None and again.folder != run.folder


def test_an_unfinished_run_goes_on_where_it_is(tmp_path: Path) -> None:
    (run,) = plan([UPL], grid_of(tmp_path))
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").touch()
    (run.folder / "config.yaml").write_text(yaml.safe_dump(run.config))
    assert plan([UPL], grid_of(tmp_path))[0].folder == run.folder
    (run.folder / "config.yaml").write_text(yaml.safe_dump({**run.config, "OPTIM.LR": 7.0}))
    assert plan([UPL], grid_of(tmp_path))[0].folder != run.folder


def test_a_broken_summary_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "summary.json").write_text('{"results": ')
    assert not finished_folders(tmp_path)


def test_all_trainers_that_exist_by_default() -> None:
    names = [method.name for method in choose_methods([], [1, 16])]
    assert {"ZeroshotCLIP", "UPL", "UPL x 2", "CoFT", "CoOp, 1 shot", "CoOp, 16 shots"} <= set(names)
    assert names.index("UPL x 2") == names.index("UPL") + 1
    assert {method.trainer for method in choose_methods([], [1])} == set(runnable()) - {"CoFTOracle"}
    assert [method.trainer for method in choose_methods(["CoFTOracle"], [1])] == ["CoFTOracle"]


def test_a_trainer_that_is_in_no_list_is_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods_module, "RIVALS", tuple(known for known in RIVALS if known.trainer != "UPL"))
    assert [method.trainer for method in choose_methods([], [1])][-1] == "UPL"


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="unknown trainer 'CoFt'; did you mean 'CoFT'"):
        choose_methods(["CoFt"], [1])
    with pytest.raises(UserError, match="expected NAME:TRAINER:KEY=VALUE"):
        parse_variant("mine:CoFT:FILTER")
    with pytest.raises(UserError, match="unknown trainer 'CoFd'"):
        parse_variant("mine:CoFd:A=1")
    with pytest.raises(UserError, match="--shots 0: expected at least 1 labelled image"):
        choose_methods(["CoOp"], [16, 0])
    with pytest.raises(UserError, match="--variant: 2 rows would be named 'UPL'; give each a name of its own"):
        choose_methods(["UPL"], [1], [parse_variant("UPL:UPL:OPTIM.LR=1.0")])


def test_what_is_named_twice_is_run_once(tmp_path: Path) -> None:
    methods = choose_methods(["UPL", "CoOp", "UPL"], [4, 4])
    assert [method.name for method in methods] == ["UPL", "CoOp, 4 shots"]
    found = grid("digits", "digits", "--backbone", "embedded,embedded", "--seeds", "1,1")
    assert (found.datasets, found.seeds, found.backbones) == (["digits"], [1], ["embedded"])
    assert [run.seed for run in plan(choose_methods(["NormAdaptation"], [1]), grid_of(tmp_path, (1, 2)))] == [1]


def test_variants_may_have_commas_in_values() -> None:
    method = parse_variant("x:y:UPL:A.B=1,INPUT.TRANSFORMS=(normalize,),C=2".replace("x:y", "mine"))
    assert method == Method("mine", "UPL", (("A.B", "1"), ("INPUT.TRANSFORMS", "(normalize,)"), ("C", "2")))


def grid(*argv: str) -> Grid:
    return make_grid(make_parser("compare", "").parse_intermixed_args(argv))


def test_data_sets_then_settings_with_flags_anywhere() -> None:
    found = grid("digits", "--seeds", "1,2", "icons", "OPTIM.LR", "0.1", "--backbone", "embedded,embedded-vit")
    assert (found.datasets, found.seeds) == (["digits", "icons"], [1, 2])
    assert found.backbones == ["embedded", "embedded-vit"] and found.settings == (("OPTIM.LR", "0.1"),)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "name at least one data set; known are: .*digits"),
        (("digitz",), "unknown data set 'digitz'; did you mean 'digits'"),
        (("digits", "OPTIM.LR"), "OPTIM.LR: a key without a value"),
        (("digits", "--seeds", ""), "--seeds: expected at least one, with commas between them"),
        (("digits", "--seeds", "1,-1"), "--seeds: expected whole numbers with commas between them, not '-1'"),
        (("digits", "--seeds", "1,x"), "--seeds: expected whole numbers with commas between them, not 'x'"),
        (("digits", "--jobs", "0"), "--jobs is 0; expected at least 1"),
        (("digits", "--name", "../elsewhere"), r"--name: expected a name without folders, not '\.\./elsewhere'"),
        (("folder",), "folder: one's own images are no benchmark; docs/howto/add-a-dataset.md makes them one"),
    ],
)
def test_wrong_words_are_named(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid(*argv)


def test_data_are_in_the_projects_folder_wherever_the_script_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.delenv("DATA", raising=False)
    for flags, expected in (((), ROOT / "data"), (("--data", "mine"), tmp_path / "mine")):
        (run,) = plan([ZERO_SHOT], grid("digits", "--seeds", "1", *flags))
        assert run.arguments[run.arguments.index("--root") + 1] == str(expected)


def test_the_scripts_call_what_is_there() -> None:
    for script in ("compare", "table"):
        text = (ROOT / "scripts" / f"{script}.sh").read_text()
        assert f"scripts.comparing.compare {script}" in text
