"""open_clip models: features, gradients, files and bad input."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from coft.backbones import load as loading
from coft.backbones import open_clip_names
from coft.backbones.architecture import is_vit
from coft.backbones.descriptions import sentence_features
from coft.backbones.load import architecture, fingerprint, load_clip
from coft.backbones.open_clip_text import HuggingFaceTokenizer
from coft.backbones.prompts import DualPrompts, template_features
from coft.backbones.tower import tower_of
from coft.backbones.visual_tuning import VISUAL_MODULES, light_module
from coft.core.errors import UserError
from coft.method.peer import freeze_statistics, trainable_copy
from tests.coft.backbones.open_clip_errors import NAMES, TEMPLATE, Pair
from tests.coft.backbones.references import Program
from tests.open_clip_models import ALL_CONFIGS, CONFIGS, write_model, write_tokenizer

EXACT = 1e-10
PADDED = {"siglip", "coca", "timm-resnet-bidirectional"}  # prompts of others are cut at the end of text
VITS = {family for family in ALL_CONFIGS if "vit" in family or family in ("siglip", "coca", "timm-eva")}


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(write_model(tmp_path_factory.mktemp("models") / request.param, ALL_CONFIGS[request.param]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that the test may change."""
    return write_model(tmp_path / "model", CONFIGS["vit"])


all_families = pytest.mark.parametrize("pair", ALL_CONFIGS, indirect=True, scope="module")


@all_families
class TestFamilies:
    def test_features_equal_those_of_open_clip(self, pair: Pair) -> None:
        assert pair.image_error() < EXACT
        assert pair.template_error() < EXACT

    @pytest.mark.parametrize("of_classes", [False, True])
    @pytest.mark.parametrize("position", ["end", "middle", "front"])
    def test_contexts_have_the_features_and_gradients_of_open_clip(
        self, pair: Pair, position: str, of_classes: bool
    ) -> None:
        assert pair.context_error(position, of_classes) < EXACT

    def test_the_fast_path_is_used_where_possible(self, pair: Pair, request: pytest.FixtureRequest) -> None:
        family, tower = request.node.callspec.params["pair"], tower_of(pair.model)
        assert tower.reads_at_end == (family not in PADDED)
        assert tower.shares_prefix == (tower.reads_at_end and "custom-blocks" not in family)

    def test_dual_prompts_start_at_the_template(self, pair: Pair) -> None:
        for template in (TEMPLATE, "a photo of the {}, a type of pet."):
            positive, _ = DualPrompts(pair.model, NAMES, template)()
            expected = template_features(pair.model, NAMES, template)
            torch.testing.assert_close(positive, expected, atol=EXACT, rtol=0)

    def test_descriptions_precede_the_template(self, pair: Pair) -> None:
        features = sentence_features(pair.model, ["cat", "dog"], "a {}.", [["has four legs", "a pet"], ["a dog"]])
        expected = template_features(pair.model, ["has four legs a cat.", "a pet a cat.", "a dog a dog."], "{}")
        torch.testing.assert_close(torch.cat(features), expected, atol=EXACT, rtol=0)

    @pytest.mark.parametrize("name", VISUAL_MODULES)
    def test_light_modules_start_as_the_encoder_or_insert_prompts_correctly(
        self, pair: Pair, name: str, request: pytest.FixtureRequest
    ) -> None:
        error, family = pair.light_error(name), request.node.callspec.params["pair"]
        assert is_vit(pair.model.visual) == (family in VITS)
        assert error is None if name == "vpt-deep" and family not in VITS else error is not None and error < EXACT

    def test_features_in_training_mode_equal_those_in_evaluation_mode(self, pair: Pair) -> None:
        module = trainable_copy(light_module(pair.model.visual, "auto", torch.Generator())).double()
        expected = module.eval()(pair.images())
        freeze_statistics(module.train())
        torch.testing.assert_close(module(pair.images()), expected, atol=1e-9, rtol=0)

    def test_bf16_features_are_close(self, pair: Pair) -> None:
        model = copy.deepcopy(pair.model).float()
        prompts, visual = DualPrompts(model, NAMES, TEMPLATE), light_module(model.visual, "auto", torch.Generator())
        images = pair.images().float()
        exact = torch.cat([*prompts(), F.normalize(visual(images), dim=-1)])
        with torch.autocast("cpu", torch.bfloat16):
            bf16 = torch.cat([*prompts(), F.normalize(visual(images).float(), dim=-1)])
        assert 0 < (bf16 - exact).abs().max() < 0.1 and bf16.dtype is torch.float32


