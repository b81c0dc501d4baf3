"""Trainers of a plugin: one without training, a correct one, one that needs a GPU, and a broken one."""

import torch
from clip import clip
from torch import nn
from torch.nn import functional as F

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
