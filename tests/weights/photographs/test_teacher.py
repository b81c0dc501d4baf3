import torch
import torch.nn.functional as F

from weights.photographs.teacher import Embedded, Regression, Teacher
from weights.photographs.wordnet import Synset


def test_the_regression_is_that_of_the_normal_equations() -> None:
    source = torch.Generator().manual_seed(0)
    inputs = F.normalize(torch.randn(7, 5, generator=source), dim=1)
    targets, weights = torch.randn(7, 3, generator=source), torch.rand(7, generator=source) + 0.1
    asked = F.normalize(torch.randn(4, 5, generator=source), dim=1)
    kernel = [[torch.exp(2 * (torch.dot(a, b) - 1)).item() for b in inputs] for a in inputs]
    system = torch.tensor(kernel, dtype=torch.float64)
    for i in range(7):
        system[i, i] += 0.3 / weights[i]
    solution = torch.linalg.inv(system) @ targets.double()
    expected = torch.stack(
        [sum(torch.exp(2 * (torch.dot(q, b) - 1)) * solution[i] for i, b in enumerate(inputs)) for q in asked]
    )
    predicted = Regression(inputs, targets, weights, gain=2.0, ridge=0.3)(asked)
    torch.testing.assert_close(predicted, F.normalize(expected, dim=1).float(), atol=1e-5, rtol=1e-5)


def _teacher() -> tuple[Teacher, torch.Tensor]:
    """Two kinds, each with two classes; a third noun of the first kind that is no class."""
    nouns = {
        1: Synset(1, ("thing",), "what there is", (), False),
        2: Synset(2, ("animal",), "it lives", (1,), False),
        3: Synset(3, ("tool",), "it is used", (1,), False),
        4: Synset(4, ("cat",), "it purrs", (2,), False),
        5: Synset(5, ("dog",), "it barks", (2,), False),
        6: Synset(6, ("hammer",), "it hits", (3,), False),
        7: Synset(7, ("saw",), "it cuts", (3,), False),
        8: Synset(8, ("fox",), "it hides", (2,), False),
    }
    source = torch.Generator().manual_seed(3)
    names = {synset.names[0]: F.normalize(torch.randn(8, generator=source), dim=0) for synset in nouns.values()}
    glosses = {offset: F.normalize(torch.randn(8, generator=source), dim=0) for offset in nouns}
    vectors = F.normalize(torch.tensor([[1.0, 0.2, 0], [1, -0.2, 0], [-1, 0, 0.2], [-1, 0, -0.2]]), dim=1)
    return Teacher(nouns, Embedded(names, glosses), [4, 5, 6, 7], vectors), vectors


def test_a_noun_that_is_no_class_lies_near_its_kind() -> None:
    teacher, vectors = _teacher()
    fox = teacher.of_meanings([("fox", 8)])[0]
    assert fox @ (vectors[0] + vectors[1]) > 0.5 > 0 > fox @ (vectors[2] + vectors[3])


def test_a_class_lies_nearest_to_its_own_vector() -> None:
    teacher, vectors = _teacher()
    directions = teacher.of_meanings([("cat", 4), ("dog", 5), ("hammer", 6), ("saw", 7)])
    assert (directions @ vectors.t()).argmax(dim=1).tolist() == [0, 1, 2, 3]
