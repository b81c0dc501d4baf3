"""Files that a user names, times mutations: images, classes, descriptions, splits, configs, archives."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from coft.backbones.descriptions import SCHEMA as DESCRIPTIONS
from coft.backbones.descriptions import load_descriptions
from coft.backbones.tokens import CLIP_TOKENIZER
from coft.engine.class_names import check_classnames, read_classes, write_classes
from coft.images.reading import FORMATS, decode_image, read_bytes
from coft.inference.sorting import folder_names
from datasets.base import SCHEMA as SPLIT
from datasets.base import DeclaredDataset, read_split
from scripts.getting.extract import extract
from tests.scripts.archives import link, tar, zipped

from .drawing import drawn
from .mutations import (
    ALIASES,
    DAMAGE,
    GARBAGE,
    INPUTS,
    LETTERS,
    LINES,
    PLACES,
    TWICE,
    Mutation,
    by_form,
    contents,
    flipped,
    flips,
    holding,
    in_json,
    only,
    without,
)
from .oracle import EITHER, FINE, REFUSED, Case, Wrong
from .scene import Scene


@dataclass(frozen=True)
class Format:
    """A kind of file that the project reads, and what may be wrong with one.

    Attributes:
        category: Of its cases.
        name: What it is called; a refusal names it, or one of `names`.
        make: Writes one that is as it should be; returns its path.
        read: Does what a user would do with it; raises `Wrong` where it accepts what is not sound.
        refused: Mutations that have to be refused.
        either: Mutations that may be accepted.
        fine: Mutations that must not matter.
        names: What else a refusal may name.
        seconds: After which reading counts as hanging.
    """

    category: str
    name: str
    make: Callable[[Scene], Path]
    read: Callable[[Scene, Path], object]
    refused: Mapping[str, Mutation] = field(default_factory=dict)
    either: Mapping[str, Mutation] = field(default_factory=dict)
    fine: Mapping[str, Mutation] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    seconds: float = 60.0

    def cases(self) -> Iterator[Case]:
        """All its cases."""
        for right, mutations in ((REFUSED, self.refused), (EITHER, self.either), (FINE, self.fine)):
            for name, mutate in mutations.items():
                run = partial(self.feed, mutate=mutate)
                yield Case(self.category, f"{self.name}: {name}", run, right, (self.name, *self.names), self.seconds)

    def feed(self, scene: Scene, mutate: Mutation) -> None:
        """Read a file with a mutation."""
        path = self.make(scene)
        mutate(path)
        closed = not path.is_symlink() and path.exists() and not path.stat().st_mode & 0o777
        with scene.as_nobody() if closed else contextlib.nullcontext():
            self.read(scene, path)


def writing(name: str, content: bytes | str) -> Callable[[Scene], Path]:
    return lambda scene: scene.file(name, content)


WRITTEN = ("DDS", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "IM", "SPIDER")  # by Pillow, and not read by us
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr", "LAB", "HSV")
TOO_LARGE = ((1_000_000, 1), (1, 1_000_000), (13_000, 13_000), (2**31 - 1, 1), (0, 5), (65_000, 65_000), (9_000, 9_000))
SMALL = ((1, 1), (1, 100), (100, 1), (2, 3))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turned by a quarter


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """An image file."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def read_image(scene: Scene, path: Path) -> None:
    """Read and decode a file, as a run does."""
    image = decode_image(read_bytes(path), path)
    if image.mode != "RGB" or min(image.size) < 1:
        raise Wrong(f"became {image.mode} of {image.size}")


