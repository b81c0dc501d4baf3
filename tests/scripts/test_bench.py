from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.text_tower import encode_text
from scripts.bench import __main__ as bench_main
from scripts.bench import measure as measure_module
from scripts.bench.__main__ import complete, main
from scripts.bench.measure import Measured, extrapolate, measure
from scripts.bench.report import Report
from scripts.bench.ways import WAYS, Setting, Step, class_names, difference, expected_operations, read_text, tokens_read
from scripts.bench.worker import Answers, WorkerDiedError

TINY = Setting("tiny", "ours", classes=6, batch=4)


class InThisProcess:
    """A worker without a process."""

    def __init__(self, setting: Setting, idle: bool = False) -> None:
        self.answers = Answers(setting, idle)

    def ask(self, question: str) -> Any:
        return getattr(self.answers, question)()

    def close(self) -> None:
        pass


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "Worker", InThisProcess)
    monkeypatch.setattr("scripts.bench.worker.GEMM", 64)
    monkeypatch.setattr("scripts.bench.worker.GEMM_SECONDS", 0.001)


def test_all_ways_make_the_same_steps() -> None:
    steps = {way: Step(TINY.but(way=way)) for way in WAYS}
    first = {way: [*step(), *step.gradients()] for way, step in steps.items()}
    second = {way: list(step()) for way, step in steps.items()}
    assert len(first["ours"]) == 2 + 3  # losses; gradients of both contexts and of the visual tokens
    assert all(gradient.abs().max() > 0 for gradient in first["ours"])
    for way in ("cut", "ours"):
        assert difference(first[way], first["plain"]) < 1e-4
        assert difference(second[way], second["plain"]) < 1e-4
    assert second["plain"][0] != first["plain"][0]


@pytest.mark.parametrize("way", WAYS)
def test_bf16_is_near_fp32(way: str) -> None:
    exact, near = (Step(TINY.but(way=way, precision=precision))() for precision in ("fp32", "bf16"))
    assert near != exact
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.02)


def test_a_difference_is_seen() -> None:
    a = [torch.tensor([1.0, 2.0]), torch.tensor(4.0)]
    assert difference(a, a) == 0
    assert difference([a[0], a[1] + 1], a) == 0.25
    assert math.isnan(difference(a[:1], a))


def test_the_plain_way_is_clips_own() -> None:
    step = Step(TINY.but(way="plain"))
    clip_model = step.clip_model
    tokens = torch.randint(1, 400, (3, 77))
    tokens[:, 20] = 49407  # the end of text, which CLIP finds as the largest
    embeddings = clip_model.token_embedding(tokens)
    found = read_text(clip_model, embeddings, tokens.argmax(dim=1))
    torch.testing.assert_close(found, clip_model.encode_text(tokens))
    torch.testing.assert_close(encode_text(clip_model, embeddings[:, :21], tokens.argmax(dim=1)), found)


def test_tokens_that_each_way_reads() -> None:
    names = class_names(6)
    assert names[:2] == ["abbey", "airplane_cabin"] and len(set(class_names(1300))) == 1300
    lengths = Step(TINY).peer.prompts.positive.lengths
    plain, cut, ours = (tokens_read(TINY.but(way=way)) for way in WAYS)
    assert (plain, cut, ours) == (6 * 77, 6 * (1 + 4 + max(lengths)), 1 + 4 + sum(lengths))
    assert tokens_read(TINY.but(context=16)) == ours + 12


def test_operations_are_counted(no_processes: None) -> None:
    counted = {way: InThisProcess(TINY.but(way=way, classes=40)).ask("first")["flops"] for way in WAYS}
    assert counted["plain"] > 2 * counted["cut"] > 2 * counted["ours"]
    assert 0.7 < counted["plain"] / expected_operations(TINY.but(way="plain", classes=40)) < 1.5


