"""CoOp and UPL: prompts learned from labelled images, or from the most confident zero-shot labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.prompts import POSITIONS, PromptLearner, encode_prompts, random_context, word_context
from coft.core.precision import precision_setting
from coft.core.seeding import generator
from coft.core.settings import setting
from coft.core.table import Table
from coft.images.batches import DrawnBatch
from coft.labelling.first_labels import likeliest, zero_shot_logits
from coft.labelling.losses import Term
from coft.labelling.predictor import FinalClassifier, Predictor
from coft.labelling.protocol import Batch, Engine, Method, Observer, Stream, Tuning
from coft.labelling.pseudo_labels import PseudoLabels
from coft.labelling.seeds import SEEDS_SHARE, quotas, seed_quota, select_seeds

from .coft_labels import COFT_DEFAULTS, OWN_LABELS, coft_scores, labels_setting, views_setting


@dataclass(frozen=True)
class CoOpSettings:
    """Settings of CoOp, under the names that CoOp uses."""

    n_ctx: int = setting(16, "context tokens", at_least=1)
    csc: bool = setting(False, "class-specific contexts")
    ctx_init: str = setting("", "words to start the context from; they set N_CTX")
    prec: str = precision_setting("fp16", "fp16 on a CPU is run as fp32")
    class_token_position: str = setting("end", "where the class name stands", choices=POSITIONS)


@dataclass(frozen=True)
class UPLSettings(CoOpSettings):
    """Settings of UPL."""

    seeds_per_class: int = setting(16, "pseudo-labels of each class; with labels own", at_least=1)
    labels: str = labels_setting()
    label_views: int = views_setting()
    ensemble: int = setting(1, "prompts learned independently, whose probabilities are averaged", at_least=1)


class PromptTuning(Method):
    """Learned prompts with a frozen image encoder, by default from pseudo-labels of some images.

    The models are `prompt_learner`, `prompt_learner_2` ...; the first does not depend on the size of the ensemble.
    Members of an ensemble share pseudo-labels, but each has its own context and batches.

    Args:
        engine: The engine that runs the method.
        settings: Settings of the trainer.
        epochs: Number of epochs.
        observer: Callbacks on pseudo-labels.
    """

    random_key = ""
    in_parallel = False
    settings: Any

    def __init__(self, engine: Engine, settings: CoOpSettings, epochs: int, observer: Observer | None = None) -> None:
        super().__init__(engine, observer)
        self.settings, self.epochs = settings, epochs
        self.learners: dict[str, PromptLearner] = {}
        for member in range(getattr(settings, "ensemble", 1)):
            name = "prompt_learner" + (f"_{member + 1}" if member else "")
            options: dict[str, Any] = {"position": settings.class_token_position, "synonyms": engine.clip.synonyms}
            clip, context = engine.clip, self.first_context(member)
            self.learners[name] = PromptLearner(clip.clip_model, clip.classnames, context, **options).to(engine.device)
        self.models = dict(self.learners)

    def first_context(self, member: int, *key: int | str) -> Tensor:
        """Return the initial context of a member of the ensemble; `key` gives different random starts."""
        settings, clip = self.settings, self.engine.clip
        if settings.ctx_init:
            return word_context(clip.clip_model, settings.ctx_init)
        shape = (len(clip.classnames), settings.n_ctx) if settings.csc else (settings.n_ctx,)
        source = generator(self.engine.seed, self.random_key, "context", *([member] if member else []), *key)
        return random_context(clip.clip_model, *shape, generator=source)

    # ---------------------------------------------------------------- pseudo-labels

    def zero_shot_logits(self) -> Table:
        """Compute the logits of all images with the first template. Shape (N, C)."""
        clip = self.engine.clip
        return zero_shot_logits(self.engine.clip_features(), clip.first_template_text(), clip.scale)

    def learn_from(self, logits: Table, per_class: int | Tensor) -> None:
        """Take the top images of each class by logits as pseudo-labels.

        Args:
            logits: Logits of all images. Shape (N, C).
            per_class: Number of images of each class: one number, or shape (C,).
        """
        classes = len(self.engine.clip.classnames)
        labels = select_seeds(logits, per_class, classes)
        self.labels = dict.fromkeys(self.learners, labels)
        self.observer.seeds_chosen(labels, likeliest(logits), torch.as_tensor(per_class).expand(classes))

    def streams(self) -> dict[str, list[Stream]]:
        """Return the streams of all members, which draw from all pseudo-labels. Their names seed random numbers."""
        return {
            name: [Stream(name.replace("prompt_learner", "upl"), labels.index)] for name, labels in self.labels.items()
        }

    def key(self, epoch: int) -> tuple[int | str, ...]:
        """Return the key of an epoch's random numbers, which differs between epochs and trainers."""
        return self.engine.seed, self.random_key, epoch

    def steps(self, phase: int) -> int:
        """Return the steps of an epoch: a pass over the pseudo-labels."""
        return self.engine.images.steps(len(self.labels["prompt_learner"].index))

    def views(self, phase: int) -> Sequence[str]:
        """Return the kinds of views of an image: a weak one."""
        return ["weak"]

    # ---------------------------------------------------------------- a step

    def loss(self, name: str, batch: Batch) -> dict[str, Term]:
        """Compute cross-entropy and, for the log, the accuracy in percent."""
        logits = self.logits(name, batch)
        loss = F.cross_entropy(logits, batch.labels.label.to(logits.device), reduction="sum")
        return {"loss": Term(loss, len(batch.whole.index)), "acc": self.accuracy(logits, batch)}

    def logits(self, name: str, batch: Batch) -> Tensor:
        """Compute a prompt's logits of a batch, with gradients to the context. Shape (n, C)."""
        features, text = self.image_features(batch.views), self.text(name)
        with torch.autocast(features.device.type, enabled=False):
            return self.engine.clip.scale * features @ text.t()

    @staticmethod
    def accuracy(logits: Tensor, batch: Batch) -> Term:
        """Compute the share of labels that are predicted, in percent; it is reported and not trained on."""
        right = 100 * (logits.argmax(dim=1) == batch.labels.label.to(logits.device)).float().sum()
        return Term(right, len(batch.whole.index), 0.0)

    def metrics(self, losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return the values logged for a step: means over the members."""
        keys = next(iter(losses.values()))
        return {key: sum(means[key] for means in losses.values()) / len(losses) for key in keys}

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Compute image features of the frozen CLIP, unit length. Shape (n, embed_dim)."""
        with self.engine.autocast():  # the precision of predictions, which may differ
            return self.engine.clip.encode(images)

    def text(self, name: str) -> Tensor:
        """Compute a prompt's text features, unit length, with gradients to the context. Shape (C, embed_dim)."""
        return F.normalize(encode_prompts(self.engine.clip.clip_model, self.learners[name])[0], dim=-1)

    def tuning(self, phase: int) -> Tuning:
        """Return the tuning of the context, by the run's optimizer and schedule."""
        return Tuning(0, by_epoch=True)

    @torch.no_grad()
    def predictor(self) -> Predictor:
        """Return the predictor: one image encoder, with the class vectors of each prompt."""
        clip = self.engine.clip
        with self.engine.autocast():
            texts = {name: self.text(name) for name in self.learners}
        return Predictor({name: FinalClassifier(clip.visual, text, None, clip.scale) for name, text in texts.items()})


class CoOp(PromptTuning):
    """Context optimisation with labels (Zhou et al. 2022).

    Args:
        batches: Batches of labelled images, {"img": shape (n, 3, size, size), "label": shape (n,)}.
        part: Function from the number of images in a batch to the slice that belongs to this process.
        *args: Arguments of `PromptTuning`.
    """

    random_key = "COOP"
    saves_state = False

    def __init__(self, batches: Iterable[Any], part: Any, *args: Any) -> None:
        self.labelled, self.part = batches, part
        super().__init__(*args)

    def drawn(self, batch: Any) -> dict[str, DrawnBatch]:
        """Set the labels to those of a batch, and return this process's part. Every process loads the whole batch."""
        everything = torch.arange(len(batch["label"]))
        self.labels = {"prompt_learner": PseudoLabels.unweighted(everything, batch["label"])}
        position = everything[self.part(len(everything))]
        views = batch["img"][position] if len(position) else None
        return {"prompt_learner": DrawnBatch(everything, position, views)}


class UPL(PromptTuning):
    """Unsupervised prompt learning (Huang et al. 2022): pseudo-labels come from the frozen CLIP.

    Unlike the published method: one prompt unless `ensemble` is greater, pseudo-labels of one CLIP (its UPL* takes them
    from several), and a class with too few of them is filled from images whose second class it is.
    """

    random_key = "UPL"
    saves_state = False  # checkpoints are those of CoOp; pseudo-labels are chosen again

    def resumed(self) -> None:
        """Choose the same pseudo-labels again."""
        self.begin()

    def begin(self) -> None:
        """Choose the pseudo-labels."""
        settings = self.settings
        if settings.labels == OWN_LABELS:
            self.learn_from(self.zero_shot_logits(), settings.seeds_per_class)
            return
        logits = coft_scores(self.engine, settings.labels, settings.label_views, COFT_DEFAULTS.prior_tau)
        images, classes, share = len(logits), len(self.engine.clip.classnames), SEEDS_SHARE
        most = 2 * seed_quota(images, classes, COFT_DEFAULTS.seeds_per_class, share)
        self.learn_from(logits, quotas(likeliest(logits), classes, share, most))
