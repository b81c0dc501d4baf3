"""Running classifiers over the unlabeled images: zero-shot logits, and what the peers think of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from tqdm import tqdm

from coft.backbones.load import fingerprint
from coft.images.unlabeled import UnlabeledPool, plain_batches
from coft.method.cleanliness import p_clean
from coft.method.parallel import SideBySide
from coft.method.peer import Classifier
from coft.method.pseudo_labels import Opinion
from coft.method.seeds import cached, correct_prior_
from coft.method.tables import Rows, chunks, each_row, map_rows

Result = TypeVar("Result")
FEATURE_CACHE = Path(__file__).resolve().parents[2] / "cache" / "features"


def mean_features(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Features of images, or the mean of the features of several views of them.

    Logits and clean log-odds are linear in the features: those of the mean are the means of the views'.

    Args:
        encode: Images (n, 3, size, size) to features (n, embed_dim).
        images: Shape (n, 3, size, size), or (n, views, 3, size, size).

    Returns:
        Shape (n, embed_dim).
    """
    if images.dim() == 4:
        return encode(images)
    return encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]).mean(dim=1)


def image_features(
    clip_model: Any,
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    views: int = 1,
    key: Sequence[int | str] = (),
) -> Tensor:
    """Image features of all unlabeled images under the frozen CLIP, kept on disk between runs.

    Args:
        clip_model: A `clip.model.CLIP`.
        pool: The images.
        cfg: See `plain_batches`.
        device: Where CLIP is.
        views: See `plain_batches`.
        key: Likewise.

    Returns:
        Features on the CPU, in order of rank, of unit length or means of such. Shape (N, embed_dim).
    """

    def encode(images: Tensor) -> Tensor:
        return F.normalize(clip_model.encode_image(images).float(), dim=-1)

    @torch.no_grad()
    def compute() -> Tensor:
        features = Rows(len(pool), cfg.OUTPUT_DIR)
        batches = plain_batches(pool, cfg, None, views, key)
        for batch in tqdm(batches, "image features", disable=None, leave=False):
            features.add(mean_features(encode, batch["all"]["view"].to(device)))
        return features.table()

    plain = (cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, pool.decoding)
    view = repr(plain if views == 1 else (*plain, views, *key, cfg.INPUT.AUGMENT, torchvision.__version__))
    batch_size = cfg.DATALOADER.TEST.BATCH_SIZE  # may change the last bits
    return cached(compute, FEATURE_CACHE, fingerprint(clip_model), pool.digest, view, str(batch_size), device.type)


def zero_shot_logits(
    clip_model: Any,
    text: Tensor,
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    views: int = 1,
    key: Sequence[int | str] = (),
) -> Tensor:
    """Logits of all unlabeled images under the frozen CLIP.

    Args:
        clip_model: A `clip.model.CLIP`.
        text: Unit-length text features. Shape (C, embed_dim).
        pool: The images.
        cfg: See `plain_batches`.
        device: Where CLIP is.
        views: See `plain_batches`.
        key: Likewise.

    Returns:
        Shape (N, C), on the CPU.
    """
    scale, vectors = float(clip_model.logit_scale.exp()), text.cpu().t()
    features = image_features(clip_model, pool, cfg, device, views, key)
    return map_rows(lambda rows: scale * rows @ vectors, features, folder=cfg.OUTPUT_DIR)


