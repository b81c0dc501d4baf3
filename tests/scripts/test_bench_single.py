"""Loss of accuracy with one encoder instead of two: counts and their interval."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.inference.export.merging import Exported, parts_of
from coft.inference.store import save
from scripts.bench import predict, single
from scripts.bench.single import loss, row_of
from tests.coft.inference.models import CLASSES, make_model


def test_interval_covers_true_loss_in_95_percent() -> None:
    samples = np.random.default_rng(0).multinomial(500, [0.03, 0.02, 0.95], size=2000)
    losses = [loss(int(lost), int(won), 500) for lost, won, _ in samples]
    hits = [interval.low <= 1.0 <= interval.high for interval in losses]
    assert 0.94 <= sum(hits) / len(hits) <= 0.97
    interval = loss(12, 5, 500)
    assert (interval.images, interval.of) == (7, 500) and interval.low < 1.4 < interval.high


def test_row_counts_images_that_only_one_model_classifies_correctly(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model, run = make_model(checkpoints["resnet"]), tmp_path / "run"
    save(model, run / "model")
    with pytest.raises(UserError, match="no test images"):
        row_of(run)
    names = [f"{number:02}.png" for number in range(20)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    labels = [number % len(CLASSES) for number in range(20)]
    lines = [f'{name},"{CLASSES[label]}",boat' for name, label in zip(names, labels, strict=True)]
    (run / "test_predictions.csv").write_text("\n".join(["image,class,end", *lines]))
    lines = [f"{tmp_path / name},boat" for name in names]
    (run / "pseudo_labels.csv").write_text("\n".join(["path,class", *lines]))
    (run / "config.yaml").write_text(f"DATASET: {{ROOT: {tmp_path}}}")
    cells, (lost, won, count) = row_of(run)
    peers = {"the average of the peers' weights": "average", "peer A": "a", "peer B": "b"}[cells[-2]]
    batch, right = model.batch([model.view(tmp_path / name) for name in names]), torch.tensor(labels)
    with torch.no_grad():
        both = model.predict(batch).probabilities.argmax(dim=1) == right
        one = Exported(parts_of(model, peers))(batch).argmax(dim=1) == right
    assert (lost, won, count) == (int((both & ~one).sum()), int((one & ~both).sum()), 20)
    assert cells[2] == f"{100 * int(both.sum()) / 20:.1f}"


@pytest.mark.parametrize(("bench", "arguments"), [(single, ["run"]), (predict, ["run", "images"])])
def test_run_path_is_relative_to_the_callers_folder(
    bench: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'run'}: no such folder")):
        bench.measure()
