"""CoOp: context optimisation with labels (Zhou et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_pretrained_weights

from .parts.base import ClipTrainer
from .parts.prompts import PromptLearner, encode_text, random_context, word_context
from .parts.seeding import generator


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

    The registered model is `prompt_learner`, and checkpoints written by CoOp load.
    """

    settings = "COOP"

    def build_model(self) -> None:
        """Build the prompt learner and its optimizer."""
        cfg, own = self.cfg, self.cfg.TRAINER[self.settings]
        self.set_precision(own.PREC, f"TRAINER.{self.settings}.PREC")
        clip_model = self.load_backbone()
        context = self._first_context(clip_model, own)
        self.prompt_learner = PromptLearner(clip_model, self.classnames, context, position=own.CLASS_TOKEN_POSITION)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model = self.prompt_learner.to(self.device)
        self.optim = build_optimizer(self.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.prompt_learner, self.optim, self.sched)

    def _first_context(self, clip_model: Any, own: Any) -> Tensor:
        if own.CTX_INIT:
            return word_context(clip_model, own.CTX_INIT)
        shape = (len(self.classnames), own.N_CTX) if own.CSC else (own.N_CTX,)
        return random_context(clip_model, *shape, generator=generator(self.cfg.SEED, self.settings, "context"))

    def logits(self, image: Tensor) -> Tensor:
        """Logits of images, with gradients to the context. Shape (n, C)."""
        with torch.no_grad():
            features = F.normalize(self.clip_model.encode_image(image), dim=-1)
        text = F.normalize(encode_text(self.clip_model, *self.prompt_learner()), dim=-1)
        return self.clip_model.logit_scale.exp() * features @ text.t()

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        """Make one step on a labelled batch."""
        image, label = self.parse_batch_train(batch)
        with self.autocast():
            logits = self.logits(image)
        loss = F.cross_entropy(logits.float(), label)
        self.descend(loss, "prompt_learner")
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch, on the trainer's device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    @torch.no_grad()
    def model_inference(self, image: Tensor) -> Tensor:
        """Logits of images. Shape (n, C)."""
        with self.autocast():
            return self.logits(image).float()
