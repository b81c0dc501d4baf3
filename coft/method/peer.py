"""A peer: prompts and a light visual module in Phase I, its own image encoder with two heads in Phase II."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.labelling.classifier import HEADS, Classifier, interpolate
from coft.labelling.student import Student, freeze_statistics, trainable_copy


class Peer(nn.Module):
    """A model that trains in two phases. Its state dict has what training changes, without frozen weights of CLIP.

    Args:
        prompts: Module that returns positive and negative text features, shape (C, embed_dim) each.
        encoder: CLIP's image encoder with a trainable light module; the frozen weights are shared with CLIP.
        scale: CLIP's logit scale.
        ema_decay: Decay of the moving average; see `ramped_ema`.
        class_negative: Whether the negative text features have a trainable offset for each class.

    Attributes:
        negative_residual: Offset of the negative text features of each class. It moves them to their mean at first, so
            that d starts as the difference of a class from the average one. Shape (C, embed_dim).
        student: The student of Phase II with its moving average; None in Phase I.
    """

    def __init__(
        self,
        prompts: nn.Module,
        encoder: nn.Module,
        scale: float,
        *,
        ema_decay: float = 0.99,
        class_negative: bool = False,
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.encoder = encoder
        self.scale = scale
        self.ema_decay = ema_decay
        self.negative_residual = nn.Parameter(self._first_residual(), requires_grad=class_negative)
        self.student: Student | None = None
        self._shared = {n for n, p in encoder.named_parameters() if not p.requires_grad}
        self._shared |= {n for n, _ in encoder.named_buffers()}

    @property
    def phase(self) -> int:
        """Current phase, 1 or 2."""
        return 1 if self.student is None else 2

    # ---------------------------------------------------------------- Phase I

    @torch.no_grad()
    def _first_residual(self) -> Tensor:
        negative = self.prompts()[1]
        return F.normalize(negative.mean(dim=0), dim=-1) - negative

    def text_features(self) -> tuple[Tensor, Tensor]:
        """Compute positive and negative text features, unit length, each of shape (C, embed_dim)."""
        positive, negative = self.prompts()
        return positive, F.normalize(negative + self.negative_residual, dim=-1)

    def prompted(self) -> Classifier:
        """Return the classifier of Phase I, with gradients to prompts and visual module."""
        positive, negative = self.text_features()
        return Classifier(self.encoder, positive, negative, self.scale)

    @torch.no_grad()
    def restart(self, prompts: nn.Module, encoder: nn.Module) -> None:
        """Copy the trainable values of fresh prompts, and of an encoder with a fresh light module."""
        for trained, fresh in ((self.prompts, prompts), (self.encoder, encoder)):
            for parameter, value in zip(trained.parameters(), fresh.parameters(), strict=True):
                if parameter.requires_grad:
                    parameter.copy_(value)
        self.negative_residual.copy_(self._first_residual())

    # ---------------------------------------------------------------- Phase II

    def enter_phase2(self, encoder: nn.Module | None = None) -> None:
        """Enter Phase II, where a copy of an encoder trains with two heads, initialised from the prompts.

        Args:
            encoder: The encoder that is copied. Default: that of Phase I.
        """
        self.student = Student(self.full_classifier(self.encoder if encoder is None else encoder), self.ema_decay)
        self.train(self.training)

    def full_classifier(self, encoder: nn.Module) -> Classifier:
        """Build a fully trainable classifier from an encoder and the text features."""
        with torch.no_grad():
            positive, negative = self.text_features()
        return Classifier(
            trainable_copy(encoder).to(positive.device),
            nn.Parameter(positive.detach().clone()),
            nn.Parameter(negative.detach().clone()),
            self.scale,
        )

    def leave_phase2(self) -> None:
        """Return to Phase I, and drop the student."""
        self.student = None

    def set_phase(self, phase: int, encoder: nn.Module | None = None) -> None:
        """Enter Phase II, with a copy of an encoder (see `enter_phase2`), or return to Phase I."""
        if phase == 2 and self.phase == 1:
            self.enter_phase2(encoder)
        elif phase == 1:
            self.leave_phase2()

    def update_ema(self) -> None:
        """Update the moving average after a step of Phase II."""
        if self.student is not None:
            self.student.update()

    # ---------------------------------------------------------------- classifiers

    def learner(self) -> Classifier:
        """Return the classifier that trains in the current phase."""
        return self.prompted() if self.student is None else self.student.model

    @torch.no_grad()
    def teacher(self) -> Classifier:
        """Return the classifier that labels images: in Phase II, the moving average."""
        return self.prompted() if self.student is None else self.student.teacher

    def encode_as_teacher(self, images: Tensor) -> Tensor:
        """Encode images, shape (n, 3, size, size), with the encoder of `teacher`. Unit length, (n, embed_dim)."""
        return self.encode_as_prompted(images) if self.student is None else self.student.teacher.features(images)

    def encode_as_prompted(self, images: Tensor) -> Tensor:
        """Encode images with the encoder of Phase I, without encoding any text."""
        return Classifier(self.encoder, self.negative_residual, None, self.scale).features(images)

    @torch.no_grad()
    def inference_model(self, wise: float, heads: Sequence[str] = HEADS) -> Classifier:
        """Return the tested classifier: in Phase II, the teacher averaged with the classifier of Phase I (WiSE-FT).

        Args:
            wise: Share of Phase II.
            heads: Names of the heads that are averaged. Fitted negative vectors would not fit an average.
        """
        if self.student is None or wise == 1:
            return self.teacher()
        return interpolate(self.prompted(), self.teacher(), wise, heads)

    @torch.no_grad()
    def set_negative(self, negative: Tensor) -> None:
        """Replace the negative vectors by others of unit length, shape (C, embed_dim)."""
        if self.student is None:
            self.negative_residual.copy_(negative - self.prompts()[1])
            return
        for classifier in (self.student.model, self.student.teacher):
            classifier.negative_vectors.copy_(negative)

    # ---------------------------------------------------------------- state

    def train(self, mode: bool = True) -> Peer:
        """Set training mode; batch norms keep the statistics of pre-training."""
        super().train(mode)
        freeze_statistics(self)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the state without the frozen weights that the peers share."""
        state = super().state_dict(*args, **kwargs)
        for name in self._shared:
            state.pop(f"encoder.{name}", None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict, which must be of the current phase."""
        frozen = {f"encoder.{n}": t for n, t in self.encoder.state_dict().items() if n in self._shared}
        return super().load_state_dict({**frozen, **state_dict}, strict=strict, assign=assign)
