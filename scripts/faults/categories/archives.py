"""Archives that others made: members that lead outside, bombs, broken headers."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial

from scripts.getting.extract import extract

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "archives"
MEMBERS = (
    *(
        "../out.txt",
        "/tmp/coft-faults-out.txt",
        "a/../../out.txt",
        "..\\out.txt",
        "C:\\out.txt",
        "C:out.txt",
        "//out.txt",
    ),
    *(
        ".",
        "",
        "./",
        "..",
        "/",
        "a//b",
        "a/./b",
        "\0",
        "a\0b",
        "x" * 300,
        "a/" * 200 + "b",
        "con",
        "\udcff",
        "\n",
        "\x1b[31m",
    ),
)


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = []
    for kind, make in (("zip", zipped), ("tar", tarred), ("tar.gz", partial(tarred, mode="w:gz"))):
        for member in MEMBERS:
            data = partial(make, member)
            found.append(Case(CATEGORY, f"{kind} with {member[:20]!r}", partial(unpacked, make=data), names=("own",)))
        for seed in range(25):
            data = partial(mutated, partial(make, "more.txt"), seed)
            if kind == "tar":
                continue  # it has checksums of its headers alone
            found.append(
                Case(CATEGORY, f"{kind} with other bytes {seed}", partial(unpacked, make=data), names=("own",))
            )
        for share in (0.0, 0.1, 0.5, 0.9, 0.99):
            data = partial(cut, partial(make, "more.txt"), share)
            found.append(Case(CATEGORY, f"{kind} cut to {share:.0%}", partial(unpacked, make=data), names=("own",)))
        fine = Case(CATEGORY, f"{kind} as it should be", partial(unpacked, make=partial(make, "more.txt")), Right.FINE)
        found.append(fine)
    links = [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, ".."),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ]
    found += [
        Case(
            CATEGORY,
            f"tar with a {kind!r} to {to!r}",
            partial(unpacked, make=partial(linked, kind, to)),
            Right.REFUSED,
            ("own",),
        )
        for kind, to in links
    ]
    bomb = partial(unpacked, make=partial(zipped, "bomb", b"\0" * (200 << 20)))
    return [*found, Case(CATEGORY, "a bomb", bomb, Right.REFUSED, ("own",), 60)]


def zipped(member: str, content: bytes = b"x") -> bytes:
    """A zip file with a wanted file and another member."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wanted/a.txt", b"a" * 1000)
        info = zipfile.ZipInfo("placeholder")
        info.filename = member.encode(errors="replace").decode()
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(member: str, mode: str = "w") -> bytes:
    """A tar file, likewise."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in (("wanted/a.txt", b"a" * 1000), (member, b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def linked(kind: bytes, to: str) -> bytes:
    """A tar file with a link, or worse."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, how in (("wanted", tarfile.DIRTYPE), ("wanted/link", kind)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = how, to
            archive.addfile(info)
    return buffer.getvalue()


def mutated(make: Callable[[], bytes], seed: int) -> bytes:
    """An archive with a few other bytes."""
    source, data = random.Random(seed), bytearray(make())
    for _ in range(1 + seed % 6):
        data[source.randrange(min(len(data), 600 if seed % 2 else len(data)))] = source.randrange(256)
    return bytes(data)


def cut(make: Callable[[], bytes], share: float) -> bytes:
    """The beginning of an archive."""
    data = make()
    return data[: int(share * len(data))]


def unpacked(scene: Scene, make: Callable[[], bytes]) -> None:
    """Extract an archive: nothing lands outside, and what is wanted is there whole, or nothing is."""
    archive, root = scene.file("own.bin", make()), scene.place / "root"
    try:
        extract(archive, root, {"wanted": "data/wanted"})
    finally:
        names = {path.relative_to(scene.place).parts[0] for path in scene.place.rglob("*")}
        if names - {"own.bin", "root"} or any(path.is_symlink() for path in root.rglob("*")):
            raise Wrong(f"something is outside: {sorted(names)}")
    content = root / "data" / "wanted" / "a.txt"
    if content.is_file() and content.read_bytes() != b"a" * 1000:
        raise Wrong("a file is other than the archive's checksum says")
