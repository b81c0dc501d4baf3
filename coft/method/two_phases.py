"""What CoFT and DeFT share: two peers, light tuning in Phase I, full fine-tuning in Phase II."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from coft.core.seeding import generator
from coft.labelling.protocol import Encoders, Engine, Method, Observer, Stream, Tuning

from .peer import Peer

NAMES = ("peer_a", "peer_b")
VIEWS_OF_SEED = 8  # that Phase I draws from
Parts = tuple[nn.Module, nn.Module, float]  # prompts, image encoder, logit scale


def steps_of_phase1(of_pass: int, phase1: Any) -> int:
    """Steps of an epoch of Phase I: those of a pass over its images, or what `min_steps` asks for, if that is more."""
    return max(of_pass, math.ceil(phase1.min_steps / phase1.epochs))


class TwoPhases(Method):
    """Two peers with two phases. Epochs of both phases are counted through.

    Args:
        engine: What runs it.
        settings: `n_ctx`, `visual`, `phase1` and `phase2` are read.
        observer: Sees what is done with pseudo-labels.

    Attributes:
        peers: By name: `peer_a` and `peer_b`.
        phase1_epochs: Epochs of Phase I, in all of its rounds.
    """

    several_phases = True
    rounds = 1  # of Phase I
    settings: Any

    def __init__(self, engine: Engine, settings: Any, observer: Observer | None = None) -> None:
        super().__init__(engine, observer)
        self.settings, self.phase1_epochs = settings, self.rounds * settings.phase1.epochs
        self.epochs = self.phase1_epochs + settings.phase2.epochs
        self.num_images, self.num_classes = len(engine.images), len(engine.clip.classnames)
        self.peers = {name: self.make_peer(name).to(engine.device) for name in NAMES}
        self.models = dict(self.peers)

    def make_peer(self, name: str) -> Peer:
        """Build a peer, from what `parts_of` gives."""
        raise NotImplementedError

    def parts_of(self, name: str, number: int = 0) -> Parts:
        """Prompts, and image encoder with a light module, as a round of Phase I begins with them; CLIP's logit scale.

        Peers differ in template and random numbers, of two checkpoints also in that, rounds in random numbers.

        Args:
            name: Of the peer.
            number: Of the round, from 0.
        """
        of_round = ("round", number) if number else ()
        place, source = NAMES.index(name), generator(self.engine.seed, "peer", name, *of_round)
        clip = self.engine.clip.member(place)
        prompts = clip.prompts(place, self.settings.n_ctx, source)
        return prompts, clip.light_module(self.settings.visual, source), clip.scale

    def prompted_encoders(self) -> Encoders:
        """The image encoders of Phase I."""
        return {name: peer.encode_as_prompted for name, peer in self.peers.items()}

    def teacher_encoders(self) -> Encoders:
        """The image encoders of the models that label images."""
        return {name: peer.encode_as_teacher for name, peer in self.peers.items()}

    # ---------------------------------------------------------------- phases

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, 1 or 2."""
        return 1 if epoch < self.phase1_epochs else 2

    def enter(self, phase: int) -> None:
        """Give the peers encoders of their own in Phase II."""
        for peer in self.peers.values():
            peer.set_phase(phase)

    def images_of_phase1(self) -> int:
        """How many images an epoch of Phase I passes over."""
        return self.num_images

    def steps(self, phase: int) -> int:
        """Steps of an epoch: a pass over the images; in Phase I what `min_steps` asks for, if that is more."""
        if phase == 2:
            return self.engine.images.steps(self.num_images)
        return steps_of_phase1(self.engine.images.steps(self.images_of_phase1()), self.settings.phase1)

    def view(self, phase: int) -> str:
        """Phase I trains on weak views, Phase II on strong ones."""
        return "weak" if phase == 1 else "strong"

    def few_views(self, phase: int) -> int:
        """Phase I sees its seeds some fifty times; frozen stages then work on each of a few views once."""
        return VIEWS_OF_SEED if phase == 1 else 0

    def streams(self) -> dict[str, list[Stream]]:
        """Phase I draws from all labels, Phase II from those that count."""
        if self.phase(self.epoch) == 2:
            return super().streams()
        return {name: [Stream(name, labels.index)] for name, labels in self.labels.items()}

    def tuning(self, phase: int) -> Tuning:
        """Phase I trains what is light, Phase II image encoders and heads."""
        if phase == 1:
            return Tuning(self.steps(1) * self.settings.phase1.epochs)
        phase2 = self.settings.phase2
        return Tuning(self.steps(2) * phase2.epochs, phase2.lr)

    def student(self, name: str) -> nn.Module:
        """What trains of a peer in the present phase."""
        peer = self.peers[name]
        return peer if peer.student is None else peer.student.model

    def stepped(self, name: str, index: Tensor, kept: Tensor | None) -> None:
        """Move the average of a peer."""
        self.peers[name].update_ema()

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Labels, the phase, and whether anything is trained."""
        phase = max(peer.phase for peer in self.peers.values())
        return super().state_dict() | {"phase": phase, "trains": self.trains}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state, and enter its phase: weights of that phase can be loaded then."""
        super().load_state_dict(state)
        self.trains = state["trains"]
        self.enter(state["phase"])
