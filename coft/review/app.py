"""What the page of a review asks for, and what it gets. HTTP is in `server`."""

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

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw

from coft.core.errors import UserError
from coft.report.page import TEMPLATES as REPORT
from coft.report.thumbnails import small_picture
from coft.report.words import short

from .draft import ClassesFile, drafted
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
SIDE, QUALITY = 144, 70  # of a picture
REMEMBERED = 4_000  # pictures


@dataclass(frozen=True)
class Answer:
    """An answer of the server.

    Attributes:
        status: Of HTTP.
        kind: Type of the content.
        content: Bytes.
        lasting: Whether a browser may keep it.
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
    """A review of a run: what a page may ask for.

    Args:
        reviewed: The run.
        zero_shot: Zero-shot CLIP on its images.
        file: Where classes are written to. A page in another window writes to a file of its own.
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
        """What is to be seen under a name; None where there is nothing.

        Args:
            name: What follows the token.
            nonce: That scripts and styles of the page must carry.
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
        """Do what is asked for under a name; None where there is nothing.

        Args:
            name: What follows the token.
            content: What was sent.
        """
        if name not in self.posts:
            return None
        try:
            return as_json(self.posts[name](content))
        except UserError as error:
            return refused(400, error.line)

    # ---------------------------------------------------------------- what is seen

    def page(self, nonce: str) -> bytes:
        """The page, without its classes: it asks for these."""
        options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
        environment = Environment(loader=FileSystemLoader(TEMPLATES), lstrip_blocks=True, **options)
        run = self.reviewed.run
        content = {
            "title": short(run.folder.resolve().name),
            "images": len(run.images),
            "sample": len(self.reviewed.evidence.sample),
            "notices": [short(line, 300) for line in self.reviewed.notices],
            "nonce": nonce,
        }
        return environment.get_template("review.html").render(content).encode("utf-8", errors="replace")

    def state(self) -> dict[str, Any]:
        """Classes and suggestions of the run."""
        own = self.reviewed
        places, counts, effect = own.places(), own.counts(), self.zero_shot.effect(own.classes)
        classes = [
            {"names": list(names), "count": count, "images": places[names[0]], "share": share}
            for names, count, share in zip(names_of(own.classes), counts, effect.shares, strict=True)
        ]
        suggestions = [asdict(suggestion) for suggestion in own.suggestions()]
        return {"classes": classes, "suggestions": suggestions, "page": next(self.pages)}

    def _picture(self, place: int) -> Answer:
        images = self.reviewed.run.images
        if place >= len(images):
            return refused(404, "no picture")
        image = small_picture(images["path"].iloc[place], SIDE) or empty_picture()
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        return Answer(200, "image/webp", buffer.getvalue(), lasting=True)

    # ---------------------------------------------------------------- what is done

    def effect(self, content: Any) -> dict[str, Any]:
        """What zero-shot CLIP makes of classes."""
        return asdict(self.zero_shot.effect(drafted(_parts(content, "classes")[0], self.reviewed.classes)))

    def split(self, content: Any) -> dict[str, Any]:
        """Two groups of a class's images."""
        (label,) = _parts(content, "label")
        if type(label) is not int or not 0 <= label < len(self.reviewed.classes.names):
            raise UserError("label: expected the number of a class")
        return {"halves": [{"count": len(h), "images": h[:OF_HALF]} for h in self.reviewed.halves(label)]}

    def save(self, content: Any) -> dict[str, Any]:
        """Write classes to a file, and say by which command they are trained on."""
        draft, page = _parts(content, "classes", "page")
        if type(page) is not int:
            raise UserError("page: expected its number")
        classes = drafted(draft, self.reviewed.classes)
        self.zero_shot.effect(classes)  # refuses names that are too long for the text encoder
        with self.saving:
            before, file = self.file.path, self.files.get(page)
            new = file is None and bool(self.files)
            file = file or (ClassesFile(self.reviewed.run.folder) if new else self.file)
            notice = file.write(classes)
            self.file = self.files[page] = file
            assert file.path is not None
            self.command = command_with(self.reviewed, file.path)
        if new:
            notice = f"{before} was saved in another window, or before this page was loaded anew, and stays as it is."
        return {"file": str(file.path), "command": self.command, "notice": notice}

    def end(self, content: Any) -> dict[str, Any]:
        """The person is done."""
        self.done()
        return {}


def empty_picture() -> Image.Image:
    """What is shown of an image that cannot be read."""
    image = Image.new("RGB", (SIDE, SIDE), "#777777")
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), "cannot be read", "white", anchor="mm")
    return image


def _parts(content: Any, *names: str) -> list[Any]:
    if not isinstance(content, dict) or set(content) != set(names):
        raise UserError(f"expected an object with {' and '.join(map(repr, names))} alone")
    return [content[name] for name in names]
