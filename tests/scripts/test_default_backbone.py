from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import pytest
import torch

from coft.backbones.load import openai_file
from scripts import default_backbone as default


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    default.can_download.cache_clear()
    default._say.cache_clear()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("closed network")

    monkeypatch.setattr(default, "urlopen", refuse)


@pytest.fixture
def downloaded(offline: None) -> None:
    openai_file("ViT-B/16").parent.mkdir(parents=True)
    openai_file("ViT-B/16").touch()


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("digits", "embedded"), ("icons", "embedded"), ("cifar10", "ViT-B/16")],
)
def test_default_with_openai_model_on_disk(
    name: str, backbone: str, downloaded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default.default_backbone(name) == backbone
    assert capsys.readouterr().err == ""


def test_default_without_openai_model_is_photo_with_one_note(offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert [default.default_backbone(name) for name in ("cifar10", "intel", "cifar10")] == ["photo"] * 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and str(openai_file("ViT-B/16")) in line


def test_default_for_a_folder_depends_on_gpu(
    downloaded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default.default_backbone("folder") == "photo"
    (line,) = capsys.readouterr().err.splitlines()
    assert "--backbone ViT-B/16" in line
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default.default_backbone("folder") == "ViT-B/16"


@pytest.mark.parametrize("name", ["imagenet", "imagenet_sketch", "ImageNetA", "stl10"])
def test_photo_is_not_the_default_for_its_training_data(name: str, offline: None) -> None:
    assert default.default_backbone(name) == "ViT-B/16"


def test_reachable_server_means_downloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = []

    def answer(request: Request, timeout: float) -> AbstractContextManager[None]:
        methods.append(request.get_method())
        return nullcontext()

    monkeypatch.setattr(default, "urlopen", answer)
    assert default.can_download("ViT-B/16") and methods == ["HEAD"]
