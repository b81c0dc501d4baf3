"""Benchmarks of training steps, encoding, labelling and prediction (`bench.sh`), in processes set up like a run's."""

from coft.core.startup import configure_process

configure_process()


def integers(text: str) -> list[int]:
    """Parse comma-separated integers, as an argparse type."""
    return [int(word) for word in text.split(",") if word]
