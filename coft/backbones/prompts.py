"""Prompts: templates with class names, and learned context tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.joint import members_of, side_by_side
from coft.backbones.text_tower import encode_classes, encode_text
from coft.backbones.tower import TextTower, tower_of
from coft.core.errors import UserError

POSITIONS = ("end", "middle", "front")
CONTEXT_STD = 0.02  # standard deviation of random context tokens
JITTER = 0.002  # standard deviation of the noise between the initial positive and negative context
Synonyms = Mapping[str, Sequence[str]]  # other names of a class, by class name
NO_SYNONYMS: Synonyms = {}


def plain_name(classname: str) -> str:
    """Return a class name as it appears in prompts, with blanks for underscores."""
    return classname.replace("_", " ")


def all_names(classnames: Sequence[str], synonyms: Synonyms) -> tuple[list[str], tuple[int, ...]]:
    """Return the names and synonyms of all classes, class by class, and the number of names of each class."""
    names_by_class = [[name, *synonyms.get(name, ())] for name in classnames]
    return [name for class_names in names_by_class for name in class_names], tuple(map(len, names_by_class))


def mean_by_class(features: Tensor, counts: Sequence[int]) -> Tensor:
    """Average the text features of each class's names.

    Args:
        features: Features of all names, class by class. Shape (sum of counts, embed_dim).
        counts: Number of names of each class. If every class has one, the features are returned as they are.

    Returns:
        Unit-length mean of the unit-length features of each class. Shape (C, embed_dim).
    """
    if max(counts) == 1:
        return features
    lengths = torch.tensor(counts, device=features.device)
    unit = F.normalize(features.float(), dim=-1)
    return F.normalize(torch.segment_reduce(unit, "mean", lengths=lengths), dim=-1)


def template_features(
    clip_model: Any, classnames: Sequence[str], template: str, synonyms: Synonyms = NO_SYNONYMS
) -> Tensor:
    """Compute text features of a template filled with each class name, averaged over the names of a class.

    Args:
        clip_model: A CLIP of any family.
        classnames: C class names.
        template: Prompt template with one "{}".
        synonyms: Other names of classes.

    Returns:
        Unit-length features. Shape (C, embed_dim).

    Raises:
        UserError: If a filled template exceeds the context length of the text encoder.
    """
    if len(members := members_of(clip_model)) > 1:
        return side_by_side([template_features(member, classnames, template, synonyms) for member in members])
    tower = tower_of(clip_model)
    names, counts = all_names(classnames, synonyms)
    rows = [text_tokens(tower, template.format(plain_name(name))) for name in names]
    _check_lengths(rows, names, tower)
    tokens, ends = _pad(rows)
    with torch.no_grad():
        embeddings = tower.embed(tokens.to(tower.device))
        features = F.normalize(encode_text(clip_model, embeddings, ends.to(tower.device)), dim=-1)
        return mean_by_class(features, counts)


def text_tokens(tower: TextTower, text: str) -> list[int]:
    """Return the token ids of a text, start and end included."""
    return [*tower.tokenizer.start, *tower.tokenizer.encode(text), *tower.tokenizer.end]


def ensemble_features(
    clip_model: Any, classnames: Sequence[str], templates: Sequence[str], synonyms: Synonyms = NO_SYNONYMS
) -> Tensor:
    """Compute the unit-length mean of the text features of several templates.

    Args:
        clip_model: A CLIP of any family.
        classnames: C class names.
        templates: Prompt templates with one "{}" each.
        synonyms: Other names of classes.

    Returns:
        Unit-length features. Shape (C, embed_dim).
    """
    if len(members := members_of(clip_model)) > 1:
        return side_by_side([ensemble_features(member, classnames, templates, synonyms) for member in members])
    features = [template_features(clip_model, classnames, template, synonyms) for template in templates]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)


def word_context(clip_model: Any, words: str) -> Tensor:
    """Return token embeddings of words, to initialise context tokens. Shape (number of tokens, width)."""
    tower = tower_of(clip_model)
    return tower.embeddings(torch.tensor(tower.tokenizer.encode(plain_name(words)), dtype=torch.long))


def random_context(clip_model: Any, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw random context tokens from N(0, 0.02^2), as in CoOp. Shape (*shape, width)."""
    return torch.randn(*shape, tower_of(clip_model).width, generator=generator) * CONTEXT_STD


