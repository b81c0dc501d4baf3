"""The code of docs/howto/python.md runs, with a tiny backbone and short phases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coft
from coft import estimator as classifier
from coft.method import negatives
from coft.method.negative_prompt import fit_negative
from tests.coft.api.conftest import SHORT
from tests.conftest import draw
from tests.docs.pages import DOCS, blocks


def test_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(draw(number % 3, rng)).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(negatives, "fit_negative", partial(fit_negative, steps=10))
    calls: list[dict[str, Any]] = []
    adapt = coft.adapt

    def adapt_briefly(images: Any, classes: Any, backbone: str = "photo", *args: Any, **settings: Any) -> coft.Adapted:
        calls.append({"backbone": backbone, **settings})
        return adapt(images, classes, str(checkpoints["resnet"]), *args, **(settings | SHORT))

    monkeypatch.setattr(coft, "adapt", adapt_briefly)
    monkeypatch.setattr(classifier, "adapt", adapt_briefly)
    code = [block.code for block in blocks(DOCS / "howto" / "python.md") if block.kind == "python"]
    exec("\n".join(code), {})
    assert [call["backbone"] for call in calls] == ["photo", "photo"]
    assert all(call["phase1__epochs"] == 5 for call in calls)
    assert (tmp_path / "adapted" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "adapted" / "report.html").is_file() and (tmp_path / "exported" / "head.safetensors").is_file()
    assert "p_clean" in capsys.readouterr().out
