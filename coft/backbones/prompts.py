"""Prompts: templates in words, and learned context tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coft.backbones.text_tower import encode_classes, encode_text
from coft.backbones.tower import TextTower, tower_of
from coft.core.errors import UserError

POSITIONS = ("end", "middle", "front")
CONTEXT_STD = 0.02
Synonyms = Mapping[str, Sequence[str]]  # other names of classes, by class name; of those that have some
NO_SYNONYMS: Synonyms = {}


def plain_name(classname: str) -> str:
    """Write a class name the way prompts do: underscores are blanks."""
    return classname.replace("_", " ")


def all_names(classnames: Sequence[str], synonyms: Synonyms) -> tuple[list[str], tuple[int, ...]]:
    """All names of all classes, class by class, and how many each class has."""
    names = [[name, *synonyms.get(name, ())] for name in classnames]
    return [name for own in names for name in own], tuple(map(len, names))


def mean_by_class(features: Tensor, counts: Sequence[int]) -> Tensor:
    """Average the text features of each class's names.

    Args:
        features: Of all names, class by class. Shape (sum of counts, embed_dim).
        counts: Names of each class. Where each has one, the features are returned as they are.

    Returns:
        Directions of the means of unit-length features, of unit length. Shape (C, embed_dim).
    """
    if max(counts) == 1:
        return features
    lengths = torch.tensor(counts, device=features.device)
    unit = F.normalize(features.float(), dim=-1)
    return F.normalize(torch.segment_reduce(unit, "mean", lengths=lengths), dim=-1)


def template_features(
    clip_model: Any, classnames: Sequence[str], template: str, synonyms: Synonyms = NO_SYNONYMS
) -> Tensor:
    """Text features of a template filled with each class name; those of a class with several names are averaged.

    Args:
        clip_model: A CLIP of any family, see `tower.tower_of`.
        classnames: C names.
        template: Words with one "{}".
        synonyms: Other names of classes.

    Returns:
        Unit-length features. Shape (C, embed_dim).

    Raises:
        UserError: If a filled template is longer than the text encoder reads.
    """
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
    """Tokens of a text, those of start and end included."""
    return [*tower.tokenizer.start, *tower.tokenizer.encode(text), *tower.tokenizer.end]


def ensemble_features(
    clip_model: Any, classnames: Sequence[str], templates: Sequence[str], synonyms: Synonyms = NO_SYNONYMS
) -> Tensor:
    """Average the text features of several templates and bring the mean back to unit length. Shape (C, embed_dim)."""
    mean = torch.stack([template_features(clip_model, classnames, t, synonyms) for t in templates]).mean(dim=0)
    return F.normalize(mean, dim=-1)


def word_context(clip_model: Any, words: str) -> Tensor:
    """Token embeddings of some words, to start learned context tokens from. Shape (number of tokens, width)."""
    tower = tower_of(clip_model)
    return tower.embeddings(torch.tensor(tower.tokenizer.encode(plain_name(words)), dtype=torch.long))


def random_context(clip_model: Any, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Random context tokens, N(0, 0.02^2) as in CoOp. Shape (*shape, width)."""
    return torch.randn(*shape, tower_of(clip_model).width, generator=generator) * CONTEXT_STD


