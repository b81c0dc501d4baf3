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
from coft.core.world import World
from coft.engine.inputs import inputs_of
from coft.images.batches import DrawnBatch, Source, UnlabeledImages, ViewCache, endless_draws
from coft.images.unlabeled import UnlabeledPool
from coft.images.views import AUGMENTATIONS, VIEWS, Inputs, normalize, view_of


@pytest.fixture
def paths(shapes: Path) -> list[str]:
    return sorted(str(p) for p in (shapes / "images").glob("train_*.png"))


CLIP_INPUTS = Inputs(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


def tensors(images: UnlabeledImages, *kinds: str) -> list[torch.Tensor]:
    streams = {"a": [Source("a", torch.arange(0, 10), 10)], "b": [Source("b", torch.arange(10, 25), 15)]}
    loader = images.batches(kinds, streams, 4, 1, "epoch", 3)
    return [x for batch in loader for name in ("a", "b") for x in (batch[name].index, batch[name].views)]


def test_the_order_depends_on_content_only(paths: list[str], tmp_path: Path) -> None:
    pool, reversed_pool = UnlabeledPool(paths), UnlabeledPool(paths[::-1])
    assert pool.paths == reversed_pool.paths and pool.digest == reversed_pool.digest
    assert [paths[i] for i in pool.order] == pool.paths
    renamed = [shutil.copy(path, tmp_path / f"{i:03d}.png") for i, path in enumerate(reversed(paths))]
    pixels = [[p.image(r).tobytes() for r in range(len(p))] for p in (pool, UnlabeledPool(renamed))]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize("kinds", [["weak"], ["strong"]])
def test_batches_do_not_depend_on_workers_cache_or_global_random_state(paths: list[str], kinds: list[str]) -> None:
    torch.manual_seed(0)
    first = tensors(UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, 20), *kinds)
    torch.manual_seed(99)
    second = tensors(UnlabeledImages(UnlabeledPool(paths, cache_bytes=0), CLIP_INPUTS, 20, num_workers=2), *kinds)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kinds", [["weak"], ["strong"], ["strong", "weak"]])
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_cached_parts_of_views_change_no_bit(paths: list[str], kind: str, kinds: list[str]) -> None:
    inputs = replace(CLIP_INPUTS, size=48, augment=kind)
    cached_pool, uncached_pool = UnlabeledPool(paths), UnlabeledPool(paths, cache_bytes=0)
    for _ in range(2):  # the second time from the cache
        batches = [tensors(UnlabeledImages(pool, inputs, 20), *kinds) for pool in (cached_pool, uncached_pool)]
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    make, image = view_of(inputs, kinds), cached_pool.image(3)
    kept = [cached_pool.prepared(3, make) for _ in range(2)]
    assert (kept[0] is kept[1]) == (kind == "symbols") and uncached_pool.prepared(3, make) is not kept[0]
    torch.manual_seed(0)
    whole = make(image)
    torch.manual_seed(0)
    assert torch.equal(make.rest(kept[0]), whole)


def test_augmentations_differ_between_draws_and_epochs_but_not_between_peers(paths: list[str]) -> None:
    images, index = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, 20), torch.tensor([3])

    def views(*key: Any) -> list[torch.Tensor]:
        loader = images.batches(["weak"], {name: [Source(name, index, 1)] for name in "ab"}, 2, *key)
        return [batch[peer].views for batch in loader for peer in ("a", "b")]

    drawn = [*views(1, 0), *views(1, 1), *views(2, 0)]
    assert all(torch.equal(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True))
    views_of_a = drawn[::2]
    assert not any(torch.equal(x, y) for i, x in enumerate(views_of_a) for y in views_of_a[:i])


def test_with_few_views_all_epochs_draw_from_the_same_views(paths: list[str]) -> None:
    images, streams = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS), {"a": [Source("a", torch.arange(2), 2)]}

    def drawn(epoch: int) -> list[tuple[int, bytes]]:
        loader = images.batches(["weak"], streams, 20, 1, epoch, fixed_key=(1, 0), num_fixed_views=3)
        return [(int(i), v.numpy().tobytes()) for b in loader for i, v in zip(b["a"].index, b["a"].views, strict=True)]

    first, second = drawn(0), drawn(1)
    assert first != second and set(first) == set(second)
    assert [len({view for image, view in first if image == i}) for i in range(2)] == [3, 3]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_parts_of_all_processes_form_the_batches_of_one(paths: list[str], size: int) -> None:
    streams = {
        "a": [Source("seeds", torch.arange(0, 10), 3), Source("others", torch.arange(10, 25), 2)],
        "b": [Source("few", torch.arange(25, 27), 1), Source("none", torch.empty(0, dtype=torch.long), 0)],
    }

    def batches(world: World) -> list[dict[str, DrawnBatch]]:
        images = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, world=world)
        loader = images.batches(["weak"], streams, 3, 1, 0)
        assert len(loader) == 3
        return list(loader)

    whole, parts = batches(World()), [batches(World(rank, size)) for rank in range(size)]
    for step, batch in enumerate(whole):
        assert bool((batch["a"].index[:3] < 10).all()) and bool((batch["a"].index[3:] >= 10).all())
        for name, drawn in batch.items():
            rank_parts = [part[step][name] for part in parts]
            assert all(torch.equal(part.index, drawn.index) for part in rank_parts)
            position = torch.cat([part.position for part in rank_parts])
            assert torch.equal(position, torch.arange(len(drawn.index))) and len(drawn.index) == (
                5 if name == "a" else 1
            )
            assert all((part.views is None) == (len(part.position) == 0) for part in rank_parts)
            assert torch.equal(torch.cat([part.views for part in rank_parts if part.views is not None]), drawn.views)


