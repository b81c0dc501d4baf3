from pathlib import Path
from typing import Any

import pytest
import torch

from coft.backbones.low_rank import LowRank
from coft.backbones.open_clip_models import load_open_clip
from coft.backbones.stages import freeze_stages, stage_names, stays_frozen
from coft.backbones.visual_tuning import light_module, share_frozen
from coft.core.errors import UserError
from coft.method.peer import trainable_copy
from tests.open_clip_models import CONFIGS, write_model


@pytest.fixture
def visual(tmp_path: Path) -> Any:
    return load_open_clip(f"open_clip:{write_model(tmp_path / 'cnn', CONFIGS['timm-cnn'])}").visual


def _changed(module: torch.nn.Module, train: bool = True) -> set[str]:
    """Names of the parameters that a step of gradient descent changes."""
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    trained = [value for value in module.parameters() if value.requires_grad]
    module(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def test_each_parameter_of_the_trunk_is_in_one_stage(visual: Any) -> None:
    names = [name for stage in stage_names(visual) for name in stage]
    assert sorted(names) == sorted(name for name, _ in visual.named_parameters() if name.startswith("trunk."))
    assert any("conv_stem" in name for name in stage_names(visual)[0])


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_only_frozen_stages_do_not_train(visual: Any, stages: int) -> None:
    frozen = {name for stage in stage_names(visual)[:stages] for name in stage}
    freeze_stages(visual, stages)
    everything = {name for name, _ in visual.named_parameters()}
    assert stays_frozen(visual) == frozen
    assert _changed(trainable_copy(visual)) == everything - frozen


@pytest.mark.parametrize("module", ["norms-and-biases", "lora"])
def test_light_modules_do_not_train_frozen_stages(visual: Any, module: str) -> None:
    freeze_stages(visual, 3)
    tuned = light_module(visual, module, torch.Generator().manual_seed(0))
    trained = {name for name, value in tuned.named_parameters() if value.requires_grad}
    owners = {name.split(".parametrizations")[0] for name in trained}
    assert trained and not any(owner in name for owner in owners for name in stays_frozen(visual))
    updated = [name for name, child in tuned.named_modules() if isinstance(child, LowRank)]
    assert bool(updated) == (module == "lora")


def test_a_module_that_names_all_parameters_does_not_train_frozen_stages(visual: Any) -> None:
    freeze_stages(visual, 3)
    everything = {name for name, _ in visual.named_parameters()}
    tuned = share_frozen(visual, everything)
    trained = {name for name, value in tuned.named_parameters() if value.requires_grad}
    assert trained == everything - stays_frozen(visual)


def test_a_copy_of_a_copy_keeps_frozen_stages(visual: Any) -> None:
    freeze_stages(visual, 2)
    light = light_module(visual, "norms-and-biases", torch.Generator().manual_seed(0))
    assert _changed(trainable_copy(light)).isdisjoint(stays_frozen(visual))


def test_too_many_stages_and_encoders_without_stages_are_refused(visual: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"FROZEN_STAGES is 99, but the image encoder has \d stages"):
        freeze_stages(visual, 99)
    vit = load_open_clip(f"open_clip:{write_model(tmp_path / 'vit', CONFIGS['vit'])}").visual
    freeze_stages(vit, 0)
    with pytest.raises(UserError, match=r"FROZEN_STAGES is 1, but the image encoder is no CNN of timm's"):
        freeze_stages(vit, 1)
