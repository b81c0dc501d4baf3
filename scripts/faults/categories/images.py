"""Image files: mutated, mislabelled, huge, and no files at all."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from coft.images.index import index_folder
from coft.images.reading import FORMATS, decode_image, read_bytes

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "images"
REFUSED, FINE = Right.REFUSED, Right.FINE
OTHERS = ("DDS", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "IM", "SPIDER")
WRITTEN = tuple(kind for kind in FORMATS if kind != "GIF")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr", "LAB", "HSV")


def cases(quick: bool) -> list[Case]:
    """All cases."""
    return [*mutated(), *with_bad_words(), *other_kinds(), *of_modes(), *odd_files(), *folders()]


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
    """An image file."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def read(scene: Scene, name: str, make: Callable[[], bytes]) -> None:
    """Read and decode a file, as a run does."""
    path = scene.file(name, make())
    image = decode_image(read_bytes(path), path)
    if image.mode != "RGB" or min(image.size) < 1:
        raise Wrong(f"became {image.mode} of {image.size}")


def mutated() -> list[Case]:
    """Files of each format that are cut off, or of which bytes differ."""
    found = []
    for kind in FORMATS:
        name = f"odd.{kind.lower()}"
        for share in (0.0, 0.05, 0.3, 0.6, 0.9, 0.99):
            make = partial(cut, kind, share)
            found.append(
                Case(CATEGORY, f"{kind} cut to {share:.0%}", partial(read, name=name, make=make), names=(name,))
            )
        for seed in range(20):
            make = partial(flipped, kind, seed)
            found.append(Case(CATEGORY, f"{kind} flipped {seed}", partial(read, name=name, make=make), names=(name,)))
        whole = partial(read, name="odd.png", make=partial(encoded, kind))
        found.append(Case(CATEGORY, f"{kind} called .png", whole, FINE))
        more = partial(read, name=name, make=partial(appended, kind))
        found.append(Case(CATEGORY, f"{kind} with bytes after it", more, FINE))
    return found


def cut(kind: str, share: float) -> bytes:
    """The beginning of a file."""
    data = encoded(kind)
    return data[: int(share * len(data))]


def flipped(kind: str, seed: int) -> bytes:
    """A file with a few other bytes, most of them in its header."""
    source, data = random.Random(seed), bytearray(encoded(kind))
    for _ in range(1 + seed % 5):
        data[source.randrange(min(len(data), 60 if seed % 2 else len(data)))] = source.randrange(256)
    return bytes(data)


def appended(kind: str) -> bytes:
    """A file with bytes after its end."""
    return encoded(kind) + b"more" * 100


def with_bad_words() -> list[Case]:
    """Images of which the words beside the pixels (EXIF) are damaged: the pixels are fine."""
    found = []
    for kind in ("JPEG", "PNG", "WEBP"):
        for seed in range(12):
            make = partial(bad_words, kind, seed)
            found.append(Case(CATEGORY, f"{kind} with bad EXIF {seed}", partial(read, name="odd", make=make), FINE))
    return found


def bad_words(kind: str, seed: int) -> bytes:
    """An image with EXIF of which some bytes are others."""
    words, source = Image.Exif(), random.Random(seed)
    words[0x0112], words[0x010F] = 6, "maker"
    data = bytearray(words.tobytes() if seed else b"garbage")
    for _ in range(1 + seed % 6):
        data[source.randrange(min(12, len(data)))] = source.randrange(256)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, kind, exif=bytes(data))
    return buffer.getvalue()


def other_kinds() -> list[Case]:
    """Kinds that are not decoded, whatever the files are called."""
    found = [
        Case(
            CATEGORY,
            f"{kind} called .png",
            partial(read, name="odd.png", make=partial(encoded, kind)),
            REFUSED,
            ("odd.png",),
        )
        for kind in OTHERS
        if kind in writable()
    ]
    texts = {
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(here) (w) file closefile\nshowpage\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "HTML": b"<html><script>alert(1)</script></html>",
        "text": b"hello",
        "nothing": b"",
        "zeros": bytes(100_000),
        "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf",
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "FITS": b"SIMPLE  =                    T" + bytes(3000),
    }
    return found + [
        Case(
            CATEGORY,
            f"{kind} called .jpg",
            partial(read, name="odd.jpg", make=partial(bytes, data)),
            REFUSED,
            ("odd.jpg",),
        )
        for kind, data in texts.items()
    ]


def of_modes() -> list[Case]:
    """Images of all kinds of pixels."""
    found = []
    for kind in WRITTEN:
        for mode in MODES:
            try:
                data = encoded(kind, mode)
            except (OSError, ValueError, KeyError):  # Pillow does not write it so
                continue
            found.append(
                Case(CATEGORY, f"{kind} of {mode}", partial(read, name="odd", make=partial(bytes, data)), FINE)
            )
    return found


