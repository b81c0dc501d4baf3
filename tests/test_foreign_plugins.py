"""Other people's plugins on our `dassl`, tried on a small one that is written as CoOp is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.foreign_plugins import __main__ as foreign_plugins
from scripts.foreign_plugins import material
from scripts.foreign_plugins.plugins import CoOpStyle, UplStyle, style_of
from scripts.foreign_plugins.process import explain
from scripts.foreign_plugins.trial import Failed, accuracy, losses, same, weights
from tests.forks import ROOT, run_forked

ENTRY = """
import argparse
from yacs.config import CfgNode as CN
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, setup_logger
import trainers.toy

def extend_cfg(cfg):
    cfg.TRAINER.TOY = CN({"DROPOUT": 0.0})

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("root", "output-dir", "trainer", "backbone", "model-dir", "config-file"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--load-epoch", type=int)
    parser.add_argument("--eval-only", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.TRAINER.NAME = args.root, args.output_dir, args.trainer
    cfg.MODEL.BACKBONE.NAME = args.backbone
    cfg.merge_from_file(args.config_file) if args.config_file else None
    cfg.merge_from_list(args.opts)
    set_random_seed(args.seed)
    setup_logger(cfg.OUTPUT_DIR)
    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    else:
        trainer.train()
"""
TRAINERS = """
import torch
from torch import nn
from torch.nn import functional as F
from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer

CUSTOM_TEMPLATES = {"OxfordPets": "a photo of a {}, a type of pet."}

class Base(TrainerX):
    def load_clip(self):
        path = clip._download(clip._MODELS[self.cfg.MODEL.BACKBONE.NAME])
        return clip.build_model(torch.load(path, map_location="cpu")).float()

@TRAINER_REGISTRY.register()
class ZeroshotToy(Base):
    def build_model(self):
        self.clip_model = self.load_clip()
        template = CUSTOM_TEMPLATES[self.cfg.DATASET.NAME]
        texts = torch.cat([clip.tokenize(template.format(name)) for name in self.dm.dataset.classnames])
        with torch.no_grad():
            self.text = F.normalize(self.clip_model.encode_text(texts), dim=-1)

    def model_inference(self, image):
        return self.clip_model.encode_image(image) @ self.text.t()

@TRAINER_REGISTRY.register()
class Toy(Base):
    def build_model(self):
        self.encoder = self.load_clip().visual.requires_grad_(False)
        head = nn.Linear(64, self.num_classes)
        self.model = nn.Sequential(nn.Dropout(self.cfg.TRAINER.TOY.DROPOUT), head).to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("head", self.model, self.optim, self.sched)

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model(self.encoder(image)), label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def model_inference(self, image):
        return self.model(self.encoder(image))

@TRAINER_REGISTRY.register()
class NeedsGpu(Toy):
    def forward_backward(self, batch):
        return super().forward_backward({**batch, "img": batch["img"].cuda()})

@TRAINER_REGISTRY.register()
class Broken(Toy):
    def build_model(self):
        raise ValueError("no such thing")
"""
CONFIG = """
OPTIM: {NAME: "sgd", LR_SCHEDULER: "cosine", WARMUP_EPOCH: 1}
TRAINER: {TOY: {DROPOUT: 0.5}}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A plugin's checkout, with top-level packages of our own packages' names."""
    folder = tmp_path / "SomePlugin"
    for package in ("trainers", "datasets"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    (folder / "train.py").write_text(ENTRY)
    (folder / "trainers" / "toy.py").write_text(TRAINERS)
    configs = folder / "configs" / "trainers" / "Toy"
    configs.mkdir(parents=True)
    (configs / "warm.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def forked_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin's scripts save the import of PyTorch; but one that is to be killed runs as it does for a user."""
    afresh = subprocess.run

    def run(command: list[str], *, cwd: Path, env: dict[str, str], **options: Any) -> Any:
        if "KILL_AT" in env and "Toy" in command:
            return afresh(command, cwd=cwd, env=env, **options)
        assert command[0] == sys.executable
        return run_forked(command[1:], cwd, env)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_scripts")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the trainer that needs a GPU has one")
def test_a_plugin_is_tried(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(material, "WIDTHS", {material.NARROW: (64, 64)})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    keep = tmp_path / "kept"
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    code = foreign_plugins.main(["--keep", "kept", "SomePlugin"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[:2] for row in rows] == [["SomePlugin", n] for n in ("ZeroshotToy", "Toy", "NeedsGpu", "Broken")]
    zero_shot, toy, gpu, broken = (row[2:] for row in rows)
    assert zero_shot[0] == "-" and zero_shot[1].endswith("%") and zero_shot[2:] == ["-", ""]
    assert toy[0].startswith("3 epochs, loss ") and toy[1].endswith("%") and toy[2:] == ["same bits", ""]
    assert gpu[2] == "same bits", gpu
    assert gpu[3].startswith("hard-codes .cuda() (trainers/toy.py:")
    assert gpu[3].endswith(", kept on the CPU")
    assert broken[:3] == ["-"] * 3 and broken[3].startswith("ValueError: no such thing (trainers/toy.py:")
    assert code == 1  # because of Broken
    assert "Broken" in (keep / "log.txt").read_text()
    assert before == {path: path.read_bytes() for path in before}


def test_styles_are_told_by_their_scripts(tmp_path: Path) -> None:
    assert style_of(tmp_path) is None
    (tmp_path / "train.py").touch()
    assert style_of(tmp_path) is CoOpStyle
    (tmp_path / "upl_train.py").touch()
    assert style_of(tmp_path) is UplStyle


def test_a_failure_is_explained_by_its_place_in_the_plugin() -> None:
    frames = 'File "/a/plugin/trainers/x.py", line 7, in f\n  File "/b/torch/cuda.py", line 9, in g\n'
    checkout = Path("/a/plugin")
    assert explain(f"{frames}AssertionError: Torch not compiled with CUDA enabled", checkout) == (
        "hard-codes .cuda() (trainers/x.py:7)"
    )
    assert explain(f"{frames}KeyError: 'Digits'\n", checkout) == "KeyError: 'Digits' (trainers/x.py:7)"
    assert explain("", checkout) == "failed without a word"


def test_the_last_accuracy_counts() -> None:
    assert accuracy("* accuracy: 50.0%\n* error: 50.0%\n* accuracy: 62.5%\n") == 62.5
    with pytest.raises(Failed, match="no accuracy"):
        accuracy("Finish training\n")


def test_losses_are_those_at_the_ends_of_epochs() -> None:
    lines = [f"epoch [{e}/2] batch [{b}/2] loss 9.0 ({e}.{b}) acc 1.0 (2.0)\n" for e in (1, 2) for b in (1, 2)]
    assert losses("".join(lines)) == "loss 1.2 to 2.2"
    with pytest.raises(Failed, match="no finite losses"):
        losses(lines[0] + "epoch [2/2] batch [2/2] loss nan (nan)\n")


def test_weights_are_compared_by_the_bit(tmp_path: Path) -> None:
    def save(folder: Path, value: float) -> dict[str, Any]:
        (folder / "model").mkdir(parents=True)
        torch.save({"state_dict": {"w": torch.tensor([value])}}, folder / "model" / "model.pth.tar-2")
        (folder / "model" / "checkpoint").write_text("model.pth.tar-2\n")
        return weights(folder)

    first, second, third = (save(tmp_path / name, v) for name, v in (("a", 1.0), ("b", 1.0), ("c", 1.0 + 1e-6)))
    assert list(first) == ["model/w"]
    assert same(first, second) and not same(first, third) and not same(first, {})


def test_a_folder_without_a_plugin(tmp_path: Path) -> None:
    done = run_forked(["-m", "scripts.foreign_plugins", str(tmp_path)], ROOT)
    assert done.returncode == 2 and "no train.py there" in done.stdout.splitlines()[-1]
