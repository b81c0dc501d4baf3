"""Registry of all methods: their settings and properties, and how each is built for a session."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from coft.backbones.members import member_names
from coft.core.errors import UserError
from coft.core.settings import Key, flatten, keys, load
from coft.labelling.protocol import Method
from coft.method.coft import CoFT
from coft.method.coft_plus import CoFTPlus, CoFTPlusSettings
from coft.method.coft_settings import CoFTSettings
from coft.rivals.cpl import CPL, CPLSettings
from coft.rivals.deft import DeFT, DeFTSettings
from coft.rivals.dpa import DPA, DPASettings
from coft.rivals.full_tuning import Supervised, SupervisedSettings
from coft.rivals.grip import GRIP, GRIPSettings
from coft.rivals.lafter import LaFTer, LaFTerSettings
from coft.rivals.must import MUST, MUSTSettings
from coft.rivals.prompt_tuning import UPL, CoOp, CoOpSettings, UPLSettings
from coft.rivals.self_training import SelfTraining, SelfTrainingSettings
from coft.rivals.training_free import TrainingFree, TrainingFreeSettings
from coft.rivals.zero_shot import ZeroShot

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)
EPOCHS = "cfg.OPTIM.MAX_EPOCH"


@dataclass(frozen=True)
class MethodSpec:
    """Specification of a method.

    Attributes:
        trainer: Name of the method in configs and results.
        settings: Settings class of the method; None if it has no settings.
        make: Factory that builds the method for a session.
        label_free: Whether it uses the unlabeled images, and no label. Its final model is then the last epoch, not the
            best one.
        two_peers: Whether it trains two peers, whose metrics are recorded by epoch.
        learns_from_labels: Whether it trains on labels.
        two_checkpoints: Whether it accepts two CLIP checkpoints: "a+b".
    """

    trainer: str
    settings: type | None
    make: Callable[[Session], Method]
    label_free: bool = True
    two_peers: bool = False
    learns_from_labels: bool = False
    two_checkpoints: bool = False

    def check_backbone(self, name: str) -> None:
        """Check that two checkpoints are given only to a method that accepts two.

        Raises:
            UserError: If they are not. The message names methods that accept two.
        """
        if len(member_names(name)) > 1 and not self.two_checkpoints:
            able = ", ".join(spec.trainer for spec in SPECS.values() if spec.two_checkpoints)
            raise UserError(f"backbone {name}: {self.trainer} takes one checkpoint; name one, or run one of {able}")

    @property
    def section(self) -> str:
        """Full name of the method's config section."""
        return f"TRAINER.{self.trainer.upper()}"

    @property
    def keys(self) -> dict[str, Key]:
        """Settings of the method, by full name."""
        return keys(self.settings, self.section) if self.settings else {}

    def settings_of(self, cfg: Any) -> Any:
        """Return the method's settings from a config; None if it has no settings.

        Raises:
            UserError: If a value is invalid, or the settings are inconsistent.
        """
        if self.settings is None:
            return None
        return load(self.settings, flatten(cfg), self.section)


def make_coft(session: Session) -> CoFT:
    """Build CoFT."""
    return CoFT(session.engine, session.settings, session.observer, guard=session.cfg.TRAIN.GUARD)


def make_coft_plus(session: Session) -> CoFTPlus:
    """Build CoFT+ with the class descriptions that its settings select."""
    describe = session.sentences.describe(session.settings.descriptions.from_)
    options = {"guard": session.cfg.TRAIN.GUARD, "describe": describe}
    return CoFTPlus(session.engine, session.settings, session.observer, **options)


def make_coop(session: Session) -> CoOp:
    """Build CoOp on labelled batches."""
    args = session.engine, session.settings, session.cfg.OPTIM.MAX_EPOCH
    assert session.task.labelled is not None
    return CoOp(session.task.labelled, session.world.part, *args)


def make_lafter(session: Session) -> LaFTer:
    """Build LaFTer on texts about the classes: templates and descriptions."""
    settings = session.settings
    return LaFTer(lambda: session.sentences.texts(settings.descriptions), session.engine, settings, session.observer)


def make_supervised(session: Session) -> Supervised:
    """Build full supervision on the labels of the images."""
    assert session.task.truth is not None
    return Supervised(session.task.truth, session.engine, session.settings)


def factory(kind: Any, *arguments: str) -> Callable[[Session], Method]:
    """Return a factory for a method that takes the engine, its settings, and some attributes of the session."""
    return lambda s: kind(s.engine, s.settings, *(attrgetter(name)(s) for name in arguments))


def zero_shot(num_templates: int | None) -> Callable[[Session], Method]:
    """Return a factory for zero-shot CLIP with the first `num_templates` templates; None: all of them."""

    def make(session: Session) -> ZeroShot:
        log.info("Templates: %s", list(session.task.templates[:num_templates]))
        text = session.engine.clip.zero_shot_text(num_templates)
        return ZeroShot(session.engine, session.clip_model.visual, text)

    return make


SPECS = {
    spec.trainer: spec
    for spec in (
        MethodSpec("CoFT", CoFTSettings, make_coft, two_peers=True, two_checkpoints=True),
        MethodSpec("CoFTPlus", CoFTPlusSettings, make_coft_plus, two_peers=True, two_checkpoints=True),
        MethodSpec("DeFT", DeFTSettings, factory(DeFT, "observer"), two_peers=True),
        MethodSpec("SelfTraining", SelfTrainingSettings, factory(SelfTraining, "observer"), two_checkpoints=True),
        MethodSpec("MUST", MUSTSettings, factory(MUST, "observer")),
        MethodSpec("DPA", DPASettings, factory(DPA, "observer")),
        MethodSpec("LaFTer", LaFTerSettings, make_lafter),
        MethodSpec("UPL", UPLSettings, factory(UPL, EPOCHS, "observer")),
        MethodSpec("GRIP", GRIPSettings, factory(GRIP, EPOCHS, "observer")),
        MethodSpec("CPL", CPLSettings, factory(CPL, EPOCHS, "observer")),
        MethodSpec("TrainingFree", TrainingFreeSettings, factory(TrainingFree), two_checkpoints=True),
        MethodSpec("CoOp", CoOpSettings, make_coop, label_free=False, learns_from_labels=True),
        MethodSpec(
            "Supervised",
            SupervisedSettings,
            make_supervised,
            label_free=False,
            learns_from_labels=True,
            two_checkpoints=True,
        ),
        MethodSpec("ZeroshotCLIP", None, zero_shot(1), label_free=False, two_checkpoints=True),
        MethodSpec("ZeroshotCLIP2", None, zero_shot(None), label_free=False, two_checkpoints=True),
    )
}