def trained_names(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        ("vit", "lora", "transformer.resblocks.1.attn.parametrizations.in_proj_weight.0.up"),
        ("timm-vit", "lora", "trunk.blocks.5.attn.qkv.parametrizations.weight.0.up"),
        ("timm-eva", "lora", "trunk.blocks.2.attn.v_proj.parametrizations.weight.0.up"),
        ("timm-cnn", "lora", "trunk.conv_stem.parametrizations.weight.0.up"),
        ("timm-cnn", "norms-and-biases", "trunk.bn1.weight"),
        ("convnext-no-projection", "norms-and-biases", "trunk.stages.0.blocks.0.norm.weight"),
        ("convnext-no-projection", "norms-and-biases", "trunk.stem.1.weight"),
    ],
)
def test_the_weights_that_light_modules_train(tmp_path: Path, family: str, name: str, expected: str) -> None:
    model: Any = load_clip(f"open_clip:{write_model(tmp_path / family, ALL_CONFIGS[family])}")
    module = light_module(model.visual, name, torch.Generator().manual_seed(0))
    assert expected in trained_names(module)
    assert not trained_names(model)
    module(torch.randn(2, 3, *[ALL_CONFIGS[family]["vision_cfg"]["image_size"]] * 2)).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_dropout_is_switched_off_in_training(tmp_path: Path) -> None:
    dropping = {"vit": {"patch_dropout": 0.5}, "timm-cnn": {"timm_drop": 0.5, "timm_drop_path": 0.5}}
    for family, extra in dropping.items():
        config = json.loads(json.dumps(CONFIGS[family]))
        config["vision_cfg"] |= extra
        visual: Any = load_clip(f"open_clip:{write_model(tmp_path / family, config)}").visual
        images = torch.randn(2, 3, *[config["vision_cfg"]["image_size"]] * 2)
        expected = visual(images)
        freeze_statistics(visual.train())
        torch.testing.assert_close(visual(images), expected)


# -------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_weights_of_8_and_16_bits_are_read_exactly(folder: Path, dtype: torch.dtype) -> None:
    path = folder / "open_clip_model.safetensors"
    small = {key: value.to(dtype) for key, value in load_file(path).items()}
    save_file(small, path)
    state = load_clip(f"open_clip:{folder}").state_dict()
    assert all(state[key].dtype is torch.float32 and torch.equal(state[key], small[key].float()) for key in small)


def as_bin(folder: Path, **extra: Any) -> Path:
    """The weights in the format of open_clip's training."""
    path = folder / "open_clip_model.safetensors"
    state = {f"module.{key}": value for key, value in load_file(path).items()}
    path.unlink()
    torch.save({"epoch": 3, "name": "run", "state_dict": state, **extra}, folder / "open_clip_pytorch_model.bin")
    return folder / "open_clip_pytorch_model.bin"


def test_other_file_formats_have_the_same_weights(folder: Path, tmp_path: Path) -> None:
    expected = fingerprint(load_clip(f"open_clip:{folder}"))
    assert fingerprint(load_clip(f"open_clip:{folder / 'open_clip_model.safetensors'}")) == expected
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "open_clip_model.safetensors", tmp_path / "one" / "mine.safetensors")
    shutil.copy(folder / "open_clip_config.json", tmp_path / "one" / "mine.json")
    assert fingerprint(load_clip(f"open_clip:{tmp_path / 'one' / 'mine.safetensors'}")) == expected
    as_bin(folder)
    assert fingerprint(load_clip(f"open_clip:{folder}")) == expected


def test_a_pickle_is_not_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    as_bin(folder, payload=Program("owned"))
    with pytest.raises(UserError, match="is no file of tensors alone"):
        load_clip(f"open_clip:{folder}")
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("start", "end", "strip"), [("", "</s>", False), ("<s>", "</s>", False), ("<s>", "</s>", True)]
)
def test_tokens_equal_those_of_open_clip(tmp_path: Path, start: str, end: str, strip: bool) -> None:
    from open_clip.tokenizer import HFTokenizer

    write_tokenizer(tmp_path, starts=bool(start))
    reference = HFTokenizer(str(tmp_path), 40, clean="canonicalize", strip_sep_token=strip)
    reference.tokenizer.sep_token = end
    tokenizer = HuggingFaceTokenizer(reference)
    for text in ("a photo of a cat.", "Two  dogs, one cat", "pets"):
        row = [*tokenizer.start, *tokenizer.encode(text), *tokenizer.end]
        assert [*row, *[tokenizer.pad] * (40 - len(row))] == reference(text)[0].tolist()
    name, tail = tokenizer.continued("golden retriever", ", a type of pet.")
    whole = tokenizer.encode("a golden retriever, a type of pet.")
    assert name and tail and [*tokenizer.encode("a"), *name, *tail] == whole
    assert len(tokenizer.start) == bool(start) and tokenizer.end == ((0,) if strip else (2,))


def test_an_alias_is_a_folder_of_the_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip_names.ALIASES, "photo", folder)
    assert fingerprint(load_clip("photo")) == fingerprint(load_clip(f"open_clip:{folder}"))
    alias, folder_architecture = architecture("photo"), architecture(f"open_clip:{folder}")
    assert alias == replace(folder_architecture, frozen_stages=5) and "photo" in loading.backbone_names()
    monkeypatch.setitem(open_clip_names.ALIASES, "photo", folder / "gone")
    with pytest.raises(UserError, match=r"backbone photo: .*gone is not there; restore it from the repository"):
        load_clip("photo")


