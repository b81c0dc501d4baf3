"""Tables of the model card, with a few images."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compat.dassl.tests.forks import run_forked
from tests.markdown import table_rows
from weights.photographs import card_tables

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            Image.fromarray(source.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    return tmp_path


def test_accuracies_of_existing_datasets(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, cwd: Path, **_: Any) -> Any:
        return run_forked(command[1:], cwd)

    monkeypatch.setattr(subprocess, "run", run)
    sets = {"CIFAR-10": ("cifar10", "DATALOADER.NUM_WORKERS", "0"), "EuroSAT": ("eurosat",)}
    monkeypatch.setattr(card_tables, "SETS", sets)
    accuracies = card_tables.zero_shot(["embedded"], data)
    assert list(accuracies) == [("CIFAR-10", "embedded")]
    assert accuracies["CIFAR-10", "embedded"] % 10 == pytest.approx(0)  # of ten images
    table = card_tables.accuracy_table({("CIFAR-10", "a"): 53.04, ("CIFAR-10", "b"): 7.0}, ["a", "b"])
    assert table_rows(table)[-1] == ["CIFAR-10", "53.0", "7.0"]
