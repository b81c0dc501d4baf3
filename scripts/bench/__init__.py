"""What steps, encoding, labelling and predictions cost (`bench.sh`), in a process like that of a run."""

from coft.core.startup import settle

settle()


def integers(text: str) -> list[int]:
    """Whole numbers with commas between them, as an argument of a command."""
    return [int(word) for word in text.split(",") if word]
