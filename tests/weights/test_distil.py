import pytest
import torch
import torch.nn.functional as F

from weights.pretrain.distil import Distillation, Hints, resnet_maps, take_text_tower, vit_maps
from weights.pretrain.model import build_clip


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return build_clip("embedded", 20).eval()


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(1)
    return build_clip("embedded-vit", 20).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_feature_maps_come_with_the_features_of_clip(teacher, student, images):
    target, second, third = resnet_maps(teacher.visual, images)
    torch.testing.assert_close(target, teacher.encode_image(images))
    assert (second.shape, third.shape) == ((3, 256, 8, 8), (3, 512, 4, 4))
    features, tokens = vit_maps(student.visual, images)
    torch.testing.assert_close(features, student.encode_image(images))
    assert [grid.shape for grid in tokens] == [(3, 128, 8, 8)] * 2


def test_hint_loss_is_zero_if_probe_matches_teacher():
    hints = Hints(4, (4, 4))
    for probe in hints.probes:
        torch.nn.init.dirac_(probe.weight)
        torch.nn.init.zeros_(probe.bias)
    grid = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grid -= grid.mean(1, keepdim=True)
    pooled = F.avg_pool2d(grid, 2)
    assert hints([grid, grid], (5 * grid, pooled)).item() == pytest.approx(0, abs=1e-5)
    assert hints([grid, grid], (-grid, -pooled)).item() == pytest.approx(2, abs=1e-5)


def test_distillation_trains_only_the_student(teacher, student, images):
    names = F.normalize(torch.randn(7, 256, generator=torch.Generator().manual_seed(2)), dim=1)
    distillation, hints = Distillation(teacher, names), Hints(128, (256, 512))
    losses = distillation(*vit_maps(student.visual, images), hints, images)
    assert set(losses) == {"features", "names", "hints"}
    assert all(loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert student.visual.conv1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_text_tower_is_copied(teacher, student):
    take_text_tower(student, teacher)
    tokens = torch.tensor([[1, 5, 7, 19], [1, 2, 19, 0]])
    with torch.no_grad():
        torch.testing.assert_close(student.encode_text(tokens), teacher.encode_text(tokens))
