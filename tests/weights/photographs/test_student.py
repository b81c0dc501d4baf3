"""Distillation of a text tower for an image tower, and the files of the model."""

import hashlib
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

from coft.core.errors import UserError
from weights.photographs import student
from weights.photographs.captions import END, START, Batch, Entry, batches, tokens_of
from weights.photographs.checkpoint import save, take_image_tower, vision_config
from weights.photographs.image_tower import class_vectors, mean_features
from weights.photographs.sources import Source
from weights.photographs.student import Distillation, Recipe, distance, embed, encode, new_student

SMALL = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
ARCHITECTURE = "tf_efficientnet_lite0"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(student, "TEXT", SMALL)
    monkeypatch.setattr(student, "DIMENSIONS", 16)
    torch.manual_seed(0)
    return new_student(vision_config(ARCHITECTURE), torch.randn(49408, 40), seed=0)


def _batch(texts: list[str]) -> Batch:
    rows = [[START, *tokens_of(text), END] for text in texts]
    length = max(map(len, rows))
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    positions = torch.arange(length).repeat(len(rows), 1)
    ends = torch.tensor([len(row) - 1 for row in rows])
    return Batch(tokens, positions, torch.zeros_like(tokens, dtype=torch.bool), ends, torch.arange(len(rows)))


def test_encoding_matches_open_clip(small: Any) -> None:
    texts = ["a photo of a cat.", "dog", "a photo of a large sailing ship, a type of vessel."]
    batch, model = _batch(texts), small.double().eval()
    features = encode(model, model.token_embedding(batch.tokens), batch.positions, batch.ends)
    expected = model.encode_text(open_clip.get_tokenizer("RN50")(texts))
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=1e-12)


def test_noise_replaces_only_marked_tokens(small: Any) -> None:
    batch = _batch(["x x x cat.", "y dog"])
    batch.noise[0, 1:4] = True
    embeddings = embed(small, batch, torch.Generator().manual_seed(1))
    is_unchanged = (embeddings == small.token_embedding(batch.tokens)).all(dim=-1)
    assert torch.equal(is_unchanged, ~batch.noise)


def test_distance_against_a_loop() -> None:
    source = torch.Generator().manual_seed(0)
    features = torch.randn(5, 4, dtype=torch.float64, generator=source)
    targets = F.normalize(torch.randn(5, 4, dtype=torch.float64, generator=source), dim=1)
    total = 0.0
    for i in range(5):
        unit = features[i] / features[i].norm()
        target_probabilities = torch.softmax(torch.stack([3 * targets[i] @ t for t in targets]), dim=0)
        probabilities = torch.softmax(torch.stack([3 * unit @ t for t in targets]), dim=0)
        total += 1 - unit @ targets[i] + (target_probabilities * (target_probabilities / probabilities).log()).sum()
    torch.testing.assert_close(distance(features, targets, sharpness=3.0), total / 5)


ENTRIES = [
    Entry(tokens_of("cat"), tokens_of("feline"), tokens_of("it purrs"), 0),
    Entry(tokens_of("sailing ship"), (), (), 1),
    Entry(tokens_of("dog"), (), (), 2),
]


def test_captions_contain_their_entry() -> None:
    pool = batches(ENTRIES, torch.ones(3), 64, 4, torch.Generator().manual_seed(5))
    for batch in pool:
        for row, end, target, noise, positions in zip(
            batch.tokens, batch.ends, batch.targets, batch.noise, batch.positions, strict=True
        ):
            words = row[: end + 1].tolist()
            assert (words[0], words[-1]) == (START, END) and not noise[0] and not noise[end]
            assert positions[0] == 0 and (positions.diff() > 0).all() and positions[-1] < 77
            entry = ENTRIES[int(target)]
            parts = [entry.name, entry.gloss] if entry.gloss else [entry.name]
            assert any(list(part) == words[i : i + len(part)] for part in parts for i in range(len(words)))


