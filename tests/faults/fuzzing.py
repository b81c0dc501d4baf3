"""Bytes that a coverage-guided fuzzer makes up for the readers of files: python -m tests.faults.fuzzing --help.

It begins with the campaign's files, and goes on from what reaches other lines of code. It needs `pip install atheris`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded

if TYPE_CHECKING:  # imported below, where lines are counted
    from .formats import Format
    from .oracle import Result
    from .scene import Scene

ROOT = Path(__file__).resolve().parents[2]
COUNTED = ["coft", "datasets", "scripts", "trainers", "json", "zipfile", "tarfile", "PIL"]
HERE = b"/HERE"  # stands for the folder of a case, which some files name
LARGEST = 1 << 14  # bytes of a file, if its format takes no more
MOST = 1 << 22  # of a file to begin with


def readers() -> dict[str, Format]:
    """What the campaign's files are read by, under their names."""
    from .campaign import CATEGORIES
    from .formats import Format

    made = (item for makers in CATEGORIES.values() for make in makers for item in make())
    kinds: dict[str, Format] = {}
    for kind in made:
        if isinstance(kind, Format) and kind.category != "places":  # those are folders
            kinds.setdefault(re.sub(r"\W+", "-", kind.name), kind)
    return kinds


def begin_with(kind: Format, scene: Scene, corpus: Path) -> None:
    """Write the campaign's files of a kind, sound and other ones, to a folder."""
    mutations = {"sound": lambda path: None, **kind.refused, **kind.either, **kind.fine}
    for number, mutate in enumerate(mutations.values()):
        path = kind.make(scene)
        mutate(path)
        if path.is_file() and path.stat().st_mode & 0o777 and path.stat().st_size <= MOST:
            (corpus / str(number)).write_bytes(path.read_bytes().replace(str(scene.place).encode(), HERE))
        shutil.rmtree(scene.place, ignore_errors=True)
        scene.place.mkdir()


def feed(kind: Format, data: bytes, shared: Path, place: Path) -> Result:
    """What comes of a file of these bytes."""
    from .oracle import EITHER, Case, play
    from .scene import Scene

    def read(scene: Scene) -> None:
        path = kind.make(scene)
        path.write_bytes(data.replace(HERE, str(scene.place).encode()))
        kind.read(scene, path)

    case = Case(kind.category, kind.name, read, EITHER, (kind.name, *kind.names), kind.seconds)
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        return play(case, Scene(shared, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(name: str, folder: Path, flags: Sequence[str]) -> None:
    """Feed a reader until the time is over or there is a fault; ends the process, as libFuzzer does."""
    import atheris

    with atheris.instrument_imports(include=COUNTED):
        kind = readers()[name]
        from .scene import Scene
    corpus, shared, place = (folder / part for part in ("corpus", "shared", "place"))
    for part in (corpus, shared, place):
        part.mkdir(parents=True, exist_ok=True)
    begin_with(kind, Scene(shared, place), corpus)

    def test_bytes(data: bytes) -> None:
        result = feed(kind, data, shared, place)
        if result.fault:
            raise RuntimeError(f"{result.found.value}: {result.line}")

    sizes = [path.stat().st_size for path in corpus.iterdir()]
    if sizes:  # else what it reads is a folder
        longest = max(LARGEST, 2 * statistics.median_low(sizes))
        options = [f"-artifact_prefix={folder}/", f"-max_len={longest}", "-rss_limit_mb=8192", *flags]
        atheris.Setup([sys.argv[0], *options, str(corpus)], test_bytes)
        atheris.Fuzz()


def fuzz_apart(name: str, args: argparse.Namespace) -> bool:
    """Fuzz a reader in a process of its own and say what came of it; whether there is no fault."""
    command = [sys.executable, "-m", "tests.faults.fuzzing", "--reader", name, "--seconds", str(args.seconds)]
    command += ["--seed", str(args.seed), "--keep", str(args.keep.resolve() / name)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    counts = re.findall(r"#(\d+)\s+\w+\s+cov: (\d+)", ended.stderr) or [(0, 0)]
    if ended.returncode == 0:
        print(f"{name}: {counts[-1][0]} files, {counts[-1][1]} branches", flush=True)
        return True
    reasons = re.findall(r"RuntimeError: .*|(?<=written to ).*", ended.stderr + ended.stdout)
    print(f"{name}: FAULT: {' '.join(reasons) or ended.stderr[-1000:]}", flush=True)
    return False


def main(argv: Sequence[str]) -> int:
    """Fuzz readers one after another. Returns 1 if there is a fault; the file that shows it is named."""
    parser = Parser(prog="python -m tests.faults.fuzzing", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="READER", help="names of readers (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is made up (default: 1)")
    parser.add_argument("--keep", type=Path, default=ROOT / "output" / "fuzzing", help="folder for files and faults")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if find_spec("atheris") is None:
        raise UserError("atheris, the fuzzer, is missing; run: pip install atheris")
    if args.reader:
        fuzz(args.reader, args.keep, [f"-max_total_time={args.seconds}", f"-seed={args.seed}"])
        return 0
    names = list(readers())
    if wrong := sorted(set(args.only or []) - set(names)):
        raise UserError(f"--only {wrong[0]}: no such reader; {did_you_mean(wrong[0], names)}")
    sound = [fuzz_apart(name, args) for name in args.only or names]
    return int(not all(sound))


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
