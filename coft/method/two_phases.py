"""Common base of CoFT and DeFT: two peers, light tuning in Phase I, full fine-tuning in Phase II."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from coft.core.seeding import generator
from coft.labelling.protocol import Encoders, Engine, Method, Observer, Stream, Tuning

from .peer import Peer

NAMES = ("peer_a", "peer_b")
VIEWS_OF_SEED = 8  # number of views of a seed that Phase I draws from
Parts = tuple[nn.Module, nn.Module, float]  # prompts, image encoder, logit scale


def steps_of_phase1(of_pass: int, phase1: Any) -> int:
    """Return the steps of an epoch of Phase I: `of_pass`, or more if the phase would have fewer than `min_steps`."""
    return max(of_pass, math.ceil(phase1.min_steps / phase1.epochs))


class TwoPhases(Method):
    """Two peers with two phases. Epochs are numbered across both phases.

    Args:
        engine: The engine that runs the method.
        settings: Settings with `n_ctx`, `visual`, `phase1` and `phase2`.
        observer: Callbacks on pseudo-labels.

    Attributes:
        peers: Peers by name: `peer_a` and `peer_b`.
        phase1_epochs: Number of epochs in all rounds of Phase I.
    """

    new_optimizer_per_phase = True
    rounds = 1  # number of rounds of Phase I
    settings: Any

    def __init__(self, engine: Engine, settings: Any, observer: Observer | None = None) -> None:
        super().__init__(engine, observer)
        self.settings, self.phase1_epochs = settings, self.rounds * settings.phase1.epochs
        self.epochs = self.phase1_epochs + settings.phase2.epochs
        self.num_images, self.num_classes = len(engine.images), len(engine.clip.classnames)
        self.peers = {name: self.make_peer(name).to(engine.device) for name in NAMES}
        self.models = dict(self.peers)

    def make_peer(self, name: str) -> Peer:
        """Build a peer from the result of `parts_of`."""
        raise NotImplementedError

    def parts_of(self, name: str, number: int = 0) -> Parts:
        """Build the initial parts of a peer in a round of Phase I: prompts, encoder with light module, logit scale.

        Peers differ in template and random numbers, and in the checkpoint if there are two. Rounds differ in random
        numbers.

        Args:
            name: Name of the peer.
            number: Number of the round, from 0.
        """
        of_round = ("round", number) if number else ()
        place, source = NAMES.index(name), generator(self.engine.seed, "peer", name, *of_round)
        clip = self.engine.clip.member(place)
        prompts = clip.prompts(place, self.settings.n_ctx, source)
        return prompts, clip.light_module(self.settings.visual, source), clip.scale

    def teacher_encoders(self) -> Encoders:
        """Return the image encoders of the models that label images."""
        return {name: peer.encode_as_teacher for name, peer in self.peers.items()}

    # ---------------------------------------------------------------- phases

    def phase(self, epoch: int) -> int:
        """Return the phase of an epoch, 1 or 2."""
        return 1 if epoch < self.phase1_epochs else 2

    def enter(self, phase: int) -> None:
        """Move all peers to a phase; in Phase II each has its own encoder."""
        for peer in self.peers.values():
            peer.set_phase(phase)

    def images_of_phase1(self) -> int:
        """Return the number of images in an epoch of Phase I."""
        return self.num_images

    def steps(self, phase: int) -> int:
        """Return the steps of an epoch: a pass over the images, in Phase I more if `min_steps` requires it."""
        if phase == 2:
            return self.engine.images.steps(self.num_images)
        return steps_of_phase1(self.engine.images.steps(self.images_of_phase1()), self.settings.phase1)

    def views(self, phase: int) -> Sequence[str]:
        """Return the kinds of views of an image: a weak one in Phase I, a strong one in Phase II."""
        return ["weak" if phase == 1 else "strong"]

    def num_fixed_views(self, phase: int) -> int:
        """Return the number of views of an image to draw from: few in Phase I, without limit in Phase II.

        Phase I uses each seed some fifty times; with few views, frozen stages process each view only once.
        """
        return VIEWS_OF_SEED if phase == 1 else 0

    def streams(self) -> dict[str, list[Stream]]:
        """Return the streams of both peers: all labels in Phase I, those with a weight above 0 in Phase II."""
        if self.phase(self.epoch) == 2:
            return super().streams()
        return {name: [Stream(name, labels.index)] for name, labels in self.labels.items()}

    def tuning(self, phase: int) -> Tuning:
        """Return how a phase is trained: light modules in Phase I, image encoders and heads in Phase II."""
        if phase == 1:
            return Tuning(self.steps(1) * self.settings.phase1.epochs)
        phase2 = self.settings.phase2
        return Tuning(self.steps(2) * phase2.epochs, phase2.lr)

    def student(self, name: str) -> nn.Module:
        """Return the part of a peer that trains in the current phase."""
        peer = self.peers[name]
        return peer if peer.student is None else peer.student.model

    def after_step(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Update a peer's moving average."""
        self.peers[name].update_ema()

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Return the labels, the phase, and whether anything is trained."""
        phase = max(peer.phase for peer in self.peers.values())
        return super().state_dict() | {"phase": phase, "trains": self.trains}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`, and enter its phase, so that weights of that phase can be loaded."""
        super().load_state_dict(state)
        self.trains = state["trains"]
        self.enter(state["phase"])
