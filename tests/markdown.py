"""Markdown tables of commands."""

from __future__ import annotations


def table_rows(text: str) -> list[list[str]]:
    """Cells of each row of the Markdown tables in a text, without the rule below the header."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines if set(line) - set("|-: ")]