@torch.no_grad()
def classify_pool(
    classifiers: Mapping[str, nn.Module],
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    ranks: Tensor | None = None,
    side_by_side: SideBySide | None = None,
    views: int = 1,
    key: Sequence[int | str] = (),
) -> dict[str, tuple[Tensor, Tensor]]:
    """Classify unlabeled images, as the test sees them or by the mean over views, with several classifiers in one pass.

    Args:
        classifiers: By name.
        pool: The images.
        cfg: See `plain_batches`.
        device: Where the classifiers are.
        ranks: Which images; all without it.
        side_by_side: Runs the classifiers at the same time.
        views: See `plain_batches`.
        key: Likewise.

    Returns:
        For each classifier logits l+ and clean log-odds d on the CPU, each of shape (n, C), in order of `ranks`.
    """
    count = len(pool) if ranks is None else len(ranks)
    parts = {name: (Rows(count, cfg.OUTPUT_DIR), Rows(count, cfg.OUTPUT_DIR)) for name in classifiers}
    for batch in tqdm(plain_batches(pool, cfg, ranks, views, key), "label images", disable=None, leave=False):
        images = batch["all"]["view"].to(device)
        for name, answers in answers_of(classifiers, images, side_by_side).items():
            for part, numbers in zip(parts[name], answers, strict=True):
                part.add(numbers)
    return {name: (logits.table(), log_odds.table()) for name, (logits, log_odds) in parts.items()}


@torch.no_grad()
def encode_pool(
    classifiers: Mapping[str, Classifier],
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    side_by_side: SideBySide | None = None,
    views: int = 1,
    key: Sequence[int | str] = (),
) -> dict[str, Tensor]:
    """Features of all unlabeled images, for heads that change while the encoders do not.

    Args:
        classifiers: By name.
        pool: The images.
        cfg: See `plain_batches`.
        device: Where the classifiers are.
        side_by_side: Runs the classifiers at the same time.
        views: See `plain_batches`.
        key: Likewise.

    Returns:
        Features by name, on the CPU, of unit length or means of such, in order of rank. Shape (N, embed_dim) each.
    """
    parts = {name: Rows(len(pool), cfg.OUTPUT_DIR) for name in classifiers}
    for batch in tqdm(plain_batches(pool, cfg, None, views, key), "label images", disable=None, leave=False):
        images = dict.fromkeys(classifiers, batch["all"]["view"].to(device))
        encode = partial(_features, classifiers, images)
        for name, rows in without_gradients(encode, list(classifiers), device.type, side_by_side).items():
            parts[name].add(rows)
    return {name: part.table() for name, part in parts.items()}


