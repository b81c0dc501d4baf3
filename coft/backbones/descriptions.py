"""Class descriptions: sentences about what the objects of a class look like, and their text features."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.joint import members_of, side_by_side
from coft.backbones.prompts import NO_SYNONYMS, Synonyms, plain_name, template_features, text_tokens
from coft.backbones.tokens import CLIP_TOKENIZER
from coft.backbones.tower import TextTower, tower_of
from coft.core.errors import UserError, did_you_mean
from coft.core.paths import HOME
from coft.core.sanitize import some_of
from coft.core.schemas import Anything, List, SchemaError, Text, mapping
from coft.core.untrusted import read_json

log = logging.getLogger(__name__)
Descriptions = dict[str, list[str]]

FOLDER = HOME / "datasets" / "descriptions"
MAX_TOKENS = 77  # context length of CLIP's text encoder, start and end tokens included
MAX_SENTENCES_PER_CLASS = 1_000  # maximum number of sentences per class
MAX_SENTENCES = 100_000  # maximum number of sentences per file, since CLIP encodes each of them
CHUNK = 512  # sentences per forward pass of the text encoder
# Stems of the description files of data sets that have another name in Dassl's registry.
OTHER_NAMES = {"describabletextures": "dtd", "intelscenes": "intel", "pacsdomain": "pacs"}
EXPECTED = 'expected JSON {"class name": ["a sentence", ...], ...}'
SENTENCES = List(Text(100_000, least=1, lines=True), 1, MAX_SENTENCES_PER_CLASS)
CLASSES_SCHEMA = mapping(Anything(), names=Text(1000, least=1))  # checked first, so that errors can name the class
SCHEMA = mapping(SENTENCES, names=Text(1000, least=1))


def class_key(classname: str) -> str:
    """Normalise a class name for look-ups: lower case, single blanks, no underscores."""
    return " ".join(plain_name(classname).lower().split())


def num_tokens(text: str) -> int:
    """Count the tokens of a text with CLIP's tokenizer, start and end tokens included."""
    return len(CLIP_TOKENIZER.encode(text)) + 2


def names_class(sentence: str, classname: str) -> bool:
    """Return whether a sentence contains the class name as whole words, in any case."""
    name = re.escape(class_key(classname))
    return re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", class_key(sentence)) is not None


def described_datasets() -> list[str]:
    """Return the sorted stems of the files in datasets/descriptions."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def dataset_descriptions(dataset: str) -> Descriptions:
    """Load the bundled descriptions of a data set.

    Args:
        dataset: Stem of its file ("fashion_mnist"), or its name in Dassl's registry ("FashionMNIST").

    Returns:
        Sentences by class name, normalised by `class_key`.

    Raises:
        UserError: If there are no descriptions of this data set.
    """
    stems = {_lookup_key(stem): stem for stem in described_datasets()}
    stem = stems.get(OTHER_NAMES.get(_lookup_key(dataset), _lookup_key(dataset)))
    if stem is None:
        raise UserError(
            f"no descriptions of the classes of {dataset}: {did_you_mean(dataset, stems.values())}; "
            f"generate them with: bash scripts/describe.sh --classes FILE"
        )
    return load_descriptions(FOLDER / f"{stem}.json")


def descriptions_of(
    dataset: str, by_user: Descriptions | None, classnames: Sequence[str], template: str
) -> Descriptions | None:
    """Return the descriptions that the user wrote, or, if `by_user` is None, those of the data set.

    Args:
        dataset: Stem of its description file, or its name in Dassl's registry.
        by_user: See `user_descriptions`.
        classnames: Class names.
        template: Prompt template with one "{}".

    Returns:
        Sentences by class name; None, with a warning, if there are none.

    Raises:
        UserError: If one of the user's sentences is invalid, see `check_sentences`.
    """
    if by_user is None:
        try:
            return dataset_descriptions(dataset)
        except UserError as error:
            log.warning("Training continues without descriptions: %s", error)
            return None
    if not by_user:
        log.warning(
            "Training continues without descriptions: your classes have none; write them into the file of --classes, "
            "with tabs before them, or generate them with: bash scripts/describe.sh --classes FILE"
        )
    return user_descriptions(by_user, classnames, template)


def user_descriptions(by_user: Descriptions | None, classnames: Sequence[str], template: str) -> Descriptions | None:
    """Return the descriptions that the user wrote into the classes file.

    Args:
        by_user: Sentences by class name. If only some classes have any, the others get the template filled with their
            name.
        classnames: Class names.
        template: Prompt template with one "{}".

    Returns:
        Sentences by class name; None if the user wrote none.

    Raises:
        UserError: If a sentence is invalid, see `check_sentences`.
    """
    if not by_user:
        return None
    for classname, sentences in by_user.items():
        check_sentences(sentences, f"--classes, class {classname!r}")
    without = [classname for classname in classnames if classname not in by_user]
    if without:
        log.warning("Classes without a description, which others have: %s", some_of(without))
    template_sentences = {classname: [template.format(plain_name(classname))] for classname in without}
    return {class_key(name): list(sentences) for name, sentences in {**template_sentences, **by_user}.items()}


def load_descriptions(path: Path) -> Descriptions:
    """Read a description file, and check everything that does not depend on the data set's class names.

    Args:
        path: A JSON file: {"class name": ["a sentence", ...], ...}.

    Returns:
        Sentences by class name, normalised by `class_key`.

    Raises:
        UserError: If the file cannot be read, is empty or has more than `MAX_SENTENCES` sentences, or if an entry is
            invalid, see `check_sentences`.
    """
    try:
        content = read_json(path)
        CLASSES_SCHEMA.check(content)
    except (OSError, ValueError) as error:
        raise UserError(f"descriptions {path}: cannot be read ({error}); {EXPECTED}") from error
    if not content:
        raise UserError(f"descriptions {path}: no class in it; {EXPECTED}")
    if (total := sum(len(sentences) for sentences in content.values() if isinstance(sentences, list))) > MAX_SENTENCES:
        raise UserError(f"descriptions {path}: {total} sentences; at most {MAX_SENTENCES} are read: take fewer")
    for classname, sentences in content.items():
        check_sentences(sentences, f"descriptions {path}, class {classname!r}")
    return {class_key(name): [" ".join(text.split()) for text in sentences] for name, sentences in content.items()}


def check_sentences(sentences: Any, where: str) -> None:
    """Check the sentences of one class.

    Args:
        sentences: Value to check, expected to be a list of sentences.
        where: File and class, for the error message.

    Raises:
        UserError: If it is not a list of sentences, or if a sentence is empty, repeated, or longer than `MAX_TOKENS`.
    """
    try:
        SENTENCES.check(sentences, where)
    except SchemaError as error:
        raise UserError(f"{error}; correct it") from error
    keys = set()
    for sentence in sentences:
        if class_key(sentence) in keys:
            raise UserError(f"{where}: the sentence {sentence!r} is listed twice; remove one")
        keys.add(class_key(sentence))
        if num_tokens(sentence) > MAX_TOKENS:
            raise UserError(
                f"{where}: {sentence!r} has {num_tokens(sentence)} tokens, CLIP reads {MAX_TOKENS}; shorten it"
            )


def sentences_by_class(classnames: Sequence[str], descriptions: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return descriptions in the order of the class names. Case, underscores and repeated blanks are ignored.

    Args:
        classnames: C class names.
        descriptions: Sentences by class name.

    Returns:
        Sentences of each class, C lists.

    Raises:
        UserError: If a class has no sentence.
    """
    sentences_by_key = {class_key(name): list(sentences) for name, sentences in descriptions.items()}
    missing = [name for name in classnames if not sentences_by_key.get(class_key(name))]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"descriptions: no sentence for class {missing[0]!r}{others}; add it, or have it written by: "
            f"bash scripts/describe.sh --classes FILE"
        )
    return [sentences_by_key[class_key(name)] for name in classnames]


