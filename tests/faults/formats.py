"""Files given by the user: images, class lists, descriptions, splits, configs, archives."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
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
from coft.core.schemas import Schema
from coft.engine.class_names import check_classnames, read_classes, write_classes
from coft.images.reading import FORMATS, decode_image, read_bytes
from coft.inference.sorting import folder_names
from datasets.base import SCHEMA as SPLIT
from datasets.base import DeclaredDataset, read_split
from scripts.getting.extract import extract
from tests.scripts.archives import link, tar, zipped

from .generate import draw
from .mutations import (
    DAMAGE,
    DAMAGED,
    DAMAGED_TEXT,
    DUPLICATE_KEY,
    GARBAGE,
    INPUTS,
    INVALID,
    LINES,
    NESTED_ALIASES,
    TRAILING,
    UNREADABLE,
    Mutation,
    Mutations,
    content,
    contents,
    flip_bytes,
    flips,
    from_form,
    json_content,
    without,
)
from .verdict import ACCEPTED, EITHER, REFUSED, Case, WrongResult
from .workspace import Workspace


@dataclass(frozen=True)
class Format:
    """A kind of file that the project reads, and mutations of it.

    Attributes:
        category: Category of its cases.
        name: Name of the file. An error message contains it, or one of `input_names`.
        make: Function that writes a valid file and returns its path.
        read: Function that reads it as a command does, and raises `WrongResult` if it accepts an invalid value.
        refused: Mutations that must be refused.
        either: Mutations that may be accepted.
        accepted: Mutations that must be accepted.
        input_names: Other texts that identify the file.
    """

    category: str
    name: str
    make: Callable[[Workspace], Path]
    read: Callable[[Workspace, Path], object]
    refused: Mutations = field(default_factory=dict)
    either: Mutations = field(default_factory=dict)
    accepted: Mutations = field(default_factory=dict)
    input_names: tuple[str, ...] = ()

    def cases(self) -> Iterator[Case]:
        """Yield a case for each mutation."""
        for expected, mutations in ((REFUSED, self.refused), (EITHER, self.either), (ACCEPTED, self.accepted)):
            for name, mutate in mutations.items():
                run = partial(self.read_mutated, mutate=mutate)
                yield Case(self.category, f"{self.name}: {name}", run, expected, (self.name, *self.input_names))

    def read_mutated(self, workspace: Workspace, mutate: Mutation) -> None:
        """Write a file, mutate and read it."""
        path = self.make(workspace)
        mutate(path)
        is_locked = not path.is_symlink() and path.exists() and not path.stat().st_mode & 0o777
        with workspace.as_nobody() if is_locked else contextlib.nullcontext():
            self.read(workspace, path)


def json_format(
    category: str,
    name: str,
    read: Callable[[Workspace, Path], object],
    form: Schema,
    valid: Any,
    refused: Mutations,
    **options: Any,
) -> Format:
    """Return the format of a JSON file with a form, and generate mutations of a valid object."""
    generated = from_form(form, valid, json_content, 300)
    refused, either = {**refused, **generated[REFUSED]}, {**DAMAGED_TEXT, **generated[EITHER]}
    return Format(category, name, file_with(name, json.dumps(valid)), read, refused, either, **options)


def file_with(name: str, data: bytes | str) -> Callable[[Workspace], Path]:
    return lambda workspace: workspace.write(name, data)


# -------------------------------------------------------------------- images

UNSUPPORTED = ("DDS", "ICO", "TGA", "PCX", "SGI", "EPS", "PDF", "ICNS", "IM", "SPIDER")  # formats that Pillow writes
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr", "LAB", "HSV")
TOO_LARGE = ((1_000_000, 1), (1, 1_000_000), (13_000, 13_000), (2**31 - 1, 1), (0, 5), (65_000, 65_000), (9_000, 9_000))
SMALL = ((1, 1), (1, 100), (100, 1), (2, 3))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # rotated by 90 degrees


def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    """Encode an image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def read_image(workspace: Workspace, path: Path) -> None:
    image = decode_image(read_bytes(path), path)
    if image.mode != "RGB" or min(image.size) < 1:
        raise WrongResult(f"decoded to {image.mode} of {image.size}")


