"""The page `report.html`: its content, and as many pictures as its size limit allows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coft.core.sanitize import some_of
from coft.core.words import counted
from coft.labelling.neighbours import nearest
from coft.report.image_facts import centred_sample, evenly

from . import names
from .blocks import Block, Pictures, Strip, groups_by_class, strips_of
from .curves import panels
from .formatting import duration, number, percent, short
from .maps import Map, make_map
from .run_folder import RunFolder
from .summary import class_rows, columns, facts, figures, lead
from .thumbnails import embed

LIMIT = 5_000_000  # upper bound of the page in bytes
PICTURES = 3_600_000  # upper bound of its pictures in bytes, as data URIs
MANY_PICTURES, SIDE, SMALL_SIDE = 700, 96, 72  # with more than 700 pictures, the longer side has 72 pixels, not 96
GALLERY_PICTURES = 2_000  # approximate number of pictures planned for the gallery
PICTURES_PER_GROUP = 10  # most pictures per group
GALLERY = 200  # most classes with pictures
SUSPECTS, PICTURES_PER_SUSPECT = 20, 12  # most suspicious classes shown, and most pictures per suspicious class
SHOWN_FIRST = 24  # number of images shown as the least sure ones of all classes, and as those unlike the rest
PICTURES_PER_DUPLICATE = 6  # most pictures per group of duplicates
ROWS = 100  # most skipped files, and most names of empty or rare classes, that are listed
FILES = (
    *("predictions.csv", "least_sure.csv", "unlike_rest.csv", "doubtful_names.csv", "test_predictions.csv"),
    *("pseudo_labels.csv", "metrics.csv", "summary.json", "log.txt"),
)
NEIGHBOURS = 20  # of images unlike the rest; with fewer, a few such images count as neighbours of each other
TEMPLATES = Path(__file__).parent / "templates"


def page(run: RunFolder, signals: list[names.Signals] | None = None, unlike: pd.DataFrame | None = None) -> bytes:
    """Render the page of a run as UTF-8.

    The page has at most `LIMIT` bytes, unless it is longer even without pictures.

    Args:
        run: The run.
        signals: Signals of each class, as `measured` returns them. Default: measured here.
        unlike: Images unlike the rest, as `unlike_the_rest` returns them, at least `SHOWN_FIRST` if there are as many.
            Default: computed here.
    """
    signals = measured(run) if signals is None else signals
    unlike = unlike_the_rest(run, SHOWN_FIRST) if unlike is None else unlike.head(SHOWN_FIRST)
    pictures = Pictures(run.images, run.folder)
    suspects = names.suspects(signals)
    blocks = {
        "suspects": [suspect_block(run, suspect, pictures) for suspect in suspects[:SUSPECTS]],
        "unsure": images_block(least_sure(run, SHOWN_FIRST), "least sure", pictures),
        "unlike": images_block(unlike, "unlike the rest", pictures),
        "duplicates": duplicate_blocks(run, pictures),
        "gallery": gallery(run, pictures, [suspect.label for suspect in suspects]),
    }
    rows = class_rows(run, signals)
    content = {
        "title": f"{run.summary.get('trainer', '')} on {short(run.title)}",
        "lead": lead(run),
        "facts": facts(run),
        "figures": figures(run, len(suspects)),
        "warnings": warnings(run),
        "skipped": run.skipped.head(ROWS).to_dict("records"),
        "more_skipped": max(0, len(run.skipped) - ROWS),
        "rows": rows,
        "columns": columns(rows),
        "classes": len(run.classes),
        "signals": bool(signals),
        "compared": 0 if run.evidence is None else len(run.evidence.sample),
        "images": len(run.images),
        "own_images": run.summary.get("dataset") == "Folder",
        "suspect_count": len(suspects),
        "run": shlex.quote(str(run.folder.absolute())),
        "few": some_of([short(run.classes[label]) for label in names.few(signals)]),
        "panels": panels(run.epochs),
        "maps": maps(run),
        "files": [name for name in FILES if (run.folder / name).is_file()],
        "limits": names,
        **blocks,
    }
    budget = PICTURES
    while True:
        fill(
            [*blocks["unsure"], *blocks["unlike"], *blocks["suspects"], *blocks["duplicates"]],
            blocks["gallery"],
            budget,
        )
        rendered = render(content)
        if len(rendered) <= LIMIT or not budget:
            return rendered
        budget = budget // 2 if budget > 100_000 else 0


@cache
def environment(templates: Path) -> Environment:
    """Return the Jinja environment for a folder of templates, with everything escaped."""
    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    made = Environment(loader=FileSystemLoader(templates), lstrip_blocks=True, **options)
    made.filters |= {"short": short, "percent": percent, "duration": duration}
    return made


def render(content: dict[str, Any]) -> bytes:
    """Render the template as UTF-8."""
    return environment(TEMPLATES).get_template("report.html").render(content).encode("utf-8", errors="replace")


# ---------------------------------------------------------------- what is shown


def measured(run: RunFolder) -> list[names.Signals]:
    """Measure the signals of each class; empty if the run stored no features to measure them on."""
    evidence = run.evidence
    if evidence is None or not len(evidence.sample):
        return []
    label_of = {name: label for label, name in enumerate(evidence.classes)}
    final_labels = run.images["class"].iloc[evidence.sample].map(label_of).fillna(-1).to_numpy(dtype=int)
    features = torch.from_numpy(evidence.features.astype(np.float32))
    believed = names.believed_of(features, evidence.text, evidence.scale, final_labels)
    return names.measure(centred_sample(evidence), evidence.text, final_labels, believed, run.counts)


def least_sure(run: RunFolder, count: int) -> pd.DataFrame:
    """Return the images with the lowest confidence, as rows of `RunFolder.images`."""
    return run.images[run.images["confidence"].notna()].nsmallest(count, "confidence")


def unlike_the_rest(run: RunFolder, count: int) -> pd.DataFrame:
    """Return the images that are least like others, by features of the frozen CLIP.

    Args:
        run: The run.
        count: Number of images.

    Returns:
        Rows of `RunFolder.images`, the least alike first, with the column `likeness`: the mean cosine similarity with
        the 20 nearest images. Only images whose features the run stored are compared. Empty if it stored none.
    """
    evidence = run.evidence
    if evidence is None or len(evidence.sample) < 2:
        return run.images.iloc[:0].assign(likeness=[])
    features = F.normalize(torch.from_numpy(evidence.features.astype(np.float32)), dim=1)
    number = torch.arange(len(features))
    cosine, _ = nearest(features, features, min(NEIGHBOURS, len(features) - 1), number)
    rows = run.images.iloc[evidence.sample].assign(likeness=cosine.mean(dim=1).numpy())
    return rows.nsmallest(count, "likeness")


def images_block(rows: pd.DataFrame, title: str, pictures: Pictures) -> list[Block]:
    """Build a block of images, given as rows of `RunFolder.images`; no block without images."""
    shown = [
        pictures.of_file(row["path"], f"{short(row['class'], 30)}, {percent(row['confidence'])}")
        for _, row in rows.iterrows()
    ]
    return [Block(title, title.replace(" ", "-"), [Strip("", shown, len(shown))], count=len(shown))] if shown else []


def suspect_block(run: RunFolder, suspect: names.Suspect, pictures: Pictures) -> Block:
    """Build the block of a class whose name may be wrong: reasons and pictures."""
    signals, evidence = suspect.signals, run.evidence
    assert evidence is not None
    name = short(evidence.classes[suspect.label])
    sentences = {
        "no image is of it": lambda: "The name may be unsuitable, or there may be no such images.",
        "CLIP doubts the name": lambda: (
            f"its mean zero-shot probability is {percent(signals.believed)} over its images; below "
            f"{percent(names.BELIEVED)} is suspicious."
        ),
        "another name fits better": lambda: (
            f"“{short(evidence.classes[signals.rival])}” is nearer to the mean feature of its images "
            f"(name fit {number(signals.fit, '+.2f')})."
        ),
        names.TWO_KINDS: lambda: (
            f"size and spread count as {number(signals.kinds, '.1f')} mean classes; {number(names.KINDS, '.0f')} or "
            "more is suspicious. If its images are of one kind, the name is fine."
        ),
    }
    reasons = [(reason, sentences[reason]()) for reason in suspect.reasons]
    if not np.isnan(signals.alike):
        reasons.append(("alike", f"{percent(signals.alike)} of its images' nearest neighbours are of the same class."))
    members = np.flatnonzero((run.images["class"] == evidence.classes[suspect.label]).to_numpy())
    shown = members[evenly(len(members), PICTURES_PER_SUSPECT)]
    strip = Strip("some of its images", [pictures.of_image(int(index)) for index in shown], len(members))
    return Block(name, f"suspect-{suspect.label}", [strip], reasons, len(members))


def duplicate_blocks(run: RunFolder, pictures: Pictures) -> list[Block]:
    """Build a block for each group of files with identical content, the largest group first."""
    class_of = dict(zip(run.images["path"], run.images["class"], strict=True))
    groups = [list(paths) for _, paths in run.copies.groupby("group", sort=False)["path"]]
    blocks = []
    for place, group in enumerate(sorted(groups, key=lambda paths: -len(paths))):
        shown = [pictures.of_file(path, short(class_of.get(path, ""), 30)) for path in group[:PICTURES_PER_DUPLICATE]]
        blocks.append(Block("equal content", f"equal-{place}", [Strip("", shown, len(group))], count=len(group)))
    return blocks


def gallery(run: RunFolder, pictures: Pictures, first: Sequence[int]) -> list[Block]:
    """Build a block for each class, with pictures of its groups, in the order of the labels.

    Args:
        run: The run.
        pictures: Factory of the pictures.
        first: Labels of classes to prefer if there are more than `GALLERY`; the largest classes follow.
    """
    images, classes = run.images, run.classes
    if not images["confidence"].notna().any():
        return []
    counts = run.counts
    order = sorted(range(len(classes)), key=lambda label: (label not in first, -counts[label]))
    shown = sorted(order[:GALLERY])
    by_class = groups_by_class(images)
    groups = {label: by_class.get(classes[label], {}) for label in shown}
    per_group = max(2, min(PICTURES_PER_GROUP, GALLERY_PICTURES // max(1, sum(map(len, groups.values())))))
    return [
        Block(short(classes[label]), f"class-{label}", strips_of(groups[label], per_group, pictures), [], counts[label])
        for label in shown
        if groups[label]
    ]


def fill(first: Sequence[Block], gallery_blocks: Sequence[Block], budget: int) -> None:
    """Embed thumbnails into pictures, in order of priority, until the budget is used up.

    Args:
        first: Blocks of highest priority, picture by picture.
        gallery_blocks: Blocks that follow: the first picture of each group, then the second of each, and so on.
        budget: Upper bound of all thumbnails in bytes.
    """
    planned = [picture for block in first for strip in block.strips for picture in strip.pictures]
    strips = [strip for block in gallery_blocks for strip in block.strips]
    for rank in range(PICTURES_PER_GROUP):
        planned += [strip.pictures[rank] for strip in strips if rank < len(strip.pictures)]
    side = SIDE if len(planned) <= MANY_PICTURES else SMALL_SIDE
    for picture, uri in zip(planned, embed([picture.path for picture in planned], budget, side), strict=True):
        picture.uri = uri


def maps(run: RunFolder) -> list[Map]:
    """Build the confusion matrices: true by predicted class, and zero-shot CLIP's by final class, as far as known."""
    images, tested, classes = run.images, run.tested, run.classes
    candidates = []
    if len(tested):
        pairs = ("right class", tested["class"]), ("predicted", tested["predicted"])
        candidates.append(make_map("True and predicted classes", *pairs, classes))
    if "zero_shot" in images:
        pairs = ("zero-shot", images["zero_shot"]), ("after training", images["class"])
        candidates.append(make_map("From zero-shot to final classes", *pairs, classes))
    return [candidate for candidate in candidates if candidate is not None]


def warnings(run: RunFolder) -> list[str]:
    """Return warnings: missing images, skipped files, classes with few images or none, and the warnings of the log."""
    lines = list(filter(None, [run.missing_notice()]))
    if len(run.skipped):
        lines.append(f"{counted(len(run.skipped), 'file')} could not be read: see the list below.")
    if len(run.images):
        images = np.array(run.counts)
        empty = [run.classes[label] for label in np.flatnonzero(images == 0)]
        nearly_empty = [run.classes[label] for label in names.rare(images) if images[label]]
        for heading, classes in (("Classes without an image", empty), ("Classes with almost no image", nearly_empty)):
            if classes:
                more = f" and {len(classes) - ROWS} more" if len(classes) > ROWS else ""
                lines.append(f"{heading}: {', '.join(short(name) for name in classes[:ROWS])}{more}.")
    return [*lines, *(short(line, 400) for line in run.warnings if "skipped.csv" not in line)]