def _distillation(small: Any, folder: Path, steps: int) -> Distillation:
    targets = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    recipe = Recipe(steps=steps, batch=16, warmup=2)
    return Distillation(small, ENTRIES, torch.ones(3), targets, recipe, folder)


def test_training_reduces_loss_and_resumes_bit_identically(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student, "POOL", 4)
    start = {key: value.clone() for key, value in small.state_dict().items()}
    losses = _distillation(small, tmp_path / "uninterrupted", 24).run()
    expected = {key: value.clone() for key, value in small.state_dict().items()}
    assert losses[-1] < 0.7 * losses[0]

    small.load_state_dict(start)
    stopped = _distillation(small, tmp_path / "halves", 24)
    monkeypatch.setattr(stopped, "_save", lambda: (Distillation._save(stopped), 1 / (stopped.step < 12)))
    with pytest.raises(ZeroDivisionError):
        stopped.run(save_every=4)
    small.load_state_dict(start)
    assert _distillation(small, tmp_path / "halves", 24).run() == losses
    assert all(torch.equal(value, expected[key]) for key, value in small.state_dict().items())


def test_state_of_another_recipe_is_refused(small: Any, tmp_path: Path) -> None:
    _distillation(small, tmp_path, 2).run()
    with pytest.raises(UserError, match=r"student\.pt"):
        _distillation(small, tmp_path, 4).run()
    (tmp_path / "student.pt").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"student\.pt.*delete"):
        _distillation(small, tmp_path, 2).run()


def test_mean_features_against_samples() -> None:
    tower = torch.nn.Module()
    tower.bn2 = torch.nn.BatchNorm2d(5)
    with torch.no_grad():
        tower.bn2.bias.copy_(torch.tensor([-2.0, 0.0, 1.0, 5.0, 8.0]))
        tower.bn2.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 2.0, 1.0]))
    samples = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(0)) * tower.bn2.weight + tower.bn2.bias
    torch.testing.assert_close(mean_features(tower), samples.clamp(0, 6).mean(dim=0), atol=0.02, rtol=0.0)


def test_class_vectors_are_projected_unit_vectors() -> None:
    tower = torch.nn.Module()
    tower.classifier = torch.nn.Linear(20, 12)
    projection, vectors = class_vectors(tower, 6)
    torch.testing.assert_close(projection.t() @ projection, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(12))
    weights = F.normalize(tower.classifier.weight.detach(), dim=1)
    expected = F.normalize((weights - weights.mean(dim=0)) @ projection, dim=1)
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=0)


def test_open_clip_loads_saved_model(small: Any, tmp_path: Path) -> None:
    import timm

    tower = timm.create_model(ARCHITECTURE, pretrained=False).eval()
    mean, projection = torch.randn(1280).abs(), torch.linalg.qr(torch.randn(1280, 16)).Q
    take_image_tower(small, tower, mean, projection)
    save(small, vision_config(ARCHITECTURE), SMALL, {"licence": "none"}, tmp_path / "model")
    loaded = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")[0].eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = (tower.forward_head(tower.forward_features(images), pre_logits=True) - mean) @ projection
        features = loaded.encode_image(images)
        assert F.cosine_similarity(features, expected).min() > 0.999  # 16 bits
        tokens = open_clip.get_tokenizer("RN50")(["a photo of a cat.", "a dog"])
        similarity = F.cosine_similarity(loaded.encode_text(tokens), small.eval().encode_text(tokens))
    assert similarity.min() > 0.99  # 8 bits
    assert not list((tmp_path / "model").glob("*.tmp"))


def test_source_with_wrong_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"right")
    checksum = hashlib.sha256(b"right").hexdigest()
    assert Source("PyPI", "a", "1", "a.whl", checksum, "MIT").fetch(tmp_path) == tmp_path / "a.whl"
    with pytest.raises(UserError, match=r"a\.whl: SHA-256.*delete the file"):
        Source("PyPI", "a", "1", "a.whl", "0" * 64, "MIT").fetch(tmp_path)
