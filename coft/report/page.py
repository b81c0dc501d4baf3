"""The page: which pictures it shows, within a number of bytes, and the template that it is made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coft.report.image_facts import centred_sample, evenly

from . import names
from .blocks import Block, Pictures, Strip, strips_of
from .curves import panels
from .duplicates import equal_groups, near_groups
from .groups import groups_by_class
from .maps import Map, make_map
from .run_folder import RunFolder, logs
from .summary import class_rows, facts, figures
from .thumbnails import embed
from .words import duration, number, percent, short

LIMIT = 5_000_000  # bytes of a page, at most
PICTURES = 3_600_000  # of them pictures, as text
MANY_PICTURES, SIDE, SMALL_SIDE = 700, 96, 72  # more pictures than that are smaller
IN_ALL = 2_000  # pictures of the gallery, as many as that are planned
OF_GROUP = 10  # pictures of a group, at most
GALLERY = 200  # classes with pictures, at most
SUSPECTS, DUPLICATES, OF_DUPLICATE = 20, 12, 6  # shown, at most
OF_SUSPECT = 12  # pictures, evenly spaced
ROWS = 100  # of skipped files, and names of rare classes
FILES = ("predictions.csv", "test_predictions.csv", "pseudo_labels.csv", "metrics.csv", "summary.json")
TEMPLATES = Path(__file__).parent / "templates"


def page(run: RunFolder) -> bytes:
    """The page of a run, in UTF-8, of at most `LIMIT` bytes."""
    signals = measured(run)
    pictures = Pictures(run.images)
    found = names.suspects(signals) if signals else []
    blocks = {
        "suspects": [suspect_block(run, own, pictures) for own in found[:SUSPECTS]],
        "duplicates": duplicate_blocks(run, pictures),
        "gallery": gallery(run, pictures, [own.label for own in found]),
    }
    content = {
        "title": f"{run.summary.get('trainer', '')} on {short(run.summary.get('dataset', ''))}",
        "facts": facts(run),
        "figures": figures(run),
        "warnings": warnings(run),
        "skipped": run.skipped.head(ROWS).to_dict("records"),
        "more_skipped": max(0, len(run.skipped) - ROWS),
        "rows": class_rows(run, signals),
        "classes": len(run.classes),
        "signals": bool(signals),
        "own_images": run.summary.get("dataset") == "Folder",
        "suspect_count": len(found),
        "panels": panels(run.epochs),
        "maps": maps(run),
        "files": [
            *(name for name in FILES if (run.folder / name).is_file()),
            *(path.name for path in logs(run.folder)),
        ],
        "limits": names,
        **blocks,
    }
    budget = PICTURES
    while True:
        fill([*blocks["suspects"], *blocks["duplicates"]], blocks["gallery"], budget)
        rendered = render(content)
        if len(rendered) <= LIMIT or not budget:
            return rendered
        budget = budget // 2 if budget > 100_000 else 0


def render(content: dict[str, Any]) -> bytes:
    """Fill in the template; everything is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "percent": percent, "duration": duration}
    return environment.get_template("report.html").render(content).encode("utf-8", errors="replace")


# ---------------------------------------------------------------- what is shown


def measured(run: RunFolder) -> list[names.Signals] | None:
    """Signals of each class; None where the run has not kept what they are measured on."""
    found = run.evidence
    if found is None or not len(found.sample):
        return None
    number_of = {name: label for label, name in enumerate(found.classes)}
    final = run.images["class"].iloc[found.sample].map(number_of).fillna(-1).to_numpy(dtype=int)
    return names.measure(centred_sample(found), found.text, final, found.zero_shot[found.sample])


def suspect_block(run: RunFolder, own: names.Suspect, pictures: Pictures) -> Block:
    """What is shown of a class that may go by a wrong name."""
    signals, evidence = own.signals, run.evidence
    assert evidence is not None
    called = short(evidence.classes[own.label])
    sentences = {
        "another name fits as well": lambda: (
            f"name fit {number(signals.fit, '+.2f')} towards “{short(evidence.classes[signals.rival])}”; below "
            f"{names.FIT} is suspicious, and below 0 that name is the nearer one."
        ),
        "took another class's images": lambda: (
            f"{percent(signals.taken)} of its images were “{short(evidence.classes[signals.source])}” to zero-shot "
            f"CLIP; {percent(names.TAKEN)} or more is suspicious."
        ),
    }
    reasons = [(reason, sentences[reason]()) for reason in own.reasons]
    reasons.append(("alike", f"{percent(signals.alike)} of its images' nearest neighbours are of the same class."))
    mine = np.flatnonzero((run.images["class"] == evidence.classes[own.label]).to_numpy())
    some = mine[evenly(len(mine), OF_SUSPECT)]
    strip = Strip("some of its images", [pictures.of(int(place)) for place in some], len(mine))
    return Block(called, f"suspect-{own.label}", [strip], reasons, len(mine))


