"""Build a photograph CLIP from packages, step by step. Results of steps are cached, so a stopped run can be resumed."""

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

SHARES = {  # shares of the captions, by tier
    "concept": 0.25,  # names of ImageNet's classes and of their ancestors
    "token": 0.35,  # other nouns that are a single token of CLIP: those frequent in captions of pictures
    "noun": 0.3,  # all other nouns
    "word": 0.1,  # words of CLIP's vocabulary that are not nouns
}
IN_SENTENCES = 0.35  # weight of a name with its kind or gloss, relative to the name alone
PLURALS = 0.25  # share of plurals in the captions of a noun


@dataclass(frozen=True)
class Model:
    """A CLIP to build.

    Attributes:
        source: Key of the image tower in `sources.json`.
        architecture: Name of the image tower in timm.
        seed: Seed of the training of the text tower.
    """

    source: str
    architecture: str
    seed: int


IMAGENET = [int(synset[1:]) for synset in ImageNetInfo().label_names()]  # WordNet offsets of the classes, by label
MODELS = {
    "photo": Model("lite0", "tf_efficientnet_lite0", 1),
    "photo-lite1": Model("lite1", "tf_efficientnet_lite1", 2),
}


@dataclass(frozen=True)
class Lexicon:
    """Nouns, the meanings of their names, and other words.

    Attributes:
        nouns: Synsets by offset.
        meanings: Offsets and shares of the meanings of each name in lower case.
        words: Words that are not nouns.
        seen: Offsets of visible meanings.
        counts: Frequency of each pair of name and meaning.
    """

    nouns: dict[int, Synset]
    meanings: dict[str, list[tuple[int, float]]]
    words: list[str]
    seen: frozenset[int]
    counts: dict[tuple[str, int], int]

    @classmethod
    def read(cls, archive: Path) -> Lexicon:
        """Read the package of WordNet."""
        nouns, counts = read_nouns(archive), read_counts(archive)
        seen = frozenset(offset for offset, synset in nouns.items() if can_be_seen(synset, nouns))
        meanings = meanings_of(nouns, counts, seen)
        return cls(nouns, meanings, other_words(meanings), seen, counts)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """All pairs of a name and one of its meanings."""
        return [(name, offset) for name, rows in self.meanings.items() for offset, _ in rows]


def embeddings(lexicon: Lexicon, wheel: Path, folder: Path) -> tuple[Embedded, Tensor, Tensor]:
    """Embed all names and glosses, the other words, and CLIP's tokens with MiniLM; cached in the folder."""
    encoder = cache(partial(SentenceEncoder, wheel, folder / "minilm"))  # loaded only if an embedding is missing

    def embed(name: str, texts: Sequence[str]) -> Tensor:
        with tqdm(total=len(texts), desc=f"MiniLM: {name}", unit="text") as bar:
            return encoder()(texts, bar.update)

    def texts(name: str, written: Sequence[str]) -> Tensor:
        return cached(folder / f"{name}.safetensors", partial(embed, name, written))

    names = texts("names", [PHOTO.format(name) for name in lexicon.meanings])
    glosses = texts("glosses", [synset.gloss for synset in lexicon.nouns.values()])
    words = texts("words", [PHOTO.format(word) for word in lexicon.words])
    spellings = [TOKENIZER.decoder[token].replace("</w>", "") for token in range(len(TOKENIZER.decoder))]
    tokens = cached(folder / "tokens.safetensors", lambda: encoder().of_tokens(spellings))
    by_name = dict(zip(lexicon.meanings, names, strict=True))
    return Embedded(by_name, dict(zip(lexicon.nouns, glosses, strict=True))), words, tokens


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Read a tensor from a file. If that fails, compute the tensor and write the file."""
    try:
        return load_file(path)["tensor"]
    except (OSError, SafetensorError, KeyError):
        tensor = make()
        with replacing(path) as draft:
            save_file({"tensor": tensor}, draft)
        return tensor


def target_directions(lexicon: Lexicon, teacher: Teacher, words: Tensor) -> Tensor:
    """Compute the teacher's directions: rows for `Lexicon.pairs`, then for each name, then for each other word."""
    with tqdm(total=len(lexicon.pairs), desc="teacher", unit="name") as bar:
        of_pairs = teacher.of_meanings(lexicon.pairs, bar.update)
    owner = torch.tensor([i for i, rows in enumerate(lexicon.meanings.values()) for _ in rows])
    share = torch.tensor([share for rows in lexicon.meanings.values() for _, share in rows])
    of_names = torch.zeros(len(lexicon.meanings), of_pairs.shape[1])
    of_names.index_add_(0, owner, share[:, None] * of_pairs)
    return torch.cat([of_pairs, F.normalize(of_names, dim=1), teacher.of_texts(words)])


