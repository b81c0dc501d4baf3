"""Images that are unlike the rest of a run's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coft.core.table import Table
from coft.report.image_facts import write_frozen
from coft.report.page import NEIGHBOURS, unlike_the_rest
from coft.report.run_folder import read_run

from .runs import write_images, write_run

CLASSES = ["cat", "dog"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of sixty images, of which the first three are far from all others, and alike."""
    paths = write_images(tmp_path / "images", [f"{i:02}.png" for i in range(60)])
    folder = write_run(tmp_path / "run", paths, CLASSES)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 16)) * 0.2 + np.eye(16)[[2] * 3 + [0, 1] * 28 + [0]]
    write_frozen(folder, CLASSES, Table.of(torch.from_numpy(rows).float()), torch.eye(16)[:2], scale=10.0)
    return folder


def test_likeness_is_the_mean_cosine_with_the_nearest_images(run: Path) -> None:
    folder = read_run(run)
    assert folder.evidence is not None
    rows = folder.evidence.features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    naive = []
    for i in range(60):
        cosine = sorted((float(rows[i] @ rows[j]) for j in range(60) if j != i), reverse=True)
        naive.append(sum(cosine[:NEIGHBOURS]) / NEIGHBOURS)
    least_alike = unlike_the_rest(folder, 10)
    assert [int(Path(path).stem) for path in least_alike["path"]] == list(np.argsort(naive)[:10])
    np.testing.assert_allclose(least_alike["likeness"], np.sort(naive)[:10], atol=1e-6)
    assert {int(Path(path).stem) for path in least_alike["path"][:3]} == {0, 1, 2}


def test_without_features_there_are_none(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", ["a.png", "b.png"])
    folder = read_run(write_run(tmp_path / "run", paths, CLASSES, evidence=False))
    assert not len(unlike_the_rest(folder, 10))
