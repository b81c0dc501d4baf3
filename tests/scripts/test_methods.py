"""Rows of comparisons, lists of changes, and what the flags say."""

from __future__ import annotations

import pytest

from coft.core.errors import UserError
from scripts.comparing.methods import (
    ABLATIONS,
    FULL,
    choose_ablations,
    choose_methods,
    load_ablations,
    runnable,
)
from scripts.comparing.options import make_grid, make_parser
from scripts.comparing.plan import Grid

# ------------------------------------------------------------------ rows


def test_all_trainers_that_exist_by_default() -> None:
    names = [method.name for method in choose_methods([], [1, 16])]
    assert {"ZeroshotCLIP", "UPL", "UPL x 2", "CoFT", "CoOp, 1 shot", "CoOp, 16 shots"} <= set(names)
    assert names.index("UPL x 2") == names.index("UPL") + 1
    assert {method.trainer for method in choose_methods([], [1])} == set(runnable())
    assert [method.name for method in choose_methods(["UPL", "CoOp", "UPL"], [4, 4])] == ["UPL", "CoOp, 4 shots"]


def test_mistakes_in_rows_are_named() -> None:
    with pytest.raises(UserError, match="no folder configs/trainers/ZeroshotCLIP2; make one"):
        choose_methods(["ZeroshotCLIP2"], [1])
    with pytest.raises(UserError, match="unknown trainer 'CoFt'; did you mean 'CoFT'"):
        choose_methods(["CoFt"], [1])
    with pytest.raises(UserError, match="--shots 0"):
        choose_methods(["CoOp"], [16, 0])


# ------------------------------------------------------------------ what the flags say


def grid(*argv: str) -> Grid:
    return make_grid(make_parser("compare", "").parse_intermixed_args(argv))


def test_data_sets_then_settings_with_flags_anywhere() -> None:
    parsed = grid("digits", "--seeds", "1,2,1", "icons", "digits", "OPTIM.LR", "0.1", "--backbone", "embedded,photo")
    assert (parsed.datasets, parsed.seeds, parsed.backbones) == (["digits", "icons"], [1, 2], ["embedded", "photo"])
    assert parsed.settings == (("OPTIM.LR", "0.1"),)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("", "data set"),
        ("digitz", "'digitz'"),
        ("folder", "folder"),
        ("digits OPTIM.LR", "OPTIM.LR"),
        ("digits --seeds 1,-1", "--seeds"),
        ("digits --jobs 0", "--jobs"),
        ("digits --name ../elsewhere", "--name"),
    ],
)
def test_wrong_words_are_named(argv: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        grid(*argv.split())


# ------------------------------------------------------------------ lists of changes


def test_groups_and_rows() -> None:
    ablations = load_ablations(ABLATIONS["CoFT"])
    assert {row.group for row in choose_ablations(ablations, ["filter", "phases"])} == {FULL, "filter", "phases"}
    assert choose_ablations(ablations, []) == ablations
    rows = ["filter: none", "no negative prompt, filter: none"]
    assert [method.name for method in choose_ablations(ablations, [], rows)] == [FULL, *rows]
    assert {row.group for row in choose_ablations(ablations, ["peers"], rows[:1])} == {FULL, "peers", "filter"}
    with pytest.raises(UserError, match=r"--groups: .*'filters'"):
        choose_ablations(ablations, ["filters"])
    with pytest.raises(UserError, match=r"--row: .*'filter: non'"):
        choose_ablations(ablations, [], ["filter: non"])
