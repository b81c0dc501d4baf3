"""Images that a user names by files, folders, patterns or lists. They are listed one by one, never all at once."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from coft.core.errors import UserError
from coft.images.index import is_folder
from coft.images.reading import SUFFIXES

LIST = "-"  # stands for a list on standard input


class Source(NamedTuple):
    """An image file.

    Attributes:
        shown: The path as the user wrote it.
        path: The path.
    """

    shown: str
    path: Path


Resolve = Callable[[str], Path]  # turns a path as the user wrote it into a path


class Sources:
    """The images that some words name: each once, in the order of the words, and by name within a folder.

    Args:
        words: Files, folders (of any depth; hidden files and folders are left out), patterns, or `LIST`.
        resolve: Turns a path as the user wrote it into a path.
        listed: Lines of the list.
        exclude: A folder whose images are left out.

    Raises:
        UserError: If a word names nothing.
    """

    def __init__(
        self, words: Sequence[str], resolve: Resolve = Path, listed: Iterable[str] = (), exclude: Path | None = None
    ) -> None:
        self.words, self.resolve, self.listed = list(words), resolve, listed
        self.exclude = None if exclude is None else exclude.resolve()
        if "" in self.words:  # which would be the folder that the user stands in
            raise UserError("a name of images is empty, as a variable without a value is; give files or folders")
        for word in self.words:
            if word != LIST and not self.resolve(word).exists() and not self._matches(word):
                raise UserError(f"{word}: there is no such file or folder, and no file of this pattern; check the path")

    def __iter__(self) -> Iterator[Source]:
        seen = Seen()
        named = chain.from_iterable(self._of(word, seen) for word in self.words)
        return (source for source in named if not self._left_out(source))

    def count(self) -> int | None:
        """Number of images; None if there is a list, which can be read only once."""
        return None if LIST in self.words else sum(1 for _ in self)

    def _of(self, word: str, seen: Seen) -> Iterator[Source]:
        if word == LIST:
            names = names_in(self.listed)
            return (source for name in names if seen.adds(source := Source(name, self.resolve(name))))
        path = self.resolve(word)
        if path.is_dir():
            return below(word, path, seen, self.exclude)
        return filter(seen.adds, [Source(word, path)] if path.exists() else self._matches(word))

    def _matches(self, word: str) -> list[Source]:
        """The files of a pattern."""
        pattern = str(self.resolve(word))
        ahead = len(pattern) - len(word) if pattern.endswith(word) else 0
        paths = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207
        return [Source(path[ahead:], Path(path)) for path in paths if os.path.isfile(path)]  # noqa: PTH113

    def _left_out(self, source: Source) -> bool:
        return self.exclude is not None and source.path.absolute().parent.resolve().is_relative_to(self.exclude)


def names_in(lines: Iterable[str]) -> Iterator[str]:
    """Names of files in a list: one on each line, or with zero bytes between them (`find -print0`)."""
    zeros, rest = False, ""
    for number, line in enumerate(lines):
        line = line if number else line.removeprefix("\ufeff")  # some editors begin a file so
        zeros = zeros or "\0" in line
        *names, rest = (rest + line).split("\0") if zeros else (line.rstrip("\r\n"), "")
        yield from filter(None, names)
    yield from filter(None, [rest])


class Seen:
    """The images that were listed already. The files of a folder are not kept: there may be any number of them.

    Attributes:
        folders: Folders whose images were all listed, by device and inode.
        files: Names of files that were listed one by one, by their folder.
    """

    def __init__(self) -> None:
        self.folders: set[tuple[int, int]] = set()
        self.files: defaultdict[tuple[int, int], set[str]] = defaultdict(set)

    def adds(self, source: Source) -> bool:
        """Remember a file; False if it was listed already, by whatever path. A link counts as another file."""
        name = source.path.name
        try:
            folder = identity(source.path.parent)
        except (OSError, ValueError):
            return True  # there is no such file: reading it reports that
        if name in self.files[folder] or (folder in self.folders and is_image(name)):
            return False
        self.files[folder].add(name)
        return True


def identity(folder: str | Path) -> tuple[int, int]:
    """Device and inode of a folder: they identify it whatever path leads to it."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image of its folder."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def below(shown: str, folder: Path, seen: Seen, exclude: Path | None = None) -> Iterator[Source]:
    """List the images below a folder by name, files before folders. A folder is listed once, even in a circle of links.

    Args:
        shown: The folder as the user wrote it.
        folder: Path of the folder.
        seen: Files and folders that were listed already. Folders are added.
        exclude: A resolved folder that is not listed.

    Raises:
        UserError: If a folder cannot be listed.
    """
    stack = [(shown, str(folder))]
    while stack:
        name, path = stack.pop()
        try:
            folder_id = identity(path)
            if folder_id in seen.folders or (exclude is not None and Path(path).resolve() == exclude):
                continue
            seen.folders.add(folder_id)
            with os.scandir(path) as entries:
                children = sorted((entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            if name == shown:
                raise UserError(f"folder {name} cannot be listed ({error.strerror}); see to its permissions") from error
            yield Source(name, Path(path))  # reading it reports that
            continue
        for entry, has_more in children:
            if not has_more and is_image(entry) and entry not in seen.files.get(folder_id, ()):
                yield Source(os.path.join(name, entry), Path(path, entry))  # noqa: PTH118
        stack += [
            (os.path.join(name, entry), os.path.join(path, entry))  # noqa: PTH118
            for entry, has_more in reversed(children)
            if has_more
        ]
