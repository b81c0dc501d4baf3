"""Tables of the model card of the photograph CLIPs: nearest classes of words, and zero-shot accuracies."""

from __future__ import annotations

import json
import logging
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from tabulate import tabulate
from timm.data import ImageNetInfo
from torch import Tensor

from coft.backbones.open_clip_models import load_open_clip
from coft.backbones.prompts import template_features
from coft.core.errors import UserError
from coft.images.views import Inputs, normalize, plain_view
from weights.photographs.build import Builder, Lexicon
from weights.photographs.checkpoint import SIZE
from weights.photographs.teacher import PHOTO

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
NO_CLASSES = """deer, giraffe, dolphin, horse, cow, crow, frog, tulip, rose, sunflower, pear, forest, glacier, street,
skyscraper, helicopter, sailboat, bicycle, doctor, pancake"""  # words that name no ImageNet class
SETS = {  # development sets of photographs and similar images, with arguments for scripts/run.sh ZeroshotCLIP
    "CIFAR-10": ("cifar10",),
    "Intel scenes": ("intel",),
    "PACS cartoon": ("pacs", "DATASET.DOMAIN", "cartoon"),
    "EuroSAT": ("eurosat",),
}
DRAWS = 20  # number of random choices of other words for all classes


def nearest_classes(folder: Path, vectors: Tensor, names: Sequence[str]) -> str:
    """Format a table of names with the three nearest ImageNet classes and their cosines.

    Args:
        folder: Folder of the CLIP.
        vectors: Vectors of ImageNet's classes in its space. Shape (1000, k).
        names: Names to look up.
    """
    info = ImageNetInfo()
    classes = [info.index_to_description(label).split(",")[0] for label in range(len(vectors))]
    model = load_open_clip(f"open_clip:{folder}")
    similar = template_features(model, names, PHOTO) @ vectors.t()
    rows = []
    for name, row in zip(names, similar, strict=True):
        best = row.topk(3)
        nearest = ", ".join(
            f"{classes[i]} ({value:.2f})" for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )
        rows.append([name, nearest])
    return tabulate(rows, headers=["name", "nearest classes of ImageNet (cosine)"], tablefmt="github")


def zero_shot(backbones: Sequence[str], data: Path) -> dict[tuple[str, str], float]:
    """Measure zero-shot accuracies in percent, by set and backbone. Sets missing in the data folder are left out."""
    accuracies = {}
    for title, words in SETS.items():
        if not (data / words[0]).is_dir():
            log.warning("%s is not in %s; left out", title, data)
            continue
        for backbone in backbones:
            accuracies[title, backbone] = _accuracy(backbone, data, words)
    return accuracies


def _accuracy(backbone: str, data: Path, words: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "scripts/launch.py", "ZeroshotCLIP", words[0], "--backbone", backbone]
        command += ["--data", str(data.resolve()), "--output-dir", output, *words[1:]]
        process = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"zero-shot on {words[0]}: {reason}")
        summary: dict[str, Any] = json.loads((Path(output) / "summary.json").read_text(encoding="utf-8"))
    return float(summary["results"]["accuracy_test"])


def by_other_words(folder: Path, data: Path, lexicon: Lexicon) -> tuple[float, float, list[float]]:
    """Measure accuracies on CIFAR-10's test images with its class names, and with other words for the classes.

    Args:
        folder: Folder of the CLIP.
        data: Folder of all data sets.
        lexicon: WordNet. The other words of a class are the lemmas of its most frequent meaning.

    Returns:
        Accuracy in percent with the class names, with the average of all other words, and with one random word for each
        class, `DRAWS` times.
    """
    model: Any = load_open_clip(f"open_clip:{folder}")
    class_folders = sorted(path for path in (data / "cifar10" / "test").iterdir() if path.is_dir())
    files = [(path, label) for label, parent in enumerate(class_folders) for path in sorted(parent.iterdir())]
    images = image_features(model, [path for path, _ in files])
    labels = torch.tensor([label for _, label in files])

    def accuracy(names: Sequence[Sequence[str]]) -> float:
        means = [template_features(model, class_names, PHOTO).mean(dim=0) for class_names in names]
        text = F.normalize(torch.stack(means), dim=1)
        return 100 * ((images @ text.t()).argmax(dim=1) == labels).float().mean().item()

    names = [class_folder.name for class_folder in class_folders]
    words = [other_lemmas(name, lexicon) for name in names]
    source = random.Random(0)
    drawn_accuracies = [accuracy([[source.choice(other)] for other in words]) for _ in range(DRAWS)]
    return accuracy([[name] for name in names]), accuracy(words), drawn_accuracies


def other_lemmas(name: str, lexicon: Lexicon) -> list[str]:
    """Return WordNet's other words for the most frequent meaning of a name; the name itself if there are none."""
    offset = max(lexicon.meanings[name], key=lambda meaning: meaning[1])[0]
    return [word for word in lexicon.nouns[offset].names if word.lower() != name] or [name]


@torch.no_grad()
def image_features(model: Any, files: Sequence[Path]) -> Tensor:
    """Compute unit-length features of image files. Shape (n, k)."""
    inputs = Inputs(SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
    view, floats = plain_view(inputs), normalize(inputs)
    parts = [files[start : start + 64] for start in range(0, len(files), 64)]
    batches = (torch.stack([view(Image.open(path).convert("RGB")) for path in part]) for part in parts)
    return torch.cat([F.normalize(model.encode_image(floats(batch)), dim=1) for batch in batches])


def accuracy_table(accuracies: dict[tuple[str, str], float], backbones: Sequence[str]) -> str:
    """Format a table of accuracies, with a row for each set and a column for each backbone."""
    titles = list(dict.fromkeys(title for title, _ in accuracies))
    rows = [[title, *(f"{accuracies[title, backbone]:.1f}" for backbone in backbones)] for title in titles]
    return tabulate(rows, headers=["test accuracy, %", *backbones], tablefmt="github", disable_numparse=True)


def report(builder: Builder, names: Sequence[str], data: Path | None) -> str:
    """Format all tables of some CLIPs as Markdown.

    Args:
        builder: Builder that has built the CLIPs.
        names: Names of the CLIPs.
        data: Folder of all data sets, for accuracies; None leaves them out.
    """
    lexicon, parts = builder.lexicon(), list[str]()
    for name in names:
        size = sum(path.stat().st_size for path in (builder.out / name).iterdir()) / 1e6
        table = nearest_classes(builder.out / name, builder.classes(name), re.split(r",\s", NO_CLASSES))
        parts.append(f"## {name} ({size:.1f} MB)\n\n{table}\n")
        if data and (data / "cifar10" / "test").is_dir():
            by_class_name, averaged, drawn_accuracies = by_other_words(builder.out / name, data, lexicon)
            mean = sum(drawn_accuracies) / len(drawn_accuracies)
            parts.append(
                f"CIFAR-10 by its own names, one template: {by_class_name:.1f} %; by WordNet's other lemmas, averaged: "
                f"{averaged:.1f} %; by one of them for each class, {DRAWS} random draws: {mean:.1f} % on average, "
                f"{min(drawn_accuracies):.1f} to {max(drawn_accuracies):.1f}.\n"
            )
    if data:
        backbones = [f"open_clip:{(builder.out / name).resolve()}" for name in names]
        table = accuracy_table(zero_shot([*backbones, "embedded"], data), [*backbones, "embedded"])
        for name, backbone in zip(names, backbones, strict=True):
            table = table.replace(backbone, name)
        parts.append(table + "\n")
    return "\n".join(parts)
