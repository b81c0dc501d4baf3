"""The teacher, which gives the target direction of a text in the image space.

Every noun of WordNet has a text embedding of its name, gloss and kind. ImageNet's classes and their ancestors also
have a direction in the image space. A kernel ridge regression from embeddings to directions, fitted on these, predicts
the directions of all other nouns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from weights.photographs.wordnet import Synset, ancestors, leaves_below

PHOTO = "a photo of a {}."
MOST_LEAVES = 300  # meanings with more classes below them, such as "animal", have no typical look and are left out
NAMES = 4  # largest number of names per meaning in the regression; the first has weight 1, the others 1/2
KINDS = 3  # number of nearest ancestors whose names describe the kind of a meaning
GAIN, RIDGE = 6.0, 0.3


@dataclass(frozen=True)
class Embedded:
    """Unit-length embeddings of MiniLM.

    Attributes:
        names: Embeddings of "a photo of a {name}.", by name.
        glosses: Embeddings of glosses, by offset.
    """

    names: Mapping[str, Tensor]
    glosses: Mapping[int, Tensor]


class Regression:
    """Kernel ridge regression with the kernel exp(gain (cosine - 1)).

    Args:
        inputs: Unit-length inputs. Shape (n, d).
        targets: Targets. Shape (n, k).
        weights: Weights of the rows, by which the ridge is divided. Shape (n,).
        gain: Gain of the kernel.
        ridge: Ridge of a row of weight 1.
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, weights: Tensor, gain: float = GAIN, ridge: float = RIDGE
    ) -> None:
        self.inputs, self.gain = inputs, gain
        system = self._kernel(inputs).double() + torch.diag(ridge / weights.double())
        self.solution = torch.cholesky_solve(targets.double(), torch.linalg.cholesky(system)).float()

    def _kernel(self, inputs: Tensor) -> Tensor:
        return torch.exp(self.gain * (inputs @ self.inputs.t() - 1))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Predict unit-length targets of inputs (m, d). Shape (m, k)."""
        return torch.cat([F.normalize(self._kernel(part) @ self.solution, dim=1) for part in inputs.split(4096)])


class Teacher:
    """Directions in the image space, for names with a meaning and for any text.

    Args:
        nouns: Synsets of WordNet by offset.
        embedded: Embeddings of their names and glosses.
        classes: Offsets of ImageNet's classes, by label.
        vectors: Unit-length vectors of the classes in the image space. Shape (1000, k).
    """

    def __init__(
        self, nouns: Mapping[int, Synset], embedded: Embedded, classes: Sequence[int], vectors: Tensor
    ) -> None:
        self.nouns, self.embedded = nouns, embedded
        leaves = leaves_below(classes, self.nouns)
        labels_of = {offset: labels for offset, labels in leaves.items() if len(labels) <= MOST_LEAVES}
        rows = [(name, offset, 1 / (1 + (i > 0))) for offset in labels_of for i, name in enumerate(self._names(offset))]
        targets = torch.stack([F.normalize(vectors[labels_of[offset]].mean(dim=0), dim=0) for _, offset, _ in rows])
        weights = torch.tensor([weight for *_, weight in rows])
        self.concepts = [(name, offset) for name, offset, _ in rows]
        self._kinds: dict[int, Tensor] = {}
        self._of_meanings = Regression(self._inputs(self.concepts), targets, weights)
        self._of_texts = Regression(torch.stack([embedded.names[name] for name, *_ in rows]), targets, weights)

    def _names(self, offset: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.lower() for name in self.nouns[offset].names))[:NAMES]

    def _kind(self, offset: int) -> Tensor:
        if offset not in self._kinds:
            above = list(ancestors(offset, self.nouns))[1 : 1 + KINDS] or [offset]
            names = [self.embedded.names[self.nouns[other].names[0].lower()] for other in above]
            self._kinds[offset] = F.normalize(torch.stack(names).mean(dim=0), dim=0)
        return self._kinds[offset]

    def _inputs(self, meanings: Sequence[tuple[str, int]]) -> Tensor:
        parts = [
            torch.stack([self.embedded.names[name] for name, _ in meanings]),
            torch.stack([self.embedded.glosses[offset] for _, offset in meanings]),
            torch.stack([self._kind(offset) for _, offset in meanings]),
        ]
        return F.normalize(torch.cat(parts, dim=1), dim=1)

    def of_meanings(
        self, meanings: Sequence[tuple[str, int]], progress: Callable[[int], object] = lambda done: None
    ) -> Tensor:
        """Predict unit-length directions of meanings.

        Args:
            meanings: Pairs of a name and an offset.
            progress: Callback that gets the number of meanings of each finished batch.

        Returns:
            Directions. Shape (n, k).
        """
        result = []
        for start in range(0, len(meanings), 4096):
            part = meanings[start : start + 4096]
            result.append(self._of_meanings(self._inputs(part)))
            progress(len(part))
        return torch.cat(result)

    def of_texts(self, embeddings: Tensor) -> Tensor:
        """Predict unit-length directions of texts, shape (n, k), from MiniLM's embeddings, shape (n, 384)."""
        return self._of_texts(embeddings)