def images() -> Iterator[Format]:
    """Each supported format, damaged; and valid, unsupported and huge images."""
    damage = without(DAMAGED, *TRAILING)
    for kind in FORMATS:
        name = f"odd.{kind.lower()}"
        yield Format("images", name, file_with(name, encode(kind)), read_image, GARBAGE, damage, TRAILING)
    Image.init()
    unsupported = {kind: encode(kind) for kind in UNSUPPORTED if kind in Image.SAVE}
    unsupported |= {kind: text.encode("latin-1") for kind, text in INPUTS["unsupported images"].items()}
    unsupported |= {f"{w} x {h}": b"P6 %d %d 255\n" % (w, h) + bytes(1000) for w, h in TOO_LARGE}
    valid = {f"{w} x {h}": encode("PNG", size=(w, h)) for w, h in SMALL}
    for kind in FORMATS:
        for mode in MODES:
            with contextlib.suppress(OSError, ValueError, KeyError):  # a mode that Pillow cannot write
                valid[f"{kind} of {mode}"] = encode(kind, mode)
        for seed in range(12) if kind in ("JPEG", "PNG", "WEBP") else ():
            valid[f"{kind} with damaged EXIF {seed}"] = encode(kind, exif=flip_bytes(EXIF, seed))
    make, refused = file_with("odd.png", encode("PNG")), {**UNREADABLE, **contents(unsupported)}
    yield Format("images", "odd.png", make, read_image, refused, accepted=contents(valid))


# -------------------------------------------------------------------- classes


def accept_classes(workspace: Workspace, classes: str | Path) -> None:
    """Read class names or a file of them, check them as a run does, and write and read them again."""
    class_list = read_classes(str(classes))
    check_classnames(class_list.names, f"--classes {classes}")
    tokens = [tuple(CLIP_TOKENIZER.encode(name)) for name in class_list.names]
    if len(set(tokens)) < len(tokens) or () in tokens:
        raise WrongResult("class names have no tokens, or the same ones")
    write_classes(workspace.folder / "classes.txt", class_list)
    if read_classes(str(workspace.folder / "classes.txt")).names != class_list.names:
        raise WrongResult("class names change when they are written and read again")
    folders = folder_names(class_list.names)
    for name in folders:
        (workspace.folder / "sorted" / name).mkdir(parents=True)
    if sorted(path.name for path in (workspace.folder / "sorted").iterdir()) != sorted(folders):
        raise WrongResult("class folders have other names than intended")


def read_descriptions(workspace: Workspace, path: Path) -> None:
    for sentences in load_descriptions(path).values():
        if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
            raise WrongResult(f"accepted {sentences!r:.80} as sentences")


def classes() -> Iterator[Format]:
    """Lists of class names, and descriptions of classes."""
    lists = INPUTS["class lists"]
    too_many = content("\n".join(f"thing {number}" for number in range(50_000)))
    refused = {**INVALID, **contents(lists["refused"]), "50,000 names": too_many}
    long = {"5,000 words": "cat\n" + "dog " * 5000, "a long word": "cat\n" + "d" * 30_000}
    generated = {f"generated {number}": text for number, text in enumerate(draw(LINES))}
    either = {**DAMAGED, **contents(lists["either"] | long | generated)}
    synonyms = {"30,000 names with synonyms": "\n".join(f"thing {n} | matter {n}" for n in range(30_000))}
    accepted = contents(lists["accepted"] | synonyms)
    make = file_with("names.txt", "tabby cat | cat\tA cat with stripes.\nfox\n")
    yield Format("classes", "names.txt", make, accept_classes, refused, either, accepted)

    valid = {"cat": ["A cat with stripes.", "A small cat."], "fox": ["A red fox."]}
    too_large = {
        "a long sentence": {"cat": ["word " * 5000]},
        "too many sentences of a class": {"cat": [f"A cat number {number}." for number in range(300_000)]},
        "too many sentences": {f"cat {number}": [f"A cat {k}." for k in range(300)] for number in range(1000)},
    }
    refused = {**INVALID, **DUPLICATE_KEY, **contents(INPUTS["descriptions"])}
    refused |= {name: json_content(value) for name, value in too_large.items()}
    yield json_format("classes", "descriptions.json", read_descriptions, DESCRIPTIONS, valid, refused)


# -------------------------------------------------------------------- splits and configs


