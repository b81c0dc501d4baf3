import numpy as np
import pytest
import torch

from coft.backbones.embedded import VOCABULARY
from weights.pretrain.card_tables import clustering_accuracy, coverage
from weights.pretrain.evaluate import Task, accuracy, compact_tokenizer


class _StubCLIP:
    """A CLIP that classifies images by brightness, and texts by their first word."""

    def encode_image(self, images):
        return torch.nn.functional.one_hot((images.mean((1, 2, 3)) > 0).long(), 2)

    def encode_text(self, tokens):
        return torch.nn.functional.one_hot((tokens[:, 1] == tokens[1, 1]).long(), 2)


def test_accuracy_is_in_percent():
    images = torch.stack([torch.full((3, 64, 64), value) for value in (-1.0, 1.0, 1.0, -1.0)])
    task = Task("two", images, torch.tensor([0, 1, 0, 0]), ["dark", "bright"], ("{}",))
    assert accuracy(_StubCLIP(), task) == 75


def test_compact_tokenizer_renumbers_tokens():
    import clip

    ids = sorted({int(t) for t in clip.tokenize("x photo of a heart")[0] if t})
    tokens = compact_tokenizer(ids)(["a heart", "a zebra"])
    assert [ids[t] for t in tokens[0, :4]] == clip.tokenize("a heart")[0, :4].tolist()
    assert tokens[1, 2] == ids.index(int(clip.tokenize("x")[0, 1]))
    assert tokens[0].argmax() == 3
    assert (tokens[:, 4:] == 0).all()


def test_clustering_accuracy_matches_clusters_to_classes():
    labels = np.repeat([2, 0, 1], 20)
    features = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.05, (60, 3))
    assert clustering_accuracy(features, labels, 3) == 100
    swapped = labels.copy()
    swapped[:6] = 0
    assert clustering_accuracy(features, swapped, 3) == pytest.approx(90)


def test_coverage_counts_tokens_and_lists_unseen_words():
    import clip

    ids = set(clip.tokenize("heart house")[0].tolist())
    percent, unseen = coverage(["heart, house.", "(Heart) zebra"], ids)
    assert unseen == ["zebra"]
    assert percent == pytest.approx(75)
    assert max(ids) < VOCABULARY