def caption_entries(lexicon: Lexicon, teacher: Teacher) -> tuple[list[Entry], Tensor]:
    """Build the entries of captions, with plurals, and sampling weights. Targets are rows of `target_directions`."""
    concepts = {name for name, _ in teacher.concepts}
    tokens = {name: tokens_of(name) for name in lexicon.meanings}
    glosses = {offset: tokens_of(synset.gloss) for offset, synset in lexicon.nouns.items()}
    by_tier: dict[str, list[tuple[Entry, float]]] = {tier: [] for tier in SHARES}

    def tier(name: str) -> list[tuple[Entry, float]]:
        return by_tier["concept" if name in concepts else "token" if len(tokens[name]) == 1 else "noun"]

    for row, (name, offset) in enumerate(lexicon.pairs):
        parents = lexicon.nouns[offset].parents
        kind_tokens = tokens[lexicon.nouns[parents[0]].names[0].lower()] if parents else ()
        entry = Entry(tokens[name], kind_tokens, glosses[offset], row)
        tier(name).append((entry, IN_SENTENCES * _weight(lexicon, name, offset)))
    first_name_row = len(lexicon.pairs)
    for row, (name, rows) in enumerate(lexicon.meanings.items(), first_name_row):
        weight = max(_weight(lexicon, name, offset) for offset, _ in rows)
        tier(name).append((Entry(tokens[name], (), (), row), (1 - PLURALS) * weight))
        tier(name).append((Entry(tokens_of(plural(name)), (), (), row), PLURALS * weight))
    first_word_row = first_name_row + len(lexicon.meanings)
    by_tier["word"] = [
        (Entry(tokens_of(word), (), (), row), 1.0) for row, word in enumerate(lexicon.words, first_word_row)
    ]
    weights = [_scale_to([weight for _, weight in by_tier[name]], share) for name, share in SHARES.items()]
    return [entry for rows in by_tier.values() for entry, _ in rows], torch.cat(weights)


def _scale_to(weights: Sequence[float], total: float) -> Tensor:
    result = torch.tensor(weights)
    return result * (total / result.sum())


def _weight(lexicon: Lexicon, name: str, offset: int) -> float:
    """Compute the sampling weight of a name, which is larger for visible and for frequent meanings."""
    count = lexicon.counts.get((name, offset), 0)
    return (1.0 if offset in lexicon.seen else UNSEEN) * (1 + math.log2(1 + count))


def version() -> str:
    """Hash the recipe: the code of this package and its list of sources."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".json"))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class Builder:
    """Builder of photograph CLIPs.

    Args:
        folder: Cache of packages, embeddings and training states.
        out: Parent of the folders of the CLIPs.

    Attributes:
        work: Part of the cache for this version of the recipe, as `version` returns it.
    """

    def __init__(self, folder: Path, out: Path) -> None:
        self.packages, self.work, self.out = folder / "packages", folder / version(), out

    def build(self, name: str, steps: int | None = None) -> Path:
        """Build a CLIP. Results of earlier steps are read from the cache.

        Args:
            name: Key of `MODELS`.
            steps: Number of training steps of the text tower, instead of the recipe's.

        Returns:
            Folder of the CLIP.
        """
        model_spec = MODELS[name]
        recipe = Recipe(seed=model_spec.seed, **({} if steps is None else {"steps": steps}))
        tower = self._tower(name)
        projection, vectors = class_vectors(tower, DIMENSIONS)
        lexicon = self.lexicon()
        embedded, words, tokens = embeddings(lexicon, self._fetch("minilm"), self.work)
        teacher = Teacher(lexicon.nouns, embedded, IMAGENET, vectors)
        targets = target_directions(lexicon, teacher, words)
        captions, weights = caption_entries(lexicon, teacher)
        vision = vision_config(model_spec.architecture)
        model = new_student(vision, tokens, recipe.seed)
        take_image_tower(model, tower, mean_features(tower), projection)
        Distillation(model, captions, weights, targets, recipe, self.work / name).run()
        save(model, vision, TEXT, self._facts(model_spec), self.out / name)
        return self.out / name

    def lexicon(self) -> Lexicon:
        """Read the nouns of WordNet, and the other words of CLIP's vocabulary."""
        return Lexicon.read(self._fetch("wordnet"))

    def classes(self, name: str) -> Tensor:
        """Return the vectors of ImageNet's classes in the space of a CLIP of `MODELS`. Shape (1000, 256)."""
        return class_vectors(self._tower(name), DIMENSIONS)[1]

    def _tower(self, name: str) -> nn.Module:
        return read_tower(self._fetch(MODELS[name].source), MODELS[name].architecture)

    def _fetch(self, key: str) -> Path:
        return sources()[key].fetch(self.packages)

    @staticmethod
    def _facts(model_spec: Model) -> dict[str, str]:
        used_sources = [sources()[key] for key in (model_spec.source, "minilm", "wordnet")]
        return {
            "licence": "Apache-2.0 and WordNet 3.0",
            "sources": "; ".join(f"{s.package} {s.version} ({s.licence})" for s in used_sources),
        }
