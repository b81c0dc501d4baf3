"""CoOp and UPL: context tokens of a prompt are learned from labelled images, or from the surest zero-shot labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.backbone import ClassBackbone
from coft.backbones.prompts import POSITIONS, PromptLearner, encode_prompts, random_context, word_context
from coft.core.seeding import generator
from coft.core.settings import setting
from coft.labelling.losses import average_predictions
from coft.labelling.predictor import FinalClassifier, Predictor
from coft.labelling.pseudo_labels import PseudoLabels, given_quotas, seed_quota, select_seeds
from coft.method.coft_settings import PRECISIONS, CoFTSettings
from coft.method.labeller import first_logits, zero_shot_logits
from coft.method.protocol import Images, Method, Observer, Runtime

COFT = CoFTSettings()  # for rivals that make their labels as CoFT does
MakeOptimizer = Callable[[PromptLearner], tuple[Any, Any]]  # an optimizer and its schedule, stepped once an epoch
Example = tuple[Tensor | None, Tensor, int]  # images, their labels, and images of the whole batch


@dataclass(frozen=True)
class CoOpSettings:
    """Settings of CoOp, by its names."""

    n_ctx: int = setting(16, "context tokens", at_least=1)
    csc: bool = setting(False, "contexts of the classes' own")
    ctx_init: str = setting("", "words to start the context from; they set N_CTX")
    prec: str = setting("fp16", "precision of the forward pass; fp16 on a CPU is run as fp32", choices=PRECISIONS)
    class_token_position: str = setting("end", "where the class name stands", choices=POSITIONS)


@dataclass(frozen=True)
class UPLSettings(CoOpSettings):
    """Settings of UPL."""

    seeds_per_class: int = setting(16, "pseudo-labels of each class", at_least=1)
    as_coft: bool = setting(False, "the seeds that both peers of CoFT have at first; SEEDS_PER_CLASS is not read then")
    ensemble: int = setting(1, "prompts learned independently, whose probabilities are averaged", at_least=1)


class PromptTuning(Method):
    """Learned prompts with a frozen image encoder, by default from pseudo-labels of some images.

    The models are `prompt_learner`, `prompt_learner_2` ...; the first is the one that would train alone. Members of an
    ensemble share the pseudo-labels; contexts, batches and augmentations are their own.

    Args:
        backbone: CLIP for the classes at hand.
        settings: See `CoOpSettings`.
        runtime: Where and how to compute.
        make_optimizer: Makes optimizer and schedule of a prompt learner.
        epochs: How many there are.
        key: Of random numbers.

    Attributes:
        images: The unlabeled images; None where there are labels.
        observer: Sees the pseudo-labels.
        labels: What the prompts learn from.
    """

    learner_class = PromptLearner
    settings: Any
    images: Images | None = None
    observer = Observer()
    labels = PseudoLabels.none()

    def __init__(
        self,
        backbone: ClassBackbone,
        settings: CoOpSettings,
        runtime: Runtime,
        make_optimizer: MakeOptimizer,
        epochs: int,
        key: str,
    ) -> None:
        super().__init__()
        self.backbone, self.settings, self.runtime = backbone, settings, runtime
        self.epochs, self.key = epochs, key
        self.learners: dict[str, PromptLearner] = {}
        for member in range(getattr(settings, "ensemble", 1)):
            name = "prompt_learner" + (f"_{member + 1}" if member else "")
            position, context = settings.class_token_position, self.first_context(member)
            options: dict[str, Any] = {"position": position, "synonyms": backbone.synonyms}
            learner = self.learner_class(backbone.clip_model, backbone.classnames, context, **options)
            self.learners[name] = learner.to(runtime.device)
            self.optimizers[name], self.schedulers[name] = make_optimizer(learner)
        self.models = dict(self.learners)

    def first_context(self, member: int, *key: int | str) -> Tensor:
        """Context that a member of the ensemble starts from; `key` tells apart several starts of it."""
        own, clip_model = self.settings, self.backbone.clip_model
        if own.ctx_init:
            return word_context(clip_model, own.ctx_init)
        shape = (len(self.backbone.classnames), own.n_ctx) if own.csc else (own.n_ctx,)
        source = generator(self.runtime.seed, self.key, "context", *([member] if member else []), *key)
        return random_context(clip_model, *shape, generator=source)

    # ---------------------------------------------------------------- pseudo-labels

    def zero_shot_logits(self) -> Tensor:
        """Logits of all images by the first template. Shape (N, C), on the CPU."""
        features, text = self.backbone.image_features(self.pool), self.backbone.first_template_text()
        return zero_shot_logits(features, text, self.backbone.scale, self.runtime)

    @property
    def pool(self) -> Images:
        """The unlabeled images."""
        if self.images is None:
            raise ValueError("there are no unlabeled images")
        return self.images

    def learn_from(self, logits: Tensor, per_class: int | Tensor) -> None:
        """Take each class's surest images by logits (N, C) as pseudo-labels: one number of all, or shape (C,)."""
        self.take(select_seeds(logits, per_class, self.runtime.world))
        self.observer.seeds_chosen(self.labels, logits, torch.as_tensor(per_class).expand(logits.shape[1]))

    def take(self, labels: PseudoLabels) -> None:
        """Take pseudo-labels in the place of the present ones."""
        self.labels = labels

    # ---------------------------------------------------------------- the protocol

    def begin_epoch(self, epoch: int) -> Sequence[Any]:
        """Draw the batches."""
        # Names are part of the keys of random numbers: others would give other batches.
        index = {name.replace("prompt_learner", "upl"): self.labels.index for name in self.learners}
        steps = self.pool.steps(len(self.labels.index))
        return self.pool.batches("weak", index, steps, self.runtime.seed, self.key, epoch)

    def examples(self, batch: Any) -> Mapping[str, Example]:
        """Images and labels of a batch for each member."""
        found = {}
        for name, part in zip(self.learners, batch.values(), strict=True):
            labels = self.labels.of(part["index"]).label
            found[name] = part.get("view"), labels, len(part.get("batch", labels))
        return found

    def step(self, batch: Any) -> dict[str, float]:
        """Make one step of each member on its part of a batch; reports means over the members."""
        reports = []
        for name, example in self.examples(batch).items():
            numbers = self.losses(name, *example)
            loss = numbers[0] if numbers else None
            reports.append(self.runtime.descend(loss, self.optimizers[name], name, numbers))
        means = [sum(own) / len(reports) for own in zip(*reports, strict=True)]
        return dict(zip(("loss", "acc"), means, strict=False))

    def losses(self, name: str, images: Tensor | None, labels: Tensor, count: int) -> list[Tensor]:
        """Cross-entropy of a member on its part of a batch, and its accuracy in percent: parts of means over the batch.

        Args:
            name: The member's.
            images: Shape (n, 3, size, size); None where this process has none.
            labels: Shape (n,).
            count: Images of the whole batch.
        """
        if images is None or not len(labels):
            return []
        logits = self.scale * self.image_features(images.to(self.runtime.device)) @ self.text(name).t()
        labels = labels.to(self.runtime.device)
        right = 100 * (logits.argmax(dim=1) == labels).float().sum() / count
        return [F.cross_entropy(logits, labels, reduction="sum") / count, right]

    def end_epoch(self, epoch: int) -> None:
        """Step the schedules."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Logits of images; of an ensemble, log of the mean of its probabilities. Shape (n, C)."""
        features = self.scale * self.image_features(images)
        return average_predictions([features @ self.text(name).t() for name in self.learners])

    def image_features(self, images: Tensor) -> Tensor:
        """Image features of the frozen CLIP, unit length. Shape (n, embed_dim)."""
        with torch.no_grad(), self.runtime.autocast():
            return F.normalize(self.backbone.visual(images).float(), dim=-1)

    def text(self, name: str) -> Tensor:
        """Text features of a prompt, unit length, with gradients to the context. Shape (C, embed_dim)."""
        with self.runtime.autocast():
            return F.normalize(encode_prompts(self.backbone.clip_model, self.learners[name])[0], dim=-1)

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """What it predicts with, as plain parts: one image encoder, and the vectors of each prompt."""
        visual, scale = self.backbone.visual, self.backbone.scale
        return Predictor({name: FinalClassifier(visual, self.text(name), None, scale) for name in self.learners})

    @property
    def scale(self) -> Tensor:
        """CLIP's logit scale."""
        return self.backbone.clip_model.logit_scale.exp()


