"""Teaching the vision transformer what the ResNet knows: it takes over the text tower and learns the image features."""

import torch
import torch.nn.functional as F
from clip.model import CLIP
from torch import Tensor

from weights.pretrain.model import Student

TEXT_PARTS = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale")


def take_text_tower(student: Student, teacher: CLIP) -> None:
    """Copy the teacher's text tower (same vocabulary, same width) into the student."""
    text = {name: value for name, value in teacher.state_dict().items() if name.startswith(TEXT_PARTS)}
    student.clip.load_state_dict(text, strict=False)


class Lesson:
    """How far a student's image features are from a teacher's, for a part of the training that fades out.

    Args:
        teacher: A trained CLIP with the same embedding size.
        weight: Weight of the loss at the beginning.
        until: Step at which the weight has come down to nothing.
    """

    def __init__(self, teacher: CLIP, weight: float, until: int) -> None:
        self.teacher, self.weight, self.until = teacher.eval().requires_grad_(False), weight, until

    def __call__(self, images: Tensor, features: Tensor, step: int) -> Tensor:
        """The loss on images ``[B, 3, 64, 64]`` whose student features (unit length) are ``[B, D]``; a scalar."""
        if step >= self.until:
            return torch.zeros(())
        with torch.no_grad():
            target = F.normalize(self.teacher.encode_image(images).float(), dim=-1)
        share = 1 - step / self.until
        return self.weight * share * (1 - (features * target).sum(-1)).mean()
