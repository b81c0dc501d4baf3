"""A peer: prompts and a light visual module in Phase I, an image encoder of its own with two heads in Phase II."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint as recompute

from coft.backbones.prompts import DualPrompts
from coft.backbones.visual_tuning import everything, freeze_statistics
from coft.method.cleanliness import clean_log_odds
from coft.method.pseudo_labels import Lesson
from coft.method.seeds import Seeds
from coft.runtime.errors import UserError

HEADS = ("positive", "negative")  # a classifier's vectors
NOTHING = (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))


def to_class_mean(negative: Tensor) -> Tensor:
    """What moves the negative features, shape (C, embed_dim), to their mean: d starts as what tells a class from it."""
    return F.normalize(negative.mean(dim=0), dim=-1) - negative


# What is added to the features of the negative prompt, which begins at the positive one, so that they start where they
# should. From the positive ones every d starts at 0.
NEGATIVE_STARTS: dict[str, Callable[[Tensor], Tensor]] = {"mean": to_class_mean, "positive": torch.zeros_like}


class Classifier(nn.Module):
    """An image encoder with a positive and a negative vector for each class.

    Args:
        encoder: Images (n, 3, size, size) to features (n, embed_dim).
        positive: Shape (C, embed_dim); its direction counts, not its length.
        negative: Shape (C, embed_dim), likewise.
        scale: CLIP's logit scale.
        negative_to_visual: Whether the clean log-odds pass gradients on to the encoder.
        micro_batch: While training, so many images go through the encoder at a time, and their activations are not
            kept but computed again for the gradients: memory for one micro-batch, a third more time. 0: all at once.
    """

    def __init__(
        self,
        encoder: nn.Module,
        positive: Tensor,
        negative: Tensor,
        scale: float,
        negative_to_visual: bool = True,
        micro_batch: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.micro_batch = micro_batch
        self.positive: Tensor = positive
        self.negative: Tensor = negative
        self.scale = scale
        self.negative_to_visual = negative_to_visual

    def features(self, images: Tensor) -> Tensor:
        """Unit-length image features, in fp32 at least. Shape (n, embed_dim)."""
        if self.micro_batch and torch.is_grad_enabled():
            parts = images.split(self.micro_batch)
            # No random number is drawn in an encoder, and statistics of batch norms stay: the same as all at once.
            encoded = torch.cat([recompute(self.encoder, part, use_reentrant=False) for part in parts])
        else:
            encoded = self.encoder(images)
        return F.normalize(encoded.to(self.positive.dtype), dim=-1)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compare image features with the classes' vectors.

        Returns:
            Logits l+ and clean log-odds d, each of shape (n, C), in fp32 at least.
        """
        positive, negative = F.normalize(self.positive, dim=-1), F.normalize(self.negative, dim=-1)
        routed = features if self.negative_to_visual else features.detach()
        with torch.autocast(features.device.type, enabled=False):  # d is a small difference of large numbers
            logits = self.scale * features @ positive.t()
            return logits, clean_log_odds(routed, positive, negative, self.scale)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify images: as `classify` does their features."""
        return self.classify(self.features(images))


def heads_of(student: nn.Module) -> list[nn.Parameter]:
    """All parameters of a classifier but its encoder's."""
    return [p for name, p in student.named_parameters() if not name.startswith("encoder.")]


def interpolate(start: Classifier, end: Classifier, weight: float, heads: Sequence[str] = HEADS) -> Classifier:
    """Average two classifiers of one shape, weight by weight: (1 - weight) start + weight end (WiSE-FT).

    Args:
        start: The one.
        end: The other.
        weight: Its share.
        heads: Heads that are averaged, as unit vectors; others are those of `end`.

    Returns:
        A new classifier.
    """
    result = copy.deepcopy(end).requires_grad_(False)
    with torch.no_grad():
        ends, starts = dict(result.encoder.named_parameters()), dict(start.encoder.named_parameters())
        for name, value in ends.items():
            value.lerp_(starts[name].to(value.dtype), 1 - weight)
        for name in heads:
            a, b = (F.normalize(getattr(c, name).detach(), dim=-1) for c in (start, end))
            getattr(result, name).copy_(a.lerp(b, weight))
    return result


