"""Features of the unlabeled images: means over views, several models in one pass."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.core.table import Table
from coft.engine import pool
from coft.engine.runtime import Runtime
from coft.inference.encoders import encode_images
from coft.labelling.classifier import Classifier
from coft.labelling.protocol import Encoders, Method
from tests.coft import naive
from tests.coft.toys import CLASSES, COUNT, DIM, ToyBackbone, ToyImages, make_method

EPOCH = 7
KEY = (1, "labels", 0)


class Models(Method):
    """Classifiers of toy images with an encoder each."""

    def __init__(self, engine: Any, names: str = "ab") -> None:
        super().__init__(engine)
        source, self.epoch = torch.Generator().manual_seed(0), EPOCH
        for name in names:
            vectors = (nn.Parameter(torch.randn(CLASSES, DIM, generator=source)) for _ in range(2))
            encoder: Any = ToyBackbone(ToyImages()).visual
            encoder[3].weight.data += 0.3 * torch.randn(encoder[3].weight.shape, generator=source)
            self.models[name] = Classifier(encoder.requires_grad_(True), *vectors, 6.0)

    def encoders(self) -> Encoders:
        return {name: model.features for name, model in self.models.items()}


@pytest.mark.parametrize("views", [1, 3])
@torch.no_grad()
def test_features_are_means_over_the_views(views: int) -> None:
    method = make_method(Models)
    features = method.engine.encode(method.encoders, views)
    assert list(features) == list(method.models)
    for name, model in method.models.items():
        rows = features[name].all()
        torch.testing.assert_close(rows, naive.view_features(method, model.features, views))
    assert method.engine.images.requests == [(views, KEY, COUNT)]  # one pass for all models


@torch.no_grad()
def test_each_model_encodes_its_own_images() -> None:
    method = make_method(Models, "abc")
    index = {"a": torch.arange(20).flip(0), "b": torch.tensor([4, 9]), "c": torch.tensor([1, 1, 3, 8, 2, 5, 7, 6])}
    selected, complete = method.engine.encode_some(method.encoders, index), method.engine.encode(method.encoders)
    for name, images in index.items():
        torch.testing.assert_close(selected[name], complete[name].at(images))


@pytest.mark.parametrize("views", [1, 3])
@torch.no_grad()
def test_frozen_features_are_encoded_once_per_decision(views: int) -> None:
    method = make_method(Models)
    engine, features = method.engine, list[Tensor]()
    engine.decide(lambda: features.extend(engine.clip_features(views).all() for _ in range(2)))
    expected = naive.view_features(method, engine.clip.encode, views)
    torch.testing.assert_close(features[0], expected)
    assert torch.equal(*features) and engine.images.requests == [(views, (1, "labels", 0), COUNT)]
    engine.decide(lambda: features.append(engine.clip_features(views).all()))
    assert torch.equal(features[0], features[2]) and len(engine.images.requests) == 2


def test_features_have_no_gradients() -> None:
    method = make_method(Models)
    engine, index = method.engine, dict.fromkeys("ab", torch.arange(3))
    tables = [*engine.encode(method.encoders).values(), engine.clip_features()]
    rows = [*(table.all() for table in tables), *engine.encode_some(method.encoders, index).values()]
    assert len(rows) == 5 and not any(x.requires_grad for x in rows)
    assert torch.is_grad_enabled()


def test_images_are_encoded_in_the_precision_of_the_run_and_timed() -> None:
    parts: list[str] = []

    @contextmanager
    def timed(name: str) -> Any:
        parts.append(name)
        yield

    method, dtypes = make_method(Models, runtime=Runtime(1, dtype=torch.bfloat16, timed=timed)), list[torch.dtype]()
    for encoder in (method.models["a"].encoder, method.engine.clip.visual):
        encoder.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    features = method.engine.encode(method.encoders)
    selected = method.engine.encode_some(method.encoders, dict.fromkeys("ab", torch.arange(3)))
    assert set(dtypes) == {torch.bfloat16} and parts == ["labelling"] * 2
    assert all(rows.dtype == torch.float32 for rows in (features["a"].all(), selected["a"]))
    dtypes.clear()
    method.engine.clip_features()
    assert set(dtypes) == {torch.bfloat16} and parts == ["labelling"] * 3


def test_a_large_table_of_features_is_stored_in_fp16_and_read_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method(Models)
    full = method.engine.encode(method.encoders)
    monkeypatch.setattr(pool, "MAX_FULL_PRECISION_BYTES", COUNT * DIM * 4 - 1)
    index = dict.fromkeys("ab", torch.arange(COUNT))
    half, selected = method.engine.encode(method.encoders), method.engine.encode_some(method.encoders, index)
    for name, table in full.items():
        expected = Table.of(table.all().half()).all()
        assert not torch.equal(expected, table.all())
        for rows in (half[name].all(), selected[name]):
            assert rows.dtype == torch.float32 and torch.equal(rows, expected)


@pytest.mark.parametrize("block", [1, 2])
def test_the_block_size_changes_no_bit(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_method(Models)  # five batches
    whole = method.engine.encode(method.encoders)
    monkeypatch.setattr(pool, "BLOCK", block)
    for name, table in method.engine.encode(method.encoders).items():
        assert torch.equal(table.all(), whole[name].all())


def pixels() -> Tensor:
    return torch.randn(7, 12, generator=torch.Generator().manual_seed(9))


def test_each_encoder_runs_once_per_image() -> None:
    encoders, sizes = [nn.Linear(12, 4), nn.Linear(12, 4)], list[int]()
    encoders[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    features = encode_images(encoders, pixels(), Parallel(2, nn.Identity(), "cpu"), None)
    assert sum(sizes) == 7 and not any(rows.requires_grad for rows in features)
    for rows, encoder in zip(features, encoders, strict=True):
        torch.testing.assert_close(rows, F.normalize(encoder(pixels()), dim=1))