def png(width: int, height: int) -> bytes:
    """A PNG that says to be of a size, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def odd_files() -> list[Case]:
    """Sizes and files that would take all memory, or for ever."""
    sizes = [(1_000_000, 1), (1, 1_000_000), (13_000, 13_000), (2**31 - 1, 1), (0, 5), (65_000, 65_000), (9_000, 9_000)]
    found = [
        Case(CATEGORY, f"{w} x {h}", partial(read, name="big.png", make=partial(png, w, h)), REFUSED, ("big.png",))
        for w, h in sizes
    ]
    found += [
        Case(CATEGORY, f"{w} x {h}", partial(read, name="small.png", make=partial(encoded, "PNG", "RGB", (w, h))), FINE)
        for w, h in [(1, 1), (1, 100), (100, 1), (2, 3)]
    ]
    odd: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "100 GB of nothing": sparse,
        "nothing there": lambda path: None,
    }
    return found + [
        Case(CATEGORY, name, partial(read_odd, make=make), REFUSED, ("odd.png",)) for name, make in odd.items()
    ]


def sparse(path: Path) -> None:
    """A file that takes no room and says to be large."""
    with path.open("wb") as file:
        file.truncate(100 << 30)


def read_odd(scene: Scene, make: Callable[[Path], object]) -> None:
    """Read what is no image file."""
    path = scene.place / "odd.png"
    make(path)
    decode_image(read_bytes(path), path)


NAMES = (b"caf\xe9.png", b"\xff\xfe.png", b"\n.png", b"\x1b[31m.png", "\u202e.png".encode(), b"a,b;'\".png", b"-rf.png")


def folders() -> list[Case]:
    """Folders with bad files among good ones: each is left out with its reason, whatever it is."""
    return [
        Case(CATEGORY, "a folder with all of it", indexed, FINE, seconds=60),
        Case(CATEGORY, "names that are no text, to the end of a run", odd_names, FINE, seconds=120),
        Case(CATEGORY, "one image", partial(few, count=1), seconds=60),
        Case(CATEGORY, "two images", partial(few, count=2), seconds=60),
        Case(CATEGORY, "four images", partial(few, count=4), seconds=60),
        Case(CATEGORY, "two images, ten classes", partial(few, count=2, classes=10), seconds=60),
        Case(CATEGORY, "identical images", partial(few, count=6, same=True), seconds=60),
        Case(CATEGORY, "black images", partial(few, count=6, black=True), seconds=60),
        Case(CATEGORY, "images of one pixel", partial(few, count=6, size=1), seconds=60),
        Case(CATEGORY, "five hundred classes, twelve images", partial(few, count=12, classes=500), seconds=120),
    ]


def indexed(scene: Scene) -> None:
    """Index a folder with every kind of bad file."""
    scene.file("good.png", encoded("PNG"))
    sparse(scene.place / "sparse.png")
    os.mkfifo(scene.place / "pipe.png")
    (scene.place / "folder.png").mkdir()
    (scene.place / "circle").symlink_to(scene.place)
    (scene.place / "link.png").symlink_to("nowhere")
    bad = {
        "strip.png": png(1_000_000, 1),
        "bomb.png": png(13_000, 13_000),
        "empty.png": b"",
        "ps.jpg": b"%!PS-Adobe-3.0 EPSF",
    }
    for name, data in bad.items():
        scene.file(name, data)
    for seed in range(30):
        kind = FORMATS[seed % len(FORMATS)]
        scene.file(
            f"flipped{seed}.{kind.lower()}".replace(".gif", ".png").replace(".jpeg", ".jpg"), flipped(kind, seed)
        )
    entries = {entry.path: entry.problem for entry in index_folder(scene.place)}
    if entries["good.png"] or not all(entries[name] for name in [*bad, "sparse.png", "pipe.png", "link.png"]):
        raise Wrong(f"taken for images, or not: {entries}")


def odd_names(scene: Scene) -> None:
    """A run on files whose names are odd; each is in predictions.csv under its own name."""
    folder = scene.place / "photos"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes((scene.images / f"{number}.png").read_bytes())
    out = scene.train(images=folder)
    predicted = (out / "predictions.csv").read_bytes()
    if missing := [name for name in NAMES if name.replace(b'"', b'""') not in predicted]:
        raise Wrong(f"predictions.csv lacks {missing[0]!r}")


def few(scene: Scene, count: int, classes: int = 3, same: bool = False, black: bool = False, size: int = 32) -> None:
    """A run on few images."""
    folder = scene.place / "photos"
    folder.mkdir()
    for number in range(count):
        image = Image.open(scene.images / f"{number}.png").resize((size, size))
        if same or black:
            image = Image.new("RGB", (32 + (0 if same else number), 32))
        image.save(folder / f"{number}.png")
    names = ", ".join(f"thing {number}" for number in range(classes))
    out = scene.train(images=folder, classes=names)
    rows = (out / "predictions.csv").read_text().splitlines()
    if len(rows) != count + 1 or "nan" in "".join(rows).lower():
        raise Wrong(f"predictions.csv has {len(rows) - 1} images of {count}, or numbers that are none")


def writable() -> set[str]:
    """Formats that Pillow writes."""
    Image.init()
    return set(Image.SAVE)
