"""Running classifiers over the unlabeled images: zero-shot logits, and what the peers think of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .cleanliness import p_clean
from .clip_models import fingerprint
from .pseudo_labels import Opinion
from .seeds import cached, correct_prior
from .unlabeled import UnlabeledPool, plain_batches

FEATURE_CACHE = Path(__file__).resolve().parents[2] / "cache" / "features"


def image_features(clip_model: Any, pool: UnlabeledPool, cfg: Any, device: torch.device) -> Tensor:
    """Image features of all unlabeled images under the frozen CLIP, kept on disk between runs.

    Returns:
        Unit-length features on the CPU, in order of rank. Shape (N, embed_dim).
    """

    @torch.no_grad()
    def compute() -> Tensor:
        batches = tqdm(plain_batches(pool, cfg), "image features", disable=None, leave=False)
        features = [clip_model.encode_image(batch["all"]["view"].to(device)).float().cpu() for batch in batches]
        return F.normalize(torch.cat(features), dim=-1)

    view = (cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    batch_size = cfg.DATALOADER.TEST.BATCH_SIZE  # may change the last bits
    return cached(
        compute, FEATURE_CACHE, fingerprint(clip_model), pool.digest, repr(view), str(batch_size), device.type
    )


def zero_shot_logits(clip_model: Any, text: Tensor, pool: UnlabeledPool, cfg: Any, device: torch.device) -> Tensor:
    """Logits of all unlabeled images under the frozen CLIP.

    Args:
        clip_model: A `clip.model.CLIP`.
        text: Unit-length text features. Shape (C, embed_dim).
        pool: The images.
        cfg: See `plain_batches`.
        device: Where CLIP is.

    Returns:
        Shape (N, C), on the CPU.
    """
    return float(clip_model.logit_scale.exp()) * image_features(clip_model, pool, cfg, device) @ text.cpu().t()


@torch.no_grad()
def classify_pool(
    classifiers: Mapping[str, nn.Module],
    pool: UnlabeledPool,
    cfg: Any,
    device: torch.device,
    ranks: Tensor | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Classify unlabeled images, as the test sees them, with several classifiers in one pass.

    Returns:
        For each classifier logits l+ and clean log-odds d on the CPU, each of shape (n, C), in order of `ranks`.
    """
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in classifiers}
    for batch in tqdm(plain_batches(pool, cfg, ranks), "label images", disable=None, leave=False):
        images = batch["all"]["view"].to(device)
        for name, classifier in classifiers.items():
            logits, log_odds = classifier(images)
            parts[name].append((logits.cpu(), log_odds.cpu()))
    return {name: (torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows])) for name, rows in parts.items()}


def opinion(logits: Tensor, log_odds: Tensor, tau: float, rule: str) -> Opinion:
    """Form a peer's opinion of all unlabeled images.

    Args:
        logits: l+. Shape (N, C).
        log_odds: d. Shape (N, C).
        tau: Strength of the prior correction, of the labels and of what judges them.
        rule: Clean rule, see `p_clean`.
    """
    probabilities = correct_prior(logits, tau).softmax(dim=1)
    return Opinion(probabilities.argmax(dim=1), probabilities, p_clean(correct_prior(log_odds, tau), rule))
