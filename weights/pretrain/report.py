"""The closing evaluation of both checkpoints, through the stock ``clip`` interface: a table for the model card."""

import gzip
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from clip.model import CLIP, build_model
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

from coft.backbones.embedded import load_embedded
from weights.pretrain.captions import tokenizer
from weights.pretrain.evaluate import (
    Task,
    accuracy_of,
    digits,
    heldout_task,
    image_features,
    prepared,
)
from weights.pretrain.heldout import development_sets
from weights.pretrain.packages import of_role

logger = logging.getLogger(__name__)

GARMENTS = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")  # without the punctuation around it
SHOWN = 6  # unseen words in a row of the table
NEUTRAL = "the " * 16 + "{}."  # sixteen tokens that say nothing; as many as a learned context has


def fashion(folder: Path) -> Task:
    """Fashion-MNIST's 10,000 test images from its four idx files' folder."""
    pixels = _idx(folder / "t10k-images-idx3-ubyte.gz")
    labels = torch.from_numpy(_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    images = torch.stack([prepared(Image.fromarray(image)) for image in pixels])
    return Task("Fashion-MNIST", images, labels, GARMENTS, ("a photo of a {}.",))


def _idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes: four header bytes, of which the last is the number of dimensions, then sizes."""
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def eurosat(folder: Path) -> Task:
    """EuroSAT's 8,100 test images in CoOp's layout (``2750/``, ``split_zhou_EuroSAT.json``)."""
    rows = json.loads((folder / "split_zhou_EuroSAT.json").read_text())["test"]
    names = dict(sorted({label: classname for _, label, classname in rows}.items()))
    images = torch.stack([prepared(Image.open(folder / "2750" / path)) for path, _, _ in rows])
    labels = torch.tensor([label for _, label, _ in rows])
    return Task("EuroSAT", images, labels, list(names.values()), ("a centered satellite photo of {}.",))


def closing_tasks(cache_dir: Path, fashion_dir: Path | None, eurosat_dir: Path | None) -> Iterator[Task]:
    """Every data set of the card; those without a folder are left out."""
    yield digits()
    icons = heldout_task("icons", cache_dir)
    yield icons
    others = frozenset(p.name for p in of_role("heldout_icons")) - development_sets()
    yield replace(heldout_task("icons", cache_dir, others), name="icons, without development sets")
    yield heldout_task("emoji", cache_dir)
    if fashion_dir:
        yield fashion(fashion_dir)
    if eurosat_dir:
        yield eurosat(eurosat_dir)


def clustering_accuracy(features: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> float:
    """k-means with as many clusters as classes, each cluster matched to the class that suits best; percent."""
    clusters = KMeans(classes, n_init=4, random_state=seed).fit_predict(features)
    table = np.zeros((classes, classes), int)
    np.add.at(table, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(-table)
    return 100 * table[rows, columns].sum() / len(labels)


def evaluated(model: CLIP, task: Task) -> dict[str, Any]:
    """A row of the table: sizes, zero-shot, zero-shot behind a neutral prefix, and the k-means yardsticks."""
    some = torch.randperm(len(task.labels), generator=torch.Generator().manual_seed(0))[:4000]
    labels, classes = task.labels[some].numpy(), len(task.classnames)
    pixels = F.avg_pool2d(task.images[some], 4).flatten(1).numpy()
    features = image_features(model, task.images)
    prompts = {"zero-shot": task.templates, "name alone": ("{}",), "16 neutral tokens": (NEUTRAL,)}
    return {
        "task": task.name,
        "classes": classes,
        "images": len(task.labels),
        "template": task.templates[0],
        **{name: accuracy_of(features, model, replace(task, templates=t)) for name, t in prompts.items()},
        "k-means, pixels": clustering_accuracy(pixels, labels, classes),
        "k-means, features": clustering_accuracy(features[some].numpy(), labels, classes),
    }


def coverage(names: list[str], token_ids: set[int]) -> tuple[float, list[str]]:
    """How much of some names pre-training has seen: percent of their words' tokens, and the words with others."""
    words = [word for name in names for word in WORD.findall(name.lower())]
    tokens = [token for word in words for token in tokenizer().encode(word)]
    unseen = [word for word in sorted(set(words)) if not token_ids.issuperset(tokenizer().encode(word))]
    return 100 * sum(token in token_ids for token in tokens) / len(tokens), unseen


def covered(checkpoint: Path, names: dict[str, list[str]]) -> list[dict[str, Any]]:
    """A table of ``coverage``: one row per list of names.

    Args:
        checkpoint: Whose vocabulary.
        names: Class names or descriptions by what they are of.
    """
    token_ids = set(torch.load(checkpoint, weights_only=True)["token_ids"].tolist())
    rows = []
    for what, texts in names.items():
        percent, unseen = coverage(texts, token_ids)
        shown = ", ".join(unseen[:SHOWN]) + (f" and {len(unseen) - SHOWN} more" if len(unseen) > SHOWN else "")
        rows.append({"names of": what, "texts": len(texts), "tokens seen": percent, "words with unseen tokens": shown})
    return rows


def described(folder: Path) -> dict[str, list[str]]:
    """Class names and descriptions of the data sets, from ``<dataset>.json``: lists of texts by class name."""
    texts: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        texts |= {path.stem: list(found), f"{path.stem}, descriptions": [t for of in found.values() for t in of]}
    return texts


def report(checkpoints: list[Path], tasks: list[Task]) -> list[dict[str, Any]]:
    """Evaluate every checkpoint on every task."""
    models = {path.stem: build_model(load_embedded(path)).float().eval() for path in checkpoints}
    rows = []
    for task in tasks:
        for name, model in models.items():
            rows.append({"model": name} | evaluated(model, task))
            logger.info("%s", rows[-1])
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
