"""Draw test images with the predictions of zero-shot CLIP and of a finished run.

bash scripts/picture.sh output/digits/CoFT/embedded/seed1 [--image FILE]

Labels are read for the picture only. Each kind (both right, corrected, wrong) shows the first image of each class, then
the second, and so on: no image is picked by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

import train
import trainers
from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded
from coft.core.experiment import saved_config
from coft.core.files import replacing
from coft.engine.predictions import predict
from coft.images.reading import decode_image, read_bytes
from dassl.engine import build_trainer
from scripts.figures import write_figure
from scripts.paths import called_from, display_path
from trainers.config import make_cfg

BLUE, ORANGE = "#0072B2", "#D55E00"  # palette of Okabe and Ito; symbols repeat the meaning of the colours
RIGHT, WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"
ZERO_SHOT = "ZeroshotCLIP2"
TITLE, ROW, WIDTH = 0.3, 1.4, 0.95  # inches: height of a title and of a row of images, width of a column
COLUMNS = 10  # images in a row
LINE = 0.17  # height of a line of text, as a share of an image
COLOURS = 128  # size of the picture's palette
KINDS = {  # title of each kind, and its largest number of rows
    "corrected": ("Corrected: zero-shot CLIP is wrong, {name} is right", 2),
    "right": ("Both are right", 1),
    "wrong": ("{name} is wrong", 1),
}


def build(folder: Path, trainer: str, output: Path) -> Any:
    """Build a trainer, possibly another one than the run's, with the settings of a run."""
    words = ["--config-file", str(folder / "config.yaml"), "--trainer", trainer, "--output-dir", str(output)]
    return build_trainer(make_cfg(train.make_parser().parse_args(words), trainers.extend_cfg))


def predictions(folder: Path) -> tuple[pd.DataFrame, str]:
    """Predict the test images with zero-shot CLIP and with the model of a run.

    Args:
        folder: Output folder of the run.

    Returns:
        A row for each test image: path; class, zero_shot and run (class names); kind (a key of KINDS). Also the name
        of the run's trainer.

    Raises:
        UserError: If the folder is not that of a run.
    """
    config = saved_config(folder)
    if config is None:
        raise UserError(f"{folder}: no config.yaml of a run; name a run's output folder")
    if config["DATASET.NAME"] == "Folder" and "DATASET.IMAGES" not in config:
        raise UserError(f"{folder}: a run of coft adapt has no test images; name a run of scripts/run.sh on a data set")
    run = build(folder, config["TRAINER.NAME"], folder)
    run.load_model(str(folder))
    table = pd.DataFrame([(item.impath, item.classname) for item in run.dm.dataset.test], columns=["path", "class"])
    for column, trainer in (("run", run), ("zero_shot", build(folder, ZERO_SHOT, folder))):
        names = trainer.lab2cname
        table[column] = [names[label] for label in predict(trainer, trainer.test_loader)[0].tolist()]
    zero_shot_right, run_right = table["zero_shot"] == table["class"], table["run"] == table["class"]
    kind = zero_shot_right.map({True: "right", False: "corrected"}).where(run_right, "wrong")
    return table.assign(kind=kind), config["TRAINER.NAME"]


def round_robin(images: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first `count` images, taking turns: the first image of each class, then the second, and so on."""
    turn = images.groupby("class").cumcount()
    return images.assign(turn=turn).sort_values(["turn", "class"], kind="stable").head(count)


def draw_picture(path: Path, table: pd.DataFrame, name: str) -> Path:
    """Draw a grid of images, kind by kind.

    Args:
        path: Path of the picture.
        table: A row for each test image, as `predictions` returns it.
        name: Name of the run's predictions.

    Returns:
        Path of the picture.
    """
    chosen = {kind: round_robin(table[table["kind"] == kind], rows * COLUMNS) for kind, (_, rows) in KINDS.items()}
    chosen = {kind: images for kind, images in chosen.items() if len(images)}
    rows = [-(-len(images) // COLUMNS) for images in chosen.values()]

    def draw(figure: Any) -> None:
        heights = [TITLE + ROW * count for count in rows]
        parts = figure.subfigures(len(chosen), 1, height_ratios=heights, squeeze=False)
        for part, (kind, images), height in zip(parts[:, 0], chosen.items(), rows, strict=True):
            title = KINDS[kind][0].format(name=name)
            title += f": {(table['kind'] == kind).sum()} of {len(table)} test images"
            part.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
            grid = part.subplots(height, COLUMNS, squeeze=False).flatten()
            for axes in grid:
                axes.axis("off")
            for axes, row in zip(grid, images.to_dict("records"), strict=False):
                _draw_image(axes, row, name)

    write_figure(path, (WIDTH * COLUMNS, TITLE * len(rows) + ROW * sum(rows)), draw)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)  # half the size
    with replacing(path) as draft:
        small.save(draft, format="PNG", optimize=True)
    return path


def _draw_image(axes: Any, row: dict[str, str], name: str) -> None:
    image = decode_image(read_bytes(row["path"]), row["path"])
    square = ImageOps.fit(image, (min(image.size), min(image.size)))  # CLIP sees the centre, too
    axes.imshow(square, interpolation="bicubic")  # as CLIP's preprocessing resizes it
    axes.set_anchor("N")
    lines = [(f"true: {row['class']}", "black")]
    for predictor, column in (("CLIP", "zero_shot"), (name, "run")):
        right = row[column] == row["class"]
        lines.append((f"{predictor}: {row[column]} {RIGHT if right else WRONG}", BLUE if right else ORANGE))
    for number, (text, color) in enumerate(lines):
        place = {"transform": axes.transAxes, "horizontalalignment": "center", "verticalalignment": "top"}
        axes.text(0.5, -0.04 - LINE * number, text, **place, fontsize=7.5, color=color, fontfamily="DejaVu Sans")


def picture(argv: Sequence[str]) -> int:
    """Draw the picture of a run. Returns the exit code."""
    parser = Parser(
        prog="scripts/picture.sh", description="Draw test images with the predictions of zero-shot CLIP and of a run."
    )
    parser.add_argument("folder", type=called_from, metavar="FOLDER", help="output folder of a finished run")
    parser.add_argument("--image", type=called_from, metavar="FILE", help="default: predictions.png in the folder")
    args = parser.parse_args(argv)
    table, name = predictions(args.folder)
    path = draw_picture(args.image or args.folder / "predictions.png", table, name)
    print(f"  {display_path(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: picture(sys.argv[1:])))
