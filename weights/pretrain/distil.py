"""Distillation of the ResNet into the vision transformer: features, probabilities of names, and intermediate maps.

A transformer of this size learns slowly from a few hundred thousand pictures. The teacher's maps give it a signal at
each position (hints, as in FitNets, Romero et al. 2015).
"""

import torch
import torch.nn.functional as F
from clip.model import CLIP, ModifiedResNet, VisionTransformer
from torch import Tensor, nn

TEXT_PARTS = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale")
DEPTHS = (2, 4)  # blocks of the student whose outputs match layers 2 and 3 of the teacher
FEATURE_WEIGHT = 4.0


def take_text_tower(student: CLIP, teacher: CLIP) -> None:
    """Copy the text tower of the teacher, which has the same vocabulary and width, into the student."""
    text = {name: value for name, value in teacher.state_dict().items() if name.startswith(TEXT_PARTS)}
    student.load_state_dict(text, strict=False)


def resnet_maps(visual: ModifiedResNet, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features ``[B, D]`` of a ModifiedResNet, and its layers 2 ``[B, C, H, W]`` and 3 ``[B, 2C, H/2, W/2]``."""
    x = visual.relu1(visual.bn1(visual.conv1(images)))
    x = visual.relu2(visual.bn2(visual.conv2(x)))
    x = visual.avgpool(visual.relu3(visual.bn3(visual.conv3(x))))
    second = visual.layer2(visual.layer1(x))
    third = visual.layer3(second)
    return visual.attnpool(visual.layer4(third)), second, third


def vit_maps(visual: VisionTransformer, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return features ``[B, D]`` of a VisionTransformer, and patch tokens ``[B, C, H, W]`` after each of ``DEPTHS``."""
    patches = visual.conv1(images)
    side = patches.shape[2]
    x = patches.flatten(2).permute(2, 0, 1)  # [tokens, B, C]
    first = visual.class_embedding.to(x.dtype).expand(1, x.shape[1], -1)
    x = visual.ln_pre(torch.cat([first, x]) + visual.positional_embedding[:, None].to(x.dtype))
    maps = []
    for depth, block in enumerate(visual.transformer.resblocks, 1):
        x = x + _attend(block.attn, block.ln_1(x))
        x = x + block.mlp(block.ln_2(x))
        if depth in DEPTHS:
            maps.append(x[1:].permute(1, 2, 0).unflatten(2, (side, side)))
    return visual.ln_post(x[0]) @ visual.proj, maps


def _attend(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Compute unfused self-attention, ``[tokens, B, C]``: in bf16 on CPUs four times as fast as torch's fused one."""
    heads = attention.num_heads
    mixed = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).unflatten(-1, (3, heads, -1))
    query, key, value = mixed.permute(2, 1, 3, 0, 4)  # each [B, heads, tokens, C / heads]
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return attention.out_proj((weights @ value).permute(2, 0, 1, 3).flatten(2))


class Hints(nn.Module):
    """Projections from the student's tokens to the teacher's channels.

    Args:
        width: Number of channels of the student.
        channels: Numbers of channels of the teacher's layers 2 and 3.
    """

    def __init__(self, width: int, channels: tuple[int, int]) -> None:
        super().__init__()
        self.probes = nn.ModuleList(nn.Conv2d(width, count, 1) for count in channels)

    def forward(self, tokens: list[Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the hint loss: 1 - cosine to the teacher's maps, averaged over positions and both depths.

        Args:
            tokens: Maps of the student, as ``vit_maps`` returns them.
            targets: Maps of the teacher's layers 2 and 3.
        """
        losses = []
        for probe, grid, target in zip(self.probes, tokens, targets, strict=True):
            predicted = F.avg_pool2d(probe(grid), grid.shape[2] // target.shape[2])
            centred = target - target.mean(1, keepdim=True)
            losses.append(1 - F.cosine_similarity(predicted.float(), centred.float(), dim=1).mean())
        return torch.stack(losses).mean()


class Distillation:
    """Losses of a student that learns from a teacher only.

    Args:
        teacher: Trained CLIP with a ModifiedResNet.
        names: Unit-length text features of many names by the teacher, ``[K, D]``.
    """

    def __init__(self, teacher: CLIP, names: Tensor) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.teacher.visual.to(memory_format=torch.channels_last)
        self.names = names * teacher.logit_scale.exp()

    def __call__(self, learnt: Tensor, tokens: list[Tensor], hints: Hints, images: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            learnt: Image features of the student, ``[B, D]``.
            tokens: Maps of the student, as ``vit_maps`` returns them.
            hints: Projections from the student's maps to the teacher's.
            images: Images, ``[B, 3, 64, 64]``.

        Returns:
            ``features``: 1 - cosine to the teacher's features, times ``FEATURE_WEIGHT``; ``names``: KL divergence of
            the probabilities of the names; ``hints``: hint loss.
        """
        with torch.no_grad():
            target, *maps = resnet_maps(self.teacher.visual, images)
            target = F.normalize(target.float(), dim=-1)
        features = F.normalize(learnt.float(), dim=-1)
        student_log_probs = F.log_softmax(features @ self.names.t(), -1)
        teacher_log_probs = F.log_softmax(target @ self.names.t(), -1)
        return {
            "features": FEATURE_WEIGHT * (1 - (features * target).sum(-1)).mean(),
            "names": F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True),
            "hints": hints(tokens, (maps[0], maps[1])),
        }