def described_features(
    clip_model: Any,
    classnames: Sequence[str],
    templates: Sequence[str],
    descriptions: Mapping[str, Sequence[str]],
    share: float = 0.5,
    synonyms: Synonyms = NO_SYNONYMS,
) -> Tensor:
    """Compute text features of classes from templates and descriptions.

    For each class, the unit-length features of templates and sentences are averaged separately. The result is a
    weighted mean of the two normalized means, so the number of sentences does not matter. Each sentence is followed by
    the first template with the class name: CLIP reads features at the end of text, and small CLIPs only recognise
    names there.

    Args:
        clip_model: A CLIP of any family.
        classnames: C class names.
        templates: Prompt templates with one "{}" each.
        descriptions: Sentences by class name, with at least one for each class.
        share: Weight of the descriptions in the mean, 0 to 1.
        synonyms: Other names of classes, for the templates alone.

    Returns:
        Unit-length features. Shape (C, embed_dim).

    Raises:
        UserError: If a class has no sentence, or a text exceeds the context length of the text encoder.
    """
    by_template = [template_features(clip_model, classnames, template, synonyms) for template in templates]
    template_means = torch.stack(by_template).mean(dim=0)
    sentences = sentences_by_class(classnames, descriptions)
    parts = sentence_features(clip_model, classnames, templates[0], sentences)
    sentence_means = torch.stack([part.mean(dim=0) for part in parts])
    mixed = (1 - share) * F.normalize(template_means, dim=-1) + share * F.normalize(sentence_means, dim=-1)
    return F.normalize(mixed, dim=-1)


def sentence_features(
    clip_model: Any, classnames: Sequence[str], template: str, sentences: Sequence[Sequence[str]]
) -> list[Tensor]:
    """Compute text features of each sentence, followed by the filled template unless that exceeds the context length.

    Args:
        clip_model: A CLIP of any family.
        classnames: C class names.
        template: Prompt template with one "{}".
        sentences: Sentences of each class, C lists.

    Returns:
        Unit-length features of the sentences of each class, C tensors. Shape (number of sentences, embed_dim) each.
    """
    if len(members := members_of(clip_model)) > 1:
        parts = [sentence_features(member, classnames, template, sentences) for member in members]
        return [side_by_side(of_class) for of_class in zip(*parts, strict=True)]
    tower = tower_of(clip_model)
    ends = [template.format(plain_name(name)) for name in classnames]
    texts = [
        _sentence_with_name(tower, sentence, end)
        for class_sentences, end in zip(sentences, ends, strict=True)
        for sentence in class_sentences
    ]
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    features = torch.cat([template_features(clip_model, chunk, "{}") for chunk in chunks])
    return list(features.split([len(class_sentences) for class_sentences in sentences]))


def _sentence_with_name(tower: TextTower, sentence: str, end: str) -> str:
    text = f"{sentence} {end}"
    return text if len(text_tokens(tower, text)) <= tower.context_length else sentence


def _lookup_key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
