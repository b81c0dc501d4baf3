"""What a config says reaches the method: values that make no sense end in one line, the others do what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coft.core import disk_tables
from coft.core.errors import UserError
from coft.core.experiment import flatten
from coft.core.method_errors import MethodError
from coft.core.timing import STEPS, WAITING, Waited
from tests.trainers.conftest import assert_same_bits, of, weights

Run = Callable[..., Any]
PRINTED = Path(__file__).parents[2] / "configs" / "trainers" / "CoFT" / "as_printed.yaml"


@pytest.mark.parametrize(
    ("trainer", "settings", "message"),
    [
        ("CoFT", of("COFT", {"FILTER": "bothh"}), "TRAINER.COFT.FILTER is 'bothh'.*; did you mean 'both'?"),
        ("CoFT", of("COFT", {"CLEAN_RULE": "raws"}), "TRAINER.COFT.CLEAN_RULE is 'raws'.*; did you mean 'raw'?"),
        ("CoFT", of("COFT", {"CLASSIFY": "joined"}), "TRAINER.COFT.CLASSIFY is 'joined'.*; did you mean 'joint'?"),
        ("CoFT", of("COFT", {"PREC": "fp8"}), "TRAINER.COFT.PREC is 'fp8'; expected one of fp32"),
        ("CoFT", of("COFT", {"VISUAL": "vpt"}), "VISUAL.*'vpt'.*vpt-deep"),
        ("CoFT", of("COFT", {"SEEDS_PER_CLASS": -3}), "SEEDS_PER_CLASS is -3; expected .*at least 1"),
        ("CoFT", of("COFT", {"SEEDS_SHARE": -0.5}), "SEEDS_SHARE is -0.5; expected a number above 0"),
        ("CoFT", of("COFT", {"N_CTX": -1}), "N_CTX is -1; expected .*at least 0"),
        ("CoFT", of("COFT", {"LABEL_VIEWS": 0}), "LABEL_VIEWS is 0; expected .*at least 1"),
        ("CoFT", of("COFT", {"PHASE2__REFRESH": 0}), "PHASE2.REFRESH is 0; expected .*at least 1"),
        ("CoFT", of("COFT", {"PHASE2__WISE": 7.0}), "PHASE2.WISE is 7.0; expected a number from 0 to 1"),
        ("CoFT", of("COFT", {"PHASE2__LR": -1e-5}), "PHASE2.LR is -1e-05; expected .*at least 0"),
        ("CoFT", {"DATALOADER__TRAIN_X__BATCH_SIZE": 0}, "TRAIN_X.BATCH_SIZE is 0; expected .*at least 1"),
        ("CoFT", {"TRAIN__MICRO_BATCH": -1}, "TRAIN.MICRO_BATCH is -1"),
        ("CoFT", {"TRAIN__COMPILE": "inductr"}, "TRAIN.COMPILE is 'inductr'.*inductor"),
        ("CoFT", {"INPUT__AUGMENT": "arial"}, "INPUT.AUGMENT is 'arial'.*natural, symbols, aerial.*'aerial'?"),
        ("CoFT", {"INPUT__SIZE": "(48, 48)"}, r"INPUT.SIZE is \(48, 48\), backbone .* reads \(32, 32\)"),
        ("CoFTPlus", of("COFTPLUS", {"FILTER": "bothh"}), "TRAINER.COFTPLUS.FILTER is 'bothh'"),
        ("CoFTPlus", of("COFTPLUS", {"ROUNDS": 0}), "COFTPLUS.ROUNDS is 0; expected .*at least 1"),
        ("CoFTPlus", of("COFTPLUS", {"CONTRAST__WEIGHT": -1.0}), "CONTRAST.WEIGHT is -1.0; expected .*at least 0"),
        ("CoFTOracle", of("COFTORACLE", {"KNOWS": "label"}), "COFTORACLE.KNOWS is 'label'.*did you mean 'labels'?"),
        ("DeFT", of("DEFT", {"CLASS_NEGATIVE": True}), "unknown config key 'TRAINER.DEFT.CLASS_NEGATIVE'"),
        ("UPL", of("UPL", {"ENSEMBLE": 0}), "TRAINER.UPL.ENSEMBLE is 0; expected .*at least 1"),
        ("GRIP", of("GRIP", {"ROUNDS": 0}), "TRAINER.GRIP.ROUNDS is 0; expected .*at least 1"),
        ("SelfTraining", of("SELFTRAINING", {"EPOCHS": 0}), "SELFTRAINING.EPOCHS is 0; expected .*at least 1"),
        ("Supervised", of("SUPERVISED", {"ENSEMBLE": 0}), "SUPERVISED.ENSEMBLE is 0; expected .*at least 1"),
        ("Supervised", of("SUPERVISED", {"WISE": 1.5}), "SUPERVISED.WISE is 1.5; expected a number from 0 to 1"),
        ("NormAdaptation", of("NORMADAPTATION", {"SHARE": 1.5}), "SHARE is 1.5; expected a number from 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_named(run: Run, trainer: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        run(trainer, **settings)
    assert "\n" not in error.value.line


def test_a_loss_that_is_not_a_number_is_named(run: Run) -> None:
    with pytest.raises(UserError, match=r"peer_a: the loss is nan in epoch 1, batch 2; lower the learning rate"):
        run("CoFT", OPTIM__LR=1e30)


def test_an_error_of_the_method_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run("CoFT", train=False)

    def refuse(error: type[Exception]) -> None:
        raise error("the pseudo-label filter keeps no label")

    monkeypatch.setattr(trainer.method, "relabel", lambda: refuse(MethodError))
    with pytest.raises(UserError, match=r"CoFT: the pseudo-label filter keeps no label"):
        trainer.train()
    monkeypatch.setattr(trainer.method, "relabel", lambda: refuse(ValueError))
    with pytest.raises(ValueError, match="keeps no label"):  # a mistake of our own keeps its traceback
        trainer.before_epoch()


def test_the_config_as_printed_says_what_it_settles_and_runs(run: Run) -> None:
    text = PRINTED.read_text(encoding="utf-8")
    said = flatten(yaml.safe_load(text))
    assert said == {
        **{"TRAINER.COFT.CLEAN_RULE": "raw", "TRAINER.COFT.CLASS_NEGATIVE": False, "TRAINER.COFT.CLASSIFY": "positive"},
        **{"TRAINER.COFT.FILTER": "both-hard", "TRAINER.COFT.N_CTX": 16, "TRAINER.COFT.PRIOR_TAU": 0.0},
        **{"TRAINER.COFT.LABEL_VIEWS": 1, "TRAINER.COFT.PHASE2.WISE": 1.0, "TRAINER.COFT.PHASE2.EMA": 0.0},
    }
    assert all("# " in line for line in text.splitlines() if line.count(":") == 1 and not line.rstrip().endswith(":"))
    trainer = run("CoFT", **{key.replace(".", "__"): value for key, value in said.items()})
    own = trainer.method.settings
    assert (own.clean_rule, own.class_negative, own.classify, own.filter) == ("raw", False, "positive", "both-hard")
    assert (own.n_ctx, own.prior_tau, own.label_views, own.phase2.wise, own.phase2.ema) == (16, 0.0, 1, 1.0, 0.0)
    a, b = (peer.prompts.positive.ctx for peer in trainer.method.peers.values())
    assert a.shape == b.shape == (16, trainer.clip_model.token_embedding.embedding_dim) and not torch.equal(a, b)
    tested = trainer.method.inference_models()
    for name, peer in trainer.method.peers.items():
        assert set(peer.labels.weight.tolist()) <= {0.0, 1.0}
        assert tested[name] is peer.teacher()
        torch.testing.assert_close(peer.teacher().positive, peer.student.positive)
    assert 0 <= trainer.results["accuracy_test"] <= 100


@pytest.mark.parametrize("kind", ["lora", "norms-and-biases", "none"])  # the default of a ViT is vpt-deep
def test_visual_modules_train_in_both_phases(run: Run, kind: str) -> None:
    trainer = run("CoFT", "vit", TRAINER__COFT__VISUAL=kind)
    peer = trainer.method.peers["peer_a"]
    phase1, frozen = dict(peer.encoder.named_parameters()), dict(trainer.clip_model.visual.named_parameters())
    moved = [name for name, p in phase1.items() if name not in frozen or not torch.equal(p, frozen[name])]
    assert bool(moved) == (kind != "none")
    assert any(not torch.equal(p, phase1[name]) for name, p in peer.student.encoder.named_parameters())
    restored = run("CoFT", "vit", train=False, out="other", TRAINER__COFT__VISUAL=kind)
    restored.load_model(trainer.output_dir)
    assert_same_bits(weights(trainer), weights(restored))


def test_phase_one_trains_as_optim_says(run: Run) -> None:
    trainer = run("CoFT", train=False, OPTIM__NAME="adamw", OPTIM__LR=0.02, OPTIM__WEIGHT_DECAY=0.07)
    for optimizer in trainer.method.optimizers.values():
        assert isinstance(optimizer.optimizer, torch.optim.AdamW)
        assert {(group["lr"], group["weight_decay"]) for group in optimizer.optimizer.param_groups} == {(0.02, 0.07)}


@pytest.mark.parametrize("trainer", ["CoFT", "CoFTPlus", "DeFT", "SelfTraining", "Supervised", "LaFTer"])
def test_micro_batches_and_a_compiler_reach_every_encoder(run: Run, trainer: str) -> None:
    built = run(trainer, train=False, TRAIN__MICRO_BATCH=7, TRAIN__COMPILE="eager")
    for peer in built.method.peers.values():
        assert (peer.micro_batch, peer.compiler, peer.learner().micro_batch) == (7, "eager", 7)


@pytest.mark.parametrize("trainer", ["CoFT", "UPL"])
def test_tables_on_disk_change_no_bit_and_leave_no_file(
    run: Run, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    in_memory = trained(trainer)
    monkeypatch.setattr(disk_tables, "IN_MEMORY", 0)
    made: list[Any] = []
    plain = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda *args, **options: made.append(args) or plain(*args, **options))
    mapped = run(trainer)
    assert made and not [path for path in (tmp_path / "out").iterdir() if "table" in path.name]
    assert_same_bits(weights(in_memory), weights(mapped))


def test_a_run_says_where_its_time_went(run: Run) -> None:
    epochs = {"PHASE1__EPOCHS": 3, "PHASE1__MIN_STEPS": 6, "PHASE2__EPOCHS": 1}  # two steps an epoch of Phase I
    built = run("CoFT", train=False, DATALOADER__TRAIN_X__BATCH_SIZE=10, **of("COFT", epochs))
    built.record_operations()
    assert not built.runtime.parallel  # operations that are recorded are of one thread
    built.train()
    assert {STEPS, WAITING, "labelling", "evaluation", "saving"} <= built.clock.split().keys()
    text = (Path(built.output_dir) / "profile.txt").read_text()
    assert text.count("Phase 1, 3 steps") == text.count("Phase 2, 3 steps") == 1
    assert not isinstance(built.train_loader_x, Waited)
