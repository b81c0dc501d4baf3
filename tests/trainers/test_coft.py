from __future__ import annotations

import csv
import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.images.unlabeled import peer_batches
from coft.method.cleanliness import clean_log_odds, dual_loss
from coft.method.pseudo_labels import FILTERS
from coft.runtime.errors import UserError
from tests.trainers.conftest import assert_same_bits, drawn_opinion, saved_weights, weights

PEERS = ("peer_a", "peer_b")


def lines(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=["resnet", "vit"])
def trained(run: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    return run("CoFT", request.param)


def test_a_run_leaves_all_artefacts(trained: Any) -> None:
    folder = Path(trained.output_dir)
    rows = lines(folder, "metrics.csv")
    assert [row["stage"] for row in rows] == ["zero-shot", "phase1", "phase1", "phase2", "phase2", "phase2"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["trainer"] == "CoFT" and summary["seed"] == 1
    assert summary["versions"]["dassl"] and summary["versions"]["torch"] == importlib.metadata.version("torch")
    assert summary["results"]["after Phase II"]["accuracy_both"] == pytest.approx(float(rows[-1]["accuracy_both"]))
    assert summary["results"]["accuracy_test"] == pytest.approx(float(rows[-1]["accuracy_both"]))
    assert any((folder / "tensorboard").iterdir())
    for name in PEERS:
        assert (folder / name / "checkpoint").read_text().strip() == "model.pth.tar-5"
    assert not list(folder.rglob("*.tmp*"))


def test_pseudo_labels_are_those_that_were_taught(trained: Any) -> None:
    rows = lines(Path(trained.output_dir), "pseudo_labels.csv")
    assert list(rows[0]) == ["path", "class", "confidence", "p_clean_a", "p_clean_b", "kept_for"]
    assert [row["path"] for row in rows] == trained.pool.paths
    names = trained.classnames
    for rank, row in enumerate(rows):
        taught = [p for p in PEERS if trained.peers[p].lesson.keep[rank]
                  and names[trained.peers[p].lesson.labels[rank]] == row["class"]]  # fmt: skip
        assert row["kept_for"] == "+".join(taught)
        assert 0 <= float(row["p_clean_a"]) <= 1 and 1 / 3 <= float(row["confidence"]) <= 1


def test_prediction_is_the_mean_of_the_peers_probabilities(trained: Any) -> None:
    image = torch.randn(4, 3, 32, 32)
    both = trained.model_inference(image).exp()
    torch.testing.assert_close(both, sum(trained.peer_probabilities(image).values()) / 2)
    torch.testing.assert_close(both.sum(dim=1), torch.ones(4))


def test_log_is_one_that_parse_test_res_reads(run: Callable[..., Any]) -> None:
    """parse_test_res.py of CoOp takes the last '* accuracy: x%' after a line 'Finish training'."""
    from dassl.utils import setup_logger

    trainer = run("CoFT", train=False)
    setup_logger(trainer.output_dir)
    trainer.train()
    text = (Path(trainer.output_dir) / "log.txt").read_text()
    tail = text[text.index("\nFinish training\n") :]
    found = re.findall(r"\* accuracy: ([\.\deE+-]+)%", tail)
    assert len(found) == 1 and float(found[0]) == pytest.approx(trainer.results["accuracy_test"], abs=0.05)


def test_seeds_are_split_between_the_peers_or_given_to_both(run: Callable[..., Any]) -> None:
    split, shared = (run("CoFT", train=False, TRAINER__COFT__SPLIT_SEEDS=key) for key in (True, False))
    seeds = {}
    for trainer in (split, shared):
        trainer.before_train()
        seeds[trainer] = [set(peer.seeds.ranks.tolist()) for peer in trainer.peers.values()]
    assert not seeds[split][0] & seeds[split][1]
    assert seeds[shared][0] == seeds[shared][1] == seeds[split][0] | seeds[split][1]


def test_the_view_of_phase_two_is_the_key_s(run: Callable[..., Any]) -> None:
    batches = {}
    for view in ("weak", "strong"):
        trainer = run("CoFT", train=False, TRAINER__COFT__PHASE2__VIEW=view)
        trainer.before_train()
        trainer.epoch = 2
        trainer.before_epoch()
        ranks = {name: targets.ranks for name, targets in trainer.targets.items()}
        expected = peer_batches(trainer.pool, trainer.cfg, view, ranks, 1, trainer.cfg.SEED, 2)
        batches[view] = next(iter(trainer.train_loader_x))["peer_a"]["view"]
        torch.testing.assert_close(batches[view], next(iter(expected))["peer_a"]["view"], rtol=0, atol=0)
    assert not torch.equal(batches["weak"], batches["strong"])


@pytest.mark.parametrize("phase", [1, 2])
def test_losses_equal_their_definition(run: Callable[..., Any], phase: int) -> None:
    """One step of a peer, with text tower, heads, filter and routing written out."""
    trainer = run("CoFT", train=False, TRAINER__COFT__PHASE2__LAMBDA_DUAL=1.0)
    trainer.before_train()
    trainer.epoch = 1 if phase == 1 else 2
    trainer.before_epoch()
    peer, name = trainer.peers["peer_a"], "peer_a"
    whole = next(iter(trainer.train_loader_x))
    batch, trainer.batch_idx = whole[name], 0
    losses = trainer.losses(name, whole)
    classification, dual = losses.pop("loss"), losses.pop("dual")
    assert not losses
    clf = peer.learner()
    features = F.normalize(clf.encoder(batch["view"]), dim=-1)
    positive, negative = F.normalize(clf.positive, dim=-1), F.normalize(clf.negative, dim=-1)
    targets = trainer.targets[name]
    place = [targets.ranks.tolist().index(rank) for rank in batch["rank"].tolist()]
    label, weight, dual_label = targets.labels[place], targets.weight[place], targets.dual_labels[place]
    logits = clf.scale * features @ positive.t() + targets.adjustment
    each = [w * F.cross_entropy(x[None], y[None]) for x, y, w in zip(logits, label, weight, strict=True)]
    expected = sum(each) / max(1.0, float(weight.sum()))
    torch.testing.assert_close(classification, expected, atol=1e-5, rtol=1e-4)
    odds = clean_log_odds(features, positive, negative, clf.scale)
    shifts = [(dual_label + shift) % 3 for shift in (1, 2)]
    torch.testing.assert_close(dual, sum(dual_loss(odds, dual_label, z) for z in shifts) / 2, atol=1e-5, rtol=1e-4)


def test_pull_towards_the_template_is_a_loss_of_phase_one(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__KG_WEIGHT=2.0)
    trainer.before_train()
    trainer.epoch = trainer.batch_idx = 0
    trainer.before_epoch()
    batch = next(iter(trainer.train_loader_x))
    trainer.forward_backward(batch)  # the prompts start at the template: there is nothing to pull yet
    pull = trainer.losses("peer_a", batch)["pull"]
    text = trainer.peers["peer_a"].prompted().positive
    torch.testing.assert_close(pull, (text - trainer.anchors["peer_a"]).square().sum(1).mean())
    assert pull > 0 and trainer.loss_weights["pull"] == 2.0


@pytest.mark.parametrize("kind", ["vpt-shallow", "lora", "adapter", "norms-and-biases", "none"])
def test_visual_modules_train_in_both_phases(run: Callable[..., Any], kind: str) -> None:
    trainer = run("CoFT", "vit", TRAINER__COFT__VISUAL=kind)
    peer = trainer.peers["peer_a"]
    phase1, frozen = dict(peer.encoder.named_parameters()), dict(trainer.clip_model.visual.named_parameters())
    moved = [name for name, p in phase1.items() if name not in frozen or not torch.equal(p, frozen[name])]
    assert bool(moved) == (kind != "none")
    assert any(not torch.equal(p, phase1[name]) for name, p in peer.student.encoder.named_parameters())
    assert all(p.requires_grad for p in (peer.prompts.negative.ctx, peer.offset))
    restored = run("CoFT", "vit", train=False, out="other", TRAINER__COFT__VISUAL=kind)
    restored.load_model(trainer.output_dir)
    assert_same_bits(weights(trainer), weights(restored))


def test_restart_begins_phase_two_with_pretrained_weights(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__PHASE2__RESTART=True, TRAINER__COFT__PHASE2__WISE=1.0)
    for peer in trainer.peers.values():
        with torch.no_grad():
            next(p for p in peer.encoder.parameters() if p.requires_grad).add_(1)
        peer.enter_phase2()
        for name, value in trainer.clip_model.visual.named_parameters():
            assert torch.equal(peer.student.encoder.get_parameter(name), value)
    with pytest.raises(UserError, match=r"PHASE2\.WISE 1\.0"):
        run("CoFT", train=False, out="other", TRAINER__COFT__PHASE2__RESTART=True)


@pytest.mark.parametrize("soft", [True, False])
def test_a_peer_is_taught_the_others_labels_where_both_call_them_clean(run: Callable[..., Any], soft: bool) -> None:
    keys = {"TRAINER__COFT__MIN_KEPT": 0, "TRAINER__COFT__CLEAN_RULE": "raw", "TRAINER__COFT__SOFT": soft}
    trainer = run("CoFT", train=False, **keys)
    trainer.before_train()
    trainer.epoch = 2
    trainer.before_epoch()
    views = trainer._classify(None)
    for name, other in (PEERS, PEERS[::-1]):
        corrected = [x.double() - 0.5 * x.double().softmax(1).mean(0).log() for x in views[other]]
        label = sum(corrected).argmax(1)  # likely, and likely clean
        clean = []
        for p in PEERS:
            odds = views[p][1].double() - 0.5 * views[p][1].double().softmax(1).mean(0).log()
            clean.append(odds[range(len(label)), label].sigmoid())
        least, lesson = torch.minimum(*clean), trainer.peers[name].lesson
        assert torch.equal(lesson.labels, label)
        torch.testing.assert_close(lesson.weight.double(), least if soft else (least > 0.5).double())


def test_peers_differ_in_seeds_template_batches_and_random_numbers(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False)
    trainer.before_train()
    a, b = trainer.peers.values()
    assert not set(a.seeds.ranks.tolist()) & set(b.seeds.ranks.tolist())
    assert not torch.allclose(*trainer.anchors.values(), atol=1e-3)  # text features of their templates
    drawn = run("CoFT", train=False, out="drawn", TRAINER__COFT__N_CTX=4, TRAINER__COFT__SPLIT_SEEDS=False)
    first, second = (peer.prompts.positive.ctx for peer in drawn.peers.values())
    assert first.shape == second.shape and not torch.equal(first, second)
    drawn.before_train()
    drawn.before_epoch()
    batches = [[batch[name] for batch in drawn.train_loader_x] for name in PEERS]
    order = [torch.cat([part["rank"] for part in parts]).tolist() for parts in batches]
    assert sorted(order[0]) == sorted(order[1]) and order[0] != order[1]
    views = [dict(zip(ranks, torch.cat([p["view"] for p in parts]), strict=True))
             for ranks, parts in zip(order, batches, strict=True)]  # fmt: skip
    assert not any(torch.equal(views[0][rank], views[1][rank]) for rank in views[0])


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_stopped_after_any_epoch_goes_on_to_the_same_bits(run: Callable[..., Any], stop: int) -> None:
    """Stops at the start of an epoch, in either phase, on a refresh and between two."""
    whole = run("CoFT", out="whole")

    class Stop(Exception):
        pass

    first = run("CoFT", out="stopped", train=False)
    steps = iter(range(10**6))
    original = first.forward_backward

    def fail_in_the_middle(batch: Any) -> Any:
        if first.epoch == stop and next(steps) == 1:
            raise Stop
        return original(batch)

    first.forward_backward = fail_in_the_middle
    with pytest.raises(Stop):
        first.train()
    resumed = run("CoFT", out="stopped")
    assert resumed.start_epoch == stop
    assert_same_bits(weights(whole), weights(resumed))
    rows = [lines(Path(t.output_dir), "metrics.csv") for t in (whole, resumed)]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1]


def test_load_epoch_means_what_it_says_in_either_phase(run: Callable[..., Any]) -> None:
    trained = run("CoFT", TRAIN__CHECKPOINT_FREQ=1)
    folder = trained.output_dir
    accuracy = {row["epoch"]: float(row["accuracy_both"]) for row in lines(Path(folder), "metrics.csv")}
    for epoch, phase in ((1, 1), (2, 1), (3, 2), (5, 2), (None, 2)):
        loaded = run("CoFT", train=False, out="evaluation")
        loaded.test()
        loaded.load_model(folder, epoch=epoch)
        assert loaded.peers["peer_a"].phase == phase
        assert loaded.test() == pytest.approx(accuracy[str(epoch or 5)])
        assert_same_bits(
            saved_weights(Path(folder), "peer_a", epoch or 5),
            {k[7:]: v for k, v in weights(loaded).items() if k.startswith("peer_a")},
        )


def test_checkpoints_of_the_ends_of_phases_are_kept(run: Callable[..., Any]) -> None:
    folder = Path(run("CoFT").output_dir)
    assert sorted(p.name for p in (folder / "peer_a").glob("model*")) == ["model.pth.tar-2", "model.pth.tar-5"]


def test_checkpoint_of_another_backbone_is_refused(run: Callable[..., Any]) -> None:
    folder = run("CoFT", "resnet").output_dir
    for backbone in ("other", "vit"):
        with pytest.raises(UserError, match="made with another backbone"):
            run("CoFT", backbone, train=False, out="evaluation").load_model(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"TRAINER__COFT__FILTER": "bothh"}, "TRAINER.COFT.FILTER is 'bothh'; did you mean 'both'?"),
        ({"TRAINER__COFT__CLEAN_RULE": "raws"}, "TRAINER.COFT.CLEAN_RULE is 'raws'; did you mean 'raw'?"),
        ({"TRAINER__COFT__PREC": "fp8"}, "TRAINER.COFT.PREC is 'fp8'; expected one of fp32"),
        ({"TRAINER__COFT__PHASE2__REFRESH": 0}, "PHASE2.REFRESH is 0; expected at least 1"),
        ({"TRAINER__COFT__SEEDS_PER_CLASS": -3}, "TRAINER.COFT.SEEDS_PER_CLASS is -3; expected at least 1"),
        ({"TRAINER__COFT__SEEDS_SHARE": -0.5}, "TRAINER.COFT.SEEDS_SHARE is -0.5; expected 0 or more"),
        ({"TRAINER__COFT__N_CTX": -1}, "TRAINER.COFT.N_CTX is -1; expected 0 or more"),
        ({"TRAINER__COFT__PHASE2__WISE": 7.0}, "PHASE2.WISE is 7.0; expected a number from 0 to 1"),
        ({"TRAINER__COFT__PHASE2__LR": -1e-5}, "PHASE2.LR is -1e-05; expected 0 or more"),
        ({"TRAINER__COFT__ADAPTER_REDUCTION": 0}, "TRAINER.COFT.ADAPTER_REDUCTION is 0; expected at least 1"),
        ({"TRAINER__COFT__VISUAL": "vpt"}, "TRAINER.COFT.VISUAL is 'vpt'; did you mean 'vpt-"),
        ({"TRAINER__COFT__LORA_RANK": -1}, "TRAINER.COFT.LORA_RANK is -1; expected at least 1"),
        ({"DATALOADER__TRAIN_X__BATCH_SIZE": 0}, "DATALOADER.TRAIN_X.BATCH_SIZE is 0; expected at least 1"),
        ({"TEST__FINAL_MODEL": "best_val"}, "TEST.FINAL_MODEL is 'best_val', which chooses an epoch by labels"),
        ({"TRAINER__COFT__PHASE2__VIEW": "string"}, "TRAINER.COFT.PHASE2.VIEW is 'string'; did you mean 'strong'?"),
        ({"TRAINER__COFT__CLASSIFY": "joined"}, "TRAINER.COFT.CLASSIFY is 'joined'; did you mean 'joint'?"),
        ({"TRAINER__COFT__PHASE2__CLASSIFY": "cleen"}, "PHASE2.CLASSIFY is 'cleen'; did you mean 'clean'?"),
        (
            {"INPUT__AUGMENT": "arial"},
            "INPUT.AUGMENT is 'arial'; expected one of natural, symbols, aerial; did you mean 'aerial'?",
        ),
        ({"INPUT__SIZE": "(48, 48)"}, r"INPUT.SIZE is \(48, 48\), backbone .* reads \(32, 32\)"),
    ],
)
def test_wrong_settings_are_named(run: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        run("CoFT", **settings)


def test_a_loss_that_is_not_a_number_is_named(run: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"peer_a: the loss is nan in epoch 1, batch 2; lower the learning rate"):
        run("CoFT", OPTIM__LR=1e30)


@pytest.mark.parametrize("rule", FILTERS)
def test_each_peer_is_taught_what_the_filter_of_the_key_says(run: Callable[..., Any], rule: str) -> None:
    keys = {"TRAINER__COFT__FILTER": rule, "TRAINER__COFT__MIN_KEPT": 0, "TRAINER__COFT__PHASE2__EPOCHS": 1}
    trainer = run("CoFT", train=False, **keys)
    opinions = {name: drawn_opinion(seed) for seed, name in enumerate(PEERS)}
    trainer.opinions_of = lambda views: opinions
    trainer.before_train()
    try:
        trainer.teach()
    except UserError as error:  # no probability is above .95 here
        assert rule == "threshold-0.95" and "keeps no pseudo-label" in str(error)
        return
    for name, other in (PEERS, PEERS[::-1]):
        expected = FILTERS[rule](opinions[name], opinions[other])
        assert torch.equal(trainer.peers[name].lesson.labels, expected.labels)
        torch.testing.assert_close(trainer.peers[name].lesson.weight, expected.weight)


def test_training_learns(run: Callable[..., Any], configure: Callable[..., Any]) -> None:
    """Taught right labels, the peers come to predict them: the loop optimises what it says it does."""
    trainer = run("CoFT", "resnet", train=False, TRAINER__COFT__PHASE2__EPOCHS=30, TRAINER__COFT__PHASE2__LR=2e-3,
                  TRAINER__COFT__PHASE2__HEAD_LR=1e-2, TRAINER__COFT__FILTER="none", TRAINER__COFT__PHASE2__WISE=1.0,
                  TRAINER__COFT__PHASE2__REFRESH=100, TRAINER__COFT__PHASE2__EMA=0.9)  # fmt: skip
    from coft.method.pseudo_labels import Lesson

    truth = torch.tensor([trainer.dm.dataset.train_u[i].label for i in trainer.pool.order.tolist()])

    def teach_the_truth() -> None:
        for peer in trainer.peers.values():
            peer.lesson = Lesson(truth, torch.ones_like(truth, dtype=torch.bool))

    trainer.teach = teach_the_truth
    trainer.train()
    assert trainer.results["accuracy_test"] > 80


def test_a_filter_that_keeps_nothing_is_named(run: Callable[..., Any]) -> None:
    trainer = run("CoFT", train=False, TRAINER__COFT__MIN_KEPT=0, TRAINER__COFT__FILTER="threshold-0.95")
    trainer.before_train()
    with pytest.raises(UserError, match=r"FILTER threshold-0\.95 keeps no pseudo-label; set TRAINER\.COFT\.MIN_KEPT 1"):
        trainer.teach()
