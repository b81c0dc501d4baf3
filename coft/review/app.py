"""The answers to what the page of a review asks for. HTTP itself is in `server`."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image, ImageDraw

from coft.core.errors import UserError
from coft.report.formatting import short
from coft.report.page import TEMPLATES as REPORT
from coft.report.page import environment
from coft.report.thumbnails import small_picture

from .draft import ClassesFile, classes_from_draft
from .rerun_command import command_with
from .reviewed import OF_HALF, Reviewed
from .zero_shot import ZeroShot, names_of

TEMPLATES = Path(__file__).parent / "templates"
RESOURCES = {
    "report.css": ("text/css", REPORT / "report.css"),
    "review.css": ("text/css", TEMPLATES / "review.css"),
    "draft.js": ("text/javascript", TEMPLATES / "draft.js"),
    "review.js": ("text/javascript", TEMPLATES / "review.js"),
}
SIDE, QUALITY = 144, 70  # pixels of the longer side of a picture, and quality of its WEBP
REMEMBERED = 4_000  # pictures that are cached


@dataclass(frozen=True)
class Answer:
    """An answer of the server.

    Attributes:
        status: HTTP status.
        kind: MIME type of the content.
        content: The body.
        lasting: Whether a browser may cache it.
    """

    status: int
    kind: str
    content: bytes
    lasting: bool = False


def as_json(content: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, "application/json", json.dumps(content).encode("ascii"))


def refused(status: int, reason: str) -> Answer:
    """An answer that says what is wrong."""
    return as_json({"error": reason}, status)


class Review:
    """A review of a run: it answers what a page may ask for.

    Args:
        reviewed: The run.
        zero_shot: Zero-shot CLIP on its images.
        file: The file that classes are written to. A page in another window gets another file.
        done: Called when the person is done.
    """

    def __init__(self, reviewed: Reviewed, zero_shot: ZeroShot, file: ClassesFile, done: Callable[[], None]) -> None:
        self.reviewed, self.zero_shot, self.file, self.done = reviewed, zero_shot, file, done
        self.command, self.pages, self.files, self.saving = "", itertools.count(), dict[int, ClassesFile](), Lock()
        self.posts: dict[str, Callable[[Any], Any]] = {
            "effect": self.effect,
            "split": self.split,
            "save": self.save,
            "done": self.end,
        }
        self.picture = lru_cache(REMEMBERED)(self._picture)

    def get(self, name: str, nonce: str) -> Answer | None:
        """Answer a GET request; None if there is nothing of this name.

        Args:
            name: The part of the path after the token.
            nonce: The nonce of the page's scripts and styles.
        """
        if name == "":
            return Answer(200, "text/html", self.page(nonce))
        if name in RESOURCES:
            kind, path = RESOURCES[name]
            return Answer(200, kind, path.read_bytes())
        if name == "state":
            return as_json(self.state())
        kind, _, number = name.partition("/")
        if kind == "picture" and number.isascii() and number.isdecimal() and len(number) < 12:
            return self.picture(int(number))
        return None

    def post(self, name: str, content: Any) -> Answer | None:
        """Answer a POST request; None if there is nothing of this name.

        Args:
            name: The part of the path after the token.
            content: The JSON that was sent.
        """
        if name not in self.posts:
            return None
        try:
            return as_json(self.posts[name](content))
        except UserError as error:
            return refused(400, error.line)

    # ---------------------------------------------------------------- what is seen

    def page(self, nonce: str) -> bytes:
        """The page without its classes, for which it asks later.

        Args:
            nonce: The nonce of its scripts and styles.
        """
        run = self.reviewed.run
        content = {
            "title": short(run.folder.resolve().name),
            "images": len(run.images),
            "sample": len(self.reviewed.evidence.sample),
            "notices": [short(line, 300) for line in self.reviewed.notices],
            "nonce": nonce,
        }
        return environment(TEMPLATES).get_template("review.html").render(content).encode("utf-8", errors="replace")

    def state(self) -> dict[str, Any]:
        """The classes of the run with names, counts, images and shares, the suggestions, and a number for the page."""
        reviewed = self.reviewed
        shown_images, counts = reviewed.shown_images(), reviewed.counts()
        effect = self.zero_shot.effect(reviewed.classes)
        classes = [
            {"names": list(names), "count": count, "images": shown_images[names[0]], "share": share}
            for names, count, share in zip(names_of(reviewed.classes), counts, effect.shares, strict=True)
        ]
        suggestions = [asdict(suggestion) for suggestion in reviewed.suggestions()]
        return {"classes": classes, "suggestions": suggestions, "page": next(self.pages)}

    def _picture(self, index: int) -> Answer:
        images = self.reviewed.run.images
        if index >= len(images):
            return refused(404, "no picture")
        image = small_picture(images["path"].iloc[index], SIDE) or empty_picture()
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        return Answer(200, "image/webp", buffer.getvalue(), lasting=True)

    # ---------------------------------------------------------------- what is done

    def effect(self, content: Any) -> dict[str, Any]:
        """The shares and images that zero-shot CLIP gives to the classes of a draft."""
        return asdict(self.zero_shot.effect(classes_from_draft(_parts(content, "classes")[0], self.reviewed.classes)))

    def split(self, content: Any) -> dict[str, Any]:
        """The images of a class in two groups."""
        (label,) = _parts(content, "label")
        if type(label) is not int or not 0 <= label < len(self.reviewed.classes.names):
            raise UserError("label: expected the number of a class")
        return {"halves": [{"count": len(h), "images": h[:OF_HALF]} for h in self.reviewed.halves(label)]}

    def save(self, content: Any) -> dict[str, Any]:
        """Write the classes of a draft to a file. Answers with the file and the command that trains with it."""
        draft, page = _parts(content, "classes", "page")
        if type(page) is not int:
            raise UserError("page: expected its number")
        classes = classes_from_draft(draft, self.reviewed.classes)
        self.zero_shot.effect(classes)  # refuses names that are too long for the text encoder
        with self.saving:
            earlier_path, file = self.file.path, self.files.get(page)
            is_new_file = file is None and bool(self.files)
            file = file or (ClassesFile(self.reviewed.run.folder) if is_new_file else self.file)
            notice = file.write(classes)
            self.file = self.files[page] = file
            assert file.path is not None
            self.command = command_with(self.reviewed, file.path)
        if is_new_file:
            notice = (
                f"{earlier_path} was saved in another window, or before this page was loaded anew, and stays as it is."
            )
        return {"file": str(file.path), "command": self.command, "notice": notice}

    def end(self, content: Any) -> dict[str, Any]:
        """End the review."""
        self.done()
        return {}


def empty_picture() -> Image.Image:
    """The picture in place of an image that cannot be read."""
    image = Image.new("RGB", (SIDE, SIDE), "#777777")
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), "cannot be read", "white", anchor="mm")
    return image


def _parts(content: Any, *names: str) -> list[Any]:
    if not isinstance(content, dict) or set(content) != set(names):
        raise UserError(f"expected an object with {' and '.join(map(repr, names))} alone")
    return [content[name] for name in names]