def images() -> Iterator[Format]:
    """Each format, cut off and with other bytes; and what is called an image."""
    damage, more = without(DAMAGE, "bytes after it") | flips(20), only(DAMAGE, "bytes after it")
    for kind in FORMATS:
        name = f"odd.{kind.lower()}"
        yield Format("images", name, writing(name, encoded(kind)), read_image, GARBAGE, damage, more)
    Image.init()
    others = {kind: encoded(kind) for kind in WRITTEN if kind in Image.SAVE}
    others |= {kind: text.encode("latin-1") for kind, text in INPUTS["kinds of images"].items()}
    others |= {f"{w} x {h}": b"P6 %d %d 255\n" % (w, h) + bytes(1000) for w, h in TOO_LARGE}
    fine = {f"{w} x {h}": encoded("PNG", size=(w, h)) for w, h in SMALL}
    for kind in FORMATS:
        for mode in MODES:
            with contextlib.suppress(OSError, ValueError, KeyError):  # Pillow does not write it so
                fine[f"{kind} of {mode}"] = encoded(kind, mode)
        for seed in range(12) if kind in ("JPEG", "PNG", "WEBP") else ():
            fine[f"{kind} with bad EXIF {seed}"] = encoded(kind, exif=flipped(EXIF, seed))
    refused = PLACES | contents(others)
    yield Format("images", "odd.png", writing("odd.png", encoded("PNG")), read_image, refused, fine=contents(fine))


def accept_names(scene: Scene, text: str | Path) -> None:
    """Read names or a file of them, and check them as a run does: they can be written and read again."""
    classes = read_classes(str(text))
    check_classnames(classes.names, f"--classes {text}")
    tokens = [tuple(CLIP_TOKENIZER.encode(name)) for name in classes.names]
    if len(set(tokens)) < len(tokens) or () in tokens:
        raise Wrong("classes are the same to CLIP, or nothing")
    write_classes(scene.place / "classes.txt", classes)
    if read_classes(str(scene.place / "classes.txt")).names != classes.names:
        raise Wrong("classes are others once they are written and read again")
    folders = folder_names(classes.names)
    for name in folders:
        (scene.place / "sorted" / name).mkdir(parents=True)
    if sorted(path.name for path in (scene.place / "sorted").iterdir()) != sorted(folders):
        raise Wrong("folders of classes are not what they are called")


def read_descriptions(scene: Scene, path: Path) -> None:
    """Read descriptions: what is accepted are sentences, some for each class."""
    for sentences in load_descriptions(path).values():
        if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
            raise Wrong(f"took {sentences!r:.80} for sentences")


def classes() -> Iterator[Format]:
    """Lists of classes, and descriptions."""
    lists = INPUTS["lists of classes"]
    refused = GARBAGE | PLACES | contents(lists["refused"])
    refused["fifty thousand names"] = holding("\n".join(f"thing {number}" for number in range(50_000)))
    either = (
        DAMAGE
        | flips(20)
        | contents(lists["either"])
        | {"5,000 words": holding("cat\n" + "dog " * 5000), "a long word": holding("cat\n" + "d" * 30_000)}
    )
    either |= {f"drawn {number}": holding(text) for number, text in enumerate(drawn(LINES))}
    write = writing("names.txt", "tabby cat | cat\tA cat with stripes.\nfox\n")
    fine = contents(lists["fine"])
    fine["synonyms of 30,000 names"] = holding("\n".join(f"thing {n} | matter {n}" for n in range(30_000)))
    yield Format("classes", "names.txt", write, accept_names, refused, either, fine)
    tree = {"cat": ["A cat with stripes.", "A small cat."], "fox": ["A red fox."]}
    large = [{"cat": ["word " * 5000]}, {"cat": [f"A cat number {number}." for number in range(300_000)]}]
    large.append({f"cat {number}": [f"A cat {k}." for k in range(300)] for number in range(1000)})
    formed = by_form(DESCRIPTIONS, tree, in_json, 300)
    refused = GARBAGE | PLACES | TWICE | contents(INPUTS["descriptions"]) | formed[REFUSED]
    refused |= {f"large {number}": holding(json.dumps(content)) for number, content in enumerate(large)}
    either = DAMAGE | flips(20) | LETTERS | formed[EITHER]
    write = writing("descriptions.json", json.dumps(tree))
    yield Format("classes", "descriptions.json", write, read_descriptions, refused, either)