def test_plain_batches_are_test_views(paths: list[str], configure: Callable[..., Any]) -> None:
    from dassl.data.transforms import build_transform

    cfg = configure("CoFT", INPUT__TRANSFORMS='["normalize"]')
    images = UnlabeledImages(UnlabeledPool(paths), inputs_of(cfg))
    views = torch.cat(list(images.plain(torch.tensor([5, 2]))))
    test_view = build_transform(cfg, is_train=False)
    for view, index in zip(views, (5, 2), strict=True):
        plain = test_view(Image.open(images.pool.paths[index]).convert("RGB"))
        torch.testing.assert_close(view, plain, atol=1e-5, rtol=0)


def test_several_views_are_the_test_view_and_weak_views(paths: list[str]) -> None:
    index, key = torch.tensor([5, 2, 8]), (1, "labels", 3)

    def views(pool: UnlabeledPool, *key: Any) -> torch.Tensor:
        batches = list(UnlabeledImages(pool, CLIP_INPUTS, test_batch_size=4).plain(index, 3, key))
        assert [len(batch) for batch in batches] == [1, 1, 1]  # a batch counts views
        return torch.cat(batches)

    pool = UnlabeledPool(paths)
    stacks = views(pool, *key)
    assert torch.equal(stacks[:, 0], torch.cat(list(UnlabeledImages(pool, CLIP_INPUTS).plain(index))))
    weak = VIEWS["weak"](CLIP_INPUTS)
    for image_views, image_index in zip(stacks, index.tolist(), strict=True):
        torch.manual_seed(derive(*key, "all", image_index, 0))
        for view in image_views[1:]:
            assert torch.equal(view, normalize(CLIP_INPUTS)(weak(pool.image(image_index))))
    assert not torch.equal(stacks[:, 1], stacks[:, 2])
    assert torch.equal(stacks, views(UnlabeledPool(paths[::-1], cache_bytes=0), *key))
    assert not torch.equal(stacks[:, 1:], views(pool, 1, "labels", 5)[:, 1:])


def test_all_images_are_drawn_before_any_is_repeated() -> None:
    draws = endless_draws("a", torch.tensor([4, 7, 9]), 0)
    rounds = [[next(draws) for _ in range(3)] for _ in range(4)]
    assert all(sorted(index for _, index, _ in r) == [4, 7, 9] for r in rounds)
    assert [{before for _, _, before in r} for r in rounds] == [{0}, {1}, {2}, {3}]
    assert len({tuple(index for _, index, _ in r) for r in rounds}) > 1


def test_broken_and_missing_images_are_named(paths: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image .*broken\.jpg cannot be read"):
        UnlabeledPool([*paths, str(broken)])
    with pytest.raises(UserError, match=r"image .*gone\.jpg cannot be read \(No such file"):
        UnlabeledPool([str(tmp_path / "gone.jpg")])
    with pytest.raises(UserError, match="no unlabeled images"):
        UnlabeledPool([])


def test_a_changed_image_is_named(paths: list[str], tmp_path: Path) -> None:
    pool = UnlabeledPool([shutil.copy(path, tmp_path) for path in paths], cache_bytes=0)
    Path(pool.paths[2]).write_bytes(Path(pool.paths[3]).read_bytes())
    assert pool.image(3)
    with pytest.raises(UserError, match=rf"image {re.escape(pool.paths[2])} has changed since the run started; start"):
        pool.image(2)


def test_the_view_cache_is_limited_and_changes_no_bit(paths: list[str]) -> None:
    def views(kept: ViewCache) -> list[torch.Tensor]:
        images = UnlabeledImages(UnlabeledPool(paths), CLIP_INPUTS, kept=kept)
        epochs = (images.batches(["weak"], streams, 3, 1, epoch, num_fixed_views=2) for epoch in (0, 1))
        drawn = [b["a"].views for batches in epochs for b in batches]
        return [*drawn, *images.plain(None, 2, (1,)), *images.plain(None, 2, (1,)), *images.plain()]

    streams = {"a": [Source("a", torch.arange(4), 4)]}
    unlimited, disabled, limited = ViewCache(), ViewCache(0), ViewCache(3 * 2 * 3 * 32 * 32)
    for other in (disabled, limited):
        assert all(torch.equal(a, b) for a, b in zip(views(unlimited), views(other), strict=True))
    counts = {kind: len([1 for k, _ in unlimited.views if k == kind]) for kind in ("weak", "2 views", "plain")}
    assert counts == {"weak": counts["weak"], "2 views": len(paths), "plain": len(paths)} and counts["weak"] <= 8
    assert not disabled.views and 0 < sum(view.nbytes for view in limited.views.values()) <= 3 * 2 * 3 * 32 * 32
