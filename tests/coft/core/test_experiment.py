from __future__ import annotations

import json
from pathlib import Path

import pytest
from yacs.config import CfgNode

from coft.core.errors import UserError
from coft.core.experiment import claim, flatten, saved_config, versions, write_json
from coft.core.files import replacing


def settings(folder: Path, **changes: object) -> CfgNode:
    tree = {"OUTPUT_DIR": str(folder), "SEED": 1, "OPTIM": {"LR": 0.1, "STEPS": (1, 2)}, "VERBOSE": True}
    return CfgNode(tree | changes)


def test_the_same_experiment_may_go_on(tmp_path: Path) -> None:
    claim(settings(tmp_path / "out"))
    claim(settings(tmp_path / "out", VERBOSE=False))
    assert saved_config(tmp_path / "out")["OPTIM.STEPS"] == [1, 2]


def test_another_one_is_named_by_its_first_difference(tmp_path: Path) -> None:
    claim(settings(tmp_path / "out"))
    with pytest.raises(UserError, match=r"OPTIM\.LR is 0\.1 there, 0\.2 here"):
        claim(settings(tmp_path / "out", OPTIM={"LR": 0.2, "STEPS": (1, 2)}))
    with pytest.raises(UserError, match=r"begun by another version of the project \(NEW is known"):
        claim(settings(tmp_path / "out", NEW=3))


def test_a_folder_of_checkpoints_without_a_config_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "checkpoint").write_text("model.pth.tar-1")
    with pytest.raises(UserError, match="holds another experiment"):
        claim(settings(tmp_path))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"] and path.read_text() == "old"


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.5], "b": float("inf")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.5], "b": None}


def test_flatten() -> None:
    assert flatten({"A": {"B": (1, 2), "C": {}}, "D": "x"}) == {"A.B": [1, 2], "D": "x"}


def test_versions_name_the_toolbox() -> None:
    found = versions("dassl of a test 1.2")
    assert found["dassl"] == "dassl of a test 1.2" and found["torch"] and found["python"]