class PromptLearner(nn.Module):
    """Learned context tokens with a class name: CoOp's prompt.

    The state dict has `ctx` alone. Checkpoints written by CoOp, which hold the tokens of their class names beside it
    (`token_prefix`, `token_suffix`), load as well: those are recomputed from the class names here.

    Args:
        clip_model: A CLIP of any family; its token embeddings of the class names are copied.
        classnames: C names.
        context: Initial context tokens, shape (M, width), or (C, M, width) for contexts of the classes' own.
        tail: What follows the name (or, with `position` "front", follows name and context).
        position: Where the class name stands: "end", "middle" or "front" of the context.
        synonyms: Other names of classes. Each name has a prompt of its own behind the same context, and
            `encode_prompts` averages those of a class.

    Attributes:
        counts: Names of each class; R of them in all.

    Raises:
        UserError: If `position` is none of these, or a prompt is longer than the text encoder reads.
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
        words, self.counts = all_names(classnames, synonyms)
        names, tails = zip(*(tower.tokenizer.continued(plain_name(name), tail) for name in words), strict=True)
        rows = [[*start, *name, *after, *end] for name, after in zip(names, tails, strict=True)]
        _check_lengths([[0] * num_ctx + row for row in rows], words, tower)
        tokens, _ = _pad(rows)
        columns = [_order(num_ctx, len(start), len(n), len(row), position) for n, row in zip(names, rows, strict=True)]
        order, eot = _pad(columns, fill=num_ctx)
        self.token_embeddings: Tensor
        self.order: Tensor
        self.eot: Tensor
        self.register_buffer("token_embeddings", tower.embeddings(tokens), persistent=False)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("eot", eot, persistent=False)
        self.num_start = len(start)
        self.lengths = tuple(len(row) - len(start) for row in rows)  # of [name, tail, end of text]
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
        """Token embeddings of [start, context], where all classes share it. Shape (1 + M, width)."""
        return torch.cat([self.token_embeddings[0, : self.num_start].to(self.ctx.dtype), self.ctx])

    def suffix(self) -> Tensor:
        """Token embeddings of [name, tail, end of text], padded. Shape (R, longest, width)."""
        return self.token_embeddings[:, self.num_start :].to(self.ctx.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("token_prefix", "token_suffix"):
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def encode_prompts(clip_model: Any, *learners: PromptLearner) -> Tensor:
    """Encode learned prompts in one pass of the text tower, as cheaply as their form allows.

    Args:
        clip_model: A CLIP of any family, see `tower.tower_of`.
        *learners: Prompts that differ in nothing but the values of their context tokens.

    Returns:
        Features with gradients to the contexts, not normalised. Where a class has several names, those of all classes
        are means of unit-length ones, normalised. Shape (number of learners, C, embed_dim).
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
    return torch.stack([mean_by_class(own, first.counts) for own in features])


class DualPrompts(nn.Module):
    """A positive and a negative context over the same class names.

    The positive context starts from the words of a template, so that training starts at that template's
    zero-shot classifier, or at random. The negative one starts beside it; `Peer` moves its features to where they
    begin.

    Args:
        clip_model: A CLIP of any family, see `tower.tower_of`.
        classnames: C names.
        template: Words with one "{}"; those before it become the context, those after it stay.
        num_ctx: Number of random context tokens; 0 takes the template's words.
        jitter: Standard deviation of the noise between the positive and the negative start.
        generator: Source of the random numbers.
        synonyms: Other names of classes, see `PromptLearner`.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        *,
        num_ctx: int = 0,
        jitter: float = 0.002,
        generator: torch.Generator | None = None,
        synonyms: Synonyms = NO_SYNONYMS,
    ) -> None:
        super().__init__()
        self._clip = (clip_model,)  # in a tuple: no submodule, so neither trained nor saved
        head, tail = template.split("{}")
        context = word_context(clip_model, head.strip() or "a photo of a")
        if num_ctx:
            context = random_context(clip_model, num_ctx, generator=generator)
        noise = (torch.randn(context.shape, generator=generator) * jitter).to(context.device)
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
    """Order the columns of [context | start, name, tail and end] for one prompt.

    Args:
        num_ctx: Context tokens.
        start: Tokens of start.
        name: Tokens of the class name.
        length: All tokens but the context's.
        position: Where the name stands, see `PromptLearner`.
    """
    before = range(num_ctx, num_ctx + start)
    first = range(before.stop, before.stop + name)
    last = range(first.stop, num_ctx + length)
    half = {"end": num_ctx, "middle": num_ctx // 2, "front": 0}[position]
    return [*before, *range(half), *first, *range(half, num_ctx), *last]


def _pad(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Pad lists to one length; also the index of each list's last entry."""
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
