"""The log: what it records, and how it behaves as a stream."""

from __future__ import annotations

import gc
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from dassl.utils import setup_logger
from toys import ours_only, upstream_fault


def fresh_console(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Replace the standard streams for the rest of a test, since a log may close them."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return stream


@pytest.mark.parametrize(("output", "log"), [("out", "out/log.txt"), ("own.txt", "own.txt"), ("own.log", "own.log")])
def test_log_records_printed_text(output: str, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = fresh_console(monkeypatch)
    setup_logger(None)  # changes nothing
    setup_logger(str(tmp_path / output))
    print("hello", 1)
    sys.stdout.flush()
    assert (tmp_path / log).read_text() == "hello 1\n"
    assert console.getvalue() == "hello 1\n"


def test_second_log_has_a_time_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    (tmp_path / "log.txt").write_text("of an earlier run\n")
    setup_logger(str(tmp_path))
    print("hello")
    sys.stdout.flush()
    (dated,) = (path for path in tmp_path.iterdir() if path.name != "log.txt")
    assert re.fullmatch(r"log\.txt-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d", dated.name)
    assert dated.read_text() == "hello\n"
    assert (tmp_path / "log.txt").read_text() == "of an earlier run\n"


@upstream_fault("no isatty, encoding, fileno")
def test_log_has_attributes_of_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "console").open("w", encoding="utf-8") as console:
        monkeypatch.setattr(sys, "stdout", console)
        setup_logger(str(tmp_path))
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert sys.stdout.fileno() == console.fileno()
        assert sys.stdout.writable()


@upstream_fault("the second log hangs on the first")
def test_two_experiments_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    for name in ("one", "two"):
        setup_logger(str(tmp_path / name))
        print(f"experiment {name}")
        sys.stdout.flush()
    for name in ("one", "two"):
        assert (tmp_path / name / "log.txt").read_text() == f"experiment {name}\n"


@upstream_fault("closes the console's stream")
def test_deleted_log_does_not_close_the_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = fresh_console(monkeypatch)
    setup_logger(str(tmp_path))
    sys.stdout = console
    gc.collect()
    print("still open")
    assert console.getvalue() == "still open\n"


@ours_only
def test_closed_log_restores_the_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    streams = sys.stdout, sys.stderr
    setup_logger(str(tmp_path))
    sys.stdout.close()
    sys.stderr.close()
    assert (sys.stdout, sys.stderr) == streams


@upstream_fault("standard error is not logged")
def test_warnings_and_tracebacks_are_logged(tmp_path: Path) -> None:
    code = (
        "import logging, warnings\n"
        "from dassl.utils import setup_logger\n"
        f"setup_logger({str(tmp_path)!r})\n"
        "warnings.warn('a warning')\n"
        "logging.getLogger('some.plugin').warning('a record')\n"
        "raise ValueError('an error')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    logged = (tmp_path / "log.txt").read_text()
    for expected in ("UserWarning: a warning", "a record\n", "Traceback", "ValueError: an error\n"):
        assert expected in done.stderr
        assert expected in logged


def test_progress_bars_are_not_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    setup_logger(str(tmp_path))
    print("before")
    for _ in tqdm(range(3), file=sys.stderr, mininterval=0, miniters=1):
        pass
    for _ in tqdm(range(2), file=sys.stderr, leave=False):
        for _ in tqdm(range(2), file=sys.stderr, position=1):
            pass
    print("after")
    sys.stdout.flush()
    assert (tmp_path / "log.txt").read_text() == "before\nafter\n"


def test_forked_worker_does_not_repeat_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    setup_logger(str(tmp_path))
    print("begun", end=" ")
    loader = DataLoader(TensorDataset(torch.arange(4)), num_workers=2)
    assert len(list(loader)) == 4
    print("done")
    sys.stdout.flush()
    assert (tmp_path / "log.txt").read_text() == "begun done\n"


@upstream_fault("a pipe that nobody reads ends the program")
def test_log_continues_after_the_console_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_console(monkeypatch)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as console:
        monkeypatch.setattr(sys, "stdout", console)
        setup_logger(str(tmp_path))
        for number in range(3):
            print(number)
        sys.stdout.flush()
        sys.stdout.close()
    assert (tmp_path / "log.txt").read_text() == "0\n1\n2\n"
