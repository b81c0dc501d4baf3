"""Draw test images with the predictions of zero-shot CLIP and of a finished run.

bash scripts/picture.sh output/digits/CoFT/embedded/seed1 [--image FILE] [--columns 10]

Labels are read for the picture only. Each kind (both right, corrected, wrong) shows the first image of each class, then
the second, and so on: no image is picked by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402, I001  (first: it sets what torch reads when it is imported)
import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

import trainers  # noqa: E402
from coft.core.errors import Parser, UserError  # noqa: E402
from coft.core.experiment import saved_config  # noqa: E402
from coft.core.files import replacing  # noqa: E402
from coft.engine.predictions import predict  # noqa: E402
from coft.images.reading import decode_image, read_bytes  # noqa: E402
from dassl.engine import build_trainer  # noqa: E402
from scripts.figures import write_figure  # noqa: E402
from coft.core.exit_codes import guarded  # noqa: E402
from scripts.paths import called_from, display_path  # noqa: E402
from trainers.config import make_cfg  # noqa: E402

BLUE, ORANGE = "#0072B2", "#D55E00"  # palette of Okabe and Ito; symbols repeat the meaning of the colours
RIGHT, WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"
ZERO_SHOT = "ZeroshotCLIP2"
TITLE, ROW, COLUMN = 0.3, 1.4, 0.95  # inches: height of a title and of a row of images, width of a column
LINE = 0.17  # height of a line of text, as a share of an image
COLOURS = 128  # size of the picture's palette
KINDS = {  # title of each kind, and its largest number of rows
    "mended": ("Corrected: zero-shot CLIP is wrong, {name} is right", 2),
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
    run = build(folder, config["TRAINER.NAME"], folder)
    run.load_model(str(folder))
    table = pd.DataFrame([(item.impath, item.classname) for item in run.dm.dataset.test], columns=["path", "class"])
    for column, trainer in (("run", run), ("zero_shot", build(folder, ZERO_SHOT, folder))):
        names = trainer.lab2cname
        table[column] = [names[label] for label in predict(trainer, trainer.test_loader)[0].tolist()]
    zero_shot_right, run_right = table["zero_shot"] == table["class"], table["run"] == table["class"]
    kind = zero_shot_right.map({True: "right", False: "mended"}).where(run_right, "wrong")
    return table.assign(kind=kind), config["TRAINER.NAME"]


def by_turns(images: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the first `count` images, taking turns: the first image of each class, then the second, and so on."""
    turn = images.groupby("class").cumcount()
    return images.assign(turn=turn).sort_values(["turn", "class"], kind="stable").head(count)


def draw_picture(path: Path, table: pd.DataFrame, name: str, columns: int) -> Path:
    """Draw a grid of images, kind by kind.

    Args:
        path: Path of the picture.
        table: A row for each test image, as `predictions` returns it.
        name: Name of the run's predictions.
        columns: Images in a row.

    Returns:
        Path of the picture.
    """
    shown_images = {kind: by_turns(table[table["kind"] == kind], rows * columns) for kind, (_, rows) in KINDS.items()}
    shown_images = {kind: images for kind, images in shown_images.items() if len(images)}
    rows = [-(-len(images) // columns) for images in shown_images.values()]

    def draw(figure: Any) -> None:
        heights = [TITLE + ROW * count for count in rows]
        parts = figure.subfigures(len(shown_images), 1, height_ratios=heights, squeeze=False)
        for part, (kind, images), height in zip(parts[:, 0], shown_images.items(), rows, strict=True):
            title = KINDS[kind][0].format(name=name)
            title += f": {(table['kind'] == kind).sum()} of {len(table)} test images"
            part.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
            grid = part.subplots(height, columns, squeeze=False).flatten()
            for axes in grid:
                axes.axis("off")
            for axes, row in zip(grid, images.to_dict("records"), strict=False):
                _draw_image(axes, row, name)

    write_figure(path, (COLUMN * columns, TITLE * len(rows) + ROW * sum(rows)), draw)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS)  # half the size
    with replacing(path) as draft:
        small.save(draft, format="PNG", optimize=True)
    return path


def _draw_image(axes: Any, row: dict[str, str], name: str) -> None:
    image = decode_image(read_bytes(row["path"]), row["path"])
    axes.imshow(image, interpolation="bicubic")  # as CLIP's preprocessing resizes it
    axes.set_anchor("N")
    lines = [(f"true: {row['class']}", "black")]
    for predictor, column in (("CLIP", "zero_shot"), (name, "run")):
        right = row[column] == row["class"]
        lines.append((f"{predictor}: {row[column]} {RIGHT if right else WRONG}", BLUE if right else ORANGE))
    for number, (text, color) in enumerate(lines):
        axes.text(
            0.5,
            -0.04 - LINE * number,
            text,
            transform=axes.transAxes,
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=7.5,
            color=color,
            fontfamily="DejaVu Sans",
        )


def picture(argv: Sequence[str]) -> int:
    """Draw the picture of a run. Returns the exit code."""
    parser = Parser(
        prog="scripts/picture.sh", description="Draw test images with the predictions of zero-shot CLIP and of a run."
    )
    parser.add_argument("folder", type=called_from, metavar="FOLDER", help="output folder of a finished run")
    parser.add_argument("--image", type=called_from, metavar="FILE", help="default: predictions.png in the folder")
    parser.add_argument("--columns", type=int, default=10, help="images per row; default: 10")
    args = parser.parse_args(argv)
    table, name = predictions(args.folder)
    path = draw_picture(args.image or args.folder / "predictions.png", table, name, args.columns)
    print(f"  {display_path(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: picture(sys.argv[1:])))
