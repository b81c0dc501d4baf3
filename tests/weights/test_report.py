import gzip
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from coft.backbones.embedded import VOCABULARY
from weights.pretrain.evaluate import Task, accuracy, compact_tokenizer, prepared
from weights.pretrain.report import clustering_accuracy, coverage, covered, described, eurosat, fashion, markdown


class _Knows:
    """Stands in for a CLIP: tells images by brightness, texts by their first word."""

    def encode_image(self, images):
        return torch.nn.functional.one_hot((images.mean((1, 2, 3)) > 0).long(), 2)

    def encode_text(self, tokens):
        return torch.nn.functional.one_hot((tokens[:, 1] == tokens[1, 1]).long(), 2)


def test_accuracy_is_the_share_of_nearest_texts_in_percent():
    images = torch.stack([torch.full((3, 64, 64), value) for value in (-1.0, 1.0, 1.0, -1.0)])
    task = Task("two", images, torch.tensor([0, 1, 0, 0]), ["dark", "bright"], ("{}",))
    assert accuracy(_Knows(), task) == 75


def test_preprocessing_is_clip_at_64_pixels():
    from clip.clip import _transform

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    torch.testing.assert_close(prepared(picture), _transform(64)(picture), atol=1e-6, rtol=0)


def test_the_compact_tokenizer_renumbers_and_ends_with_the_highest_number():
    import clip

    ids = sorted({int(t) for t in clip.tokenize("x photo of a heart")[0] if t})
    tokens = compact_tokenizer(ids)(["a heart", "a zebra"])
    assert [ids[t] for t in tokens[0, :4]] == clip.tokenize("a heart")[0, :4].tolist()
    assert tokens[1, 2] == ids.index(int(clip.tokenize("x")[0, 1]))
    assert tokens[0].argmax() == 3
    assert (tokens[:, 4:] == 0).all()


def test_clusters_are_matched_to_classes_whatever_their_numbers():
    labels = np.repeat([2, 0, 1], 20)
    features = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.05, (60, 3))
    assert clustering_accuracy(features, labels, 3) == 100
    swapped = labels.copy()
    swapped[:6] = 0
    assert clustering_accuracy(features, swapped, 3) == pytest.approx(90)


def test_coverage_counts_tokens_and_names_the_words():
    import clip

    ids = set(clip.tokenize("heart house")[0].tolist())
    percent, unseen = coverage(["heart, house.", "(Heart) zebra"], ids)
    assert unseen == ["zebra"]
    assert percent == pytest.approx(75)
    assert max(ids) < VOCABULARY


def test_coverage_table_and_descriptions(tmp_path):
    (tmp_path / "shapes.json").write_text(json.dumps({"a": ["a heart", "zebra"], "b": ["house"]}))
    torch.save({"token_ids": torch.tensor([320, 1212])}, tmp_path / "c.pt")
    names = described(tmp_path)
    assert names == {"shapes": ["a", "b"], "shapes, descriptions": ["a heart", "zebra", "house"]}
    _, row = covered(tmp_path / "c.pt", names)
    assert (row["texts"], row["tokens seen"], row["words with unseen tokens"]) == (3, 50.0, "heart, zebra")


def _write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_fashion_reads_idx_files(tmp_path):
    pixels = np.zeros((3, 28, 28))
    pixels[1] = 255
    _write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels)
    _write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([3, 9, 0]))
    task = fashion(tmp_path)
    assert task.labels.tolist() == [3, 9, 0]
    assert task.images.shape == (3, 3, 64, 64)
    assert task.images[1].min() > task.images[0].max()


def test_eurosat_reads_the_test_part_of_coop_split(tmp_path):
    (tmp_path / "2750" / "River").mkdir(parents=True)
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "2750" / "River" / "a.jpg")
    rows = [["River/a.jpg", 1, "River"], ["River/a.jpg", 0, "Forest"]]
    (tmp_path / "split_zhou_EuroSAT.json").write_text(json.dumps({"train": [], "val": [], "test": rows}))
    task = eurosat(tmp_path)
    assert task.classnames == ["Forest", "River"]
    assert task.labels.tolist() == [1, 0]


def test_tables_are_markdown():
    assert markdown([{"a": 1.25, "b": "x"}]).splitlines() == ["| a | b |", "| --- | --- |", "| 1.2 | x |"]
