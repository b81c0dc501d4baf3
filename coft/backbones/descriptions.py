"""Class descriptions: sentences on what the things of a class look like, and text features made from them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coft.backbones.prompts import NO_SYNONYMS, Synonyms, plain_name, template_features, text_tokens
from coft.backbones.tokens import CLIP_TOKENIZER
from coft.backbones.tower import TextTower, tower_of
from coft.core.errors import UserError, did_you_mean
from coft.core.files import read_json
from coft.core.paths import HOME
from coft.core.sanitize import some_of

log = logging.getLogger(__name__)
Descriptions = dict[str, list[str]]

FOLDER = HOME / "datasets" / "descriptions"
MAX_TOKENS = 77  # of CLIP's text encoder, marks of start and end included
MOST_SENTENCES = 1_000  # of a class
MOST_IN_ALL = 100_000  # sentences of a file: CLIP reads each of them
CHUNK = 512  # sentences that are encoded at a time
# in Dassl's registry, of data sets whose file is called otherwise
OTHER_NAMES = {"describabletextures": "dtd", "intelscenes": "intel", "pacsdomain": "pacs"}
FORM = 'expected JSON {"class name": ["a sentence", ...], ...}'


def class_key(classname: str) -> str:
    """A class name without regard to case, underscores and blanks, to look it up by."""
    return " ".join(plain_name(classname).lower().split())


def num_tokens(text: str) -> int:
    """Tokens of a text for CLIP's tokenizer, marks of start and end included."""
    return len(CLIP_TOKENIZER.encode(text)) + 2


def names_class(sentence: str, classname: str) -> bool:
    """Whether a sentence has the class name in it, as words of its own, in upper or lower case."""
    name = re.escape(class_key(classname))
    return re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", class_key(sentence)) is not None


def described_datasets() -> list[str]:
    """Stems of the files in datasets/descriptions."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def dataset_descriptions(dataset: str) -> Descriptions:
    """Descriptions that come with the project.

    Args:
        dataset: Name of a data set's file ("fashion_mnist") or in Dassl's registry ("FashionMNIST").

    Raises:
        UserError: If there are none for this data set.
    """
    stems = {_squash(stem): stem for stem in described_datasets()}
    stem = stems.get(OTHER_NAMES.get(_squash(dataset), _squash(dataset)))
    if stem is None:
        raise UserError(
            f"no descriptions of the classes of {dataset}: {did_you_mean(dataset, stems.values())}; "
            f"have them written by: bash scripts/describe.sh --classes FILE"
        )
    return load_descriptions(FOLDER / f"{stem}.json")


def descriptions_of(dataset: Any, name: str, template: str) -> Descriptions | None:
    """Descriptions that a data set brings with it, else those that come with the project.

    Args:
        dataset: Its attributes `classnames` and, if it brings any, `descriptions` are read: sentences by class name. A
            class that has none there, while others do, gets its name in the template.
        name: Of the data set, see `dataset_descriptions`.
        template: Words with one "{}".

    Returns:
        Sentences by class name, or None, with a warning, where there are none.

    Raises:
        UserError: If a sentence that the data set brings is none that CLIP can read.
    """
    own = getattr(dataset, "descriptions", None)
    if own is None:
        try:
            return dataset_descriptions(name)
        except UserError as error:
            log.warning("Training goes on without descriptions: %s", error)
            return None
    if not own:
        log.warning(
            "Training goes on without descriptions: your classes have none; write them into the file of --classes, "
            "with tabs before them, or have them written by: bash scripts/describe.sh --classes FILE"
        )
    return given_descriptions(dataset, template)


def given_descriptions(dataset: Any, template: str) -> Descriptions | None:
    """Descriptions that a data set brings with it: those that a user wrote into the file of classes.

    Args:
        dataset: As of `descriptions_of`.
        template: Words with one "{}".

    Returns:
        Sentences by class name; None where it brings none.

    Raises:
        UserError: If a sentence is none that CLIP can read.
    """
    own = getattr(dataset, "descriptions", None)
    if not own:
        return None
    for classname, sentences in own.items():
        check_sentences(sentences, f"--classes, class {classname!r}")
    without = [classname for classname in dataset.classnames if classname not in own]
    if without:
        log.warning("Classes without a description, which others have: %s", some_of(without))
    named = {classname: [template.format(plain_name(classname))] for classname in without}
    return {class_key(classname): list(sentences) for classname, sentences in {**named, **own}.items()}


def load_descriptions(path: Path) -> Descriptions:
    """Read a file of descriptions and check all that can be checked without the class list.

    Returns:
        Sentences by class name as `class_key` writes it.

    Raises:
        UserError: If the file cannot be read, or an entry is no list of different sentences that CLIP can read.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"descriptions {path}: cannot be read ({error}); {FORM}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"descriptions {path}: {FORM}")
    if (total := sum(len(own) for own in content.values() if isinstance(own, list))) > MOST_IN_ALL:
        raise UserError(f"descriptions {path}: {total} sentences; at most {MOST_IN_ALL} are read: take fewer")
    for classname, sentences in content.items():
        check_sentences(sentences, f"descriptions {path}, class {classname!r}")
    return {class_key(name): [sentence.strip() for sentence in sentences] for name, sentences in content.items()}


