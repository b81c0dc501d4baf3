"""What a run keeps for its report beside the tables that people read: two small files in its folder `report`.

Rows are in the order of `pseudo_labels.csv`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from coft.core.errors import UserError
from coft.core.files import replacing, utf8_path
from coft.core.tables import each_row
from coft.core.world import ALONE, World
from coft.labelling.neighbours import centred, nearest

FOLDER, FROZEN, PEERS = "report", "frozen.safetensors", "peers.safetensors"
VERSION = "1"
FEW, MOST, OF_CLASS = 5_000, 20_000, 20  # images whose features are kept: at least, at most, and for each class
ANCHORS = 20_000  # images among which the most alike one is looked for; with more, the time would grow with the square

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """What is known of the unlabeled images beside their pseudo-labels.

    Attributes:
        classes: C names, by label.
        zero_shot: Label of each image by the frozen CLIP. Shape (N,).
        nearest: The most alike other image, by the frozen CLIP. Shape (N,).
        likeness: Cosine of the two. Shape (N,).
        sample: Images whose features are kept. Shape (n,).
        features: Theirs, of the frozen CLIP. Shape (n, k).
        text: Unit-length text features of the classes. Shape (C, k).
        peers: Label of each image by each peer, of the last labelling. Shape (N,) each.
    """

    classes: list[str]
    zero_shot: np.ndarray
    nearest: np.ndarray
    likeness: np.ndarray
    sample: np.ndarray
    features: np.ndarray
    text: np.ndarray
    peers: Arrays


def write_frozen(folder: Path, classes: Sequence[str], features: Tensor, text: Tensor, world: World = ALONE) -> None:
    """Write what the frozen CLIP knows of the unlabeled images.

    Args:
        folder: Of the run.
        classes: C names.
        features: Of all images. Shape (N, k).
        text: Unit-length text features of the classes. Shape (C, k).
        world: Its ranks have a part of the features each, and one of them writes.
    """
    import torch

    vectors, images = text.float().cpu().t(), world.total(len(features))
    sample = evenly(images, min(MOST, max(FEW, OF_CLASS * len(classes))))
    alike, cosine = most_alike(features, world)
    zero_shot = world.gather(each_row(lambda rows: (rows.float() @ vectors).argmax(dim=1), features))
    kept = world.take(features, torch.from_numpy(sample), images)
    if not world.writes:
        return
    arrays: Arrays = {
        "zero_shot": zero_shot.numpy().astype(np.int32),
        "nearest": alike.astype(np.int32),
        "likeness": cosine.astype(np.float32),
        "sample": sample.astype(np.int32),
        "features": kept.numpy().astype(np.float16),
        "text": text.float().cpu().numpy(),
    }
    _save(folder / FOLDER / FROZEN, arrays, {"classes": json.dumps(list(classes))})


def write_peers(folder: Path, labels: Mapping[str, Tensor]) -> None:
    """Write each peer's labels of all images, shape (N,) each."""
    _save(folder / FOLDER / PEERS, {name: own.numpy().astype(np.int32) for name, own in labels.items()}, {})


def evenly(count: int, most: int) -> np.ndarray:
    """Numbers of at most so many images of all, evenly spaced."""
    size = min(count, most)
    return np.arange(size) * count // max(1, size)


def most_alike(features: Tensor, world: World = ALONE) -> tuple[np.ndarray, np.ndarray]:
    """The most alike other image of each and their cosine, among `ANCHORS` images. Shape (N,) each.

    An image that has no other has itself, with cosine 0.
    """
    images = world.total(len(features))
    if images < 2:
        return np.zeros(images, dtype=np.int64), np.zeros(images)
    import torch

    rows = torch.nn.functional.normalize(features.float(), dim=1)
    known = torch.from_numpy(evenly(images, ANCHORS))
    cosine, place = nearest(rows, world.take(rows, known, images), min(2, len(known)))
    others = known[place]
    own = others[:, :1] == torch.arange(images)[world.part(images)].unsqueeze(1)  # the nearest is itself, as a rule
    column = own.long()
    alike, found = (world.gather(table.gather(1, column)[:, 0]) for table in (others, cosine))
    return alike.numpy(), found.numpy()


def read_evidence(folder: Path) -> Evidence | None:
    """Read what a run has kept for its report; None if it has kept nothing.

    Raises:
        UserError: If a file is damaged, or of another version.
    """
    if not (folder / FOLDER / FROZEN).is_file():
        return None
    arrays, metadata = _load(folder / FOLDER / FROZEN)
    peers = _load(folder / FOLDER / PEERS)[0] if (folder / FOLDER / PEERS).is_file() else {}
    try:
        found = Evidence(json.loads(metadata["classes"]), **arrays, peers=peers)
        found.features[:1].astype(np.float32) @ found.text[:1].T
        _check(found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FOLDER}: not what this version keeps for a report; run again") from error
    return found


def _check(found: Evidence) -> None:
    count, classes = len(found.zero_shot), len(found.classes)
    columns = {"zero_shot": classes, "nearest": count, **dict.fromkeys(found.peers, classes)}
    for name, most in columns.items():
        values = found.peers.get(name, getattr(found, name, None))
        if values is None or values.shape != (count,) or (count and not 0 <= values.min() <= values.max() < most):
            raise ValueError(name)
    if len(found.text) != classes or len(found.features) != len(found.sample) or found.likeness.shape != (count,):
        raise ValueError("shapes")
    if len(found.sample) and not 0 <= found.sample.min() <= found.sample.max() < count:
        raise ValueError("sample")


def _save(path: Path, arrays: Arrays, metadata: dict[str, str]) -> None:
    with replacing(path) as draft:
        # not save_file, which makes files that no other user may read
        draft.write_bytes(save(arrays, {"version": VERSION, **metadata}))


def _load(path: Path) -> tuple[Arrays, dict[str, str]]:
    try:
        with utf8_path(path) as named, safe_open(named, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("version") != VERSION:
                raise UserError(f"{path}: written by another version of the project; run again, in another folder")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it, and the report goes without") from error


def centred_sample(found: Evidence) -> Tensor:
    """Features of the sample less their mean, of unit length. Shape (n, k)."""
    import torch

    rows = torch.from_numpy(found.features.astype(np.float32))
    return centred(rows, rows.mean(dim=0))