@torch.no_grad()
def classify_features(
    classifiers: Mapping[str, Classifier], features: Mapping[str, Tensor], device: torch.device, folder: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Classify images by their features: `classify_pool`, but for the encoding.

    Args:
        classifiers: By name.
        features: By name, see `encode_pool`. Shape (N, embed_dim) each.
        device: Where the classifiers are.
        folder: See `new_table`.

    Returns:
        As `classify_pool`.
    """
    found = {}
    for name, table in features.items():
        logits, log_odds = Rows(len(table), folder), Rows(len(table), folder)
        for (rows,) in chunks(table):
            answer = classifiers[name].classify(rows.to(device))
            logits.add(answer[0])
            log_odds.add(answer[1])
        found[name] = logits.table(), log_odds.table()
    return found


def pool_features(
    classifiers: Mapping[str, Classifier],
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    ranks: Mapping[str, Tensor],
    side_by_side: SideBySide | None = None,
    views: int = 1,
    key: Sequence[int | str] = (),
) -> dict[str, Tensor]:
    """Each classifier's features of unlabeled images of its own, as the test sees them or the mean over views.

    Args:
        classifiers: By name.
        pool: The images.
        cfg: See `plain_batches`.
        device: Where the classifiers are.
        ranks: Which images, by the classifier's name. Shape (n,) each.
        side_by_side: Runs the classifiers at the same time.
        views: See `plain_batches`.
        key: Likewise.

    Returns:
        Features by name, of unit length or means of such, in order of `ranks`. Shape (n, embed_dim), fp32.
    """
    names = list(classifiers)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for batches in zip_longest(*(plain_batches(pool, cfg, ranks[name], views, key) for name in names)):
        images = {n: b["all"]["view"].to(device) for n, b in zip(names, batches, strict=True) if b is not None}
        features = partial(_features, classifiers, images)
        for name, rows in without_gradients(features, list(images), device.type, side_by_side).items():
            parts[name].append(rows)
    return {name: torch.cat(parts.pop(name)) for name in names}


def _features(classifiers: Mapping[str, Classifier], images: Mapping[str, Tensor], name: str) -> Tensor:
    return mean_features(classifiers[name].features, images[name]).float()


def answers_of(
    classifiers: Mapping[str, nn.Module], images: Tensor, side_by_side: SideBySide | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Classify a batch with several classifiers, without gradients, in the precision of the autocast it is called in.

    Args:
        classifiers: By name.
        images: Shape (n, 3, size, size), or (n, views, 3, size, size).
        side_by_side: Runs the classifiers at the same time.

    Returns:
        For each classifier logits l+ and clean log-odds d, each of shape (n, C).
    """

    def answer(name: str) -> tuple[Tensor, Tensor]:
        classifier: Any = classifiers[name]
        if images.dim() == 4:
            return classifier(images)
        return classifier.classify(mean_features(classifier.features, images))

    return without_gradients(answer, list(classifiers), images.device.type, side_by_side)


def without_gradients(
    function: Callable[[str], Result], names: Sequence[str], kind: str, side_by_side: SideBySide | None
) -> dict[str, Result]:
    """Call a function for several names, without gradients, in the precision of the autocast this is called in.

    Args:
        function: May be called in another thread.
        names: What it is called with.
        kind: Type of the device.
        side_by_side: Makes the calls at the same time.

    Returns:
        What it returned, by name.
    """
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    @torch.no_grad()
    def call(name: str) -> Result:
        with torch.autocast(kind, dtype=dtype, enabled=enabled):  # it is each thread's own, as is no_grad
            return function(name)

    results = [call(name) for name in names] if side_by_side is None else side_by_side.map(call, names)
    return dict(zip(names, results, strict=True))


# Scores of the classes: the key CLASSIFY names one of these, functions of logits l+ and clean log-odds d.
SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "joint": lambda logits, log_odds: (logits + log_odds) / 2,  # softmax: geometric mean of p and coupled p_clean
    "clean": lambda logits, log_odds: log_odds,
    "positive": lambda logits, log_odds: logits,
}


def mean_log_probabilities(views: Sequence[tuple[Tensor, Tensor]], classify: str, folder: str) -> Tensor:
    """Log of the mean of several classifiers' probabilities.

    Args:
        views: Logits l+ and clean log-odds d of each classifier, shape (N, C) each.
        classify: A name of `SCORES`.
        folder: See `new_table`.

    Returns:
        Shape (N, C), fp64.
    """

    def compute(*rows: Tensor) -> Tensor:
        pairs = zip(rows[::2], rows[1::2], strict=True)
        each = [SCORES[classify](logits, log_odds).double().softmax(dim=1) for logits, log_odds in pairs]
        return torch.stack(each).mean(dim=0).clamp_min(1e-30).log()

    return map_rows(compute, *(table for pair in views for table in pair), folder=folder)


def opinion(logits: Tensor, log_odds: Tensor, tau: float, rule: str, classify: str) -> Opinion:
    """Form a peer's opinion of all unlabeled images, in place: there may be no room for another two tables.

    Args:
        logits: l+. Shape (N, C). Becomes the probabilities.
        log_odds: d. Shape (N, C). Becomes p_clean.
        tau: Strength of the prior correction, of the labels and of what judges them.
        rule: Clean rule, see `p_clean`.
        classify: A name of `SCORES`.
    """
    correct_prior_(logits, tau)
    correct_prior_(log_odds, tau)
    labels = each_row(lambda rows, odds: SCORES[classify](rows, odds).argmax(dim=1), logits, log_odds)
    for rows, odds in chunks(logits, log_odds):
        rows.copy_(rows.softmax(dim=1))
        odds.copy_(p_clean(odds, rule))
    return Opinion(labels, logits, log_odds)
