"""Measures the steps of labelling a large pool, apart from encoding: bash scripts/bench.sh --pool.

Features are simulated: a vector for each class and noise, a function of the index. So a pool of any size can be had. A
pool of N images on R processes takes each of them what N / R images take one process, beside what is the same for all:
the anchors of the graph, the fit of negative vectors, and some numbers an image.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from coft.core.disk_tables import new_table
from coft.core.parallel import Parallel
from coft.core.seeding import generator
from coft.core.tables import ROWS, Rows
from coft.labelling.classifier import Classifier
from coft.labelling.neighbours import NeighbourGraph, neighbour_count
from coft.labelling.pseudo_labels import Predictions, correct_prior_, given_quotas, select_seeds
from coft.method.filters import both, with_minimum
from coft.method.labeller import Labeller, clean_, predict, zero_shot_logits
from coft.method.negative_prompt import draw, fit_negative
from coft.method.protocol import Runtime

SCALE, TAU, NOISE = 100.0, 0.5, 1.0
PEERS = ("peer_a", "peer_b")


class Tables:
    """Makes tables as a run does, and counts their bytes.

    Args:
        folder: Of those that are mapped.

    Attributes:
        made: Bytes of all tables that were made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0

    def allocate(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """A table; see `new_table`."""
        self.made += rows * columns * dtype.itemsize
        return new_table(rows, columns, dtype, self.folder)


class Steps:
    """Seconds of steps by name, and the most memory of the process's own that was in use during them, in GB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory, self.over = 0.0, threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context in which memory is looked at, ten times a second."""
        watch = threading.Thread(target=self._watch)
        watch.start()
        try:
            yield
        finally:
            self.over.set()
            watch.join()

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self.memory = max(self.memory, own_memory())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def own_memory() -> float:
    """GB of memory that are this process's own: pages of mapped files, which the system may take back, do not count."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.partition("RssAnon:")[2].split()[0]) / 1e6


def simulated(images: int, classes: int, width: int, tables: Tables, seed: int) -> tuple[Tensor, Tensor]:
    """Unit-length features of images, shape (N, width), and of the classes' names, shape (C, width)."""
    text = F.normalize(torch.randn(classes, width, generator=generator(seed, "text")), dim=1)
    rows = Rows(images, tables.allocate)
    for start in range(0, images, ROWS):
        count = min(ROWS, images - start)
        noise = torch.randn(count, width, generator=generator(seed, "image", start)) * NOISE / width**0.5
        rows.add(F.normalize(text[torch.arange(start, start + count) % classes] + noise, dim=1))
    return rows.table(), text


def first_labels(features: Tensor, text: Tensor, tables: Tables, steps: Steps) -> NeighbourGraph:
    """What `CoFT.begin` does with features of the frozen CLIP."""
    runtime = Runtime(1, allocate=tables.allocate)
    with steps.step("seeds: zero-shot logits, prior"):
        logits = correct_prior_(zero_shot_logits(features, text, SCALE, runtime), TAU)
    with steps.step("seeds: graph of neighbours"):
        graph = NeighbourGraph(features, neighbour_count(len(features), len(text)))
    with steps.step("seeds: probabilities spread"):
        logits = graph.spread(logits, tables.allocate)
    with steps.step("seeds: chosen"):
        select_seeds(logits, given_quotas(logits, 0.5, 32))
    return graph


def relabel(features: dict[str, Tensor], text: Tensor, graph: NeighbourGraph, tables: Tables, steps: Steps) -> None:
    """What `CoFT.relabel` does with features of both peers."""
    images: Any = features[PEERS[0]]
    runtime = Runtime(1, allocate=tables.allocate)
    labeller = Labeller(images, runtime, Parallel(1, nn.Identity(), "cpu"))
    vectors = nn.Parameter(text.clone()), nn.Parameter(-text)
    models = {name: Classifier(nn.Identity(), *vectors, SCALE) for name in PEERS}
    with steps.step("labels: logits and log-odds, both peers"):
        scores = labeller.classify(models, features)
    with steps.step("labels: predictions, spread, both peers"):
        found = {n: predict(*own, TAU, "coupled", graph, tables.allocate) for n, own in scores.items()}
    for name in PEERS:
        with steps.step("labels: negative vectors fitted, both peers"):
            refit(models[name], features[name], found[name])
    with steps.step("labels: p_clean anew, both peers"):
        for name, (_, log_odds) in labeller.classify(models, features).items():
            clean = clean_(log_odds, TAU, "coupled")
            found[name] = Predictions(found[name].label, found[name].probability, clean)
    with steps.step("labels: filter"):
        labels = with_minimum(both, 4)(found[PEERS[0]], found[PEERS[1]])
        labels.weighted().log_frequency(len(text))


def refit(model: Classifier, features: Tensor, predictions: Predictions) -> None:
    """Fit the negative vectors of a peer to labels of all images."""
    source = generator(1, "negative")
    index = draw(len(features), source)
    label, weight = predictions.label[index], predictions.confidence[index].float()
    fit_negative(features[index], label, weight, model.positive, model.negative, SCALE, source)


def measure(images: int, classes: int, width: int, folder: Path) -> dict[str, float]:
    """Label a simulated pool.

    Returns:
        Numbers by name: seconds of each step, memory, bytes of tables.
    """
    tables, steps = Tables(folder), Steps()
    with steps.watched():
        features, text = simulated(images, classes, width, tables, 1)
        graph = first_labels(features, text, tables, steps)
        peers = {name: simulated(images, classes, width, tables, 2)[0] for name in PEERS}
        relabel(peers, text, graph, tables, steps)
    return {**steps.seconds, "all steps": sum(steps.seconds.values()), "own memory, GB": steps.memory,
            "tables made, GB": tables.made / 1e9}  # fmt: skip


def table(found: dict[int, dict[str, float]]) -> str:
    """Seconds of each step by the number of images, and of a thousand images more, from the last two."""
    counts = list(found)
    rows: list[list[Any]] = []
    for name in found[counts[0]]:
        row: list[Any] = [name, *(round(found[count][name], 2) for count in counts)]
        if len(counts) > 1:
            more = (found[counts[-1]][name] - found[counts[-2]][name]) / (counts[-1] - counts[-2])
            row.append(f"{1000 * more:.4f}")
        rows.append(row)
    headers = ["seconds", *(f"{count:,} images" for count in counts), *(["1,000 more"] if len(counts) > 1 else [])]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure pools of several sizes."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh --pool", description=__doc__)
    parser.add_argument("--images", default="40000,80000,160000", metavar="N,N2", help="default: 40000,80000,160000")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--width", type=int, default=512, help="of features")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    found: dict[int, dict[str, float]] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for count in sorted(map(int, args.images.split(","))):
            found[count] = measure(count, args.classes, args.width, Path(folder))
            print(f"\n{table(found)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
