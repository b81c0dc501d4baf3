"""Reading the project's pages: code blocks, links, commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMPAT = ROOT / "compat" / "dassl"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(COMPAT.rglob("*.md")),
    ROOT / "weights" / "README.md",
]
CURRENT = [page for page in PAGES if "archive" not in page.parts]  # the archive is in the words of its time
NEW_FILE = re.compile(r"New file `([\w/.]+)`")
AT_END = re.compile(r"[Aa]t the end of `([\w/.]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: Its language; empty if none is named.
        code: What it holds.
        before: The paragraph before it.
    """

    kind: str
    code: str
    before: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(m[1], m[2], text[: m.start()].rstrip().rsplit("\n\n", 1)[-1]) for m in found]


def commands(page: Path) -> list[str]:
    """Lines of a page's shell blocks, without comments; a line that goes on is one."""
    code = "".join(block.code for block in blocks(page) if block.kind == "bash").replace("\\\n", " ")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in code.splitlines()) if line]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[tuple[str, str]]:
    """Targets of a page's links within the project: path (empty for the page itself) and anchor."""
    found = re.findall(r"\]\((?!https?://)([^)#\s]*)#?([^)\s]*)\)", prose(page))
    return [(path, anchor) for path, anchor in found if path or anchor]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}
