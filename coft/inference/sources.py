"""Images that a user names by files, folders, patterns or lists. Folders and lists are iterated lazily."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from coft.core.errors import UserError
from coft.core.paths import expanded
from coft.images.index import identity, list_images, suffix_of
from coft.images.reading import SUFFIXES

LIST = "-"  # argument for a list on standard input


class Source(NamedTuple):
    """An image file.

    Attributes:
        shown: Path as the user wrote it.
        path: Resolved path.
    """

    shown: str
    path: Path


Resolve = Callable[[str], Path]  # from a path as the user wrote it to the path


class Sources:
    """Iterable of the images that arguments name: each once, in the order of the arguments, and by name in a folder.

    Args:
        words: Arguments: files, folders (searched recursively; hidden files and folders are left out), patterns, or
            `LIST`.
        resolve: Turns a path as the user wrote it into a path.
        listed: Lines of the list on standard input.
        exclude: Folder whose images are left out.

    Attributes:
        unsupported: Number of image files of unsupported formats in the folders, by suffix, once they were iterated.

    Raises:
        UserError: If an argument is empty or matches nothing.
    """

    def __init__(
        self, words: Sequence[str], resolve: Resolve = expanded, listed: Iterable[str] = (), exclude: Path | None = None
    ) -> None:
        self.words, self.resolve, self.listed = list(words), resolve, listed
        self.exclude = None if exclude is None else exclude.resolve()
        self.unsupported: Counter[str] = Counter()
        if "" in self.words:  # an empty path would mean the current folder
            raise UserError("a name of images is empty, as a variable without a value is; give files or folders")
        for word in self.words:
            if word != LIST and not self.resolve(word).exists() and not self._matches(word):
                raise UserError(f"{word}: there is no such file or folder, and no file of this pattern; check the path")

    def __iter__(self) -> Iterator[Source]:
        seen = Seen()
        self.unsupported.clear()
        if self.exclude is not None:
            with suppress(OSError):  # it does not exist yet
                seen.folders.add(identity(self.exclude))
        named = chain.from_iterable(self._of(word, seen) for word in self.words)
        return (source for source in named if not self._left_out(source))

    def count(self) -> int | None:
        """Count the images; None if there is a list, which can be read only once."""
        return None if LIST in self.words else sum(1 for _ in self)

    def _of(self, word: str, seen: Seen) -> Iterator[Source]:
        if word == LIST:
            names = names_in(self.listed)
            return (source for name in names if seen.adds(source := Source(name, self.resolve(name))))
        path = self.resolve(word)
        if path.is_dir():
            return self._below(word, path, seen)
        return filter(seen.adds, [Source(word, path)] if path.exists() else self._matches(word))

    def _below(self, shown: str, folder: Path, seen: Seen) -> Iterator[Source]:
        """Yield the images below a folder that were not listed already.

        A subfolder that cannot be listed is yielded in place of its images: reading it reports the problem.
        """
        for entry in list_images(folder, self.unsupported, seen.folders, shown):
            source = Source(os.path.join(shown, entry.path), folder / entry.path)  # noqa: PTH118
            if entry.problem or not (seen.files and (_folder_of(source.path), source.path.name) in seen.files):
                yield source

    def _matches(self, word: str) -> list[Source]:
        """Return the files that match a pattern."""
        pattern = str(self.resolve(word))
        ahead = len(pattern) - len(word) if pattern.endswith(word) else 0
        if ahead:  # brackets in the caller's folder are no pattern
            pattern = glob.escape(pattern[:ahead]) + word
        paths = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(word) else []  # noqa: PTH207
        return [Source(path[ahead:], Path(path)) for path in paths if os.path.isfile(path)]  # noqa: PTH113

    def _left_out(self, source: Source) -> bool:
        return self.exclude is not None and source.path.absolute().parent.resolve().is_relative_to(self.exclude)


def names_in(lines: Iterable[str]) -> Iterator[str]:
    """Yield the file names in a list: one per line, or separated by zero bytes (`find -print0`)."""
    zeros, rest = False, ""
    for number, line in enumerate(lines):
        line = line if number else line.removeprefix("\ufeff")  # byte order mark, which some editors write
        zeros = zeros or "\0" in line
        *names, rest = (rest + line).split("\0") if zeros else (line.rstrip("\r\n"), "")
        yield from filter(None, names)
    yield from filter(None, [rest])


class Seen:
    """Record of the images that were listed already. A listed folder is recorded without its files, to save memory.

    Attributes:
        folders: Folders whose images were all listed, by device and inode.
        files: Files that were listed individually: their folder, and their name.
    """

    def __init__(self) -> None:
        self.folders: set[tuple[int, int]] = set()
        self.files: set[tuple[tuple[int, int], str]] = set()

    def adds(self, source: Source) -> bool:
        """Record a file; False if it was listed already, under any path. A link counts as a separate file."""
        name = source.path.name
        folder = _folder_of(source.path)
        if folder is None:
            return True  # the folder is missing: reading the file reports that
        if (folder, name) in self.files or (folder in self.folders and is_image(name)):
            return False
        self.files.add((folder, name))
        return True


def _folder_of(path: Path) -> tuple[int, int] | None:
    try:
        return identity(path.parent)
    except (OSError, ValueError):
        return None


def is_image(name: str) -> bool:
    """Return whether a file of this name counts as an image when its folder is listed."""
    return not name.startswith(".") and suffix_of(name) in SUFFIXES
