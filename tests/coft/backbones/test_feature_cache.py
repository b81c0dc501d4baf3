"""The cache of image features on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip.model import CLIP

from coft.backbones import backbone, feature_cache
from coft.backbones.architecture import CLIP_MEAN, CLIP_STD
from coft.backbones.backbone import ClassBackbone
from coft.images.batches import UnlabeledImages
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs
from coft.labelling.protocol import Method
from tests.coft.toys import make_method
from tests.conftest import CLASSNAMES


def random_features() -> torch.Tensor:
    return torch.randn(50, 4, generator=torch.Generator().manual_seed(7))


cached = partial(feature_cache.cached, shape=(50, 4))


def test_the_cache_computes_once_and_returns_the_same_bits(tmp_path: Path) -> None:
    calls = []

    def compute() -> torch.Tensor:
        calls.append(1)
        return random_features()

    first, second = (cached(compute, tmp_path, "a", "b") for _ in range(2))
    assert torch.equal(first, second) and len(calls) == 1
    for n, key in enumerate((("a", "c"), ("ab",), ("a", "b", ""))):
        cached(compute, tmp_path, *key)
        assert len(calls) == n + 2
    assert not list(tmp_path.glob("*.tmp"))


def test_without_a_folder_features_are_computed_every_time() -> None:
    calls: list[int] = []
    for n in range(2):
        features = cached(lambda: calls.append(1) or random_features(), None, "a")
        assert torch.equal(features, random_features()) and len(calls) == n + 1


def test_a_warning_if_the_cache_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert torch.equal(cached(random_features, tmp_path / "file" / "cache", "key"), random_features())
    assert "Image features are not stored in" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "nan", "other shape", "folder"])
def test_damaged_files_are_computed_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(random_features, tmp_path, "key")
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[data.find(random_features().numpy().tobytes()[:8])] ^= 1
    file.write_bytes({"cut": data[:200], "emptied": b""}.get(damage, data))
    if damage in ("nan", "other shape"):
        torch.save(random_features() * torch.nan if damage == "nan" else random_features()[:, :2], file)
    if damage == "folder":
        file.unlink()
        file.mkdir()
    assert torch.equal(cached(random_features, tmp_path, "key"), random_features())
    assert damage == "folder" or "will be computed again" in caplog.text
    assert damage == "folder" or torch.equal(torch.load(file), random_features())


def test_features_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    cached(lambda: random_features() / 0, tmp_path, "key")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def images(shapes: Path) -> UnlabeledImages:
    paths = sorted(str(path) for path in (shapes / "images").glob("test_*"))
    return UnlabeledImages(UnlabeledPool(paths), Inputs(32, CLIP_MEAN, CLIP_STD), test_batch_size=7)


@torch.no_grad()
def test_image_features_are_means_over_views_and_are_cached(
    clip_model: CLIP, images: UnlabeledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "FEATURE_CACHE", tmp_path)
    clip, passes = ClassBackbone(clip_model, CLASSNAMES, ["a {}."], {}), list[int]()

    def features(num_views: int = 1, seed: int = 1) -> torch.Tensor:
        return make_method(Method, images=images, backbone=clip, seed=seed).engine.clip_features(num_views).all()

    single, mean, other = features(), features(3), features(3, seed=2)
    torch.testing.assert_close(single.norm(dim=1), torch.ones(len(images)))
    for views, row in zip(torch.cat(list(images.plain(None, 3, (1, "labels", 0)))), mean, strict=True):
        features_of_views = [F.normalize(clip_model.encode_image(view[None]).float(), dim=-1)[0] for view in views]
        torch.testing.assert_close(row, sum(features_of_views) / 3, atol=1e-4, rtol=1e-4)
    assert not torch.equal(mean, other) and len(list(tmp_path.iterdir())) == 3
    hook = clip.visual.register_forward_hook(lambda module, inputs, output: passes.append(1))
    assert torch.equal(features(), single)
    assert torch.equal(features(3), mean)
    assert torch.equal(features(3, seed=2), other)
    hook.remove()
    assert not passes  # read from the cache