def ramped_ema(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], int | Tensor], None]:
    """An exponential moving average that forgets its start sooner: decay min(decay, (1 + n) / (10 + n)) in step n.

    A run of a hundred steps would otherwise end at an average that is still mostly its beginning.

    Args:
        decay: Share of the old average in the long run.

    Returns:
        An averaging function for `AveragedModel`.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], steps: int | Tensor) -> None:
        weight = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(list(averages), list(values), weight)

    return update


class Peer(nn.Module):
    """One of the two peers. Its state dict has what training changed, and nothing of the frozen CLIP.

    Args:
        clip_model: The frozen CLIP, shared with the other peer.
        prompts: Positive and negative context tokens.
        encoder: CLIP's image encoder with a light module that trains.
        identity: What a checkpoint must share with this run to be loaded: backbone, images, classes.
        negative_to_visual: See `Classifier`.
        ema_decay: See `ramped_ema`.
        restart: Whether the encoder of Phase II starts from pre-trained weights, not from those of Phase I.
        negative_start: Where the negative text features start, a name of `NEGATIVE_STARTS`.
        class_negative: Whether the negative text features have a part of each class's own that trains.
        micro_batch: See `Classifier`.
        compiler: Name of a backend of torch.compile for the encoder of Phase II; "" for none.

    Attributes:
        phase: 1 or 2.
        seeds: What Phase I trains on.
        lesson: What Phase II trains on.
    """

    def __init__(
        self,
        clip_model: Any,
        prompts: DualPrompts,
        encoder: nn.Module,
        identity: Mapping[str, str],
        *,
        negative_to_visual: bool = True,
        ema_decay: float = 0.99,
        restart: bool = False,
        negative_start: str = "mean",
        class_negative: bool = False,
        micro_batch: int = 0,
        compiler: str = "",
    ) -> None:
        super().__init__()
        self._clip = (clip_model,)  # in a tuple: no submodule, so neither trained nor saved
        self.prompts = prompts
        self.encoder = encoder
        self.identity = dict(identity)
        self.negative_to_visual = negative_to_visual
        self.ema_decay = ema_decay
        self.restart = restart
        self.micro_batch = micro_batch
        self.compiler = compiler
        self._offset_of = NEGATIVE_STARTS[negative_start]
        self.offset = nn.Parameter(self._first_offset(), requires_grad=class_negative)
        self.phase = 1
        self.seeds = Seeds(*NOTHING)
        self.lesson = Lesson(*NOTHING)
        self.student: Classifier | None = None
        self.ema: AveragedModel | None = None
        self._shared = {n for n, p in encoder.named_parameters() if not p.requires_grad}
        self._shared |= {n for n, _ in encoder.named_buffers()}

    @property
    def scale(self) -> float:
        """CLIP's logit scale."""
        return float(self._clip[0].logit_scale.exp())

    @torch.no_grad()
    def _first_offset(self) -> Tensor:
        """What is added to the negative prompt's features at first."""
        return self._offset_of(self.prompts(self._clip[0])[1])

    def text_features(self) -> tuple[Tensor, Tensor]:
        """Positive and negative text features, unit length, each of shape (C, embed_dim)."""
        positive, negative = self.prompts(self._clip[0])
        return positive, F.normalize(negative + self.offset, dim=-1)

    def prompted(self) -> Classifier:
        """The classifier of Phase I, with gradients to prompts and visual module."""
        positive, negative = self.text_features()
        return Classifier(self.encoder, positive, negative, self.scale, self.negative_to_visual, self.micro_batch)

    def learner(self) -> Classifier:
        """The classifier that trains in the present phase."""
        return self.prompted() if self.student is None else self.student

    @torch.no_grad()
    def teacher(self) -> Classifier:
        """The classifier that labels images: the moving average in Phase II."""
        return self.prompted() if self.ema is None else cast(Classifier, self.ema.module)

    @torch.no_grad()
    def tested(self, wise: float, heads: Sequence[str] = HEADS) -> Classifier:
        """The classifier that is tested: in Phase II averaged with Phase I's (`wise` is Phase II's share).

        Negative vectors that are fitted to a classifier are not trained along, and fit no average of two: `heads`
        names what is averaged.
        """
        if self.ema is None or wise == 1:
            return self.teacher()
        return interpolate(self.prompted(), self.teacher(), wise, heads)

    def make_student(self) -> Classifier:
        """The classifier that trains in Phase II: an encoder of the peer's own, and two heads from the prompts."""
        with torch.no_grad():
            positive, negative = self.text_features()
        return Classifier(
            everything(self._clip[0].visual if self.restart else self.encoder),
            nn.Parameter(positive.detach().clone()),
            nn.Parameter(negative.detach().clone()),
            self.scale,
            self.negative_to_visual,
            self.micro_batch,
        )

    @torch.no_grad()
    def set_negative(self, negative: Tensor) -> None:
        """Put negative vectors of unit length, shape (C, embed_dim), in the place of the present ones."""
        if self.student is None:
            self.offset.copy_(negative - self.prompts(self._clip[0])[1])
            return
        for classifier in (self.student, self.teacher()):
            classifier.negative.copy_(negative)

    def enter_phase2(self) -> None:
        """Leave the text tower: from now on the student trains."""
        self.student = self.make_student()
        self.ema = AveragedModel(self.student, multi_avg_fn=ramped_ema(self.ema_decay))
        self.ema.requires_grad_(False)
        if self.compiler:
            self.student.encoder.compile(backend=self.compiler)  # in place: names of weights stay
        self.phase = 2
        self.train(self.training)

    def leave_phase2(self) -> None:
        """Back to Phase I."""
        self.student, self.ema, self.phase = None, None, 1

    def start_afresh(self, prompts: DualPrompts, encoder: nn.Module) -> None:
        """Begin Phase I again with other prompts and another light module."""
        self.prompts, self.encoder = prompts, encoder
        with torch.no_grad():
            self.offset.copy_(self._first_offset())
        self.train(self.training)

    def update_ema(self) -> None:
        """Move the average towards the student, after a step of Phase II."""
        if self.ema is not None and self.student is not None:
            self.ema.update_parameters(self.student)

    def train(self, mode: bool = True) -> Peer:
        """Set training mode; statistics of batch norms stay those of pre-training."""
        super().train(mode)
        freeze_statistics(self)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Everything beside weights that a resumed run needs: plain containers and tensors."""
        return {
            "phase": self.phase,
            "identity": dict(self.identity),
            "seeds": {"ranks": self.seeds.ranks, "labels": self.seeds.labels},
            "lesson": {"labels": self.lesson.labels, "weight": self.lesson.weight},
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore seeds and pseudo-labels; the phase is entered before weights are loaded."""
        self.seeds, self.lesson = Seeds(**state["seeds"]), Lesson(*state["lesson"].values())

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """State without the frozen weights that the peers share."""
        state = super().state_dict(*args, **kwargs)
        for name in self._shared:
            state.pop(f"encoder.{name}", None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state of either phase.

        Raises:
            UserError: If the checkpoint is of another trainer, backbone, class list or set of images.
        """
        extra = state_dict.get("_extra_state")
        if not isinstance(extra, dict) or "phase" not in extra:
            raise UserError(
                "the checkpoint is not one of a CoFT peer; give --model-dir or --resume a folder of this trainer"
            )
        check_identity(extra["identity"], self.identity)
        if extra["phase"] == 2 and self.phase == 1:
            self.enter_phase2()
        elif extra["phase"] == 1:
            self.leave_phase2()
        frozen = {f"encoder.{n}": t for n, t in self.encoder.state_dict().items() if n in self._shared}
        return super().load_state_dict({**frozen, **state_dict}, strict=strict, assign=assign)


def check_identity(saved: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Compare what a checkpoint was made with to what this run has.

    Raises:
        UserError: Naming the first difference.
    """
    for key, value in present.items():
        if saved.get(key) != value:
            raise UserError(
                f"the checkpoint was made with another {key} ({saved.get(key)}, here {value}); "
                f"use the {key} it was made with, or another --output-dir to start afresh"
            )
