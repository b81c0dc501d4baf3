"""CoOp: context optimisation with labels (Zhou et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from coft.backbones.prompts import PromptLearner, encode_prompts, random_context, word_context
from coft.method.ensembling import average_predictions
from coft.method.seeding import generator
from coft.runtime.errors import UserError
from coft.runtime.ranges import check_positive
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_pretrained_weights
from trainers.base import ClipTrainer


def add_config(cfg: Any) -> None:
    """Add CoOp's keys."""
    cfg.TRAINER.COOP = CfgNode()
    cfg.TRAINER.COOP.N_CTX = 16  # number of context tokens
    cfg.TRAINER.COOP.CSC = False  # contexts of the classes' own
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start the context from; sets N_CTX
    cfg.TRAINER.COOP.PREC = "fp16"  # fp16, amp, fp32 or bf16; fp16 on a CPU is run as fp32
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front


@TRAINER_REGISTRY.register()
class CoOp(ClipTrainer):
    """Learn the context tokens of a prompt from labelled images.

    The registered model is `prompt_learner`, and checkpoints written by CoOp load. With an ensemble of prompts, the
    others are `prompt_learner_2` and so on; the first is the one that would train alone.
    """

    settings = "COOP"
    learns_from_labels = True
    learner_class = PromptLearner

    def check_cfg(self, cfg: Any) -> None:
        """Refuse a context of no tokens, and descriptions.

        Raises:
            UserError: Naming the key.
        """
        super().check_cfg(cfg)
        check_positive(cfg, f"TRAINER.{self.settings}.N_CTX")
        if not self.label_free and getattr(cfg.DATASET, "DESCRIPTIONS", "none") != "none":
            raise UserError("DATASET.DESCRIPTIONS: CoOp learns its prompts from labels and reads none; leave it out")

    def build_model(self) -> None:
        """Build the prompt learners and their optimizers."""
        cfg, own = self.cfg, self.cfg.TRAINER[self.settings]
        self.set_precision(own.PREC, f"TRAINER.{self.settings}.PREC")
        self.load_backbone()
        self.learners: dict[str, PromptLearner] = {}
        for member in range(own.get("ENSEMBLE", 1)):
            learner = self.learner_class(
                self.clip_model, self.classnames, self.first_context(member), position=own.CLASS_TOKEN_POSITION
            )
            if cfg.MODEL.INIT_WEIGHTS:
                load_pretrained_weights(learner, cfg.MODEL.INIT_WEIGHTS)
            name = "prompt_learner" + (f"_{member + 1}" if member else "")
            self.learners[name] = learner.to(self.device)
            self.register_model(name, learner, *self.build_optimizer(learner))
        self.model = self.prompt_learner = self.learners["prompt_learner"]

    def build_optimizer(self, learner: PromptLearner) -> tuple[Any, Any]:
        """Build the optimizer of a prompt learner, and its schedule."""
        optimizer = build_optimizer(learner, self.cfg.OPTIM)
        return optimizer, build_lr_scheduler(optimizer, self.cfg.OPTIM)

    def first_context(self, member: int, *key: int | str) -> Tensor:
        """Context that a member of the ensemble starts from; `key` tells apart several starts of it."""
        own = self.cfg.TRAINER[self.settings]
        if own.CTX_INIT:
            return word_context(self.clip_model, own.CTX_INIT)
        shape = (len(self.classnames), own.N_CTX) if own.CSC else (own.N_CTX,)
        source = generator(self.cfg.SEED, self.settings, "context", *([member] if member else []), *key)
        return random_context(self.clip_model, *shape, generator=source)

    @property
    def labels_used(self) -> int:
        """Number of labelled images."""
        return 0 if self.label_free else len(self.dm.dataset.train_x)

    def features(self, image: Tensor) -> Tensor:
        """Image features of the frozen CLIP, unit length. Shape (n, embed_dim)."""
        with torch.no_grad(), self.autocast():
            return F.normalize(self.clip_model.encode_image(image).float(), dim=-1)

    def text(self, name: str = "prompt_learner") -> Tensor:
        """Text features of a member's prompts, unit length, with gradients to the context. Shape (C, embed_dim)."""
        with self.autocast():
            return F.normalize(encode_prompts(self.clip_model, self.learners[name])[0], dim=-1)

    def logits(self, image: Tensor, name: str = "prompt_learner") -> Tensor:
        """Logits of images, with gradients to the context. Shape (n, C)."""
        return self.clip_model.logit_scale.exp() * self.features(image) @ self.text(name).t()

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """Make one step of each member on its part of a batch; reports means over the members."""
        reports = [self._step(name, *examples) for name, examples in self.examples(batch).items()]
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {key: sum(report[key] for report in reports) / len(reports) for key in reports[0]}

    def _step(self, name: str, image: Tensor, label: Tensor) -> dict[str, float]:
        logits = self.logits(image, name)
        loss = F.cross_entropy(logits, label)
        self.descend(loss, name)
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}

    def examples(self, batch: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and labels of a batch for each member."""
        return {"prompt_learner": self.parse_batch_train(batch)}

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    @torch.no_grad()
    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images; of an ensemble, log of the mean of its probabilities. Shape (n, C)."""
        features = self.clip_model.logit_scale.exp() * self.features(image)
        return average_predictions([features @ self.text(name).t() for name in self.learners])
