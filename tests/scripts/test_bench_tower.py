from pathlib import Path

import pytest

from scripts.bench import tower
from tests.markdown import table_rows
from tests.open_clip_models import CONFIGS, write_model


def test_a_row_for_each_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "cnn", CONFIGS["timm-cnn"])
    argv = ["--backbone", f"open_clip:{folder}", "--sizes", "64", "--batch", "2", "--repeats", "1"]
    assert tower.main(argv) == 0
    _, *rows = table_rows(capsys.readouterr().out)
    assert [row[:4] for row in rows[:3]] == [["64", "plain", t, "0"] for t in ("fp32", "bf16", "bf16-predict")]
    assert [row[3] for row in rows[3:]] == ["0", "0", "0", "3", "3", "3", "5", "5", "5"]
    assert all(float(seconds) >= 0 for row in rows for seconds in row[4:])
