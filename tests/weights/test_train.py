"""Pre-training on generated drawings for a few steps."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from coft.backbones.load import load_clip
from coft.core.errors import UserError
from weights.pretrain.evaluate import Task, preprocess
from weights.pretrain.library import SHARES, collect
from weights.pretrain.model import Student
from weights.pretrain.render import Shelf, with_silhouette
from weights.pretrain.run import Pretraining
from weights.pretrain.train import Recipe, Trainer

SHAPES = ("circle", "square", "cross")


def _shape(name: str, seed: int) -> np.ndarray:
    canvas = Image.new("L", (64, 64))
    pen = ImageDraw.Draw(canvas)
    low, high = 10 + seed % 5, 52 - seed % 3
    if name == "circle":
        pen.ellipse((low, low, high, high), fill=255)
    elif name == "square":
        pen.rectangle((low, low, high, high), outline=255, width=6)
    else:
        pen.line((low, 32, high, 32), fill=255, width=8)
        pen.line((32, low, 32, high), fill=255, width=8)
    return np.asarray(canvas)


def _shelf(source: str, coloured: bool, role: str) -> Shelf:
    names = [f"{name}-outline" for name in SHAPES for _ in range(4)]
    opacity = np.stack([with_silhouette(_shape(name, seed)) for name in SHAPES for seed in range(4)])
    colour = np.full((len(names), 3, 64, 64), 200, np.uint8) if coloured else None
    if role == "fonts":
        names = ["7", "A", "a"] * 4
    return Shelf(source, names, opacity, colour, role)


def _library():
    shelves = [_shelf("plain", False, "icons"), _shelf("bright", True, "emoji"), _shelf("letters", False, "fonts")]
    return collect(shelves, [np.ones(len(shelf), bool) for shelf in shelves])


def _pretraining(folder) -> Pretraining:
    images = torch.stack([preprocess(Image.fromarray(_shape(name, 2))) for name in SHAPES])
    task = Task("shapes", images, torch.arange(3), list(SHAPES), ("a photo of a {}.",))
    return Pretraining(
        library=_library(),
        aliases={"circle": ["ring"]},
        tasks=[task],
        near_duplicates={"icons": 0},
        cache_dir=folder / "cache",
        out_dir=folder / "out",
        compiled=False,
    )


RECIPE = Recipe(steps=4, batch=8, warmup=2)


def test_concepts_kinds_and_sampling_weights():
    library = _library()
    kinds = dict(zip(library.concepts, library.kinds, strict=True))
    assert kinds == {"7": "digit", "a": "letter", "circle": "icon", "cross": "icon", "square": "icon"}
    share = {words: float(library.weights[library.label == i].sum()) for i, words in enumerate(library.concepts)}
    assert share["7"] == pytest.approx(SHARES["digits"])
    assert share["a"] == pytest.approx(SHARES["letters"])
    assert share["circle"] == pytest.approx((SHARES["icons"] + SHARES["emoji"]) / 3)


def test_training_of_both_checkpoints(tmp_path):
    pretraining = _pretraining(tmp_path)
    with pytest.raises(UserError, match="train embedded first"):
        pretraining.train("embedded-vit", RECIPE)
    for name, recipe in (("embedded", RECIPE), ("embedded-vit", replace(RECIPE, distilled=0.5))):
        load_clip(str(pretraining.train(name, recipe)))  # refuses weights that are not finite
        rows = list(csv.DictReader((tmp_path / "out" / f"curve-{name}.csv").open()))
        assert rows[-1]["step"] == "4"
        assert 0 <= float(rows[-1]["shapes"]) <= 100


def test_training_learns_three_shapes(tmp_path):
    pretraining = _pretraining(tmp_path)
    pretraining.train("embedded", Recipe(steps=24, batch=32, warmup=5, mild=0.1, mild_after=0))
    row = next(csv.DictReader((tmp_path / "out" / "curve-embedded.csv").open()))
    assert float(row["words"]) < 0.55 * np.log(3)


def _trainer(folder, evaluate=None) -> Trainer:
    pretraining = _pretraining(folder)
    torch.manual_seed(0)
    return Trainer(
        student=Student("embedded", len(pretraining.captions.token_ids), len(pretraining.words.words)),
        library=pretraining.library,
        captions=pretraining.captions,
        words=pretraining.words,
        recipe=RECIPE,
        folder=folder,
        evaluate=evaluate,
        save_every=2,
        evaluate_every=3,
    )


def test_killed_run_resumes_to_the_same_weights(tmp_path):
    def kill(student: Student) -> dict[str, float]:
        raise KeyboardInterrupt

    expected = _trainer(tmp_path / "uninterrupted").run().state_dict()
    with pytest.raises(KeyboardInterrupt):
        _trainer(tmp_path / "killed", kill).run()
    second = _trainer(tmp_path / "killed")
    resumed = second.run().state_dict()
    assert [row["step"] for row in second.curve] == [3, 4]
    for name, value in expected.items():  # bits of matrix products can depend on memory addresses
        torch.testing.assert_close(resumed[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_state_of_another_recipe_is_refused(tmp_path):
    _pretraining(tmp_path).train("embedded", RECIPE)
    with pytest.raises(UserError, match="another recipe"):
        _pretraining(tmp_path).train("embedded", Recipe(steps=5, batch=8, warmup=2))
