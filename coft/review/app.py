"""Request handling of a review's page. The HTTP layer is in `server`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from coft.core.errors import UserError
from coft.core.files import writing
from coft.core.schemas import List, SchemaError, Text
from coft.engine.class_names import BAR, MAX_CLASSES, MAX_NAME_LENGTH, Classes, given_classes, write_classes
from coft.report.formatting import short
from coft.report.page import TEMPLATES as REPORT
from coft.report.page import environment
from coft.report.thumbnails import small_picture

from .rerun_command import command_with
from .reviewed import PICTURES_PER_HALF, Reviewed
from .zero_shot import ZeroShot, names_of

TEMPLATES = Path(__file__).parent / "templates"
RESOURCES = {
    "report.css": ("text/css", REPORT / "report.css"),
    "review.css": ("text/css", TEMPLATES / "review.css"),
    "draft.js": ("text/javascript", TEMPLATES / "draft.js"),
    "review.js": ("text/javascript", TEMPLATES / "review.js"),
}
SIDE, QUALITY = 144, 70  # longer side of a picture in pixels, and its WebP quality
CACHE_SIZE = 4_000  # size of the picture cache
MOST_NAMES = 1000  # upper bound of the names of a class
SCHEMA = List(List(Text(MAX_NAME_LENGTH), 1, MOST_NAMES), 2, MAX_CLASSES)  # for each class its name, then its synonyms


@dataclass(frozen=True)
class Answer:
    """HTTP response.

    Attributes:
        status: HTTP status.
        kind: MIME type of the content.
        content: Body.
        cacheable: Whether a browser may cache the response.
    """

    status: int
    kind: str
    content: bytes
    cacheable: bool = False


def as_json(content: Any, status: int = 200) -> Answer:
    """Return a JSON response."""
    return Answer(status, "application/json", json.dumps(content).encode("ascii"))


def error_response(status: int, reason: str) -> Answer:
    """Return an error response with its reason, as JSON."""
    return as_json({"error": reason}, status)


class Review:
    """Review of a run, which answers the requests of its pages.

    Args:
        reviewed: Run under review.
        zero_shot: Zero-shot CLIP on the run's images.
        done: Callback for when the user ends the review.

    Attributes:
        file: File that classes were saved to last, if any.
        command: Command that trains with it.
    """

    def __init__(self, reviewed: Reviewed, zero_shot: ZeroShot, done: Callable[[], None]) -> None:
        self.reviewed, self.zero_shot, self.done = reviewed, zero_shot, done
        self.file, self.command = Path(), ""
        self.posts: dict[str, Callable[[Any], Any]] = {
            "effect": self.effect,
            "split": self.split,
            "save": self.save,
            "done": self.end,
        }
        self.picture = lru_cache(CACHE_SIZE)(self._picture)

    def get(self, name: str, nonce: str) -> Answer | None:
        """Answer a GET request; None for an unknown name.

        Args:
            name: Part of the URL path after the token.
            nonce: CSP nonce of the page's scripts and styles.
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
        """Answer a POST request; None for an unknown name.

        Args:
            name: Part of the URL path after the token.
            content: Decoded JSON body of the request.
        """
        if name not in self.posts:
            return None
        try:
            return as_json(self.posts[name](content))
        except UserError as error:
            return error_response(400, error.line)

    # ---------------------------------------------------------------- what is seen

    def page(self, nonce: str) -> bytes:
        """Render the page. Its classes are not in it: the page requests them from `state`.

        Args:
            nonce: CSP nonce of its scripts and styles.
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
        """Return the classes with names, counts, images and shares, and the suggestions."""
        reviewed = self.reviewed
        shown_images, counts = reviewed.shown_images(), reviewed.run.counts
        effect = self.zero_shot.effect(reviewed.classes)
        classes = [
            {"names": list(names), "count": number, "images": shown_images[names[0]], "share": share}
            for names, number, share in zip(names_of(reviewed.classes), counts, effect.shares, strict=True)
        ]
        suggestions = [asdict(suggestion) for suggestion in reviewed.suggestions()]
        return {"classes": classes, "suggestions": suggestions}

    def _picture(self, index: int) -> Answer:
        images = self.reviewed.run.images
        if index >= len(images):
            return error_response(404, "no picture")
        image = small_picture(images["path"].iloc[index], SIDE) or empty_picture()
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        return Answer(200, "image/webp", buffer.getvalue(), cacheable=True)

    # ---------------------------------------------------------------- what is done

    def effect(self, content: Any) -> dict[str, Any]:
        """Return the share and images that zero-shot CLIP assigns to each class of a draft."""
        return asdict(self.zero_shot.effect(classes_from_draft(_parts(content, "classes")[0], self.reviewed.classes)))

    def split(self, content: Any) -> dict[str, Any]:
        """Split the images of a class into two groups."""
        (label,) = _parts(content, "label")
        if type(label) is not int or not 0 <= label < len(self.reviewed.classes.names):
            raise UserError("label: expected the number of a class")
        return {"halves": [{"count": len(h), "images": h[:PICTURES_PER_HALF]} for h in self.reviewed.halves(label)]}

    def save(self, content: Any) -> dict[str, Any]:
        """Write the classes of a draft to a new file. Returns the file, and the command that trains with it."""
        classes = classes_from_draft(_parts(content, "classes")[0], self.reviewed.classes)
        self.zero_shot.effect(classes)  # raises if a name is too long for the text encoder
        file = write_new(self.reviewed.run.folder, classes)
        command = command_with(self.reviewed, file)
        self.file, self.command = file, command  # of the last save; another may be under way
        return {"file": str(file), "command": command}

    def end(self, content: Any) -> dict[str, Any]:
        """End the review."""
        self.done()
        return {}


def empty_picture() -> Image.Image:
    """Return the placeholder for an image that cannot be read."""
    image = Image.new("RGB", (SIDE, SIDE), "#777777")
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), "cannot be read", "white", anchor="mm")
    return image


def _parts(content: Any, *names: str) -> list[Any]:
    if not isinstance(content, dict) or set(content) != set(names):
        raise UserError(f"expected an object with {' and '.join(map(repr, names))} alone")
    return [content[name] for name in names]


def classes_from_draft(content: Any, run_classes: Classes) -> Classes:
    """Validate the classes that a page has sent, and return them.

    Args:
        content: List with a list of names for each class: its name, then its synonyms.
        run_classes: Classes of the run. A class that keeps its name keeps its descriptions.

    Raises:
        UserError: If the content has another form, or if no classifier can be built from the names.
    """
    try:
        SCHEMA.check(content, "classes")
    except SchemaError as error:
        raise UserError(str(error)) from error
    if barred := [name for class_names in content for name in class_names if BAR in name]:
        raise UserError(f"{barred[0]!r}: {BAR!r} separates synonyms; take it out of the name")
    classes = given_classes([f" {BAR} ".join(class_names) for class_names in content])
    names = set(classes.names)
    descriptions = {name: sentences for name, sentences in run_classes.descriptions.items() if name in names}
    return Classes(classes.names, classes.synonyms, descriptions)


def write_new(folder: Path, classes: Classes) -> Path:
    """Write classes to a new file in a run's folder: `classes-2.txt`, or the next free number. Returns the file.

    Raises:
        UserError: If it cannot be written.
    """
    with writing(folder):
        for number in count(2):
            path = folder / f"classes-{number}.txt"
            with suppress(FileExistsError):
                path.open("x").close()
                break
        try:
            write_classes(path, classes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path
