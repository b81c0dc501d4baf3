"""Rendering of drawings to arrays: icons and letters are rendered once, and cached as 64 x 64 bytes."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_fill_holes
from tqdm import tqdm

from coft.core.files import replacing
from weights.pretrain.names import SIZES, SKINS, concept
from weights.pretrain.packages import Drawing, Package, drawings

logger = logging.getLogger(__name__)

SIZE = 64
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
Rendered = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Shelf:
    """One package's drawings.

    Attributes:
        source: Short name of the package.
        role: Role of the package.
        names: Names of the N drawings in the package.
        opacity: Opacity and silhouette (opacity with enclosed areas filled), uint8 ``[N, 2, 64, 64]``.
        colour: Red, green, blue, uint8 ``[N, 3, 64, 64]``; None for drawings of a single colour.
    """

    source: str
    names: list[str]
    opacity: np.ndarray
    colour: np.ndarray | None
    role: str = "icons"

    def __len__(self) -> int:
        return len(self.names)


def shelves(packages: list[Package], cache_dir: Path) -> list[Shelf]:
    """Render packages, or read them from the cache. An interruption loses at most one package."""
    with Pool(2) as pool:
        run = partial(pool.imap, chunksize=16)
        return [_shelf(p, cache_dir, run) for p in tqdm(packages, desc="render", unit="set")]


def _shelf(package: Package, cache_dir: Path, run: Callable[..., Iterable[list[Rendered]]]) -> Shelf:
    path = cache_dir / "rendered" / f"{package.role}-{package.name}-{package.version}.npz"
    if not path.is_file():
        if package.role == "fonts":
            jobs, coloured = run(render_font, font_files(package, cache_dir)), False
        else:
            selected = select_drawings(package, cache_dir)
            jobs, coloured = run(render_icon, selected), selected[0].coloured
        _store(path, [drawing for rendered in jobs for drawing in rendered], coloured)
    with np.load(path) as stored:
        names = list(map(str, stored["names"]))
        return Shelf(package.name, names, stored["opacity"], stored.get("colour"), package.role)


def _store(path: Path, drawings: list[Rendered], coloured: bool) -> None:
    pixels = np.stack([pixels for _, pixels in drawings])
    names = np.array([name for name, _ in drawings])
    with replacing(path) as draft:
        if coloured:
            np.savez_compressed(draft, names=names, opacity=pixels[:, 3:], colour=pixels[:, :3])
        else:
            np.savez_compressed(draft, names=names, opacity=pixels[:, 3:])


def select_drawings(package: Package, cache_dir: Path) -> list[Drawing]:
    """Return the drawings of a set that have a name, in one size each."""
    styles = {_unsized(d.name): d for d in drawings(package, cache_dir) if concept(d.name)}
    return list(styles.values())


def _unsized(name: str) -> str:
    return "-".join(word for word in SKINS.sub("", name).split("-") if word not in SIZES)


def render_icon(drawing: Drawing) -> list[Rendered]:
    """Return name and five channels of an icon, uint8 ``[5, 64, 64]``; an empty list if it is invalid or blank."""
    try:
        pixels = rasterise(drawing.svg)
    except ValueError:
        return []
    if (pixels[3] > 96).mean() < 0.01:  # animated icons start blank
        return []
    return [(drawing.name, np.concatenate([pixels[:3], with_silhouette(pixels[3])]))]


def rasterise(svg: str) -> np.ndarray:
    """Render an SVG document.

    Returns:
        Red, green, blue and opacity of the centred drawing, with its aspect ratio kept, uint8 ``[4, 64, 64]``.
    """
    import resvg_py  # tests, and training from a filled cache, run without it

    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return _fit_square(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def _fit_square(picture: Image.Image) -> np.ndarray:
    picture.thumbnail((SIZE, SIZE))
    square = Image.new("RGBA", (SIZE, SIZE))
    square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.asarray(square).transpose(2, 0, 1)


def with_silhouette(opacity: np.ndarray) -> np.ndarray:
    """Stack an opacity map ``[64, 64]`` with the same map in which enclosed areas are filled."""
    enclosed = binary_fill_holes(opacity > 96)
    return np.stack([opacity, np.where(enclosed, 255, opacity)]).astype(np.uint8)


def font_files(package: Package, cache_dir: Path) -> Iterator[Path]:
    """Yield the upright Latin files of a font family: light, regular and bold, if they exist."""
    folder = package.folder(cache_dir) / "files"
    for weight in (300, 400, 700):
        path = folder / f"{package.name}-latin-{weight}-normal.woff2"
        if path.is_file():
            yield path


def render_font(path: Path) -> list[Rendered]:
    """Render the letters and digits of a font file, each scaled to the frame. Names are the characters."""
    return [(character, _glyph(character, path)) for character in CHARACTERS]


def _glyph(character: str, path: Path) -> np.ndarray:
    font = ImageFont.truetype(str(path), 48)
    left, top, right, bottom = font.getbbox(character)
    font = ImageFont.truetype(str(path), round(48 * min(52 / (bottom - top), 56 / (right - left), 2)))
    canvas = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(canvas).text((SIZE / 2, SIZE / 2), character, fill=255, font=font, anchor="mm")
    left, top, right, bottom = canvas.getbbox() or (0, 0, SIZE, SIZE)
    centred = Image.new("L", (SIZE, SIZE))
    centred.paste(canvas, (SIZE // 2 - (left + right) // 2, SIZE // 2 - (top + bottom) // 2))
    opacity = np.asarray(centred)
    return np.concatenate([np.zeros((3, SIZE, SIZE), np.uint8), with_silhouette(opacity)])
