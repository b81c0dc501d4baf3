"""The code of docs/howto/python.md runs as it stands, with a tiny backbone and short phases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coft
from coft import estimator as classifier
from coft.images import index
from coft.method import negatives
from coft.method.negative_prompt import fit_negative
from tests.coft.api.conftest import SHORT
from tests.conftest import draw
from tests.docs.pages import DOCS, blocks


def test_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(draw(number % 3, rng)).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(index, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(negatives, "fit_negative", partial(fit_negative, steps=10))
    asked: list[dict[str, Any]] = []
    whole = coft.adapt

    def short(images: Any, classes: Any, backbone: str = "photo", *args: Any, **settings: Any) -> coft.Adapted:
        asked.append({"backbone": backbone, **settings})
        return whole(images, classes, str(checkpoints["resnet"]), *args, **(settings | SHORT))

    monkeypatch.setattr(coft, "adapt", short)
    monkeypatch.setattr(classifier, "adapt", short)
    code = [block.code for block in blocks(DOCS / "howto" / "python.md") if block.kind == "python"]
    exec("\n".join(code), {})
    assert [call["backbone"] for call in asked] == ["photo", "photo"]
    assert all(call["phase1__epochs"] == 5 for call in asked)
    assert (tmp_path / "adapted" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "adapted" / "report.html").is_file() and (tmp_path / "exported" / "head.safetensors").is_file()
    assert "p_clean" in capsys.readouterr().out