def check_sentences(sentences: Any, where: str) -> None:
    """Check the sentences of one class.

    Args:
        sentences: What should be a list of sentences.
        where: File and class, for the error message.

    Raises:
        UserError: If it is none, or a sentence is empty, stands twice, or is longer than CLIP reads.
    """
    if not isinstance(sentences, list) or not all(isinstance(s, str) and s.strip() for s in sentences):
        raise UserError(f"{where}: {FORM}, without empty sentences; mend it")
    if not sentences:
        raise UserError(f"{where}: no sentence; write one, or leave the class out of the file")
    if len(sentences) > MOST_SENTENCES:
        raise UserError(f"{where}: {len(sentences)} sentences; at most {MOST_SENTENCES} are read: take fewer")
    seen = set()
    for sentence in sentences:
        if class_key(sentence) in seen:
            raise UserError(f"{where}: the sentence {sentence!r} stands there twice; remove one")
        seen.add(class_key(sentence))
        if num_tokens(sentence) > MAX_TOKENS:
            raise UserError(
                f"{where}: {sentence!r} has {num_tokens(sentence)} tokens, CLIP reads {MAX_TOKENS}; shorten it"
            )


def sentences_by_class(
    classnames: Sequence[str], descriptions: Mapping[str, Sequence[str]], source: str = "descriptions"
) -> list[list[str]]:
    """Put descriptions in the order of the class names; case, underscores and blanks make no difference.

    Args:
        classnames: C names.
        descriptions: Sentences by class name.
        source: Where they come from, for the error message.

    Raises:
        UserError: If a class has no sentence.
    """
    known = {class_key(name): list(sentences) for name, sentences in descriptions.items()}
    missing = [name for name in classnames if not known.get(class_key(name))]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{source}: no sentence for class {missing[0]!r}{others}; add it, or have it written by: "
            f"bash scripts/describe.sh --classes FILE"
        )
    return [known[class_key(name)] for name in classnames]


def described_features(
    clip_model: Any,
    classnames: Sequence[str],
    templates: Sequence[str],
    descriptions: Mapping[str, Sequence[str]],
    share: float = 0.5,
    synonyms: Synonyms = NO_SYNONYMS,
) -> Tensor:
    """Text features of classes from templates and descriptions.

    Unit-length features of the templates are averaged, so are those of a class's sentences, and the two means are
    mixed: a class with many sentences weighs no more than one with few. Each sentence is followed by the class name
    in the first template: CLIP reads a text at its end, and small ones know nothing but names that stand there.

    Args:
        clip_model: A CLIP of any family.
        classnames: C names.
        templates: Words with one "{}" each.
        descriptions: Sentences by class name, for all classes at least.
        share: Weight of the descriptions in the mean, 0 to 1.
        synonyms: Other names of classes, for the templates; a sentence is followed by the class name alone.

    Returns:
        Unit-length features. Shape (C, embed_dim).

    Raises:
        UserError: If a class has no sentence, or a text is longer than the text encoder reads.
    """
    named = torch.stack([template_features(clip_model, classnames, t, synonyms) for t in templates]).mean(dim=0)
    sentences = sentences_by_class(classnames, descriptions)
    parts = sentence_features(clip_model, classnames, templates[0], sentences)
    described = torch.stack([part.mean(dim=0) for part in parts])
    mixed = (1 - share) * F.normalize(named, dim=-1) + share * F.normalize(described, dim=-1)
    return F.normalize(mixed, dim=-1)


def sentence_features(
    clip_model: Any, classnames: Sequence[str], template: str, sentences: Sequence[Sequence[str]]
) -> list[Tensor]:
    """Text features of each sentence, followed by the class name in a template where CLIP can read so much.

    Returns:
        For each class, unit-length features. Shape (number of its sentences, embed_dim) each.
    """
    tower = tower_of(clip_model)
    ends = [template.format(plain_name(name)) for name in classnames]
    texts = [_joined(tower, s, end) for own, end in zip(sentences, ends, strict=True) for s in own]
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    features = torch.cat([template_features(clip_model, chunk, "{}") for chunk in chunks])
    return list(features.split([len(own) for own in sentences]))


def _joined(tower: TextTower, sentence: str, end: str) -> str:
    text = f"{sentence} {end}"
    return text if len(text_tokens(tower, text)) <= tower.context_length else sentence


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
