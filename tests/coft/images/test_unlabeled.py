from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from coft.core.errors import UserError
from coft.core.seeding import derive
from coft.engine.inputs import inputs_of
from coft.images.batches import UnlabeledImages, endless_draws
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import AUGMENTATIONS, VIEWS, Inputs, normalize


@pytest.fixture
def paths(shapes: Path) -> list[str]:
    return sorted(str(p) for p in (shapes / "images").glob("train_*.png"))


CLIP_INPUTS = Inputs(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


def tensors(images: UnlabeledImages, view: str = "weak") -> list[torch.Tensor]:
    index = {"a": torch.arange(0, 10), "b": torch.arange(10, 25)}
    loader = images.batches(view, index, 4, 1, "epoch", 3)
    return [batch[name][key] for batch in loader for name in ("a", "b") for key in ("index", "view")]


def test_order_follows_content_not_path_or_name(paths: list[str], tmp_path: Path) -> None:
    pool, reversed_pool = UnlabeledPool(paths), UnlabeledPool(paths[::-1])
    assert pool.paths == reversed_pool.paths and pool.digest == reversed_pool.digest
    assert [paths[i] for i in pool.order] == pool.paths
    renamed = [shutil.copy(path, tmp_path / f"{i:03d}.png") for i, path in enumerate(reversed(paths))]
    pixels = [[p.image(r).tobytes() for r in range(len(p))] for p in (pool, UnlabeledPool(renamed))]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_batches_do_not_depend_on_workers_cache_or_global_random_state(paths: list[str], view: str) -> None:
    torch.manual_seed(0)
    first = tensors(UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, 20), view)
    torch.manual_seed(99)
    second = tensors(UnlabeledImages(UnlabeledPool(paths, cache_bytes=0), CLIP_INPUTS, 20, num_workers=2), view)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("view", ["weak", "strong", "strong and weak"])
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_what_a_view_keeps_of_an_image_does_not_change_it(paths: list[str], kind: str, view: str) -> None:
    inputs = replace(CLIP_INPUTS, size=48, augment=kind)
    keeping, forgetful = UnlabeledPool(paths), UnlabeledPool(paths, cache_bytes=0)
    for _ in range(2):  # the second time from what was kept
        found = [tensors(UnlabeledImages(pool, inputs, 20), view) for pool in (keeping, forgetful)]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    make, image = VIEWS[view](inputs), keeping.image(3)
    kept = [keeping.prepared(3, make) for _ in range(2)]
    assert (kept[0] is kept[1]) == (kind == "symbols") and forgetful.prepared(3, make) is not kept[0]
    torch.manual_seed(0)
    whole = make(image)
    torch.manual_seed(0)
    assert torch.equal(make.rest(kept[0]), whole)


def test_drawing_leaves_the_global_random_state_alone(paths: list[str]) -> None:
    state = torch.get_rng_state()
    tensors(UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, 20))
    assert torch.equal(state, torch.get_rng_state())


def test_peers_epochs_and_repeated_draws_get_other_augmentations(
    paths: list[str],
) -> None:
    images, one = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, 20), torch.tensor([3])

    def views(*key: Any) -> list[torch.Tensor]:
        loader = images.batches("weak", {"a": one, "b": one}, 2, *key)
        return [batch[peer]["view"] for batch in loader for peer in ("a", "b")]

    seen = [*views(1, 0), *views(1, 1), *views(2, 0)]
    assert not any(torch.equal(x, y) for i, x in enumerate(seen) for y in seen[:i])


def test_batches_hold_no_label(paths: list[str]) -> None:
    batches = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS).batches("weak", {"a": torch.arange(9)}, 1, 0)
    assert all(set(part) == {"index", "view"} for batch in batches for part in batch.values())


def test_plain_batches_are_the_tests_view(paths: list[str], configure: Callable[..., Any]) -> None:
    from dassl.data.transforms import build_transform

    cfg = configure("CoFT", INPUT__TRANSFORMS='["normalize"]')
    images = UnlabeledImages(UnlabeledPool(paths), inputs_of(cfg))
    views = torch.cat(list(images.plain(torch.tensor([5, 2]))))
    test_view = build_transform(cfg, is_train=False)
    for view, place in zip(views, (5, 2), strict=True):
        plain = test_view(Image.open(images.pool.paths[place]).convert("RGB"))
        torch.testing.assert_close(view, plain, atol=1e-5, rtol=0)


def test_several_views_are_the_tests_and_weak_ones(paths: list[str]) -> None:
    index, key = torch.tensor([5, 2, 8]), (1, "labels", 3)

    def views(pool: UnlabeledPool, *key: Any) -> torch.Tensor:
        batches = list(UnlabeledImages(pool, CLIP_INPUTS, test_batch_size=4).plain(index, 3, key))
        assert [len(batch) for batch in batches] == [1, 1, 1]  # so many images as views fill a batch
        return torch.cat(batches)

    pool = UnlabeledPool(paths)
    found = views(pool, *key)
    assert torch.equal(found[:, 0], torch.cat(list(UnlabeledImages(pool, CLIP_INPUTS).plain(index))))
    weak = VIEWS["weak"](CLIP_INPUTS)
    for several, place in zip(found, index.tolist(), strict=True):
        torch.manual_seed(derive(*key, "all", place, 0))
        for view in several[1:]:
            assert torch.equal(view, normalize(CLIP_INPUTS)(weak(pool.image(place))))
    assert not torch.equal(found[:, 1], found[:, 2])
    assert torch.equal(found, views(UnlabeledPool(paths[::-1], cache_bytes=0), *key))
    assert not torch.equal(found[:, 1:], views(pool, 1, "labels", 5)[:, 1:])


def test_every_image_comes_before_any_comes_again() -> None:
    draws = endless_draws("a", torch.tensor([4, 7, 9]), 0)
    rounds = [[next(draws) for _ in range(3)] for _ in range(4)]
    assert all(sorted(index for _, index, _ in r) == [4, 7, 9] for r in rounds)
    assert len({number for r in rounds for _, _, number in r}) == 12
    assert len({tuple(index for _, index, _ in r) for r in rounds}) > 1


def test_a_broken_image_is_named(paths: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image .*broken\.jpg cannot be read"):
        UnlabeledPool([*paths, str(broken)])
    with pytest.raises(UserError, match=r"image .*gone\.jpg cannot be read \(No such file"):
        UnlabeledPool([str(tmp_path / "gone.jpg")])
    with pytest.raises(UserError, match="no unlabeled images"):
        UnlabeledPool([])


def test_an_image_that_has_changed_is_named(paths: list[str], tmp_path: Path) -> None:
    pool = UnlabeledPool([shutil.copy(path, tmp_path) for path in paths], cache_bytes=0)
    Path(pool.paths[2]).write_bytes(Path(pool.paths[3]).read_bytes())
    assert pool.image(3)
    with pytest.raises(UserError, match=rf"image {re.escape(pool.paths[2])} has changed since the run began; begin"):
        pool.image(2)
