"""The paper's table: declaration, missing data and weights, parts, and results."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coft.core.errors import UserError
from coft.core.paths import HOME
from datasets.splits import save_split
from scripts.comparing import benchmark_runs
from scripts.comparing.benchmark import Published, read_benchmark, restrict
from scripts.comparing.benchmark_runs import runs_of_part
from scripts.comparing.commands import compare
from scripts.comparing.list import Result, add_to_list, read_list
from scripts.comparing.needs import missing_dataset, missing_weights, split_file
from scripts.comparing.paper_tables import deviations
from scripts.comparing.plan import Run
from tests.datasets.data_roots import load as load_set
from tests.markdown import table_rows

from .made_up import SETS, SIZES, facts, write_set
from .test_benchmark import finish
from .toy_runs import toy_run

NAMES = {"dtd": "DescribableTextures", "ucf101": "UCF101", "sun397": "SUN397", "fgvc_aircraft": "FGVCAircraft"}
NAMES |= {"imagenet": "ImageNet", "eurosat": "EuroSAT"}
ROWS = ["zero-shot", "UPL", "CoFT", "supervised, all labels"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with all eleven sets."""
    folder = tmp_path_factory.mktemp("data")
    for name in SETS:
        write_set(folder, name)
    return folder


@pytest.fixture
def weights_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Path where OpenAI's weights are missing."""
    path = tmp_path / "ViT-B-16.pt"
    for module in ("coft.backbones.load", "scripts.comparing.needs"):
        monkeypatch.setattr(f"{module}.openai_file", lambda name: path)
    return path


def write_declaration(path: Path, backbone: str = "ViT-B/16", sets: tuple[str, ...] = ("dtd", "eurosat")) -> Path:
    """Write a declaration with a few synthetic sets and rows."""
    content = yaml.safe_load((HOME / "configs" / "paper.yaml").read_text())
    content["sets"] = {name: vars(facts(name)) for name in sets}
    rows = {row if isinstance(row, str) else row["name"]: row for row in content["methods"]}
    content |= {"backbones": [backbone], "methods": [rows[name] for name in ROWS]}
    path.write_text(yaml.safe_dump(content))
    return path


# ------------------------------------------------------------------ declaration


