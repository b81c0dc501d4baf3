"""Directions and captions of WordNet's nouns, from which the text tower of photographs is distilled."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from weights.photographs import __main__ as command
from weights.photographs import build
from weights.photographs.build import SHARES, Lexicon, caption_entries, embeddings, target_directions
from weights.photographs.captions import tokens_of
from weights.photographs.wordnet import Synset

NOUNS = {
    1: Synset(1, ("animal",), "it lives", (), False),
    2: Synset(2, ("cat", "true cat"), "it purrs", (1,), False),
    3: Synset(3, ("crane",), "it has long legs", (1,), False),
    4: Synset(4, ("crane",), "it lifts", (), False),
    5: Synset(5, ("jabberwock",), "it is in a poem", (1,), False),
}
MEANINGS = {
    "animal": [(1, 1.0)],
    "cat": [(2, 1.0)],
    "true cat": [(2, 1.0)],
    "crane": [(3, 0.75), (4, 0.25)],
    "jabberwock": [(5, 1.0)],
}
LEXICON = Lexicon(NOUNS, MEANINGS, ["red", "and"], frozenset({1, 2, 3}), {("cat", 2): 3})


class Teacher:
    """Teacher with a distinct direction for each meaning."""

    concepts = (("cat", 2), ("animal", 1))

    def of_meanings(self, meanings: list[tuple[str, int]], progress: Any = None) -> torch.Tensor:
        return torch.stack([torch.eye(8)[offset] for _, offset in meanings])

    def of_texts(self, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.eye(8)[[6, 7]]


@pytest.mark.parametrize(
    ("argv", "expected"), [(["foto"], "photo-lite1"), (["photo", "--steps", "5"], "--steps: would replace")]
)
def test_mistakes_are_one_line(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line


def test_changed_recipe_gets_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.Builder(tmp_path, tmp_path)
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    (tmp_path / "build.py").write_text("another", encoding="utf-8")
    assert build.Builder(tmp_path, tmp_path).work != first.work


def test_directions_of_meanings_names_and_words() -> None:
    rows = target_directions(LEXICON, Teacher(), torch.zeros(2, 3))  # type: ignore[arg-type]
    assert len(rows) == 6 + 5 + 2
    crane = F.normalize(0.75 * torch.eye(8)[3] + 0.25 * torch.eye(8)[4], dim=0)
    torch.testing.assert_close(rows[6 + 3], crane)
    assert torch.equal(rows[-2:], torch.eye(8)[[6, 7]])


def test_targets_of_captions() -> None:
    rows = target_directions(LEXICON, Teacher(), torch.zeros(2, 3))  # type: ignore[arg-type]
    captions, weights = caption_entries(LEXICON, Teacher())  # type: ignore[arg-type]
    for entry in captions:
        if entry.gloss:
            (offset,) = (key for key, noun in NOUNS.items() if tokens_of(noun.gloss) == entry.gloss)
            assert torch.equal(rows[entry.target], torch.eye(8)[offset])
    names = (tokens_of("crane"), tokens_of("cranes"))
    cranes = [entry for entry in captions if entry.name in names and not entry.gloss]
    assert len(cranes) == 2 and {entry.target for entry in cranes} == {6 + 3}
    assert {entry.kind for entry in captions if entry.name == tokens_of("cat")} == {tokens_of("animal"), ()}
    assert weights.sum() == pytest.approx(1)


def test_sampling_weights_of_captions() -> None:
    captions, weights = caption_entries(LEXICON, Teacher())  # type: ignore[arg-type]
    concepts = {tokens_of(word) for word in ("cat", "cats", "animal", "animals")}
    of_concepts = sum(weight for entry, weight in zip(captions, weights, strict=True) if entry.name in concepts)
    words = sum(weight for entry, weight in zip(captions, weights, strict=True) if entry.target >= 11)
    assert float(of_concepts) == pytest.approx(SHARES["concept"])
    assert float(words) == pytest.approx(SHARES["word"])


def test_embeddings_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    class Encoder:
        def __init__(self, wheel: Path, folder: Path) -> None: ...

        def __call__(self, texts: list[str], progress: Any) -> torch.Tensor:
            counts.append(len(texts))
            return torch.randn(len(texts), 4)

        def of_tokens(self, texts: list[str]) -> torch.Tensor:
            counts.append(len(texts))
            return torch.randn(len(texts), 4)

    monkeypatch.setattr(build, "SentenceEncoder", Encoder)
    first, words, _ = embeddings(LEXICON, Path("wheel"), tmp_path)
    assert counts == [5, 5, 2, 49408]
    second, cached_words, _ = embeddings(LEXICON, Path("wheel"), tmp_path)
    assert len(counts) == 4 and torch.equal(words, cached_words)
    (tmp_path / "words.safetensors").write_bytes(b"cut")
    embeddings(LEXICON, Path("wheel"), tmp_path)
    assert counts[4:] == [2]
    assert all(torch.equal(first.names[name], second.names[name]) for name in MEANINGS)
