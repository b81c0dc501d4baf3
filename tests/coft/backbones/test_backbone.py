"""Features of the frozen CLIP: means over views, kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clip.model import CLIP

from coft.backbones import backbone
from coft.backbones.architecture import CLIP_MEAN, CLIP_STD
from coft.backbones.backbone import ClassBackbone
from coft.images.batches import UnlabeledImages
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import Inputs
from tests.conftest import CLASSNAMES

KEY = (1, "labels", 7)


@pytest.fixture
def images(shapes: Path) -> UnlabeledImages:
    paths = sorted(str(path) for path in (shapes / "images").glob("test_*"))
    return UnlabeledImages(UnlabeledPool(paths), Inputs(32, CLIP_MEAN, CLIP_STD), test_batch_size=7)


@torch.no_grad()
def test_image_features_are_means_over_the_views_and_kept_on_disk(
    clip_model: CLIP, images: UnlabeledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "FEATURE_CACHE", tmp_path)
    made = ClassBackbone(clip_model, CLASSNAMES, ["a {}."], {})
    single = made.image_features(images)
    torch.testing.assert_close(single.norm(dim=1), torch.ones(len(images)))
    found = made.image_features(images, 3, KEY)
    for views, mean in zip(torch.cat(list(images.plain(None, 3, KEY))), found, strict=True):
        each = [F.normalize(clip_model.encode_image(view[None]).float(), dim=-1)[0] for view in views]
        torch.testing.assert_close(mean, sum(each) / 3, atol=1e-4, rtol=1e-4)
    other = made.image_features(images, 3, (2, "labels", 7))
    assert not torch.equal(found, other) and len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(made, "visual", None)  # from here on, they come from the disk
    assert torch.equal(made.image_features(images), single)
    assert torch.equal(made.image_features(images, 3, KEY), found)
    assert torch.equal(made.image_features(images, 3, (2, "labels", 7)), other)
