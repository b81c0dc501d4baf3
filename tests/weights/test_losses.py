import math

import torch
import torch.nn.functional as F

from weights.pretrain.model import Features
from weights.pretrain.train import bag_of_words, contrast, same


def _features(count: int = 6, width: int = 8) -> Features:
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(count, width, generator=generator), dim=1) for _ in range(2))
    return Features(image, text, torch.zeros(count, 1))


def test_contrastive_loss_against_a_loop():
    features = _features()
    labels = torch.tensor([0, 1, 0, 2, 3, 1])
    positives = labels[:, None] == labels
    expected = 0.0
    for rows, columns in ((features.image, features.text), (features.text, features.image)):
        for i in range(6):
            logits = [10 * float(rows[i] @ columns[j]) for j in range(6)]
            total = math.log(sum(math.exp(value) for value in logits))
            positive_losses = [total - logits[j] for j in range(6) if labels[i] == labels[j]]
            expected += sum(positive_losses) / len(positive_losses) / 12
    assert math.isclose(float(contrast(features, torch.tensor(10.0), positives)), expected, rel_tol=1e-5)


def test_pairs_with_same_concept_or_text_are_positives():
    positives = same(torch.tensor([0, 0, 1]), torch.tensor([5, 6, 6]))
    assert positives.tolist() == [[True, True, False], [True, True, True], [False, True, True]]


def test_bag_of_words_ignores_rows_without_words():
    logits = torch.tensor([[2.0, 0.0, 1.0], [9.0, -9.0, 0.0]])
    words = torch.tensor([[True, False, True], [False, False, False]])
    logs = logits[0].log_softmax(0)
    torch.testing.assert_close(bag_of_words(logits, words), -(logs[0] + logs[2]) / 2)