def duplicate_blocks(run: RunFolder, pictures: Pictures) -> list[Block]:
    """Images that are there more than once."""
    confidence = dict(zip(run.images["path"], run.images["class"], strict=True))
    found = []
    for number_of, paths in enumerate(equal_groups(run.copies)):
        made = [pictures.named(path, short(confidence.get(path, ""), 30)) for path in paths[:OF_DUPLICATE]]
        found.append(Block("equal content", f"equal-{number_of}", [Strip("", made, len(paths))], count=len(paths)))
    if run.evidence is not None:
        paths = list(run.images["path"].iloc[: len(run.evidence.nearest)])
        for number_of, places in enumerate(near_groups(paths, run.evidence.nearest, run.evidence.likeness)):
            made = [pictures.named(paths[p], short(confidence.get(paths[p], ""), 30)) for p in places[:OF_DUPLICATE]]
            found.append(Block("nearly equal", f"near-{number_of}", [Strip("", made, len(places))], count=len(places)))
    return found


def gallery(run: RunFolder, pictures: Pictures, first: Sequence[int]) -> list[Block]:
    """Pictures of each class; of very many classes those that may go by a wrong name, then those with most images."""
    images, classes = run.images, run.classes
    if not images["confidence"].notna().any():
        return []
    counts = images["class"].value_counts()
    order = sorted(range(len(classes)), key=lambda label: (label not in first, -int(counts.get(classes[label], 0))))
    chosen = sorted(order[:GALLERY])
    by_class = groups_by_class(images)
    groups = {label: by_class.get(classes[label], []) for label in chosen}
    most = max(2, min(OF_GROUP, IN_ALL // max(1, sum(map(len, groups.values())))))
    return [
        Block(
            short(classes[label]),
            f"class-{label}",
            strips_of(groups[label], most, pictures),
            count=int(counts.get(classes[label], 0)),
        )
        for label in chosen
        if groups[label]
    ]


def fill(first: Sequence[Block], gallery_blocks: Sequence[Block], budget: int) -> None:
    """Give pictures their content: of the first blocks in order, then of the gallery each group's best, and so on."""
    planned = [picture for block in first for strip in block.strips for picture in strip.pictures]
    strips = [strip for block in gallery_blocks for strip in block.strips]
    for rank in range(OF_GROUP):
        planned += [strip.pictures[rank] for strip in strips if rank < len(strip.pictures)]
    side = SIDE if len(planned) <= MANY_PICTURES else SMALL_SIDE
    for picture, uri in zip(planned, embed([own.path for own in planned], budget, side), strict=True):
        picture.uri = uri


def maps(run: RunFolder) -> list[Map]:
    """Where classes are known, which are taken for which; and how zero-shot classes became those of the end."""
    images, tested, classes = run.images, run.tested, run.classes
    made = []
    if len(tested):
        pairs = ("right class", tested["class"]), ("predicted", tested["predicted"])
        made.append(make_map("Right and predicted classes", *pairs, classes))
    if "zero_shot" in images:
        pairs = ("zero-shot", images["zero_shot"]), ("in the end", images["class"])
        made.append(make_map("From zero-shot to the end", *pairs, classes))
    return [own for own in made if own is not None]


def warnings(run: RunFolder) -> list[str]:
    """What to look at: skipped files, classes with few images or none, and what the log warns of."""
    found = []
    if len(run.skipped):
        found.append(f"Files that could not be read: {len(run.skipped):,}. They are listed below.")
    if len(run.images):
        counts = run.images["class"].value_counts()
        images = np.array([int(counts.get(name, 0)) for name in run.classes])
        none = [run.classes[label] for label in np.flatnonzero(images == 0)]
        few = [run.classes[label] for label in names.rare(images) if images[label]]
        for what, these in (("Classes without an image", none), ("Classes with almost no image", few)):
            if these:
                more = f" and {len(these) - ROWS} more" if len(these) > ROWS else ""
                found.append(f"{what}: {', '.join(short(name) for name in these[:ROWS])}{more}.")
    return [*found, *(short(line, 400) for line in run.warnings if "skipped.csv" not in line)]
