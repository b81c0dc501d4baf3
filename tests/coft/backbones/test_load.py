from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from clip import clip

from coft.backbones import load as loading
from coft.backbones.load import EMBEDDED, architecture, backbone_names, fingerprint, load_clip
from coft.core.errors import UserError
from tests.coft.backbones.references import Program
from tests.conftest import make_clip


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_local_state_dict_is_loaded_frozen_and_with_the_same_weights(checkpoints: dict[str, Path], name: str) -> None:
    model = load_clip(str(checkpoints[name]))
    original = make_clip(name == "vit").state_dict()
    assert all(torch.equal(value, original[key]) for key, value in model.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    properties = architecture(str(checkpoints[name]))
    assert properties.resolution == 32 and properties.is_vit == (name == "vit")


def test_features_equal_those_of_openai_s_package(checkpoints: dict[str, Path]) -> None:
    stock, _ = clip.load(str(checkpoints["vit"]), device="cpu")
    image = torch.randn(2, 3, 32, 32)
    features = load_clip(str(checkpoints["vit"])).encode_image(image)
    torch.testing.assert_close(features, stock.encode_image(image), atol=1e-2, rtol=1e-2)  # stock rounds to fp16


def test_loaded_models_do_not_share_weights(checkpoints: dict[str, Path]) -> None:
    first, second = (load_clip(str(checkpoints["resnet"])) for _ in range(2))
    first.text_projection.data.zero_()
    assert second.text_projection.abs().sum() > 0


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_the_fingerprint_depends_on_every_tensor(checkpoints: dict[str, Path], kind: str) -> None:
    model = load_clip(str(checkpoints[kind]))
    before = fingerprint(model)
    for name, tensor in list(model.state_dict().items())[::3]:
        kept = tensor.clone()
        tensor.view(-1)[-1:] += 1
        assert fingerprint(model) != before, name
        tensor.copy_(kept)
    assert fingerprint(model) == before


def archive(path: Path) -> Path:
    """A TorchScript archive of a CLIP, in OpenAI's format."""

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            model = make_clip(vit=True)
            for name, child in model.named_children():
                self.add_module(name, child)
            self.positional_embedding = model.positional_embedding
            self.text_projection = model.text_projection
            self.logit_scale = model.logit_scale
            for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.logit_scale

    torch.jit.trace(Holder(), torch.ones(1)).save(str(path))
    return path


def test_an_archive_is_read_only_if_it_is_openai_s_or_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "archive.pt")
    with pytest.raises(
        UserError, match=r"archive\.pt: a TorchScript archive can execute code.*MODEL\.BACKBONE\.TRUST_JIT"
    ):
        load_clip(str(path))
    expected = make_clip(vit=True).state_dict()
    model = load_clip(str(path), trust_jit=True)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(clip._MODELS, "RN50", f"https://openai.invalid/{digest}/RN50.pt")
    assert fingerprint(load_clip(str(path))) == fingerprint(model)


def test_architectures_of_openai_s_names_need_no_file() -> None:
    assert architecture("ViT-L/14@336px") == loading.Architecture(336, True)
    assert architecture("RN50x4") == loading.Architecture(288, False)
    assert architecture("ViT-B/16") == loading.Architecture(224, True)


def test_a_failed_download_names_the_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError) as error:
        load_clip("ViT-B/16")
    line = error.value.line
    assert str(tmp_path / ".cache/clip/ViT-B-16.pt") in line and "--backbone photo" in line and "\n" not in line


def test_a_file_in_the_download_folder_must_be_openai_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/clip").mkdir(parents=True)
    archive(tmp_path / ".cache/clip/ViT-B-16.pt")
    with pytest.raises(UserError, match="does not match OpenAI's file"):
        load_clip("ViT-B/16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "not a checkpoint of tensors alone"),
        ({"a": torch.ones(1)}, "holds no CLIP state dict"),
        ({"text_projection": torch.ones(1, 1)}, "has no 'token_embedding.weight'"),
    ],
)
def test_files_that_are_no_clip_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "wrong.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=rf"wrong\.pt: .*{message}"):
        load_clip(str(path))


PATCHES = "visual.attnpool.positional_embedding"


@pytest.mark.parametrize(
    ("backbone", "change", "message"),
    [
        ("resnet", lambda state: {PATCHES: state[PATCHES].new_zeros(6, 64)}, "make up no square"),
        ("resnet", lambda state: {"visual.bn1.bias": state["visual.bn1.bias"].int()}, "do not make up a CLIP"),
        ("embedded", lambda state: {"token_ids": state["token_ids"][:9]}, "differ in length"),
        ("embedded", lambda state: {"token_ids": state["token_ids"].flip(0)}, "must be sorted"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(
    backbone: str, change: Callable[..., Any], message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    state = torch.load(EMBEDDED["embedded"] if backbone == "embedded" else checkpoints[backbone], weights_only=True)
    torch.save(state | change(state), tmp_path / "file.pt")
    with pytest.raises(UserError, match=rf"file\.pt: .*{message}"):
        load_clip(str(tmp_path / "file.pt"))


def test_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"text_projection": Program("owned")}, "evil.pt")
    with pytest.raises(UserError, match="not a checkpoint of tensors alone"):
        load_clip("evil.pt")
    assert not Path("owned").exists()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'ViT-B16'; did you mean 'ViT-B/16'\?"):
        load_clip("ViT-B16")
    with pytest.raises(UserError, match="no such file"):
        load_clip("gone.pt")
    assert "embedded" in backbone_names()
