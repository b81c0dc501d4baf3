"""References of the pages exist: links, anchors, names in the code, files, commands, flags, keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from coft.core.settings import flatten
from dassl.config import get_cfg_default
from scripts import launch
from tests.docs.pages import CURRENT, DOCS, NEW_FILE, PAGES, ROOT, anchors, commands, links, prose
from trainers import extend_cfg

FOLDERS = "coft|trainers|datasets|scripts|configs|tests|weights|docs|compat"
FILE = re.compile(rf"`((?:{FOLDERS})/[\w/.-]+)`")
SCRIPT = re.compile(r"\bscripts/\w+\.(?:sh|py)\b")
TRAINER = re.compile(r"scripts/launch\.py (\w+)")
PRESETS = ROOT / "configs" / "trainers" / "CoFT" / "as_printed.yaml"


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=page_name)
current_pages = pytest.mark.parametrize("page", CURRENT, ids=page_name)


def files_added_by(page: Path) -> set[str]:
    """Return the files that a page tells its readers to write."""
    return set(NEW_FILE.findall(page.read_text(encoding="utf-8")))


@pages
def test_link_targets_exist(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


@current_pages
def test_linked_names_are_defined_in_their_files(page: Path) -> None:
    for name, path in re.findall(r"\[`([\w.]+)`\]\(([^)#]+\.py)\)", prose(page)):
        code = (page.parent / path).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"^ *(?:def|class) {part}\b|^{part}\b.* = ", code, re.M), f"{name} in {path}"


@current_pages
def test_mentioned_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    mentioned = {*FILE.findall(prose(page)), *SCRIPT.findall(text)} - files_added_by(page)
    assert not [path for path in mentioned if not (ROOT / path).exists()]


@current_pages
def test_flags_of_commands_exist(page: Path) -> None:
    sources = [
        *(ROOT / "scripts").rglob("*.py"),
        *(ROOT / "coft" / "inference").rglob("*.py"),
        *(ROOT / "tests").glob("*/__main__.py"),  # of golden and faults
        ROOT / "train.py",
    ]
    flags = set(re.findall(r'"(--[a-z0-9-]+)"', "".join(path.read_text(encoding="utf-8") for path in sources)))
    flags |= {"--scaling", "--pool", "--photo", "--growth", "--predict"}  # of bench.sh
    flags |= {"--help", "--dassl", "--pdb", "--out"}
    flags |= {"--standalone", "--nproc-per-node", "--rdzv-backend"}  # of torchrun
    for command in commands(page):
        if "scripts/" in command or "train.py" in command or "tests." in command:
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", command)) <= flags, command


@current_pages
def test_trainer_commands_can_be_parsed(page: Path) -> None:
    for command in commands(page):
        match = re.match(r"bash (scripts/\w+\.sh)((?: [\w./,:@-]+)*)$", command)
        if match is None or match[1] in files_added_by(page):
            continue
        trainer = TRAINER.search((ROOT / match[1]).read_text(encoding="utf-8"))
        if trainer:
            args = launch.parse(trainer[1], match[2].split())
            assert len(args.opts) % 2 == 0 or args.opts[-1:] == ["..."], command


@current_pages
def test_mentioned_keys_exist(page: Path) -> None:
    cfg = get_cfg_default()
    extend_cfg(cfg)
    known = set(flatten(cfg))
    sections = {key.split(".")[0] for key in known if "." in key}
    known |= {key.rpartition(".")[0] for key in known}
    new = re.search(r'MethodSpec\("(\w+)"', page.read_text(encoding="utf-8"))  # a trainer that the page adds
    added = (f"TRAINER.{new[1].upper()}",) if new else ()
    for name in re.findall(r"(?<![\w./])([A-Z][A-Z0-9_]+(?:\.[A-Z][A-Z0-9_]*)+)(?![\w./])", page.read_text()):
        if name.split(".")[0] in sections and not name.startswith(added):
            assert name in known, name


def test_method_page_lists_all_keys_of_preset() -> None:
    section = (DOCS / "method.md").read_text(encoding="utf-8").partition("## Doubts about the paper")[2]
    table = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")][2:]
    listed = [re.findall(r"`([A-Z0-9_.]+)`", line)[-1] for line in table]
    preset = flatten(yaml.safe_load(PRESETS.read_text(encoding="utf-8")))
    assert sorted(f"TRAINER.COFT.{key}" for key in listed) == sorted(preset)
