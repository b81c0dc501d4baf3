"""Coverage-guided fuzzing of the readers of files: python -m tests.faults.fuzzing [READER ...].

The corpus starts with the files of the campaign. Each reader is fuzzed in a process of its own, which ends at the first
fault and names the file that shows it. It needs `pip install atheris`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from coft.core.errors import Parser, UserError, did_you_mean
from coft.core.exit_codes import guarded

if TYPE_CHECKING:  # imported below, with instrumentation
    from .formats import Format
    from .verdict import Result
    from .workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
INSTRUMENTED = ["coft", "datasets", "scripts", "trainers", "json", "zipfile", "tarfile", "PIL"]
FOLDER = b"/CASE-FOLDER"  # placeholder for the folder of a case, which some files contain
LARGEST = 1 << 22  # bytes of a file of the corpus


def readers() -> dict[str, Format]:
    """Return the formats of the campaign by name."""
    from .campaign import CATEGORIES
    from .formats import Format

    formats: dict[str, Format] = {}
    sources = dict.fromkeys(source for sources in CATEGORIES.values() for source in sources)
    for item in (item for source in sources for item in source()):
        if isinstance(item, Format) and item.category != "paths":  # those are folders
            formats.setdefault(re.sub(r"\W+", "-", item.name), item)
    return formats


def write_corpus(kind: Format, workspace: Workspace, corpus: Path) -> None:
    """Write the valid file of a format and its mutations to a folder."""
    mutations = {"valid": lambda path: None, **kind.refused, **kind.either, **kind.accepted}
    for number, mutate in enumerate(mutations.values()):
        path = kind.make(workspace)
        mutate(path)
        if path.is_file() and path.stat().st_mode & 0o777 and path.stat().st_size <= LARGEST:
            (corpus / str(number)).write_bytes(path.read_bytes().replace(str(workspace.folder).encode(), FOLDER))
        shutil.rmtree(workspace.folder, ignore_errors=True)
        workspace.folder.mkdir()


def read_bytes(kind: Format, data: bytes, shared: Path, parent: Path) -> Result:
    """Read a file with these bytes, in a new folder inside `parent`."""
    from .verdict import Case, run_case
    from .workspace import Workspace

    def read(workspace: Workspace) -> None:
        path = kind.make(workspace)
        path.write_bytes(data.replace(FOLDER, str(workspace.folder).encode()))
        kind.read(workspace, path)

    case = Case(kind.category, kind.name, read, input_names=(kind.name, *kind.input_names))
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        return run_case(case, Workspace(shared, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Fuzz a reader until the time is over or there is a fault; ends the process, as libFuzzer does."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        kinds = readers()
        from .workspace import Workspace
    if name not in kinds:
        raise UserError(f"{name}: no such reader; {did_you_mean(name, kinds)}")
    kind = kinds[name]
    corpus, shared, parent = (folder / part for part in ("corpus", "shared", "cases"))
    for part in (corpus, shared, parent):
        part.mkdir(parents=True, exist_ok=True)
    write_corpus(kind, Workspace(shared, parent), corpus)

    def test_bytes(data: bytes) -> None:
        result = read_bytes(kind, data, shared, parent)
        if result.is_fault:
            raise RuntimeError(f"{result.outcome.value}: {result.message}")

    if any(corpus.iterdir()):  # else the reader reads a folder
        options = [f"-artifact_prefix={folder}/", "-seed=1", "-rss_limit_mb=8192", f"-max_total_time={seconds}"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], test_bytes)
        atheris.Fuzz()


def main(argv: Sequence[str]) -> int:
    """Fuzz readers one after another. Returns 1 if there is a fault."""
    parser = Parser(prog="python -m tests.faults.fuzzing", description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help="names of readers (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader (default: 60)")
    parser.add_argument("--keep", type=Path, default=ROOT / "output" / "fuzzing", help="folder for files and faults")
    args = parser.parse_args(argv)
    if find_spec("atheris") is None:
        raise UserError("atheris, the fuzzer, is missing; run: pip install atheris")
    if len(args.readers) == 1:
        fuzz(args.readers[0], args.seconds, args.keep.resolve() / args.readers[0])
        return 0
    flags = ["--seconds", str(args.seconds), "--keep", str(args.keep.resolve())]
    command = [sys.executable, "-m", "tests.faults.fuzzing", *flags]
    codes = []
    for name in args.readers or readers():
        print(f"{name}:", flush=True)
        codes.append(subprocess.run([*command, name], cwd=ROOT, check=False).returncode)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