def test_workers_are_processes_of_their_own() -> None:
    (row,) = measure([TINY.but(way="cut")], repeats=1)  # each process and each repeat takes seconds
    assert len(row.seconds) == len(row.rates) == 1 and min(row.seconds) > 0
    assert 0 < row.rate_share < 1.2
    assert row.peak > row.before > 1e7
    assert (row.against, row.error) == ("cut", 0)


def test_ways_are_compared_with_the_first(no_processes: None) -> None:
    rows = measure([TINY.but(way="cut"), TINY], repeats=2)
    assert [(row.setting.way, row.against) for row in rows] == [("cut", "cut"), ("ours", "cut")]
    assert all(len(row.seconds) == len(row.rates) == 2 for row in rows)
    assert rows[0].error == 0 and rows[1].error is not None and 0 < rows[1].error < 1e-4


def test_what_runs_out_of_memory_is_left_out(no_processes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(InThisProcess):
        def ask(self, question: str) -> Any:
            if question == "first" and self.answers.setting.way == "plain":
                raise WorkerDiedError(question)
            return super().ask(question)

    monkeypatch.setattr(measure_module, "Worker", Small)
    rows = measure([TINY.but(way=way) for way in WAYS], repeats=1)
    assert [(row.setting.way, row.against) for row in rows] == [("cut", "cut"), ("ours", "cut")]


def found(way: str, classes: int, seconds: float) -> Measured:
    setting = TINY.but(way=way, classes=classes)
    tokens = tokens_read(setting)
    return Measured(
        setting, tokens, 10.0 * tokens, [seconds, seconds + 1], [seconds, seconds], 100.0 * tokens, 0.0, [1, 1]
    )


def test_extrapolation_follows_the_operations_and_is_labelled(tmp_path: Path) -> None:
    rows = [found("plain", 10, 12.0), found("plain", 20, 22.0), found("ours", 100, 2.0)]
    cell = [TINY.but(way=way, classes=100) for way in WAYS]
    plain, ours = complete(cell, rows)  # cut was not measured at all
    assert plain.extrapolated and not ours.extrapolated
    assert plain.seconds == pytest.approx([110.0, 115.0])  # as long for an operation as with 20 classes
    assert (plain.peak, plain.flops) == pytest.approx((100 * 7700, 10 * 7700))
    report = Report(tmp_path / "bench.md", {}, "bash scripts/bench.sh", 2)
    report.add([plain, ours])
    lines = report.table("github").splitlines()
    assert "plain (extrapolated)" in lines[2] and "extrapolated" not in lines[3]
    assert "45.00" in lines[3]  # 112.5 / 2.5
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["rate_share"] is None
    assert math.isnan(extrapolate(cell[0], rows[:2]).rate_share)


def test_too_many_classes_are_extrapolated_from_fewer(
    no_processes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_main.Memory, "fits", lambda self, setting: tokens_read(setting) < 700)
    monkeypatch.setattr(bench_main, "ANCHORS", (3, 8))
    out = tmp_path / "new" / "table.md"
    flags = ["--geometry", "tiny", "--classes", "20,2", "--batch", "2", "--repeats", "1", "--device", "cpu"]
    assert main([*flags, "--out", str(out)]) == 0
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [(r["setting"]["classes"], r["setting"]["way"], r["extrapolated"]) for r in rows] == [
        (2, "plain", False),
        (2, "cut", False),
        (2, "ours", False),
        (20, "plain", True),
        (20, "cut", False),
        (20, "ours", False),
    ]
    assert "plain (extrapolated)" in capsys.readouterr().out
    text = out.read_text()
    assert "bash scripts/bench.sh --classes 20,2 --geometry tiny --batch 2 --repeats 1" in text and "threads: 1" in text
    assert sorted(path.name for path in out.parent.iterdir()) == ["table.json", "table.md"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--geometry", "ViT-B/23"], "did you mean 'ViT-B/32'?"),
        (["--classes", "10,many"], "expected numbers with commas between them"),
        (["--classes", "1,10"], "--classes is 1; expected at least 2"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--out", "table.txt"], "ends in .md"),
    ],
)
def test_mistakes_are_said_in_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
