"""Tables of the model card: the final evaluation of both checkpoints through the ``clip`` interface."""

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
from clip.model import CLIP
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import confusion_matrix
from tabulate import tabulate

from coft.backbones.load import load_clip
from weights.photographs.captions import tokens_of
from weights.pretrain.evaluate import (
    Task,
    accuracy_of,
    digits,
    heldout_task,
    image_features,
    preprocess,
)
from weights.pretrain.heldout import development_sets
from weights.pretrain.packages import of_role

logger = logging.getLogger(__name__)

GARMENTS = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")  # a word without punctuation around it
SHOWN = 6  # largest number of unseen words in a row of the table
NEUTRAL = "the " * 16 + "{}."  # sixteen neutral tokens, the length of a learned context


def fashion(folder: Path) -> Task:
    """Read the 10,000 test images of Fashion-MNIST from the folder of its idx files."""
    pixels = _idx(folder / "t10k-images-idx3-ubyte.gz")
    labels = torch.from_numpy(_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64))
    images = torch.stack([preprocess(Image.fromarray(image)) for image in pixels])
    return Task("Fashion-MNIST", images, labels, GARMENTS, ("a photo of a {}.",))


def _idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes. The fourth byte is the number of dimensions; the sizes follow."""
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def eurosat(folder: Path) -> Task:
    """Read the 8,100 test images of EuroSAT in CoOp's layout (``2750/``, ``split_zhou_EuroSAT.json``)."""
    rows = json.loads((folder / "split_zhou_EuroSAT.json").read_text())["test"]
    names = dict(sorted({label: classname for _, label, classname in rows}.items()))
    images = torch.stack([preprocess(Image.open(folder / "2750" / path)) for path, _, _ in rows])
    labels = torch.tensor([label for _, label, _ in rows])
    return Task("EuroSAT", images, labels, list(names.values()), ("a centered satellite photo of {}.",))


def closing_tasks(cache_dir: Path, fashion_dir: Path | None, eurosat_dir: Path | None) -> Iterator[Task]:
    """Yield the data sets of the card, without those whose folder is not given."""
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


def clustering_accuracy(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Compute the accuracy in percent of k-means with one cluster per class, under the best matching to classes."""
    clusters = KMeans(classes, n_init=4, random_state=0).fit_predict(features)
    table = confusion_matrix(clusters, labels, labels=range(classes))
    rows, columns = linear_sum_assignment(-table)
    return 100 * table[rows, columns].sum() / len(labels)


def evaluate_task(model: CLIP, task: Task) -> dict[str, Any]:
    """Return a row of the table: sizes, zero-shot accuracies, also with a neutral prefix, and k-means as a baseline."""
    sample = torch.randperm(len(task.labels), generator=torch.Generator().manual_seed(0))[:4000]
    labels, classes = task.labels[sample].numpy(), len(task.classnames)
    pixels = F.avg_pool2d(task.images[sample], 4).flatten(1).numpy()
    features = image_features(model, task.images)
    prompts = {"zero-shot": task.templates, "name alone": ("{}",), "16 neutral tokens": (NEUTRAL,)}
    tasks = {name: replace(task, templates=templates) for name, templates in prompts.items()}
    return {
        "task": task.name,
        "classes": classes,
        "images": len(task.labels),
        "template": task.templates[0],
        **{name: accuracy_of(features, model, prompted) for name, prompted in tasks.items()},
        "k-means, pixels": clustering_accuracy(pixels, labels, classes),
        "k-means, features": clustering_accuracy(features[sample].numpy(), labels, classes),
    }


def coverage(names: list[str], token_ids: set[int]) -> tuple[float, list[str]]:
    """Return the percentage of tokens in names that were seen in pre-training, and the words with unseen tokens."""
    words = [word for name in names for word in WORD.findall(name.lower())]
    tokens = [token for word in words for token in tokens_of(word)]
    unseen = [word for word in sorted(set(words)) if not token_ids.issuperset(tokens_of(word))]
    return 100 * sum(token in token_ids for token in tokens) / len(tokens), unseen


def coverage_table(checkpoint: Path, names: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the rows of a table of ``coverage``, one for each list of names.

    Args:
        checkpoint: Path of the checkpoint with the vocabulary.
        names: Class names or descriptions, by source.
    """
    token_ids = set(torch.load(checkpoint, weights_only=True)["token_ids"].tolist())
    rows = []
    for source, texts in names.items():
        percent, unseen = coverage(texts, token_ids)
        shown = ", ".join(unseen[:SHOWN]) + (f" and {len(unseen) - SHOWN} more" if len(unseen) > SHOWN else "")
        row = {"names of": source, "texts": len(texts), "tokens seen": percent}
        rows.append(row | {"words with unseen tokens": shown})
    return rows


def description_texts(folder: Path) -> dict[str, list[str]]:
    """Read class names and descriptions of data sets, by source, from the files ``<dataset>.json`` of a folder."""
    texts: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        sentences_by_class = json.loads(path.read_text())
        texts[path.stem] = list(sentences_by_class)
        texts[f"{path.stem}, descriptions"] = [text for texts_of in sentences_by_class.values() for text in texts_of]
    return texts


def report(checkpoints: list[Path], tasks: list[Task]) -> list[dict[str, Any]]:
    """Evaluate every checkpoint on every task."""
    models = {path.stem: load_clip(str(path)) for path in checkpoints}
    rows = []
    for task in tasks:
        for name, model in models.items():
            rows.append({"model": name} | evaluate_task(model, task))
            logger.info("%s", rows[-1])
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Format rows as a Markdown table."""
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".1f") + "\n"
