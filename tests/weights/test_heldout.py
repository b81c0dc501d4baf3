"""Held-out data sets from synthetic packages, and licences of all packages."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weights.pretrain import heldout
from weights.pretrain.packages import PERMISSIVE, Package, drawings, licence_and_author, licence_table, of_role, pinned
from weights.pretrain.render import Shelf, select_drawings, with_silhouette

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def _shelf(source: str, names: list[str], seed: int) -> Shelf:
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, 2, (len(names), 8, 8)) * 255, np.ones((8, 8), int)).astype(np.uint8)
    return Shelf(source, names, np.stack([with_silhouette(block) for block in blocks]), None)


@pytest.fixture
def shelves(monkeypatch):
    names = ["bell", "bell-outline", "camera-24", "unknown-thing", "heart", "heart-fill"]
    originals = [_shelf(f"set{seed}", names, seed) for seed in range(5)]
    copy = Shelf("copy", originals[0].names, originals[0].opacity, None)
    monkeypatch.setattr(heldout, "install", lambda cache, packages: None)
    monkeypatch.setattr(heldout, "shelves", lambda packages, cache: [*originals, copy])


def test_dataset_has_coop_layout_without_duplicates(shelves, tmp_path):
    split_file = heldout.build("icons", tmp_path, tmp_path / "cache")
    assert split_file == tmp_path / "icons" / "split_icons.json"
    split = json.loads(split_file.read_text())
    assert {part: len(rows) for part, rows in split.items()} == {"train": 15, "val": 0, "test": 10}
    names = heldout.classnames("icons")
    for part in ("train", "test"):
        for relative, label, classname in split[part]:
            assert relative.startswith(f"{part}/")
            assert names[label] == classname
            assert Image.open(tmp_path / "icons" / relative).size == (64, 64)
    assert len(list((tmp_path / "icons").rglob("*.png"))) == 25
    assert heldout.build("icons", tmp_path / "again", tmp_path / "cache").read_text() == split_file.read_text()


def test_held_out_packages_are_not_trained_on():
    trained = {package.npm_name for package in of_role("icons", "emoji", "fonts")}
    held_out = {package.npm_name for package in of_role("heldout_icons", "heldout_emoji")}
    assert not trained & held_out
    assert len(of_role("heldout_icons")) >= 10
    assert heldout.development_sets() < {package.name for package in of_role("heldout_icons")}


def test_licence_table_lists_all_packages():
    rows = list(csv.DictReader((WEIGHTS / "licences.csv").open()))
    listed = {(row["package"], row["version"]) for row in rows}
    assert listed == {(package.npm_name, package.version) for package in pinned()}
    assert {row["licence"] for row in rows} <= PERMISSIVE


@pytest.fixture
def iconify_set(tmp_path) -> Package:
    package = Package("icons", "tiny", "1.0.0")
    folder = package.folder(tmp_path)
    folder.mkdir(parents=True)
    body = '<path fill="currentColor" d="M2 2h12v12H2z"/>'
    icons = {"square-16": {"body": body}, "square-24": {"body": body}, "old": {"body": body, "hidden": True}}
    (folder / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16}))
    info = {"palette": False, "license": {"spdx": "GPL-3.0"}, "author": {"name": "Somebody"}}
    (folder / "info.json").write_text(json.dumps(info))
    return package


def test_hidden_icons_and_other_sizes_are_skipped(iconify_set, tmp_path):
    assert [drawing.name for drawing in drawings(iconify_set, tmp_path)] == ["square-16", "square-24"]
    assert [drawing.name for drawing in select_drawings(iconify_set, tmp_path)] == ["square-24"]


def test_non_permissive_licence_stops_the_build(iconify_set, tmp_path):
    assert licence_and_author(iconify_set, tmp_path) == ("GPL-3.0", "Somebody")
    with pytest.raises(ValueError, match=r"@iconify-json/tiny: licence GPL-3\.0 is not permissive"):
        licence_table(tmp_path, [iconify_set])


def test_icons_are_rendered_in_black(iconify_set, tmp_path):
    pytest.importorskip("resvg_py", reason="rendering needs weights/pretrain/requirements.txt")
    from weights.pretrain.render import render_icon

    [(name, pixels)] = render_icon(select_drawings(iconify_set, tmp_path)[0])
    assert name == "square-24"
    assert pixels.shape == (5, 64, 64)
    assert pixels[3, 32, 32] == 255
    assert pixels[3, 1, 1] == 0
    assert pixels[:3, 32, 32].max() == 0