# -------------------------------------------------------------------- before weights are read


def test_architectures_of_registry_names_need_no_download() -> None:
    properties = architecture("open_clip:ViT-B-16/laion2b_s34b_b88k")
    assert (properties.resolution, properties.is_vit, properties.any_size) == (224, True, False)
    properties = architecture("open_clip:ViT-B-16-SigLIP-384/webli")
    assert (properties.resolution, properties.is_vit, properties.mean) == (384, True, (0.5, 0.5, 0.5))
    properties = architecture("open_clip:convnext_base_w_320/laion_aesthetic_s13b_b82k")
    assert (properties.resolution, properties.is_vit, properties.any_size) == (320, False, True)
    properties = architecture("open_clip:RN50/openai")
    assert (properties.resolution, properties.is_vit, properties.any_size) == (224, False, False)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    cnn = architecture(f"open_clip:{write_model(tmp_path / 'cnn', CONFIGS['timm-cnn'])}")
    assert not any(cnn.reads(size) for size in [(100, 100), (32, 32), (96, 64)])
    vit = architecture(f"open_clip:{write_model(tmp_path / 'vit', CONFIGS['timm-vit'])}")
    assert vit.reads((32, 32)) and not vit.reads((64, 64))


def test_open_clip_is_imported_only_when_needed() -> None:
    code = "import train, scripts.launch, sys; print(sorted({'open_clip', 'timm', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -------------------------------------------------------------------- mistakes


def change_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "open_clip_config.json"
        content = json.loads(path.read_text())
        change(content["model_cfg"])
        path.write_text(json.dumps(content))

    return damage


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "open_clip_config.json").unlink(), r"there is no .*open_clip_config\.json"),
    "no weights": (lambda f: (f / "open_clip_model.safetensors").unlink(), "no weights in .*open_clip_model"),
    "broken weights": (
        lambda f: (f / "open_clip_model.safetensors").write_bytes(b"x" * 99),
        r"model\.safetensors is no file of tensors alone",
    ),
    "other shapes": (
        change_config(lambda c: c["text_cfg"].update(layers=3)),
        r"12 tensors of open_clip_model\.safetensors do not fit its model_cfg, the first is transformer\.resblocks\.2",
    ),
    "text encoder of Hugging Face": (
        change_config(lambda c: c["text_cfg"].update(hf_model_name="roberta-base")),
        "its text encoder is roberta-base of Hugging Face, which is not supported; use a model",
    ),
    "tokenizer not in the folder": (
        change_config(lambda c: c["text_cfg"].update(hf_tokenizer_name="t5")),
        r"its tokenizer cannot be loaded .*; put its files \(tokenizer\.json \.\.\.\) into ",
    ),
    "a tokenizer that would run code": (
        change_config(lambda c: c["text_cfg"].update(hf_tokenizer_name="t", tokenizer_kwargs={"trust_remote_code": 1})),
        "its tokenizer_kwargs 'trust_remote_code' is not supported",
    ),
    "a timm model from elsewhere": (
        change_config(lambda c: c["vision_cfg"].update(timm_model_name="hf-hub:some/model")),
        "timm_model_name is 'hf-hub:some/model'; expected the name of an architecture",
    ),
    "pooling without a place": (
        change_config(lambda c: c["text_cfg"].update(pool_type="none")),
        "pools by 'none', which gives no feature of a text",
    ),
    "images that are no squares": (
        change_config(lambda c: c["vision_cfg"].update(image_size=[32, 64])),
        r"reads images of \[32, 64\] pixels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_bad_folder_is_refused(folder: Path, mistake: str) -> None:
    damage, message = MISTAKES[mistake]
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        architecture(f"open_clip:{folder}")
        load_clip(f"open_clip:{folder}")
    assert "\n" not in str(error.value) and f"backbone open_clip:{folder}: " in error.value.line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B16/laion2b_s34b_b88k", r"open_clip has no model 'ViT-B16'.*; did you mean 'ViT-B-16'\?"),
        ("ViT-B-16", r"no weights are named; write open_clip:ViT-B-16/openai; available are openai, laion400m_e31"),
        ("ViT-e-14/any", "open_clip has no weights for ViT-e-14; give a folder"),
        ("./nowhere", "nowhere is not there; give a folder"),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "its text encoder is roberta-base of Hugging Face"),
    ],
)
def test_a_bad_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        architecture(f"open_clip:{name}")
    assert "\n" not in str(error.value)


def test_a_failed_download_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    def offline(*_: object, **__: object) -> None:
        raise FileNotFoundError("Failed to download file\nLast error: no route")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(Failed.*\); go online, or .*--backbone photo"):
        load_clip("open_clip:RN50/openai")


def test_a_missing_package_for_the_tokenizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "model", CONFIGS["siglip"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs the package transformers: pip install transformers"):
        load_clip(f"open_clip:{path}")