class CoOp(PromptTuning):
    """Context optimisation with labels (Zhou et al. 2022).

    Args:
        batches: Batches of labelled images, {"img": shape (n, 3, size, size), "label": shape (n,)}.
        *args: As of `PromptTuning`.
    """

    def __init__(self, batches: Iterable[Any], *args: Any) -> None:
        self.labelled: Any = batches
        super().__init__(*args)

    def begin_epoch(self, epoch: int) -> Sequence[Any]:
        """The labelled batches."""
        return self.labelled

    def examples(self, batch: Any) -> Mapping[str, Example]:
        """Images and labels of a batch: every process has all of it, and takes its part."""
        part = self.runtime.world.part(len(batch["label"]))
        return {"prompt_learner": (batch["img"][part], batch["label"][part], len(batch["label"]))}


class UPL(PromptTuning):
    """Unsupervised prompt learning (Huang et al. 2022): pseudo-labels come from the frozen CLIP.

    Unlike the published method: one prompt unless `ensemble` says more, pseudo-labels of one CLIP (its UPL* takes them
    from several), and a class with too few of them is filled from images that have it second.

    Args:
        images: The unlabeled images.
        observer: Sees the pseudo-labels.
        *args: As of `PromptTuning`.
    """

    def __init__(self, images: Images, observer: Observer, *args: Any) -> None:
        super().__init__(*args)
        self.images, self.observer = images, observer
        if self.settings.as_coft:
            self.learn_as_coft()
        else:
            self.learn_from(self.zero_shot_logits(), self.settings.seeds_per_class)

    def learn_as_coft(self) -> None:
        """Learn from the seeds that both peers of CoFT would have at first."""
        args = self.backbone, self.backbone.zero_shot_text(), self.runtime, COFT.label_views, COFT.prior_tau
        logits, share, classes = first_logits(self.pool, *args), COFT.seeds_share, len(self.backbone.classnames)
        most = 2 * seed_quota(len(self.pool), classes, COFT.seeds_per_class, share)
        self.learn_from(logits, given_quotas(logits, share, most, self.runtime.world))
