"""A photograph CLIP from its packages, step by step; what a step made is kept, so that a stopped run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import Tensor, nn
from tqdm import tqdm

from coft.core.files import replacing
from weights.photographs.captions import TOKENIZER, Entry, tokens_of
from weights.photographs.checkpoint import save, take_image_tower, vision_config
from weights.photographs.image_tower import class_vectors, mean_features, read_tower
from weights.photographs.lexicon import UNSEEN, can_be_seen, meanings_of, other_words, plural, read_counts
from weights.photographs.minilm import SentenceEncoder
from weights.photographs.sources import sources
from weights.photographs.student import DIMENSIONS, TEXT, Distillation, Recipe, new_student
from weights.photographs.teacher import PHOTO, Embedded, Teacher
from weights.photographs.wordnet import Synset, read_nouns

SHARES = {  # of the captions, by what is named
    "concept": 0.25,  # what ImageNet's classes, and what they are kinds of, are called
    "token": 0.35,  # other nouns that CLIP's vocabulary has a token for: those that captions of pictures often use
    "noun": 0.3,  # all other nouns
    "word": 0.1,  # words of CLIP's vocabulary that are no nouns
}
IN_SENTENCES = 0.35  # weight of a name with its kind or its gloss, to that of the name alone
PLURALS = 0.25  # of the captions of a noun


@dataclass(frozen=True)
class Model:
    """What to build.

    Attributes:
        source: Of the image tower, a key of `sources.json`.
        architecture: timm's name of it.
        seed: Of the text tower.
    """

    source: str
    architecture: str
    seed: int


IMAGENET = [int(synset[1:]) for synset in ImageNetInfo().label_names()]  # offsets of the classes, by label
MODELS = {
    "photo": Model("lite0", "tf_efficientnet_lite0", 1),
    "photo-lite1": Model("lite1", "tf_efficientnet_lite1", 2),
}


@dataclass(frozen=True)
class Lexicon:
    """Nouns, what their names mean, and other words.

    Attributes:
        nouns: By offset.
        meanings: Offsets and shares by name in lower case.
        words: That are no nouns.
        seen: Offsets of what can be seen.
        counts: How often a name has a meaning.
    """

    nouns: dict[int, Synset]
    meanings: dict[str, list[tuple[int, float]]]
    words: list[str]
    seen: frozenset[int]
    counts: dict[tuple[str, int], int]

    @classmethod
    def read(cls, archive: Path) -> Lexicon:
        """Read WordNet's package."""
        nouns, counts = read_nouns(archive), read_counts(archive)
        seen = frozenset(offset for offset, synset in nouns.items() if can_be_seen(synset, nouns))
        meanings = meanings_of(nouns, counts, seen)
        return cls(nouns, meanings, other_words(meanings), seen, counts)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Each name with each of its meanings."""
        return [(name, offset) for name, rows in self.meanings.items() for offset, _ in rows]


def embeddings(lexicon: Lexicon, wheel: Path, folder: Path) -> tuple[Embedded, Tensor, Tensor]:
    """MiniLM's embeddings of all names and glosses, of the other words, and of CLIP's tokens. Kept in the folder."""
    encoder = cache(partial(SentenceEncoder, wheel, folder / "minilm"))  # which is not needed if all are there

    def embed(name: str, texts: Sequence[str]) -> Tensor:
        with tqdm(total=len(texts), desc=f"MiniLM: {name}", unit="text") as bar:
            return encoder()(texts, bar.update)

    def texts(name: str, written: Sequence[str]) -> Tensor:
        return kept(folder / f"{name}.safetensors", partial(embed, name, written))

    names = texts("names", [PHOTO.format(name) for name in lexicon.meanings])
    glosses = texts("glosses", [synset.gloss for synset in lexicon.nouns.values()])
    words = texts("words", [PHOTO.format(word) for word in lexicon.words])
    spelled = [TOKENIZER.decoder[token].replace("</w>", "") for token in range(len(TOKENIZER.decoder))]
    tokens = kept(folder / "tokens.safetensors", lambda: encoder().of_tokens(spelled))
    by_name = dict(zip(lexicon.meanings, names, strict=True))
    return Embedded(by_name, dict(zip(lexicon.nouns, glosses, strict=True))), words, tokens


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """A tensor from a file, which is made if it is not there or cannot be read."""
    try:
        return load_file(path)["tensor"]
    except (OSError, SafetensorError, KeyError):
        made = make()
        with replacing(path) as draft:
            save_file({"tensor": made}, draft)
        return made


def directions(lexicon: Lexicon, teacher: Teacher, words: Tensor) -> Tensor:
    """The teacher's targets: a row for each pair, then for each name, then for each other word."""
    with tqdm(total=len(lexicon.pairs), desc="teacher", unit="name") as bar:
        of_pairs = teacher.of_meanings(lexicon.pairs, bar.update)
    owner = torch.tensor([i for i, rows in enumerate(lexicon.meanings.values()) for _ in rows])
    share = torch.tensor([share for rows in lexicon.meanings.values() for _, share in rows])
    of_names = torch.zeros(len(lexicon.meanings), of_pairs.shape[1])
    of_names.index_add_(0, owner, share[:, None] * of_pairs)
    return torch.cat([of_pairs, F.normalize(of_names, dim=1), teacher.of_texts(words)])


