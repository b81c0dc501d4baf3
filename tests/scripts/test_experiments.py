"""What the experiments measure and show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from coft.engine.diagnostics import Diagnostics
from coft.labelling.pseudo_labels import Predictions, PseudoLabels
from scripts.comparing import peer_diagnostics as module
from scripts.comparing.commands import experiments
from scripts.comparing.methods import ABLATIONS, choose_ablations, load_ablations
from scripts.comparing.peer_diagnostics import SCORES, STAGES, fit_head, same_errors, survival
from scripts.comparing.plan import Grid, plan_ablations, weights_of
from tests.markdown import table_rows

from .toy_runs import write_summary


def labelled(labels: list[int]) -> Predictions:
    return Predictions(torch.tensor(labels), torch.zeros(len(labels), 3), torch.zeros(len(labels), 3))


def test_same_errors_are_counted_for_both_peers() -> None:
    truth = Diagnostics([0, 0, 1, 1, 2, -1])
    both = {"peer_a": labelled([0, 1, 2, 0, 2, 1]), "peer_b": labelled([1, 1, 2, 2, 2, 1])}
    wrong = [truth.wrong(own.label) for own in both.values()]
    assert [own.tolist() for own in wrong] == [[False, True, True, True, False, False], [True] * 4 + [False] * 2]
    assert same_errors(*wrong, both) == pytest.approx(2 * 2 / (3 + 4))


def test_errors_survive_by_their_neighbourhood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 3)
    source = torch.Generator().manual_seed(2)
    features, truth = torch.randn(40, 4, generator=source), torch.randint(3, (40,), generator=source)
    flips = torch.rand(2, 40, generator=source)
    first, last = (torch.where(flips[k] < (0.4, 0.2)[k], (truth + 1) % 3, truth) for k in (0, 1))
    found = survival(Diagnostics(truth), {"first": first, "last": last}, features)
    centred = F.normalize(features - features.mean(dim=0), dim=1)
    kinds: dict[str, list[bool]] = {"alone": [], "among wrong ones": []}
    for i in range(40):
        near = sorted((j for j in range(40) if j != i), key=lambda j: -float(centred[i] @ centred[j]))[:3]
        if first[i] != truth[i]:
            right = sum(int(first[j] == truth[j]) for j in near)
            kinds["alone" if right >= 1.5 else "among wrong ones"].append(bool(last[i] == truth[i]))
    total = sum(map(len, kinds.values()))
    for kind, ends in kinds.items():
        assert found[kind] == pytest.approx(len(ends) / total)
        assert found[f"{kind}, right in the end"] == pytest.approx(sum(ends) / len(ends))


def test_a_second_head_learns_the_labels_that_count() -> None:
    source = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(3, 8, generator=source), dim=1)
    truth = torch.arange(60) % 3
    features = F.normalize(centres[truth] + 0.1 * torch.randn(60, 8, generator=source), dim=1)
    weight = (torch.arange(60) < 30).float()
    noisy = torch.where(weight > 0, truth, (truth + 1) % 3)  # what has no weight is wrong
    head = fit_head(features, PseudoLabels.of_pool(noisy, weight), centres.roll(1, 0), 10.0)
    assert ((features @ head.t()).argmax(dim=1) == truth).float().mean() > 0.9
    torch.testing.assert_close(head.norm(dim=1), torch.ones(3))


def test_finished_forks_are_tabulated_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["surest 30 %", "filter of AUROC 1", "constant rate"]
    ablations = choose_ablations(load_ablations(ABLATIONS["CoFTOracle"]), [], rows)
    runs, _ = plan_ablations(ablations, Grid(["digits"], [1, 2], output=tmp_path))
    for run in runs:
        accuracy = 80.0 + run.seed + 10 * (run.method.name == "filter of AUROC 1")
        results = {"after Phase II": {"accuracy_both": accuracy, "seconds": 1.0}}
        more = {"results": results, "backbone_fingerprint": weights_of(run.backbone)}
        write_summary(run.folder, "CoFTOracle", run.seed, config=run.config, **more)
        numbers = {**dict.fromkeys(SCORES, 0.5 + run.seed / 10), "alike": 0.5}
        lost = {"alone": 0.75, "alone, right in the end": None if run.seed == 1 else 0.5}
        shares = lost | {"among wrong ones": 0.25, "among wrong ones, right in the end": 0.1}
        (run.folder / "witness.json").write_text(json.dumps(dict.fromkeys(STAGES, numbers) | {"survival": shares}))
    words = [word for row in rows for word in ("--row", row)]
    assert experiments(["digits", "--seeds", "1,2", "--output", str(tmp_path), "--no-run", *words]) == 0
    folder = tmp_path / "experiments" / "digits"
    text = (folder / "experiments.md").read_text()
    assert text in capsys.readouterr().out and (folder / "experiments.png").stat().st_size > 10_000
    lines = table_rows(text)
    (best,) = (line for line in lines if "filter of AUROC 1" in line)
    assert best[2:] == ["filter of AUROC 1", "2", "91.5", "91.5", "+10.00", "0.00", "0.00", "1"]
    assert ["Digits, embedded", "last", *["0.650"] * len(SCORES)] in lines  # the mean over seeds
    assert ["Digits, embedded", "0.50", "0.50", "0.75", "0.50", "0.25", "0.10"] in lines