def read_a_split(scene: Scene, path: Path) -> None:
    """Read a split and make a data set of it: what is accepted names images of the folder and labels of the classes."""
    for name in ("images/a.png", "images/b.png", "a.png"):
        scene.file(name, b"")
    train, val, test = read_split(path, scene.place / "images")
    data = SimpleNamespace(NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all", UNLABELED="train", NUM_UNLABELED=0, NUM_TEST=0)
    DeclaredDataset(SimpleNamespace(DATASET=data, SEED=1), classnames=("cat", "dog"), train=train, val=val, test=test)
    for item in [*train, *val, *test]:
        inside = Path(item.impath).resolve().parent == (scene.place / "images").resolve()
        if not inside or type(item.label) is not int or item.label not in range(-1, 2):
            raise Wrong(f"took {item.impath!r:.80} of label {item.label!r:.20}")


def splits() -> Iterator[Format]:
    """Split files."""
    rows = [["a.png", 0, "cat"], ["b.png", 1, "dog"]]
    tree = {"train": rows, "val": [], "test": rows}
    formed = by_form(SPLIT, tree, in_json, 300)
    refused = GARBAGE | PLACES | TWICE | contents(INPUTS["splits"]) | formed[REFUSED]
    either = DAMAGE | flips(20) | LETTERS | formed[EITHER]
    write = writing("split.json", json.dumps(tree))
    yield Format("splits", "split.json", write, read_a_split, refused, either, names=("image",))


def configs() -> Iterator[Format]:
    """Config files; their values are the matter of keys.py."""
    refused = without(GARBAGE, "empty") | PLACES | ALIASES | TWICE | contents(INPUTS["configs"])
    refused["a huge number"] = holding(f"OPTIM: {{LR: {'9' * 5000}}}")
    either, fine = DAMAGE | flips(20) | LETTERS, only(GARBAGE, "empty")
    write, read = writing("own.yaml", "OPTIM:\n  LR: 0.02\n  NAME: sgd\n"), lambda scene, path: scene.config(file=path)
    yield Format("command-line", "own.yaml", write, read, refused, either, fine)


OUTSIDE = Path("/tmp/coft-faults-out.txt")  # as a member of inputs.yaml is called


def unpack(scene: Scene, path: Path) -> None:
    """Extract an archive: nothing lands outside, and what is wanted is there whole, or nothing is."""
    root = scene.place / "root"
    try:
        extract(path, root, {"wanted": "data/wanted"})
    finally:
        names = {place.relative_to(scene.place).parts[0] for place in scene.place.rglob("*")}
        links = [place for place in root.rglob("*") if place.is_symlink()]
        if names - {path.name, "root"} or links or OUTSIDE.exists():
            OUTSIDE.unlink(missing_ok=True)
            raise Wrong(f"something is outside, or leads there: {sorted(names)} {links}")
    content = root / "data" / "wanted" / "a.txt"
    checked = path.suffix != ".tar"  # which has checksums of its headers alone
    if checked and content.is_file() and content.read_bytes() != b"a" * 1000:
        raise Wrong("a file is other than the archive's checksum says")


def archives() -> Iterator[Format]:
    """Archives: of members that lead outside, with links, bombs, and damaged ones."""
    wanted = {"wanted/a.txt": b"a" * 1000}
    links = [(target, kind) for target in INPUTS["links in archives"] for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)]
    links += [("", tarfile.CHRTYPE), ("", tarfile.FIFOTYPE)]
    packers: dict[str, Callable[..., bytes]] = {"zip": zipped, "tar": partial(tar, mode="w"), "tgz": tar}
    packers |= {kind: partial(tar, mode=f"w:{kind}") for kind in ("bz2", "xz")}
    for kind, pack in packers.items():
        refused = GARBAGE | without(PLACES, "100 GB of nothing")  # Python's lzma passes over zeros four at a time
        either = dict(DAMAGE)
        for name in INPUTS["members of archives"]:
            member = name.encode(errors="replace").decode() if kind == "zip" else name
            either[f"with {name[:20]!r}"] = holding(pack({**wanted, member: b"x"}))
        if kind == "zip":
            refused["a link"] = holding(zipped({**wanted, "wanted/b": b"/etc"}, links=("wanted/b",)))
        else:
            packed = {f"{how!r} to {to!r}": pack(wanted, link("wanted/b", to, how)) for to, how in links}
            refused |= contents(packed)
        if kind == "tgz":
            refused["a bomb"] = lambda path: path.write_bytes(tar({**wanted, "b": bytes(200 << 20)}))
        either |= flips(25)
        yield Format("archives", f"own.{kind}", writing(f"own.{kind}", pack(wanted)), unpack, refused, either)