def build_split(workspace: Workspace, path: Path) -> None:
    """Read a split and build a data set: images must be in its folder, and labels those of its classes."""
    for name in ("images/a.png", "images/b.png", "a.png"):
        workspace.write(name)
    folder = workspace.folder / "images"
    train, val, test = read_split(path, folder)
    data = SimpleNamespace(NUM_SHOTS=-1, SUBSAMPLE_CLASSES="all", UNLABELED="train", NUM_UNLABELED=0, NUM_TEST=0)
    DeclaredDataset(SimpleNamespace(DATASET=data, SEED=1), classnames=("cat", "dog"), train=train, val=val, test=test)
    for item in [*train, *val, *test]:
        is_inside = Path(item.impath).resolve().parent == folder.resolve()
        if not is_inside or type(item.label) is not int or item.label not in range(-1, 2):
            raise WrongResult(f"accepted {item.impath!r:.80} with label {item.label!r:.20}")


def splits() -> Iterator[Format]:
    """Split files."""
    rows = [["a.png", 0, "cat"], ["b.png", 1, "dog"]]
    valid = {"train": rows, "val": [], "test": rows}
    refused = {**INVALID, **DUPLICATE_KEY, **contents(INPUTS["splits"])}
    names = ("image",)
    yield json_format("splits", "split.json", build_split, SPLIT, valid, refused, input_names=names)


def configs() -> Iterator[Format]:
    """Config files; settings.py covers the values in them."""
    empty = {"empty": GARBAGE["empty"]}
    refused = {**without(INVALID, "empty"), **NESTED_ALIASES, **DUPLICATE_KEY}
    refused |= contents(INPUTS["configs"] | {"a huge number": f"OPTIM: {{LR: {'9' * 5000}}}"})
    make = file_with("own.yaml", "OPTIM:\n  LR: 0.02\n  NAME: sgd\n")
    yield Format("command-line", "own.yaml", make, Workspace.read_config, refused, DAMAGED_TEXT, empty)


# -------------------------------------------------------------------- archives

OUTSIDE = Path("/tmp/coft-faults-out.txt")  # target of a member in inputs.yaml


def unpack(workspace: Workspace, path: Path) -> None:
    """Extract a folder of an archive: nothing may be written outside, and files must match their checksums."""
    root = workspace.folder / "root"
    try:
        extract(path, root, {"wanted": "data/wanted"})
    finally:
        names = {entry.relative_to(workspace.folder).parts[0] for entry in workspace.folder.rglob("*")}
        links = [entry for entry in root.rglob("*") if entry.is_symlink()]
        if names - {path.name, "root"} or links or OUTSIDE.exists():
            OUTSIDE.unlink(missing_ok=True)
            raise WrongResult(f"files outside or links: {sorted(names)} {links}")
    member = root / "data" / "wanted" / "a.txt"
    has_checksums = path.suffix != ".tar"
    if has_checksums and member.is_file() and member.read_bytes() != b"a" * 1000:
        raise WrongResult("a file differs from its checksum")


def archives() -> Iterator[Format]:
    """Archives with members or links that lead outside, bombs, and damaged archives."""
    members = {"wanted/a.txt": b"a" * 1000}
    links = [(target, kind) for target in INPUTS["links in archives"] for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)]
    links += [("", tarfile.CHRTYPE), ("", tarfile.FIFOTYPE)]
    packers: dict[str, Callable[..., bytes]] = {"zip": zipped, "tar": partial(tar, mode="w"), "tgz": tar}
    packers |= {kind: partial(tar, mode=f"w:{kind}") for kind in ("bz2", "xz")}
    for kind, pack in packers.items():
        refused = without(INVALID, "100 GB sparse")  # lzma skips zeros four bytes at a time
        either = {**DAMAGE, **flips(25)}
        for name in INPUTS["members of archives"]:
            member = name.encode(errors="replace").decode() if kind == "zip" else name
            either[f"with {name[:20]!r}"] = content(pack({**members, member: b"x"}))
        if kind == "zip":
            refused["a link"] = content(zipped({**members, "wanted/b": b"/etc"}, links=("wanted/b",)))
        else:
            linked = {f"{how!r} to {to!r}": pack(members, link("wanted/b", to, how)) for to, how in links}
            refused |= contents(linked)
        if kind == "tgz":
            refused["a bomb"] = lambda path: path.write_bytes(tar({**members, "b": bytes(200 << 20)}))
        yield Format("archives", f"own.{kind}", file_with(f"own.{kind}", pack(members)), unpack, refused, either)
