"""The Python code of docs/howto/use-a-model.md runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coft.inference.store import save
from tests.coft.inference.models import CLASSES, make_model
from tests.docs.pages import DOCS, blocks


def test_code_predicts_with_model_of_a_run(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(make_model(checkpoints["resnet"]), tmp_path / "output" / "pets" / "model")
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "photos" / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    (code,) = [block.code for block in blocks(DOCS / "howto" / "use-a-model.md") if block.kind == "python"]
    exec(compile(code, "use-a-model.md", "exec"), {})
    assert capsys.readouterr().out.strip() in CLASSES
