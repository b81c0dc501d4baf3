"""Once Phase II has trained, what judges labels is fitted to the surest images of the time."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from coft.method.labelling import classify_features, classify_pool, encode_pool, pool_features
from coft.method.negative_head import fit_negative
from coft.method.seeds import Seeds
from tests.trainers.conftest import weights
from trainers.parts import judging
from trainers.parts.peer_trainer import PeerTrainer

ABLATIONS = Path(__file__).parents[2] / "configs" / "ablations.yaml"
PEERS = ("peer_a", "peer_b")
KEY = (1, "labels", 7)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("backbone", ["resnet", "vit"])
@torch.no_grad()
def test_labels_by_kept_features_are_those_of_one_pass(run: Callable[..., Any], backbone: str, views: int) -> None:
    trainer = run("CoFT", backbone, train=False, DATALOADER__TEST__BATCH_SIZE=7)
    where = (trainer.pool, trainer.cfg, trainer.device)
    teachers = {name: peer.teacher().eval() for name, peer in trainer.peers.items()}
    features = encode_pool(teachers, *where, views=views, key=KEY)
    found = classify_features(teachers, features, trainer.device, trainer.output_dir)
    plain = classify_pool(teachers, *where, views=views, key=KEY)
    everything = dict.fromkeys(teachers, torch.arange(len(trainer.pool)))
    alone = pool_features(teachers, *where, everything, views=views, key=KEY)
    for name in teachers:
        torch.testing.assert_close(features[name], alone[name])
        for got, wanted in zip(found[name], plain[name], strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def pairs(seeds: Seeds) -> list[tuple[int, int]]:
    """Ranks and labels."""
    return list(zip(seeds.ranks.tolist(), seeds.labels.tolist(), strict=True))


def surest(views: dict[str, tuple[Tensor, Tensor]], most: int) -> dict[str, list[tuple[int, int]]]:
    """Ranks and labels of the surest images by the mean probability, by turns: an image at a time."""
    count, classes = next(iter(views.values()))[0].shape
    mean = torch.zeros(count, classes, dtype=torch.float64)
    for plus, _ in views.values():  # Phase II goes by these
        for i in range(count):
            mean[i] += plus[i].double().softmax(dim=0) / len(views)
    weighed = mean / mean.mean(dim=0).sqrt()

    def best(place: int, c: int, without: set[int]) -> list[int]:
        mine = [i for i in range(count) if i not in without and int(weighed[i].argsort(descending=True)[place]) == c]
        return sorted(mine, key=lambda i: -float(weighed[i, c] / (weighed[i].sum() - weighed[i, c])))

    chosen = [best(0, c, set())[:most] for c in range(classes)]
    taken = {i for images in chosen for i in images}
    chosen = [images + best(1, c, taken)[: most - len(images)] for c, images in enumerate(chosen)]
    return {name: [(i, c) for c, images in enumerate(chosen) for i in images[n::2]] for n, name in enumerate(PEERS)}


def test_seeds_are_the_surest_images_when_labels_are_made_once_more(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__SEEDS_PER_CLASS=2, TRAINER__COFT__PHASE2__REFRESH=1)
    wanted: list[dict[str, list[tuple[int, int]]]] = []
    given: list[dict[str, list[tuple[int, int]]]] = []
    fits: list[tuple[Tensor, Tensor, Tensor]] = []
    first: dict[str, list[tuple[int, int]]] = {}
    renew, fit = trainer.renew_seeds, trainer.fit_negatives

    def recorded_renewal(features: dict[str, Tensor]) -> None:
        wanted.append(surest(trainer.classified(features), 4))
        renew(features)

    def recorded_fit(known: dict[str, Tensor] | None = None, to_lessons: bool = False) -> None:
        if trainer.phase == 1 and not first:
            first.update({name: pairs(trainer.peers[name].seeds) for name in PEERS})
        if known is not None:
            seeds = [trainer.peers[name].seeds for name in PEERS]
            given.append({n: pairs(s) for n, s in zip(PEERS, seeds, strict=True)})
            fits.clear()
        fit(known, to_lessons)
        if known is not None:
            told = sorted((f.sum().item(), y.tolist()) for f, y, _ in fits)
            mine = [(known[n][s.ranks].sum().item(), s.labels.tolist()) for n, s in zip(PEERS, seeds, strict=True)]
            assert told == sorted(mine)

    def recorded_vectors(features: Tensor, labels: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        fits.append((features, labels, weight))
        return fit_negative(features, labels, weight, *rest)

    monkeypatch.setattr(trainer, "renew_seeds", recorded_renewal)
    monkeypatch.setattr(trainer, "fit_negatives", recorded_fit)
    monkeypatch.setattr(judging, "fit_negative", recorded_vectors)
    trainer.train()
    assert len(given) == trainer.own.PHASE2.EPOCHS
    assert given.pop(0) == first  # Phase I has learned from these alone: its choice would be of them again
    for found, expected in zip(given, wanted, strict=True):
        assert {name: sorted(seeds) for name, seeds in found.items()} == {n: sorted(s) for n, s in expected.items()}
    assert given[-1] != first


def test_seeds_of_phase_one_may_stay(run: Callable[..., Any]) -> None:
    keys = {"TRAINER__COFT__PHASE2__RENEW_SEEDS": False}
    begun = run("CoFT", train=False, **keys)
    begun.before_train()
    ended = run("CoFT", out="other", **keys)
    renewed = run("CoFT", out="third")
    changed = []
    for name in PEERS:
        first, last, now = (trainer.peers[name].seeds for trainer in (begun, ended, renewed))
        assert torch.equal(first.ranks, last.ranks) and torch.equal(first.labels, last.labels)
        changed.append(not torch.equal(first.ranks, now.ranks))
    assert any(changed)


def test_each_model_renews_its_own_seeds_where_it_is_taught_its_own_labels(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"TRAINER__COFT__FILTER": "self", "TRAINER__COFT__SEEDS_PER_CLASS": 2, "TRAINER__COFT__PHASE2__REFRESH": 1}
    trainer = run("CoFT", train=False, **keys)
    renew, seen = trainer.renew_seeds, []

    def recorded(features: dict[str, Tensor]) -> None:
        views = trainer.classified(features)
        renew(features)
        for name in PEERS:
            alone = surest({name: views[name]}, trainer.seeds_per_peer)
            seen.append((sorted(pairs(trainer.peers[name].seeds)), sorted(x for half in alone.values() for x in half)))

    monkeypatch.setattr(trainer, "renew_seeds", recorded)
    trainer.train()
    assert seen and all(found == expected for found, expected in seen)


def test_two_models_on_their_own_know_nothing_of_each_other(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = yaml.safe_load(ABLATIONS.read_text())["ablations"]
    row = next(r for r in rows if r["name"] == "two models, each on its own, averaged")
    keys = {key.replace(".", "__"): value for key, value in row["settings"].items()}
    keys |= {"TRAINER__COFT__SEEDS_PER_CLASS": 2, "TRAINER__COFT__PHASE2__REFRESH": 1}
    start = PeerTrainer.fresh_start

    def other_b(self: PeerTrainer, index: int, name: str, *key: int) -> Any:
        return start(self, index, name, *key, *([99] if name == "peer_b" else []))

    for case, settings in {"alone": keys, "together": {}}.items():
        before = weights(run("CoFT", out=case, **settings))
        with monkeypatch.context() as patch:
            patch.setattr(PeerTrainer, "fresh_start", other_b)
            after = weights(run("CoFT", out=f"{case}, another B", **settings))
        changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
        assert changed == ({"peer_b"} if case == "alone" else {"peer_a", "peer_b"})


def test_nothing_is_renewed_where_nothing_is_fitted(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__CLASS_NEGATIVE=False)
    monkeypatch.setattr(trainer, "renew_seeds", partial(pytest.fail, "seeds that nothing is fitted to"))
    trainer.train()


@pytest.mark.parametrize("rule", ["both", "self"])
def test_the_log_says_how_many_seeds_are_right(run: Callable[..., Any], rule: str) -> None:
    keys = {"TRAINER__COFT__FILTER": rule, "TRAINER__COFT__SEEDS_PER_CLASS": 2, "TRAINER__COFT__PHASE2__REFRESH": 1}
    trainer = run("CoFT", **keys)
    images = trainer.dm.dataset.train_u or trainer.dm.dataset.train_x
    truth = [images[i].label for i in trainer.pool.order.tolist()]
    seeds = [pair for name in PEERS for pair in pairs(trainer.peers[name].seeds)]
    with (Path(trainer.output_dir) / "metrics.csv").open(newline="") as file:
        logged = [row["seeds_precision"] for row in csv.DictReader(file)]
    right = sum(truth[i] == c for i, c in seeds)
    assert logged[-1] and float(logged[-1]) == pytest.approx(right / len(seeds), abs=1e-4)
