"""What several processes make of parts of a table is what one makes of the whole."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.world import ALONE, World
from coft.labelling.neighbours import NeighbourGraph
from coft.labelling.pseudo_labels import Predictions, correct_prior_, given_quotas, select_seeds
from coft.method.guard import knowledge
from coft.method.negative_prompt import separation
from tests.worlds import in_world

COUNT, CLASSES, DIM = 23, 3, 5


def tables() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(COUNT, DIM, generator=source), torch.randn(COUNT, CLASSES, generator=source).double()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 23])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_image_is_of_one_rank(count: int, size: int) -> None:
    parts = [list(range(count)[World(rank, size).part(count)]) for rank in range(size)]
    assert list(chain(*parts)) == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1 and (not count or parts[0])


def of_all(world: World) -> dict[str, Any]:
    """What is decided of all images, from this rank's rows."""
    features, logits = (table[world.part(COUNT)].clone() for table in tables())
    label = world.gather(logits.argmax(dim=1))
    predictions = Predictions(label, logits.softmax(dim=1), logits.sigmoid(), world)
    found = {
        "knowledge": torch.tensor([*vars(knowledge(logits, world)).values()], dtype=torch.float64),
        "separation": torch.tensor(separation(logits, label[world.part(COUNT)], world), dtype=torch.float64),
        "quotas": given_quotas(logits, 0.5, 4, world),
        "confidence": predictions.confidence,
        "margin": predictions.margin,
        "p_clean": predictions.p_clean((label + 1) % CLASSES),
        "taken": world.take(features, torch.tensor([22, 0, 7, 7]), COUNT),
        "true": world.gather(logits[:, 0] > 0),
    }
    for anchors in (COUNT, 9):
        graph = NeighbourGraph(features, 3, anchors, world)
        found[f"spread, {anchors} anchors"] = world.gather(graph.spread(logits))
    seeds = select_seeds(logits, 3, world)
    found |= {"seeds": seeds.index, "labels of seeds": seeds.label}
    return found | {"corrected": world.gather(correct_prior_(logits, 0.5, world))}


@pytest.mark.parametrize("size", [2, 4])
def test_all_ranks_decide_as_one_process(size: int, tmp_path: Path) -> None:
    wanted = of_all(ALONE)
    for found in in_world(size, of_all, tmp_path / "world"):
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            torch.testing.assert_close(
                value, wanted[key], rtol=1e-6, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}"
            )


def batches_and_gradients(world: World) -> Any:
    rows = torch.arange(7)[world.part(5)], torch.arange(5, 7)[world.part(2)]
    weight, unused, sometimes = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    (weight.sum() * (world.rank + 1)).backward()
    if world.rank:
        (sometimes * 3).sum().backward()
    numbers = world.add_gradients([weight, unused, sometimes], [1.0, float(world.rank)])
    said = world.all_say(f"é{world.rank}")
    return world.gather_batch(torch.cat(rows), [5, 2]), weight.grad, unused.grad, sometimes.grad, numbers, said


def test_batches_and_gradients_come_together(tmp_path: Path) -> None:
    for batch, weight, unused, sometimes, numbers, said in in_world(2, batches_and_gradients, tmp_path / "world"):
        assert batch.tolist() == list(range(7))
        assert weight.tolist() == [3, 3] and unused is None and sometimes.tolist() == [3, 3]
        assert numbers == [2, 1] and said == ["é0", "é1"]