class PromptLearner(nn.Module):
    """CoOp's prompt: learned context tokens and a class name.

    The state dict holds only `ctx`. CoOp's checkpoints load as well. Their embeddings of class names (`token_prefix`,
    `token_suffix`) are ignored, since they are computed from the class names here.

    Args:
        clip_model: A CLIP of any family. Its token embeddings of the class names are copied.
        classnames: C class names.
        context: Initial context tokens. Shape (M, width), or (C, M, width) for class-specific contexts.
        tail: Text at the end of the prompt, after class name and context.
        position: Position of the class name in the context: "end", "middle" or "front".
        synonyms: Other names of classes. Each name gets its own prompt with the same context; `encode_prompts` averages
            the features of a class.

    Attributes:
        counts: Number of names of each class. Their sum is R.

    Raises:
        UserError: If the position is unknown, or a prompt exceeds the context length of the text encoder.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        context: Tensor,
        tail: str = ".",
        position: str = "end",
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise UserError(f"class token position is {position!r}; expected one of {', '.join(POSITIONS)}")
        self.ctx = nn.Parameter(context)
        num_ctx, tower = context.shape[-2], tower_of(clip_model)
        start, end = tower.tokenizer.start, tower.tokenizer.end
        names, self.counts = all_names(classnames, synonyms)
        parts = [tower.tokenizer.continued(plain_name(name), tail) for name in names]
        rows = [[*start, *name_ids, *tail_ids, *end] for name_ids, tail_ids in parts]
        _check_lengths([[0] * num_ctx + row for row in rows], names, tower)
        tokens, _ = _pad(rows)
        columns = [
            _order(num_ctx, len(start), len(name_ids), len(row), position)
            for (name_ids, _), row in zip(parts, rows, strict=True)
        ]
        order, eot = _pad(columns, fill=num_ctx)
        self.token_embeddings: Tensor
        self.order: Tensor
        self.eot: Tensor
        self.register_buffer("token_embeddings", tower.embeddings(tokens), persistent=False)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("eot", eot, persistent=False)
        self.num_start = len(start)
        self.lengths = tuple(len(row) - len(start) for row in rows)  # token counts of [name, tail, end of text]
        self.shared = position == "end" and context.dim() == 2

    def forward(self) -> tuple[Tensor, Tensor]:
        """Assemble the prompts.

        Returns:
            Token embeddings, shape (R, length, width), and the index of each end of text, shape (R,).
        """
        num_rows, _, width = self.token_embeddings.shape
        context: Tensor = self.ctx
        if context.dim() == 3 and num_rows > len(context):
            context = context.repeat_interleave(torch.tensor(self.counts, device=context.device), dim=0)
        context = context.expand(num_rows, -1, -1)
        tokens = torch.cat([context, self.token_embeddings.to(context.dtype)], dim=1)
        return tokens.gather(1, self.order.unsqueeze(-1).expand(-1, -1, width)), self.eot

    def prefix(self) -> Tensor:
        """Return the token embeddings of [start, context], which all classes share. Shape (start tokens + M, width)."""
        return torch.cat([self.token_embeddings[0, : self.num_start].to(self.ctx.dtype), self.ctx])

    def suffix(self) -> Tensor:
        """Return the token embeddings of [name, tail, end of text], padded. Shape (R, longest, width)."""
        return self.token_embeddings[:, self.num_start :].to(self.ctx.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("token_prefix", "token_suffix"):
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def encode_prompts(clip_model: Any, *learners: PromptLearner) -> Tensor:
    """Encode learned prompts in one pass of the text tower.

    Args:
        clip_model: A CLIP of any family.
        *learners: Prompts that differ only in the values of their context tokens.

    Returns:
        Features with gradients to the contexts. Shape (number of learners, C, embed_dim). They are unnormalized,
        unless a class has several names: then all are unit-length means of the names' unit-length features.
    """
    first = learners[0]
    if first.shared and tower_of(clip_model).shares_prefix:
        prefixes = torch.stack([learner.prefix() for learner in learners])
        features = encode_classes(clip_model, prefixes, first.suffix(), first.lengths)
    else:
        embeddings, ends = torch.cat([learner()[0] for learner in learners]), first.eot.repeat(len(learners))
        features = encode_text(clip_model, embeddings, ends).unflatten(0, (len(learners), -1))
    if max(first.counts) == 1:
        return features
    return torch.stack([mean_by_class(learner_features, first.counts) for learner_features in features])


class DualPrompts(nn.Module):
    """Positive and negative context for the same class names.

    The positive context is initialised with the words of a template, so that training starts at this template's
    zero-shot classifier, or at random. The negative context starts close to the positive one. `Peer` then shifts the
    negative features to their initial values.

    Args:
        clip_model: A CLIP of any family.
        classnames: C class names.
        template: Prompt template with one "{}". The words before it ("a photo of a" if there are none) initialise
            the context; the text after it is the tail.
        num_ctx: Number of random context tokens; 0 for the words of the template.
        generator: Random generator.
        synonyms: Other names of classes, each with its own prompt.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        *,
        num_ctx: int = 0,
        generator: torch.Generator | None = None,
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> None:
        super().__init__()
        self._clip = (clip_model,)  # in a tuple, so that it is no submodule: neither trained nor saved
        head, tail = template.split("{}")
        context = word_context(clip_model, head.strip() or "a photo of a")
        if num_ctx:
            context = random_context(clip_model, num_ctx, generator=generator)
        noise = (torch.randn(context.shape, generator=generator) * JITTER).to(context.device)
        self.positive = PromptLearner(clip_model, classnames, context, tail=tail, synonyms=synonyms)
        self.negative = PromptLearner(clip_model, classnames, context + noise, tail=tail, synonyms=synonyms)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Encode both prompts in one pass of the text tower.

        Returns:
            Positive and negative text features, unit length, each of shape (C, embed_dim).
        """
        t_pos, t_neg = F.normalize(encode_prompts(self._clip[0], self.positive, self.negative), dim=-1)
        return t_pos, t_neg


def _order(num_ctx: int, start: int, name: int, length: int, position: str) -> list[int]:
    """Return the order in which a prompt takes the columns of [context | start, name, tail, end].

    Args:
        num_ctx: Number of context tokens.
        start: Number of start tokens.
        name: Number of tokens of the class name.
        length: Number of tokens without the context.
        position: Position of the name in the context: "end", "middle" or "front".
    """
    before = range(num_ctx, num_ctx + start)
    first = range(before.stop, before.stop + name)
    last = range(first.stop, num_ctx + length)
    half = {"end": num_ctx, "middle": num_ctx // 2, "front": 0}[position]
    return [*before, *range(half), *first, *range(half, num_ctx), *last]


def _pad(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Pad lists to the same length. Returns the padded rows, and the index of each list's last entry."""
    padded = torch.full((len(rows), max(map(len, rows))), fill, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded, torch.tensor([len(row) - 1 for row in rows])


def _check_lengths(rows: Sequence[Sequence[int]], classnames: Sequence[str], tower: TextTower) -> None:
    limit = tower.context_length
    for row, name in zip(rows, classnames, strict=True):
        if len(row) > limit:
            raise UserError(
                f"class name {name!r} makes a prompt of {len(row)} tokens, the text encoder reads {limit}; shorten it "
                "or the context"
            )
