from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coft.core.errors import UserError
from datasets.drawings import DECLARED, Drawings, Emoji, Icons
from scripts.get_data import NAMES, main
from tests.datasets.data_roots import config


@pytest.mark.parametrize(("kind", "classes"), [(Icons, 80), (Emoji, 129)])
def test_drawings_have_declared_classes(tmp_path: Path, kind: type[Drawings], classes: int) -> None:
    name = kind.dataset_dir
    with pytest.raises(UserError, match=f"bash scripts/data.sh {name}"):
        kind(config(tmp_path))
    names = json.loads(DECLARED.read_text())[name]
    (tmp_path / name / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "train" / "a.png")
    rows = [["train/a.png", 5, names[5]]]
    (tmp_path / name / f"split_{name}.json").write_text(json.dumps({"train": rows, "val": [], "test": rows}))
    data = kind(config(tmp_path))
    assert data.classnames == names and data.num_classes == classes
    assert data.train_u[0].classname == data.classnames[data.train_u[0].label]


def test_data_script_makes_missing_data_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digits", "digits", "list", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits: made at") and lines[1].startswith("digits: is at")
    assert [line.split()[1] for line in lines[4 : 4 + len(NAMES)]] == ["yes"] + ["no"] * (len(NAMES) - 1)
