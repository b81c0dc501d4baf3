"""Tables that commands print or write, read again."""

from __future__ import annotations


def table_rows(text: str) -> list[list[str]]:
    """Cells of each line of the Markdown tables in a text; the line below the heads is left out."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines if set(line) - set("|-: ")]
