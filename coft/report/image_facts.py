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
from coft.labelling.neighbours import centred, nearest

FOLDER, FROZEN, PEERS = "report", "frozen.safetensors", "peers.safetensors"
VERSION = "1"
MIN_SAMPLE, MAX_SAMPLE, SAMPLE_PER_CLASS = 5_000, 20_000, 20  # images whose features are kept: 20 per class, in a range
ANCHORS = 20_000  # images among which neighbours are searched; with all of them, time would be quadratic in N

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Stored facts about a run's unlabeled images, in addition to their pseudo-labels.

    Attributes:
        classes: C class names, by label.
        zero_shot: Label that the frozen CLIP predicts for each image. Shape (N,).
        nearest: Index of each image's nearest other image among the anchors, by the frozen CLIP. Shape (N,).
        likeness: Cosine similarity of each image and that other image. Shape (N,).
        sample: Indices of the images whose features are stored. Shape (n,).
        features: The frozen CLIP's features of these images. Shape (n, k).
        text: Unit-length text features of the classes. Shape (C, k).
        peers: Labels that each peer predicts at the last labelling, by peer. Shape (N,) each.
        scale: CLIP's logit scale.
    """

    classes: list[str]
    zero_shot: np.ndarray
    nearest: np.ndarray
    likeness: np.ndarray
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
    alike, cosine = nearest_other(features)
    zero_shot = features.map(lambda rows: (rows.float() @ vectors).argmax(dim=1)).all()
    arrays: Arrays = {
        "zero_shot": zero_shot.numpy().astype(np.int32),
        "nearest": alike.astype(np.int32),
        "likeness": cosine.astype(np.float32),
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


def nearest_other(features: Table) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other image of each image among at most `ANCHORS` evenly spaced ones.

    Args:
        features: Features of all images. Shape (N, k).

    Returns:
        Index of the other image, and the cosine similarity of the two. Shape (N,) each. A single image gets itself,
        with similarity 0.
    """
    count = len(features)
    if count < 2:
        return np.zeros(count, dtype=np.int64), np.zeros(count)
    index = torch.from_numpy(evenly(count, ANCHORS))
    unit = features.map(lambda rows: torch.nn.functional.normalize(rows.float(), dim=1))
    anchors = unit.at(index)

    def other(rows: Tensor, number: Tensor) -> Tensor:
        """Return the nearest anchor that is not the image itself, and its cosine similarity. Shape (n, 2), fp64."""
        cosine, place = nearest(rows, anchors, min(2, len(index)))
        neighbours = index[place]
        column = (neighbours[:, :1] == number.unsqueeze(1)).long()  # an anchor is usually its own nearest neighbour
        return torch.cat([values.gather(1, column).double() for values in (neighbours, cosine)], dim=1)

    alike, cosine = unit.map(other, torch.arange(count)).all().unbind(dim=1)
    return alike.long().numpy(), cosine.float().numpy()


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
    columns = {"zero_shot": classes, "nearest": count, **dict.fromkeys(evidence.peers, classes)}
    for name, limit in columns.items():
        values = evidence.peers.get(name, getattr(evidence, name, None))
        if values is None or values.shape != (count,) or (count and not 0 <= values.min() <= values.max() < limit):
            raise ValueError(name)
    if len(evidence.text) != classes or len(evidence.features) != len(sample) or evidence.likeness.shape != (count,):
        raise ValueError("shapes")
    if len(sample) and not 0 <= sample.min() <= sample.max() < count:
        raise ValueError("sample")


def _save(path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
    with replacing(path) as draft:
        # not save_file, which creates files that only their owner may read
        draft.write_bytes(save(arrays, {"version": VERSION, **metadata}))


def _load(path: Path) -> tuple[Arrays, dict[str, str]]:
    forms = dict.fromkeys(("zero_shot", "nearest", "sample"), INDEX)
    forms |= dict.fromkeys(("likeness", "features", "text"), FINITE)
    try:
        tensors, metadata = load_safetensors(path)
        (Record(forms) if path.name == FROZEN else Record(others=INDEX)).check(tensors)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it to write the report without these facts") from error
    if metadata.get("version") != VERSION:
        raise UserError(f"{path}: written by another version of the project; run again, in another folder")
    return arrays, metadata


def centred_sample(evidence: Evidence) -> Tensor:
    """Return the features of the sample, centred and normalised to unit length. Shape (n, k)."""
    rows = torch.from_numpy(evidence.features.astype(np.float32))
    return centred(rows, rows.mean(dim=0))
