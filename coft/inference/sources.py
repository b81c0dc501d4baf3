"""Images that a user names: files, folders, patterns, lists. They are found one after the other, never all at once."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from coft.core.errors import UserError
from coft.images.reading import SUFFIXES

LIST = "-"  # a list on standard input


class Source(NamedTuple):
    """An image file.

    Attributes:
        shown: As the user knows it.
        path: Where it is.
    """

    shown: str
    path: Path


Resolve = Callable[[str], Path]  # a path as the user wrote it, to where it is


class Sources:
    """The images that some words name, each once, in the order of the words, files of a folder by their names.

    Args:
        words: Files, folders (to any depth; hidden files and folders are left out), patterns, `LIST`.
        resolve: Says where a path of the user's is.
        listed: Lines of the list.
        but: A folder whose images are left out.

    Raises:
        UserError: If a word names nothing.
    """

    def __init__(
        self, words: Sequence[str], resolve: Resolve = Path, listed: Iterable[str] = (), but: Path | None = None
    ) -> None:
        self.words, self.resolve, self.listed = list(words), resolve, listed
        self.but = None if but is None else but.resolve()
        for word in self.words:
            if word != LIST and not self.resolve(word).exists() and not self._matches(word):
                raise UserError(f"{word}: there is no such file or folder, and no file of this pattern; check the path")

    def __iter__(self) -> Iterator[Source]:
        seen = Seen()
        named = chain.from_iterable(self._of(word, seen) for word in self.words)
        return (source for source in named if not self._left_out(source))

    def count(self) -> int | None:
        """How many there are; None where a list may not be read twice."""
        return None if LIST in self.words else sum(1 for _ in self)

    def _of(self, word: str, seen: Seen) -> Iterator[Source]:
        if word == LIST:
            lines = (line.rstrip("\r\n") for line in self.listed)
            return (source for line in lines if line and seen.adds(source := Source(line, self.resolve(line))))
        path = self.resolve(word)
        if path.is_dir():
            return below(word, path, seen, self.but)
        return filter(seen.adds, [Source(word, path)] if path.exists() else self._matches(word))

    def _matches(self, word: str) -> list[Source]:
        """Files of a pattern; shown as the user would have written them."""
        pattern = str(self.resolve(word))
        ahead = len(pattern) - len(word) if pattern.endswith(word) else 0
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207
        return [Source(path[ahead:], Path(path)) for path in found if os.path.isfile(path)]  # noqa: PTH113

    def _left_out(self, source: Source) -> bool:
        return self.but is not None and source.path.absolute().parent.resolve().is_relative_to(self.but)


class Seen:
    """What was named already. Files of a folder are not kept, since there may be any number of them.

    Attributes:
        folders: Folders whose images were all named, by device and number.
        files: Names of files that were named one by one, by the folder that they are in.
    """

    def __init__(self) -> None:
        self.folders: set[tuple[int, int]] = set()
        self.files: defaultdict[tuple[int, int], set[str]] = defaultdict(set)

    def adds(self, source: Source) -> bool:
        """Note a file; False if it was named already, by whatever way to its folder. A link is a file of its own."""
        name = source.path.name
        try:
            folder = identity(source.path.parent)
        except OSError:
            return True  # nothing is there, and reading it will say so
        if name in self.files[folder] or (folder in self.folders and is_image(name)):
            return False
        self.files[folder].add(name)
        return True


def identity(folder: str | Path) -> tuple[int, int]:
    """What tells a folder from all others, whatever the way to it: its device and its number there."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def is_image(name: str) -> bool:
    """Whether a folder gives a file of this name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def below(shown: str, folder: Path, seen: Seen, but: Path | None = None) -> Iterator[Source]:
    """Images below a folder, by their names, folders after files; a folder that is linked in a circle comes once.

    Args:
        shown: The folder as the user knows it.
        folder: Where it is.
        seen: Files and folders that do not come again. Folders are added.
        but: A folder, resolved, that is not looked into.

    Raises:
        UserError: If a folder cannot be listed.
    """
    stack = [(shown, str(folder))]
    while stack:
        name, place = stack.pop()
        try:
            here = identity(place)
            if here in seen.folders or (but is not None and Path(place).resolve() == but):
                continue
            seen.folders.add(here)
            with os.scandir(place) as entries:
                listed = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            raise UserError(f"folder {name} cannot be listed ({error.strerror}); see to its permissions") from error
        for entry, is_folder in listed:
            if not is_folder and is_image(entry) and entry not in seen.files.get(here, ()):
                yield Source(os.path.join(name, entry), Path(place, entry))  # noqa: PTH118
        stack += [
            (os.path.join(name, entry), os.path.join(place, entry))  # noqa: PTH118
            for entry, is_folder in reversed(listed)
            if is_folder
        ]
