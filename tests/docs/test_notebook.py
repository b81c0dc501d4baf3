"""The notebook runs offline, with the embedded images and CLIP."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS

NOTEBOOK = DOCS / "notebook.ipynb"
SHORT = {
    "phase1__epochs=3": "phase1__epochs=1, phase1__min_steps=4, label_views=1",
    "phase2__epochs=3": "phase2__epochs=1",
    "[:300]": "[:120]",
    "300:500": "300:340",
}


@pytest.mark.slow
def test_notebook_runs_and_labels_most_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    monkeypatch.chdir(tmp_path)
    text = "\n".join(code)
    for original, short in SHORT.items():
        assert original in text
        text = text.replace(original, short)
    exec(text, {})
    shares = dict(re.findall(r"^(.+): (\d+\.\d)%$", capsys.readouterr().out, re.MULTILINE))
    assert set(shares) == {"estimated accuracy", "in fact right", "of 200 new images right"}
    assert min(float(share) for share in shares.values()) > 90
    assert abs(float(shares["estimated accuracy"]) - float(shares["in fact right"])) <= 5
    assert (tmp_path / "digits-run" / "model" / "model.safetensors").is_file()
