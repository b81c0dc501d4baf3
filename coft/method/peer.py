"""A peer: prompts and a light visual module in Phase I, an image encoder of its own with two heads in Phase II."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coft.core.method_errors import MethodError
from coft.labelling.classifier import HEADS, Classifier, interpolate
from coft.labelling.pseudo_labels import PseudoLabels


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


def trainable_copy(encoder: nn.Module) -> nn.Module:
    """Copy an encoder with all its weights, which train but for those that the encoder's `stays_frozen` names.

    Statistics of batch norms do not train either.
    """
    frozen = getattr(encoder, "stays_frozen", ())
    twin = copy.deepcopy(encoder)
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return twin


def freeze_statistics(module: nn.Module) -> None:
    """Keep batch norms at the statistics of pre-training, also in training mode."""
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            child.eval()


class Peer(nn.Module):
    """A model with two phases. Its state dict has what training changed, and nothing of the frozen CLIP.

    Args:
        prompts: A module that returns positive and negative text features, shape (C, embed_dim) each.
        encoder: CLIP's image encoder with a light module that trains; what does not is shared with CLIP.
        scale: CLIP's logit scale.
        identity: What a checkpoint must share with this run to be loaded: backbone, images, classes.
        negative_to_visual: See `Classifier`.
        ema_decay: See `ramped_ema`.
        negative_from_mean: Whether the negative text features are moved to their mean at first, so that d starts as
            what tells a class from the average one. Otherwise the negative prompt starts beside the positive one, and
            every d at 0.
        class_negative: Whether the negative text features have a part of each class's own that trains.
        phase2_encoder: Where the encoder of Phase II starts; by default at that of Phase I.
        micro_batch: See `Classifier`.
        compiler: Name of a backend of torch.compile for the encoder of Phase II; "" for none.

    Attributes:
        seeds: What Phase I trains on, and what the negative vectors are fitted to.
        trains: False where nothing is trained, since CLIP hardly knows the classes.
        labels: What Phase II trains on, of all images.
        student: What trains in Phase II; None in Phase I.
        ema: Its moving average.
    """

    def __init__(
        self,
        prompts: nn.Module,
        encoder: nn.Module,
        scale: float,
        identity: Mapping[str, str],
        *,
        negative_to_visual: bool = True,
        ema_decay: float = 0.99,
        negative_from_mean: bool = True,
        class_negative: bool = False,
        phase2_encoder: nn.Module | None = None,
        micro_batch: int = 0,
        compiler: str = "",
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.encoder = encoder
        self.scale = scale
        self.identity = dict(identity)
        self.negative_to_visual = negative_to_visual
        self.ema_decay = ema_decay
        self.negative_from_mean = negative_from_mean
        self._phase2_encoder = (phase2_encoder,)  # in a tuple: no submodule, so neither trained nor saved
        self.micro_batch = micro_batch
        self.compiler = compiler
        self.offset = nn.Parameter(self._first_offset(), requires_grad=class_negative)
        self.seeds = PseudoLabels.none()
        self.trains = True
        self.labels = PseudoLabels.none()
        self.student: Classifier | None = None
        self.ema: AveragedModel | None = None
        self._shared = {n for n, p in encoder.named_parameters() if not p.requires_grad}
        self._shared |= {n for n, _ in encoder.named_buffers()}

    @property
    def phase(self) -> int:
        """1 or 2."""
        return 1 if self.student is None else 2

    # ---------------------------------------------------------------- what it learns from

    def take_seeds(self, seeds: PseudoLabels) -> None:
        """Take seeds in the place of the present ones."""
        self.seeds = seeds

    def take_labels(self, labels: PseudoLabels) -> None:
        """Take pseudo-labels of all images in the place of the present ones."""
        self.labels = labels

    # ---------------------------------------------------------------- Phase I

    @torch.no_grad()
    def _first_offset(self) -> Tensor:
        negative = self.prompts()[1]
        mean = F.normalize(negative.mean(dim=0), dim=-1)
        return mean - negative if self.negative_from_mean else torch.zeros_like(negative)

    def text_features(self) -> tuple[Tensor, Tensor]:
        """Positive and negative text features, unit length, each of shape (C, embed_dim)."""
        positive, negative = self.prompts()
        return positive, F.normalize(negative + self.offset, dim=-1)

    def prompted(self) -> Classifier:
        """The classifier of Phase I, with gradients to prompts and visual module."""
        positive, negative = self.text_features()
        return Classifier(self.encoder, positive, negative, self.scale, self.negative_to_visual, self.micro_batch)

    # ---------------------------------------------------------------- Phase II

    def enter_phase2(self) -> None:
        """Leave the text tower: from now on an encoder of the peer's own trains, with two heads from the prompts."""
        self.student = self.make_student(self._start)
        self.ema = AveragedModel(self.student, multi_avg_fn=ramped_ema(self.ema_decay))
        self.ema.requires_grad_(False)
        if self.compiler:
            self.student.encoder.compile(backend=self.compiler)  # in place: names of weights stay
        self.train(self.training)

    @property
    def _start(self) -> nn.Module:
        return self._phase2_encoder[0] or self.encoder

    def make_student(self, encoder: nn.Module) -> Classifier:
        """A classifier all of whose weights train."""
        with torch.no_grad():
            positive, negative = self.text_features()
        return Classifier(
            trainable_copy(encoder).to(positive.device),
            nn.Parameter(positive.detach().clone()),
            nn.Parameter(negative.detach().clone()),
            self.scale,
            self.negative_to_visual,
            self.micro_batch,
        )

    def leave_phase2(self) -> None:
        """Back to Phase I."""
        self.student, self.ema = None, None

    def update_ema(self) -> None:
        """Move the average towards the student, after a step of Phase II."""
        if self.ema is not None and self.student is not None:
            self.ema.update_parameters(self.student)

    # ---------------------------------------------------------------- classifiers

    def learner(self) -> Classifier:
        """The classifier that trains in the present phase."""
        return self.prompted() if self.student is None else self.student

    @torch.no_grad()
    def teacher(self) -> Classifier:
        """The classifier that labels images: the moving average in Phase II."""
        return self.prompted() if self.ema is None else cast(Classifier, self.ema.module)

    @torch.no_grad()
    def inference_model(self, wise: float, heads: Sequence[str] = HEADS) -> Classifier:
        """The classifier that is tested: in Phase II averaged with Phase I's.

        Args:
            wise: Phase II's share.
            heads: What of the heads is averaged; negative vectors that were fitted to a classifier fit no average.
        """
        if self.ema is None or wise == 1:
            return self.teacher()
        return interpolate(self.prompted(), self.teacher(), wise, heads)

    @torch.no_grad()
    def set_negative(self, negative: Tensor) -> None:
        """Put negative vectors of unit length, shape (C, embed_dim), in the place of the present ones."""
        if self.student is None or self.ema is None:
            self.offset.copy_(negative - self.prompts()[1])
            return
        for classifier in (self.student, cast(Classifier, self.ema.module)):
            classifier.negative.copy_(negative)

    # ---------------------------------------------------------------- state

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
            "seeds": {"index": self.seeds.index, "label": self.seeds.label},
            "labels": {"label": self.labels.label, "weight": self.labels.weight},
            "trains": self.trains,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore seeds and pseudo-labels; the phase is entered before weights are loaded."""
        self.seeds = PseudoLabels.certain(**state["seeds"])
        self.labels = PseudoLabels.of_pool(**state["labels"])
        self.trains = state.get("trains", True)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """State without the frozen weights that the peers share."""
        state = super().state_dict(*args, **kwargs)
        for name in self._shared:
            state.pop(f"encoder.{name}", None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state of either phase.

        Raises:
            MethodError: If the state is of another method, backbone, class list or set of images.
        """
        extra = state_dict.get("_extra_state")
        if not isinstance(extra, dict) or not {"phase", "labels"} <= extra.keys():
            raise MethodError("it is no checkpoint of a peer, or one of an earlier version, which no longer loads")
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
        MethodError: Naming the first difference.
    """
    for key, value in present.items():
        if saved.get(key) != value:
            raise MethodError(
                f"it was made with another {key} ({saved.get(key)}, here {value}); use the {key} it was made with"
            )
