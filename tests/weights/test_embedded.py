"""Compact checkpoints: content, expansion, and the two that are shipped."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import clip
import pytest
import torch
from clip.model import build_model

from coft.backbones.embedded import VOCABULARY, expand, spelled_embeddings
from coft.backbones.load import load_clip
from weights.pretrain.checkpoint import compact, fit_spelling
from weights.pretrain.evaluate import accuracy, digits
from weights.pretrain.model import build_clip

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
WORDS = "zero one two three four five six seven eight nine heart house photo of the digit a picture ."
CHECKPOINTS = [path for path in (WEIGHTS / "embedded.pt", WEIGHTS / "embedded-vit.pt") if path.is_file()]


@cache
def make_checkpoint(name: str) -> dict:
    """Make a compact checkpoint with random weights; read-only by convention."""
    torch.manual_seed(0)
    ids = sorted({int(token) for token in clip.tokenize(WORDS)[0] if token})
    return compact(build_clip(name, len(ids)).state_dict(), ids, {"name": name})


@pytest.fixture(scope="module", params=["embedded", "embedded-vit"])
def checkpoint(request) -> dict:
    return make_checkpoint(request.param)


@pytest.fixture(scope="module")
def expanded(checkpoint) -> dict:
    """The expanded checkpoint; read-only by convention."""
    return expand(checkpoint)


def test_saving_and_loading_is_lossless(checkpoint, expanded, tmp_path):
    torch.save(checkpoint, tmp_path / "a.pt")
    loaded = load_clip(str(tmp_path / "a.pt")).state_dict()
    assert loaded.keys() == expanded.keys()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in expanded.items())


def test_clip_builder_accepts_checkpoint_and_keeps_trained_rows(checkpoint, expanded):
    model = build_model(expanded)
    assert model.token_embedding.weight.shape == (VOCABULARY, 128)
    assert model.positional_embedding.shape == (77, 128)
    assert model.visual.input_resolution == 64
    rows = model.token_embedding.weight[checkpoint["token_ids"]]
    assert torch.equal(rows, checkpoint["state_dict"]["token_embedding.weight"].float())


def test_expanded_model_has_features_of_compact_model(checkpoint, expanded):
    """Positions after the end mark never matter, and neither does the numbering of tokens."""
    ids = checkpoint["token_ids"]
    small = build_clip(checkpoint["meta"]["name"], len(ids)).eval()
    small.load_state_dict({name: value.float() for name, value in checkpoint["state_dict"].items()})
    full = build_model(expanded).float().eval()
    tokens = clip.tokenize(["a photo of the digit seven.", "heart"])
    cut = torch.searchsorted(ids, tokens[:, :9].contiguous())
    cut[tokens[:, :9] == 0] = 0
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(full.encode_text(tokens), small.encode_text(cut), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(full.encode_image(images), small.encode_image(images), atol=1e-5, rtol=1e-5)


def test_token_embeddings_are_unique(expanded):
    rows = expanded["token_embedding.weight"]
    assert len(rows.float().unique(dim=0)) == VOCABULARY


def test_spelled_embedding_of_a_word():
    weight = (torch.arange(2048 * 4).reshape(2048, 4) % 255 - 127).to(torch.int8)
    rows = spelled_embeddings({"weight": weight, "scale": 0.5, "norm": 4.0})
    expected = torch.tensor(EXPECTED_ROW)
    assert torch.equal(rows[1212], expected)


# the row of "house": its letter groups, as the formula of spelled_embeddings has them
EXPECTED_ROW = [-5.199999809265137, -3.700000047683716, -3.200000047683716, -2.700000047683716]


def test_tokens_with_similar_spelling_have_similar_embeddings():
    ids = torch.tensor(sorted({int(t) for t in clip.tokenize("house houses building buildings cat cats")[0] if t}))
    torch.manual_seed(0)
    rows = torch.randn(len(ids), 64)
    house, houses = (int(clip.tokenize(word)[0, 1]) for word in ("house", "houses"))
    position = {int(token): index for index, token in enumerate(ids)}
    rows[position[houses]] = rows[position[house]]
    spelled = spelled_embeddings(fit_spelling(rows, ids))
    unseen = int(clip.tokenize("housing")[0, 1])
    similarity = torch.cosine_similarity(spelled[unseen][None], spelled[[house, int(clip.tokenize("cat")[0, 1])]])
    assert similarity[0] > similarity[1] + 0.2


digits_task = cache(digits)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
class TestShipped:
    def test_names_with_unseen_words_have_distinct_features(self, path):
        checkpoint = torch.load(path, weights_only=True)
        seen = set(checkpoint["token_ids"].tolist())
        names = ["herbaceous", "samoyed", "rapeseed", "gazania", "boeing"]
        assert any(token not in seen for name in names for token in clip.tokenize(name)[0].tolist() if token)
        model = build_model(expand(checkpoint)).float()
        with torch.no_grad():
            features = torch.nn.functional.normalize(model.encode_text(clip.tokenize(names)), dim=1)
        similarity = features @ features.t() - torch.eye(len(names))
        assert similarity.max() < 0.95

    def test_accuracy_on_digits(self, path):
        model = load_clip(str(path))
        task = digits_task()
        subset = replace(task, images=task.images[::4], labels=task.labels[::4])
        assert accuracy(model, subset) > {"embedded": 89, "embedded-vit": 83}[path.stem]
