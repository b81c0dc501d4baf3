"""Code blocks, links and commands of the project's pages."""

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
    *sorted((ROOT / "weights").glob("*.md")),
]
CURRENT = [page for page in PAGES if "archive" not in page.parts]  # the archive describes earlier versions
NEW_FILE = re.compile(r"New file `([\w/.]+)`")
AT_END = re.compile(r"[Aa]t the end of `([\w/.]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: Language; empty if there is none.
        code: Content.
        before: Paragraph before the block.
    """

    kind: str
    code: str
    before: str


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    matches = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [Block(m[1], m[2], text[: m.start()].rstrip().rsplit("\n\n", 1)[-1]) for m in matches]


def commands(page: Path) -> list[str]:
    """Return the commands of the shell blocks of a page, without comments and continuation marks."""
    code = "".join(block.code for block in blocks(page) if block.kind == "bash").replace("\\\n", " ")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in code.splitlines()) if line]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[tuple[str, str]]:
    """Return path and anchor of the links of a page within the project; the path is empty for the page itself."""
    targets = re.findall(r"\]\((?!https?://)([^)#\s]*)#?([^)\s]*)\)", prose(page))
    return [(path, anchor) for path, anchor in targets if path or anchor]


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}
