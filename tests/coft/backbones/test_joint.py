"""Two CLIPs as one whose logits are their mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from coft.backbones.architecture import Architecture, common_architecture
from coft.backbones.backbone import ClassBackbone
from coft.backbones.joint import members_of
from coft.backbones.load import architecture, fingerprint, load_clip
from coft.backbones.members import member_names
from coft.backbones.prompts import ensemble_features
from coft.core.errors import UserError
from coft.engine.trainer_configs import trainer_config

TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")
NAMES = ("cat", "dog", "boat")


@pytest.fixture
def name(checkpoints: dict[str, Path]) -> str:
    return f"{checkpoints['resnet']}+{checkpoints['vit']}"


def test_logits_are_the_mean_of_both(name: str, checkpoints: dict[str, Path]) -> None:
    joint: Any = load_clip(name)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        joint.members[1].logit_scale += 0.5
        joint = type(joint)(list(joint.members))
        frozen = ClassBackbone(joint, NAMES, TEMPLATES[:1], {})
        text, features = frozen.zero_shot_text(), frozen.encode(images)
        torch.testing.assert_close(text.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
        cosines = [
            F.normalize(member.visual(images), dim=-1) @ ensemble_features(member, NAMES, TEMPLATES[:1]).t()
            for member in joint.members
        ]
        torch.testing.assert_close(features @ text.t(), (cosines[0] + cosines[1]) / 2, atol=1e-6, rtol=1e-5)
        scales = [float(member.logit_scale.exp()) for member in joint.members]
        assert frozen.scale == pytest.approx(sum(scales) / 2)


def test_each_peer_has_one_member(name: str) -> None:
    joint: Any = load_clip(name)
    frozen = ClassBackbone(joint, NAMES, TEMPLATES, {})
    assert [frozen.member(number).clip_model for number in range(3)] == [*joint.members, joint.members[0]]
    member = frozen.member(1)
    assert member.member(0) is member and members_of(member.visual) == [member.visual]
    torch.testing.assert_close(member.zero_shot_text(), ensemble_features(joint.members[1], NAMES, TEMPLATES))


def test_the_fingerprint_depends_on_both_checkpoints_and_their_order(checkpoints: dict[str, Path]) -> None:
    pairs = [f"{checkpoints[a]}+{checkpoints[b]}" for a, b in (("resnet", "vit"), ("vit", "resnet"), ("other", "vit"))]
    assert len({fingerprint(load_clip(pair)) for pair in pairs}) == 3


def test_a_name_has_one_or_two_checkpoints(tmp_path: Path) -> None:
    assert member_names("photo") == ["photo"] and member_names("photo + photo-lite1") == ["photo", "photo-lite1"]
    (tmp_path / "a+b.pt").touch()
    assert member_names(f"{tmp_path / 'a+b.pt'}") == [f"{tmp_path / 'a+b.pt'}"]
    for wrong in ("photo+photo", "photo+", "+", "a+b+c"):
        with pytest.raises(UserError, match="one checkpoint or two different ones; name two, such as a"):
            member_names(wrong)


def test_members_must_read_the_same_images(name: str) -> None:
    assert architecture(name).resolution == 32 and not architecture(name).is_vit
    first = Architecture(224, True, frozen_stages=3)
    common = common_architecture("a+b", [first, Architecture(224, True)])
    assert common.is_vit and common.frozen_stages == 0
    for other in (Architecture(32, True), Architecture(224, True, mean=(0.5, 0.5, 0.5))):
        with pytest.raises(UserError, match=r"backbone a\+b: they read different images \((resolution|mean) "):
            common_architecture("a+b", [first, other])


def test_settings_of_a_pair_are_those_of_its_family() -> None:
    assert trainer_config("CoFT", "photo+photo-lite1") == trainer_config("CoFT", "photo")
    assert trainer_config("CoFT", "ViT-B/16+ViT-B/32") == trainer_config("CoFT", "ViT-B/16")
