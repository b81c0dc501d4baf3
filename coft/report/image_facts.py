"""Facts about the pool that a run stores for its report, beside its tables: two small files in the folder `report`.

Images are in the order of `pseudo_labels.csv`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from coft.core.errors import UserError
from coft.core.files import replacing
from coft.core.schemas import List, Record, Text
from coft.core.table import Table
from coft.core.tensors import FINITE, INDEX, load_safetensors
from coft.core.untrusted import parse_json
from coft.labelling.neighbours import centred

FOLDER, FROZEN, PEERS = "report", "frozen.safetensors", "peers.safetensors"
VERSION = "1"
MIN_SAMPLE, MAX_SAMPLE, SAMPLE_PER_CLASS = 5_000, 20_000, 20  # images whose features are kept: 20 per class, in a range

FROZEN_FORM = Record(
    {"zero_shot": INDEX, "sample": INDEX, "features": FINITE, "text": FINITE},
    {"nearest": INDEX, "likeness": FINITE},  # earlier versions wrote them
)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Stored facts about a run's unlabeled images, in addition to their pseudo-labels.

    Attributes:
        classes: C class names, by label.
        zero_shot: Label that the frozen CLIP predicts for each image. Shape (N,).
        sample: Indices of the images whose features are stored. Shape (n,).
        features: The frozen CLIP's features of these images. Shape (n, k).
        text: Unit-length text features of the classes. Shape (C, k).
        peers: Labels that each peer predicts at the last labelling, by peer. Shape (N,) each.
        scale: CLIP's logit scale.
    """

    classes: list[str]
    zero_shot: np.ndarray
    sample: np.ndarray
    features: np.ndarray
    text: np.ndarray
    peers: Arrays
    scale: float


def write_frozen(folder: Path, classes: Sequence[str], features: Table, text: Tensor, scale: float) -> None:
    """Write the frozen CLIP's facts about the unlabeled images: all of `Evidence` but `peers`.

    Args:
        folder: Output folder of the run.
        classes: C class names, by label.
        features: Features of all images. Shape (N, k).
        text: Unit-length text features of the classes. Shape (C, k).
        scale: CLIP's logit scale.
    """
    vectors = text.float().cpu().t()
    sample = evenly(len(features), min(MAX_SAMPLE, max(MIN_SAMPLE, SAMPLE_PER_CLASS * len(classes))))
    zero_shot = features.map(lambda rows: (rows.float() @ vectors).argmax(dim=1)).all()
    arrays: Arrays = {
        "zero_shot": zero_shot.numpy().astype(np.int32),
        "sample": sample.astype(np.int32),
        "features": features.at(torch.from_numpy(sample)).numpy().astype(np.float16),
        "text": text.float().cpu().numpy(),
    }
    _save(folder / FOLDER / FROZEN, arrays, {"classes": json.dumps(list(classes)), "scale": repr(float(scale))})


def write_peers(folder: Path, labels: Mapping[str, Tensor]) -> None:
    """Write the labels that each peer predicts.

    Args:
        folder: Output folder of the run.
        labels: Labels by peer. Shape (N,) each.
    """
    arrays = {peer: peer_labels.numpy().astype(np.int32) for peer, peer_labels in labels.items()}
    _save(folder / FOLDER / PEERS, arrays, {})


def evenly(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` evenly spaced indices of `count` images."""
    size = min(count, limit)
    return np.arange(size) * count // max(1, size)


def read_evidence(folder: Path) -> Evidence | None:
    """Read the facts that a run stored for its report; None if it stored none.

    Args:
        folder: Output folder of the run.

    Raises:
        UserError: If a file is damaged or of another version.
    """
    if not (folder / FOLDER / FROZEN).is_file():
        return None
    arrays, metadata = _load(folder / FOLDER / FROZEN)
    peers = _load(folder / FOLDER / PEERS)[0] if (folder / FOLDER / PEERS).is_file() else {}
    try:
        scale = float(metadata["scale"])
        classes = parse_json(metadata["classes"])
        List(Text(10_000, lines=True), 1).check(classes, "classes")
        evidence = Evidence(classes, **arrays, peers=peers, scale=scale)
        evidence.features[:1].astype(np.float32) @ evidence.text[:1].T
        _check(evidence)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FOLDER}: not what this version stores for a report; run again") from error
    return evidence


def _check(evidence: Evidence) -> None:
    count, classes, sample = len(evidence.zero_shot), len(evidence.classes), evidence.sample
    for name, labels in {"zero_shot": evidence.zero_shot, **evidence.peers}.items():
        if labels.shape != (count,) or (count and not 0 <= labels.min() <= labels.max() < classes):
            raise ValueError(name)
    if len(evidence.text) != classes or len(evidence.features) != len(sample):
        raise ValueError("shapes")
    if len(sample) and not 0 <= sample.min() <= sample.max() < count:
        raise ValueError("sample")


def _save(path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
    with replacing(path) as draft:
        # not save_file, which creates files that only their owner may read
        draft.write_bytes(save(arrays, {"version": VERSION, **metadata}))


def _load(path: Path) -> tuple[Arrays, dict[str, str]]:
    try:
        tensors, metadata = load_safetensors(path)
        (FROZEN_FORM if path.name == FROZEN else Record(others=INDEX)).check(tensors)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name not in FROZEN_FORM.optional}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it to write the report without these facts") from error
    if metadata.get("version") != VERSION:
        raise UserError(f"{path}: written by another version of the project; run again, in another folder")
    return arrays, metadata


def centred_sample(evidence: Evidence) -> Tensor:
    """Return the features of the sample, centred and normalised to unit length. Shape (n, k)."""
    rows = torch.from_numpy(evidence.features.astype(np.float32))
    return centred(rows, rows.mean(dim=0))
