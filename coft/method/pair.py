"""Two peers: how they are built, trained and tested. What they are trained on is the business of the method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from coft.core.parallel import Parallel
from coft.core.seeding import generator
from coft.labelling.classifier import HEADS, Classifier

from .labeller import SCORES, Labeller
from .optimizers import Built, PhasedOptimizer, PhasedScheduler, Schedule, cosine, full_optimizer
from .peer import Peer
from .protocol import Backbone, Images, Runtime

NAMES = ("peer_a", "peer_b")
PARTNERS = dict(zip(NAMES, reversed(NAMES), strict=True))
Losses = dict[str, tuple[float, Tensor]]  # by name, each with its weight
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Any]


class Pair:
    """Two peers. They share the frozen CLIP and differ in template, random numbers, images and views.

    Args:
        images: The unlabeled images.
        backbone: CLIP for the classes at hand.
        runtime: Where and how to compute.
        settings: `n_ctx`, `visual`, `phase1` and `phase2` are read.
        steps: Steps of all epochs of a phase together, by phase.
        make_optimizer: Makes the optimizer of Phase I.
        make_peer: Makes a peer from its name, prompts, encoder, scale and identity.
        schedule: Of the learning rates of Phase II.

    Attributes:
        peers: By name.
        optimizers: Of each peer, another one in each phase.
        schedulers: Likewise.
        labeller: Runs models over the images.
    """

    def __init__(
        self,
        images: Images,
        backbone: Backbone,
        runtime: Runtime,
        settings: Any,
        steps: Mapping[int, int],
        make_optimizer: MakeOptimizer,
        make_peer: Callable[..., Peer],
        schedule: Schedule = cosine,
    ) -> None:
        self.schedule = schedule
        self.images, self.runtime, self.settings, self.steps = images, runtime, settings, steps
        self.make_optimizer = make_optimizer
        self.backbone = backbone
        self.peers: dict[str, Peer] = {}
        for name in NAMES:
            self.peers[name] = make_peer(name, *self.fresh_start(name), backbone.scale, backbone.identity)
            self.peers[name].to(runtime.device)
        self.optimizers = {n: PhasedOptimizer(partial(self.build_optimizer, p)) for n, p in self.peers.items()}
        self.schedulers = {name: PhasedScheduler(optimizer) for name, optimizer in self.optimizers.items()}
        self.parallel = Parallel(len(NAMES), backbone.visual, runtime.device.type)
        self.labeller = Labeller(images, runtime, self.parallel)

    def fresh_start(self, name: str) -> tuple[nn.Module, nn.Module]:
        """Prompts and image encoder with a light module, as Phase I begins with them, of the peer of a name."""
        source = generator(self.runtime.seed, "peer", name)
        prompts = self.backbone.prompts(NAMES.index(name), self.settings.n_ctx, source)
        return prompts, self.backbone.light_module(self.settings.visual, source)

    def build_optimizer(self, peer: Peer, phase: int) -> Built:
        """Build optimizer and schedule of a peer for a phase."""
        if phase == 2:
            student = cast(Classifier, peer.student)
            return full_optimizer(student, self.settings.phase2.lr, self.steps[2], schedule=self.schedule)
        optimizer = self.make_optimizer([p for p in peer.parameters() if p.requires_grad])
        return optimizer, cosine(optimizer, self.steps[1])

    # ---------------------------------------------------------------- training

    def enter(self, phase: int) -> None:
        """Set evaluation mode, and enter a phase where that has not happened yet."""
        for name, peer in self.peers.items():
            peer.eval()
            if phase == 2 and peer.phase == 1:
                peer.enter_phase2()
                self.optimizers[name].enter(2)

    def step(self, losses: Callable[[str], Losses]) -> dict[str, float]:
        """Make one step of each peer, at the same time where that is faster.

        Args:
            losses: Makes a peer's losses; none where this process has no image of its batch.

        Returns:
            All losses, by name and peer.
        """

        def work(name: str) -> dict[str, float]:
            found = losses(name)
            total = sum((weight * loss for weight, loss in found.values()), torch.zeros(())) if found else None
            numbers = self.runtime.descend(total, self.optimizers[name], name, [loss for _, loss in found.values()])
            self.peers[name].update_ema()
            self.schedulers[name].step()
            return {f"{key}_{name[-1]}": value for key, value in zip(found, numbers, strict=False)}

        # Operations that are recorded or compiled are of one thread.
        together = self.runtime.parallel and not self.runtime.compiler and self.runtime.scaler is None
        return {key: x for own in self.parallel.map(work, list(self.peers), together) for key, x in own.items()}

    # ---------------------------------------------------------------- models

    def teachers(self) -> dict[str, Classifier]:
        """The models that label images."""
        return {name: peer.teacher() for name, peer in self.peers.items()}

    def inference_models(self, wise: float, heads: tuple[str, ...] = HEADS) -> dict[str, Classifier]:
        """The models that are tested: Phase II's, averaged with those of Phase I; see `Peer.inference_model`."""
        return {name: peer.inference_model(wise, heads).eval() for name, peer in self.peers.items()}

    @torch.no_grad()
    def predict_each(self, models: Mapping[str, Classifier], images: Tensor, classify: str) -> dict[str, Tensor]:
        """Softmax probabilities by each model, of the score that `classify` names. Shape (n, C), where images are."""
        with self.runtime.autocast():
            scores = self.labeller.scores_of(models, images)
        return {name: SCORES[classify](*own).float().softmax(dim=1).to(images.device) for name, own in scores.items()}