def test_declaration_of_the_paper() -> None:
    paper = read_benchmark("paper")
    assert len(paper.sets) == 11 and {unit.backbone for unit in paper.units} == {"ViT-B/16"}
    names = [method.name for method in paper.methods]
    assert len(names) == 13 and len(paper.seeds) == 3
    assert {row.row for row in paper.published} <= {*names}
    assert all(set(row.accuracy) <= set(paper.sets) and row.source for row in paper.published)
    other = restrict(paper, ["dtd"], ["ViT-B/32", "RN50"], [7])
    assert [(unit.backbone, unit.dataset) for unit in other.units] == [("ViT-B/32", "dtd"), ("RN50", "dtd")]
    assert other.seeds == [7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark", "paper", "--sets", "dtt"], "--sets: 'dtt'.*dtd"),
        (["--benchmark", "small", "--backbone", "RN50"], "--backbone is for --benchmark paper"),
        (["digits", "--dry-run"], "--dry-run is for --benchmark"),
        (["--benchmark", "paper", "--gpus", "1,1"], "--gpus names 1 several times"),
        (["--benchmark", "paper", "--gpus", "0,1", "--jobs", "2"], "leave out --jobs"),
        (["--benchmark", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises((UserError, OSError), match=message):
        compare(arguments)


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2"])
def test_invalid_parts_are_refused(part: str) -> None:
    with pytest.raises(UserError, match=r"--part.*expected I/N"):
        compare(["--benchmark", "paper", f"--part={part}"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sets": {"dtd": {"classes": 3}}}, "sets.dtd has no 'title'"),
        ({"methods": ["UPL", {"name": "UPL", "trainer": "UPL"}]}, "'UPL' is listed twice"),
        ({"methods": ["ULP"]}, "did you mean 'UPL'"),
        ({"methods": [{"name": "mine", "trainer": "ULP"}]}, "methods"),
        ({"seeds": "123"}, "seeds is '123'"),
        ({"seeds": [1.5]}, "seeds"),
        ({"seeds": [float("inf")]}, "seeds"),
        ({"backbones": [None]}, "backbones"),
        ({"settings": {"OPTIM.LR": {"a": 1}}}, "settings.OPTIM.LR"),
    ],
)
def test_invalid_declaration_is_named(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    path = write_declaration(tmp_path / "mine.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | parts))
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{message}"):
        read_benchmark(str(path))


def test_declaration_of_nested_aliases_or_brackets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    rows = "".join(f", K{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(30))
    valid = write_declaration(path).read_text()
    for text in (f"{valid}settings: {{K0: &a0 [x]{rows}}}\n", "[" * 5000):
        path.write_text(text)
        with pytest.raises(UserError, match=r"mine\.yaml"):
            read_benchmark(str(path))


# ------------------------------------------------------------------ missing data and weights


@pytest.mark.parametrize("name", SETS)
def test_synthetic_sets_have_layouts_of_coop(root: Path, name: str) -> None:
    assert missing_dataset(name, facts(name), root) == ""
    kind = NAMES.get(name) or "".join(word.title() for word in name.split("_"))
    data = load_set(kind, root)
    assert (len(data.train_u), len(data.test)) == (SIZES["train"], SIZES["test"])


@pytest.mark.parametrize("name", SETS)
def test_missing_or_different_set_is_named_with_a_remedy(root: Path, tmp_path: Path, name: str) -> None:
    assert f"bash scripts/data.sh {name} --data {tmp_path}" in missing_dataset(name, facts(name), tmp_path)
    line = missing_dataset(name, replace(facts(name), test=99), root)
    assert str(root) in line and "expected" in line and str(SIZES["test"]) in line
    assert "another version" in line or name == "imagenet"


def test_split_other_than_coops_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, "dtd")
    path = split_file("dtd", tmp_path)
    path.rename(path.with_suffix(".kept"))
    assert "lacks CoOp's split" in missing_dataset("dtd", facts("dtd"), tmp_path)
    path.write_text('{"train": 7')
    assert f"{path} cannot be read" in missing_dataset("dtd", facts("dtd"), tmp_path)
    save_split({"train": [("class_0/0.jpg", 0, "banded")], "val": [], "test": []}, path)
    line = missing_dataset("dtd", facts("dtd"), tmp_path)
    assert "lacks CoOp's split" in line and f"rm {path} && bash" in line


def test_missing_or_wrong_weights_are_named(weights_path: Path) -> None:
    assert re.search(r"not here: curl .*ViT-B-16.pt https://", missing_weights("ViT-B/16"))
    weights_path.write_bytes(b"something else")
    assert "does not match OpenAI's file" in missing_weights("ViT-B/16")
    assert missing_weights("embedded") == ""


def test_dry_run_prints_what_is_missing(weights_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--benchmark", "paper", "--sets", "sun397,dtd", "--data", str(tmp_path), "--output", str(out)]
    assert compare([*arguments, "--seeds", "1", "--dry-run", "--gpus", "0,1"]) == 0
    printed = capsys.readouterr().err
    assert "13 rows, 26 runs; to be done: 26" in printed and "26 runs cannot be done" in printed
    assert "weights of ViT-B/16 are not here" in printed and f"data.sh dtd --data {tmp_path}" in printed
    assert not out.exists()


def test_nothing_starts_without_weights(weights_path: Path, tmp_path: Path, root: Path) -> None:
    weights_path.write_bytes(b"something else")
    arguments = ["--benchmark", "paper", "--sets", "dtd", "--seeds", "1", "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"does not match OpenAI's file"):
        compare([*arguments, "--data", str(root)])
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ parts


def test_parts_are_disjoint_complete_and_balanced(tmp_path: Path) -> None:
    images = {toy_run(tmp_path, f"run {number}"): 1000 * (number % 7) for number in range(30)}
    for count in (1, 2, 4):
        parts = [runs_of_part(images, (number, count)) for number in range(1, count + 1)]
        assert sorted(run.method.name for part in parts for run in part) == sorted(run.method.name for run in images)
        loads = [sum(images[run] for run in part) for part in parts]
        assert max(loads) - min(loads) <= 6000
        assert runs_of_part(dict(reversed(images.items())), (1, count)) == parts[0]


def test_concurrent_parts_share_a_list(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    right = {"end": np.array([True, False])}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: add_to_list(kept, [({"seed": seed}, Result(right, 1.0, {}))]), range(24)))
    assert len(read_list(kept)) == 24


# ------------------------------------------------------------------ table


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> list[str]:
    """Arguments of a command whose runs are made by `finish`, except one row of EuroSAT, which fails."""
    rates = {"zero-shot": 0.5, "UPL": 0.6, "CoFT": 0.8, "supervised, all labels": 0.9}

    def do_runs(runs: list[Run], *_: object) -> dict[Run, str]:
        failed = [run for run in runs if (run.method.name, run.dataset) == ("UPL", "eurosat")]
        finish([run for run in runs if run not in failed], rates)
        return dict.fromkeys(failed, "killed by SIGKILL; see run.log")

    monkeypatch.setattr(benchmark_runs, "do_runs", do_runs)
    monkeypatch.setattr("scripts.comparing.needs.missing_weights", lambda *_: "")
    declaration = write_declaration(tmp_path / "mine.yaml")
    return ["--benchmark", str(declaration), "--data", str(root), "--output", str(tmp_path / "out")]


def test_table_in_three_forms(
    finished: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_runs, "versions", lambda toolbox: {"commit": "other"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLED_FROM", str(tmp_path / "elsewhere"))
    assert compare(finished[:-2]) == 1  # some runs failed
    folder = tmp_path.resolve() / "output" / "benchmark"
    assert f"  {folder / 'mine.md'}\n" in capsys.readouterr().out
    text = (folder / "mine.md").read_text()
    heads, *rows = table_rows(text)
    cells = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert heads == ["method", "Dtd", "Eurosat", "mean"]
    assert cells["UPL"]["Eurosat"] == cells["UPL"]["mean"] == "-"
    assert cells["UPL (published)"] == {"method": "UPL (published)", "Dtd": "44.7", "Eurosat": "-", "mean": "-"}
    assert re.fullmatch(r"\*\*\d\d\.\d\*\* ±\d\.\d", cells["CoFT"]["mean"])
    assert "**" not in cells["supervised, all labels"]["Dtd"]
    assert "killed by SIGKILL" in text and re.search(r"results? of 1 other commit than other count", text)
    assert "the set-up differs: UPL on dtd" in text and "arXiv 2602.04337" in text
    table = pd.read_csv(folder / "mine.csv")
    coft = table[(table["method"] == "CoFT") & ~table["published"]].set_index("dataset")
    assert coft.loc["mean", "accuracy"] == pytest.approx(coft.loc[["dtd", "eurosat"], "accuracy"].mean())
    assert coft.loc["mean", "half_interval"] < coft.loc["dtd", "half_interval"]
    tex = (folder / "mine.tex").read_text()
    assert tex.count(r"\midrule") == 2 and r"\toprule" in tex and r"\textbf{" in tex and r"$\pm$" in tex
    assert r"\caption{" in tex and not re.search(r"[\x00-\x08±]", tex)


def test_missing_set_is_skipped_until_it_exists(
    finished: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*finished, "--data", str(tmp_path / "some")]
    write_set(tmp_path / "some", "dtd")
    assert compare(arguments) == 1
    printed = capsys.readouterr()
    assert f"data.sh eurosat --data {tmp_path / 'some'}" in printed.err and "| Dtd |" in re.sub(" +", " ", printed.out)
    write_set(tmp_path / "some", "eurosat")
    compare(arguments)
    printed = capsys.readouterr()
    assert "missing:" not in printed.err and "to be done: 10" in printed.err and "Eurosat" in printed.out


def test_differences_from_published_results_are_listed() -> None:
    figures = [Published("UPL", "UPL", "ViT-B/16", "a table", {"dtd": 44.7, "eurosat": 60.0}, check=True)]
    rows = [("ViT-B/16", "dtd", 46.0), ("ViT-B/16", "eurosat", 60.9), ("RN50", "dtd", 9.0)]
    ours = pd.DataFrame(rows, columns=["backbone", "dataset", "accuracy"]).assign(method="UPL", published=False)
    (line,) = deviations(figures, ours)
    assert "UPL on dtd" in line and "46.0" in line and "44.7" in line and "+1.3" in line
    assert deviations([replace(figures[0], check=False)], ours) == []
