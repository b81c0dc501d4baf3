"""A finished run on a user's images with a CLIP of random weights, and servers of its review."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coft.review.app import Review
from coft.review.reviewed import Reviewed, read_reviewed
from coft.review.server import Server, zero_shot_of
from coft.review.zero_shot import ZeroShot
from tests.coft.report.runs import write_images

from .reviewed_runs import PER_CLASS, SHOWN, write_reviewed


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """Thirty images per class but none of the last; those of "hill" show mountains, half of them of another kind."""
    folder = tmp_path_factory.mktemp("review")
    paths = write_images(folder / "images", [f"{i} <u>.png" for i in range(PER_CLASS * len(SHOWN))])
    return write_reviewed(folder / "run", paths, checkpoints["resnet"], folder / "images")


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def read(run_folder: Path) -> tuple[Reviewed, ZeroShot]:
    reviewed = read_reviewed(run_folder)
    return reviewed, zero_shot_of(reviewed)


@pytest.fixture
def start_server(run_folder: Path, read: tuple[Reviewed, ZeroShot]) -> Iterator[Callable[..., Server]]:
    """Serve reviews of the run. The classes that they save are removed after the test."""
    servers = []

    def start() -> Server:
        server = Server(0)
        server.ended = threading.Event()
        server.review = Review(*read, server.ended.set)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
    for path in run_folder.glob("classes-*.txt"):
        path.unlink()
