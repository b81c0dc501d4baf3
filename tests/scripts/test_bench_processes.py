"""The benchmarks of many images and of several processes do what a run does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.bench.pool import measure
from scripts.bench.pool import table as pool_table
from scripts.bench.scaling import table as scaling_table


def test_a_simulated_pool_is_labelled(tmp_path: Path) -> None:
    with torch.no_grad():
        found = {count: measure(count, 5, 16, tmp_path) for count in (60, 120)}
    tables = {count: numbers["tables made, GB"] for count, numbers in found.items()}
    assert tables[120] == pytest.approx(2 * tables[60])  # with the images, and not with their square
    text = pool_table(found)
    assert "120 images" in text and "labels: filter" in text


def test_efficiency_is_of_images_a_second() -> None:
    text = scaling_table({1: [[32, 1.0, 0.0]] * 3, 2: [[32, 0.625, 0.1]] * 3})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["step, one batch", "2", "32", "0.625", "16", "51.2", "0.80"] in rows