def entries(lexicon: Lexicon, teacher: Teacher) -> tuple[list[Entry], Tensor]:
    """What the student is to say, of the rows of `directions` and with plurals, and how often."""
    concepts = {name for name, _ in teacher.concepts}
    spelled = {name: tokens_of(name) for name in lexicon.meanings}
    glosses = {offset: tokens_of(synset.gloss) for offset, synset in lexicon.nouns.items()}
    made: dict[str, list[tuple[Entry, float]]] = {tier: [] for tier in SHARES}

    def tier(name: str) -> list[tuple[Entry, float]]:
        return made["concept" if name in concepts else "token" if len(spelled[name]) == 1 else "noun"]

    for row, (name, offset) in enumerate(lexicon.pairs):
        above = lexicon.nouns[offset].parents
        kind = spelled[lexicon.nouns[above[0]].names[0].lower()] if above else ()
        entry = Entry(spelled[name], kind, glosses[offset], row)
        tier(name).append((entry, IN_SENTENCES * _weight(lexicon, name, offset)))
    first = len(lexicon.pairs)
    for row, (name, rows) in enumerate(lexicon.meanings.items(), first):
        weight = max(_weight(lexicon, name, offset) for offset, _ in rows)
        tier(name).append((Entry(spelled[name], (), (), row), (1 - PLURALS) * weight))
        tier(name).append((Entry(tokens_of(plural(name)), (), (), row), PLURALS * weight))
    start = first + len(lexicon.meanings)
    made["word"] = [(Entry(tokens_of(word), (), (), start + i), 1.0) for i, word in enumerate(lexicon.words)]
    weights = [_scaled([weight for _, weight in made[name]], share) for name, share in SHARES.items()]
    return [entry for rows in made.values() for entry, _ in rows], torch.cat(weights)


def _scaled(weights: Sequence[float], total: float) -> Tensor:
    result = torch.tensor(weights)
    return result * (total / result.sum())


def _weight(lexicon: Lexicon, name: str, offset: int) -> float:
    """How often a name is to be said: more often if it can be seen, and if it is often used."""
    count = lexicon.counts.get((name, offset), 0)
    return (1.0 if offset in lexicon.seen else UNSEEN) * (1 + math.log2(1 + count))


def version() -> str:
    """A hash of the recipe, that is of this package's code and of its sources."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".json"))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class Builder:
    """Builds photograph CLIPs.

    Args:
        folder: Where packages, embeddings and the state of a run are kept.
        out: Where the folders of the CLIPs go.

    Attributes:
        work: Of all this, what this version of the recipe made. Another version starts anew.
    """

    def __init__(self, folder: Path, out: Path) -> None:
        self.packages, self.work, self.out = folder / "packages", folder / version(), out

    def build(self, name: str, steps: int | None = None) -> Path:
        """Build a CLIP of `MODELS`; what is there already is not made again.

        Args:
            name: Of the CLIP.
            steps: Of the text tower's training, instead of the recipe's.

        Returns:
            Its folder.
        """
        wanted = MODELS[name]
        recipe = Recipe(seed=wanted.seed, **({} if steps is None else {"steps": steps}))
        tower = self._tower(name)
        projection, vectors = class_vectors(tower, DIMENSIONS)
        lexicon = self.lexicon()
        embedded, words, tokens = embeddings(lexicon, self._fetch("minilm"), self.work)
        teacher = Teacher(lexicon.nouns, embedded, IMAGENET, vectors)
        targets = directions(lexicon, teacher, words)
        said, weights = entries(lexicon, teacher)
        vision = vision_config(wanted.architecture)
        model = new_student(vision, tokens, recipe.seed)
        take_image_tower(model, tower, mean_features(tower), projection)
        Distillation(model, said, weights, targets, recipe, self.work / name).run()
        save(model, vision, TEXT, self._facts(wanted), self.out / name)
        return self.out / name

    def lexicon(self) -> Lexicon:
        """WordNet's nouns, and CLIP's other words."""
        return Lexicon.read(self._fetch("wordnet"))

    def classes(self, name: str) -> Tensor:
        """ImageNet's classes in the space of a CLIP of `MODELS`. Shape (1000, 256)."""
        return class_vectors(self._tower(name), DIMENSIONS)[1]

    def _tower(self, name: str) -> nn.Module:
        return read_tower(self._fetch(MODELS[name].source), MODELS[name].architecture)

    def _fetch(self, key: str) -> Path:
        return sources()[key].fetch(self.packages)

    @staticmethod
    def _facts(wanted: Model) -> dict[str, str]:
        used = [sources()[key] for key in (wanted.source, "minilm", "wordnet")]
        return {
            "licence": "Apache-2.0 and WordNet 3.0",
            "sources": "; ".join(f"{s.package} {s.version} ({s.licence})" for s in used),
        }
