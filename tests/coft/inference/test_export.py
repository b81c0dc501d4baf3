"""Exports predict the same as the run's model, and are written as a whole or not at all."""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from coft.backbones.load import fingerprint, load_clip
from coft.backbones.visual_tuning import VISUAL_MODULES
from coft.core.errors import UserError
from coft.images.reading import FULL_SIZE
from coft.images.views import Inputs
from coft.inference.export.command import main
from coft.inference.export.export_options import ExportOptions
from coft.inference.export.merging import Exported, average, merge_low_rank, parts_of
from coft.inference.model import AdaptedModel, BackboneRef
from coft.inference.predict import main as predict
from coft.inference.store import load, save
from coft.labelling.predictor import FinalClassifier, Predictor
from tests.coft.inference.models import CLASSES, make_model


def noise(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["resnet", "vit"])
def run(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    save(make_model(checkpoints[request.param]), tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.fixture
def resnet_run(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A run for tests that do not depend on the encoder."""
    save(make_model(checkpoints["resnet"]), tmp_path / "run" / "model")
    return tmp_path / "run"


def head_of(folder: Path) -> tuple[Tensor, float, dict[str, str]]:
    with safe_open(folder / "head.safetensors", "pt") as head:
        metadata = head.metadata()
        return head.get_tensor("weight"), float(metadata["logit_scale"]), metadata


def test_open_clip_loads_an_export(run: Path, pictures: Path, tmp_path: Path) -> None:
    import open_clip

    out = tmp_path / "new" / "clip"
    assert main([str(run), "--to", "open_clip", str(out), "--peers", "b", "--images", str(pictures)]) == 0
    loaded, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    model, (weight, scale, metadata) = load(run), head_of(out)
    assert json.loads(metadata["classes"]) == list(CLASSES)
    with torch.no_grad():
        features = F.normalize(loaded.eval().encode_image(noise(4)), dim=-1)
        expected = Exported(parts_of(model, "b"))(noise(4))
        torch.testing.assert_close((scale * features @ weight.t()).softmax(dim=1), expected, atol=1e-5, rtol=1e-4)
        other = open_clip.tokenize(["a photo of a heron"])
        torch.testing.assert_close(loaded.encode_text(other), model.clip_model.encode_text(other), atol=1e-5, rtol=1e-4)
    assert preprocess.transforms[0].size == 32  # type: ignore[union-attr]
    assert "same class as the run's model for " in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "image", ["turned, transparent", "16 bits", "32 bits", "floats", "large", "large, read in full"]
)
@pytest.mark.parametrize("kind", ["open_clip", "onnx"])
def test_the_code_of_the_card_predicts_as_the_model(
    kind: str, image: str, resnet_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    if image == "turned, transparent":
        Image.fromarray(pixels, "RGBA").save(tmp_path / "cat.png", exif=exif)
        (tmp_path / "cat.png").rename(tmp_path / "cat.jpg")
    elif image == "16 bits":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(tmp_path / "cat.png")
        (tmp_path / "cat.png").rename(tmp_path / "cat.jpg")
    elif image in ("32 bits", "floats"):
        grey = pixels[..., 0].astype(np.float32) / 255 if image == "floats" else pixels[..., 0].astype(np.int32) * 257
        Image.fromarray(grey).save(tmp_path / "cat.tif")
        (tmp_path / "cat.tif").rename(tmp_path / "cat.jpg")
    else:
        Image.fromarray(pixels[..., :3]).resize((1200, 800)).save(tmp_path / "cat.jpg")
    out, run = tmp_path / kind, resnet_run
    if image == "large, read in full":
        run = tmp_path / "run"
        save(replace(load(resnet_run, precision="fp32"), decoding=FULL_SIZE), run / "model")
    assert main([str(run), "--to", kind, str(out), "--peers", "a", "--images", str(pictures)]) == 0
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(compile(code, "README.md", "exec"), names)
        model = load(run, precision="fp32")
        expected = Exported(parts_of(model, "a"))(model.batch([model.view(tmp_path / "cat.jpg")]))
    assert np.asarray(names["probabilities"]) == pytest.approx(expected.numpy(), abs=2e-3)
    Image.new("RGB", (101, 1)).save(tmp_path / "strip.png")
    with pytest.raises(ValueError, match="a side is more than 100 times the other"):
        names["read"]("strip.png")


def test_exports_of_the_photo_backbone_compute_the_same(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    clip_model: Any = load_clip("photo")
    encoder, vectors = copy.deepcopy(clip_model.visual), F.normalize(torch.randn(3, 256), dim=-1)
    encoder.head.proj.weight.mul_(1.1)
    model = make_model(
        checkpoints["resnet"],
        inputs=Inputs(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        backbone=BackboneRef("photo", fingerprint(clip_model)),
        clip_model=clip_model,
        predictor=Predictor({"model_1": FinalClassifier(encoder.eval(), vectors, None, 30.0)}),
    )
    save(model, tmp_path / "run" / "model")
    assert main([str(tmp_path / "run"), "--to", "open_clip", str(tmp_path / "out")]) == 0
    exported: Any = load_clip(f"open_clip:{tmp_path / 'out'}")
    with torch.no_grad():
        torch.testing.assert_close(exported.visual(noise(2, 64)), encoder(noise(2, 64)), atol=1e-5, rtol=1e-4)
    assert "compared with the run's model: there were no images" in (tmp_path / "out" / "README.md").read_text()
    # Its padding and its batch norms are known to onnxruntime, whose results are compared with PyTorch's here.
    assert main([str(tmp_path / "run"), "--to", "onnx", str(tmp_path / "onnx")]) == 0


@pytest.mark.parametrize("peers", ["both", "average", "a"])
def test_onnx_gives_the_same_probabilities(run: Path, tmp_path: Path, peers: str) -> None:
    import onnxruntime

    assert main([str(run), "--to", "onnx", str(tmp_path / "out"), "--peers", peers]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CLASSES)
    steps = json.loads(metadata["preprocessing"])
    assert steps["mean"] == [0.5] * 3 and steps["std"] == [0.25] * 3 and steps["center_crop"] == [32, 32]
    model = load(run)
    for count in (1, 5):
        images = noise(count)
        (probabilities,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = Exported(parts_of(model, peers), model.predictor.temperature)(images)
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-4)
        if peers == "both":
            np.testing.assert_allclose(probabilities, model.predict(images).probabilities.numpy(), atol=1e-4)


def test_int8_reports_its_agreement(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.DEBUG)  # what a program has set stays
    flags = ["--to", "onnx", "--int8", "--peers", "a"]
    assert main([str(run), *flags, str(tmp_path / "one"), "--images", str(pictures)]) == 0
    messages = capsys.readouterr().err
    assert "static quantisation" in (tmp_path / "one" / "README.md").read_text()
    assert "% of 5 images" in messages and (tmp_path / "one" / "model_int8.onnx").is_file()
    picture = str(next(path for path in sorted(pictures.iterdir()) if path.suffix == ".png"))
    assert main([str(run), *flags, str(tmp_path / "three"), "--images", picture]) == 0
    assert "% of 1 image" in capsys.readouterr().err
    assert main([str(run), *flags, str(tmp_path / "two")]) == 0
    assert "dynamic quantisation" in (tmp_path / "two" / "README.md").read_text()
    assert logging.root.manager.disable == logging.DEBUG


def test_an_export_with_other_predictions_is_not_written(
    resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "coft.inference.export.onnx_file.runner", lambda path: lambda images: torch.rand(len(images), 3)
    )
    assert main([str(resnet_run), "--to", "onnx", str(tmp_path / "out")]) == 2
    assert "onnxruntime differs from PyTorch" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_head_of_a_frozen_encoder_has_the_vectors_only(
    checkpoints: dict[str, Path], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_model: Any = load_clip(str(checkpoints["vit"]))
    vectors = F.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    model = make_model(
        checkpoints["vit"],
        clip_model=clip_model,
        predictor=Predictor({"zero_shot": FinalClassifier(clip_model.visual, vectors, None, 20.0)}),
    )
    save(model, tmp_path / "run" / "model")
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is accepted
    assert main([str(tmp_path / "run"), "--to", "head", str(out), "--images", str(pictures)]) == 0
    assert "100.0 % of 11 images" in capsys.readouterr().err
    weight, scale, metadata = head_of(out)
    assert (
        torch.equal(weight, vectors) and scale == 20 and metadata["backbone_fingerprint"] == model.backbone.fingerprint
    )
    assert (out / "head.safetensors").stat().st_size < 2000


def test_the_average_covers_every_weight(model: AdaptedModel) -> None:
    parts = parts_of(model, "both")
    mean = average(parts)
    for name, value in mean.encoder.state_dict().items():
        values = [part.encoder.state_dict()[name] for part in parts]
        torch.testing.assert_close(value, ((values[0].double() + values[1].double()) / 2).to(value.dtype))
    torch.testing.assert_close(mean.weight, (parts[0].weight + parts[1].weight) / 2)
    same = average([parts[0], parts[0]])
    assert torch.equal(same.encoder(noise(2)), parts[0].encoder(noise(2)))


def test_low_rank_updates_are_merged_into_the_weights(checkpoints: dict[str, Path]) -> None:
    visual: Any = load_clip(str(checkpoints["vit"])).visual
    encoder = VISUAL_MODULES["lora"](visual, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.1)
        plain_encoder = merge_low_rank(encoder, visual)
        assert plain_encoder.state_dict().keys() == visual.state_dict().keys()
        torch.testing.assert_close(plain_encoder(noise(2)), encoder(noise(2)))
        assert not torch.allclose(plain_encoder(noise(2)), visual(noise(2)), atol=1e-3)


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_card_describes_the_run_and_escapes_markup(
    checkpoints: dict[str, Path], tmp_path: Path, calibrated: bool
) -> None:
    about = {
        "trainer": "CoFT",
        "calibrated": calibrated,
        "dataset": "My <b>images</b>",
        "unlabeled_images": 60,
        "labels_used": 0,
        "seed": 7,
        "not_default": {"TRAINER.COFT.PHASE2.LR": 0.001},
        "results": {"accuracy_test": 91.25},
    }
    save(make_model(checkpoints["resnet"], about=about), tmp_path / "run" / "model")
    assert main([str(tmp_path / "run"), "--to", "head", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a/b: &lt;c&gt;" in card and "&lt;b&gt;" in card and "<b>" not in card
    assert "60 unlabeled images, 0 labels" in card and "`TRAINER.COFT.PHASE2.LR` = `0.001`" in card
    assert "91.2 % of the test images" in card and "CoFT (our reconstruction)" in card and "No label was read" in card
    assert (
        ("Confidences of both peers together are calibrated" in card)
        == calibrated
        == ("Confidences are not calibrated" not in card)
    )


@pytest.mark.parametrize("name", ["single", "int8"])
def test_options_are_true_or_false(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 'no'; expected True or False"):
        ExportOptions("onnx", **{name: "no"})


def test_a_path_may_begin_with_the_home_folder(
    resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / "a.png")
    assert main(["~/run", "--to", "head", "~/head", "--images", "~/pictures"]) == 0
    assert predict(["~/run", "~/pictures", "--link=~/sorted", "--output=~/out.csv"]) == 0
    assert all((tmp_path / name).exists() for name in ("head/head.safetensors", "sorted", "out.csv"))
    assert not (tmp_path / "~").exists()


def test_exports_contain_no_pickle(resnet_run: Path, tmp_path: Path) -> None:
    for to in ("open_clip", "onnx", "head"):
        assert main([str(resnet_run), "--to", to, str(tmp_path / to)]) == 0
        suffixes = {path.suffix for path in (tmp_path / to).iterdir()}
        assert suffixes <= {".safetensors", ".json", ".onnx", ".md"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["RUN", "--to", "head", "FULL"], "is there already, and not empty"),
        (["RUN", "--to", "head", "FULL/model/model.json/x"], "the folder cannot be created"),
        (["RUN", "--to", "head", "DIR", "--int8"], "--int8 requires --to onnx"),
        (["RUN", "--to", "open_clip", "DIR", "--peers", "both"], "takes one encoder"),
        (["RUN", "--to", "head", "DIR", "--images", "nothing.png"], "there is no such file"),
        (["RUN", "--to", "head", "DIR", "--images", "-"], "no list is read from standard input"),
        (["DIR", "--to", "head", "DIR"], "no such folder; check the path"),
    ],
)
def test_bad_arguments_are_refused(
    flags: list[str], message: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(finished_run.rglob("*"))
    paths = {"RUN": finished_run, "FULL": finished_run, "DIR": tmp_path / "out"}
    for key, value in paths.items():
        flags = [flag.replace(key, str(value)) for flag in flags]
    assert main(flags) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and message in printed
    assert sorted(finished_run.rglob("*")) == before and not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main([str(finished_run), "--to", "onnx", str(tmp_path / "out")]) == 2
    assert "pip install onnx onnxruntime" in capsys.readouterr().err


def test_images_of_the_run_are_used_for_the_comparison(
    resnet_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{path},boat" for path in (pictures / "00.png", pictures / "cut.jpg", tmp_path / "gone.png")]
    (resnet_run / "pseudo_labels.csv").write_text("\n".join(["path,class", *lines]))
    assert main([str(resnet_run), "--to", "open_clip", str(tmp_path / "out")]) == 0
    assert "% of 1 image\n" in capsys.readouterr().err


def test_single_selects_the_encoder_that_agrees_most_with_both(
    checkpoints: dict[str, Path], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Peer A has a noisy encoder and a low scale, so the prediction of both follows peer B."""
    model = make_model(checkpoints["resnet"])
    first = model.predictor.classifiers["peer_a"]
    views = model.batch([model.view(pictures / name) for name in ("00.png", "01.png", "02.png")])
    features = model.features(views)[0]
    confident = FinalClassifier(first.encoder, F.normalize(features - features.mean(dim=0), dim=-1), None, 100.0)
    noisy = copy.deepcopy(first.encoder)
    for parameter in noisy.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    predictor = Predictor(
        {"peer_a": replace(confident, encoder=noisy, positive=-confident.positive, scale=10.0), "peer_b": confident}
    )
    save(make_model(checkpoints["resnet"], predictor=predictor), tmp_path / "run" / "model")
    flags = [str(tmp_path / "run"), "--images", str(pictures), "--single", "--to"]
    assert main([*flags, "onnx", str(tmp_path / "onnx")]) == 0
    messages = capsys.readouterr().err
    shares = dict(re.findall(r"(peer [AB]|average of the peers' weights) ([\d.]+) %", messages))
    assert float(shares["peer B"]) > max(float(shares["peer A"]), float(shares["average of the peers' weights"]))
    on_rest = r"peer B: the same class as the run's model for \S+ % of 5 images"
    assert "on 6 images" in messages and re.search(on_rest, messages)
    assert all(line in (tmp_path / "onnx" / "README.md").read_text() for line in messages.splitlines()[:2])
    assert main([*flags, "open_clip", str(tmp_path / "clip")]) == 0
    weight, scale, _ = head_of(tmp_path / "clip")
    assert torch.equal(weight, confident.positive) and scale == 100


def test_labelled_test_images_give_the_accuracy_of_an_export(
    resnet_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, names = load(resnet_run), ["00.png", "01.png", "more/08.png"]
    with torch.no_grad():
        views = model.batch([model.view(pictures / name) for name in names])
        labels = model.predict(views).probabilities.argmax(dim=1).tolist()
        single = Exported(parts_of(model, "b"))(views).argmax(dim=1).tolist()
    labels[0] = (labels[0] + 1) % len(CLASSES)
    classes_by_name = zip(names, (CLASSES[label] for label in labels), strict=True)
    table = "image,class,end\n" + "".join(f'{name},"{label}",boat\n' for name, label in classes_by_name)
    (resnet_run / "test_predictions.csv").write_text(table + "gone.png,boat,boat\n05.png,,boat\n06.png,horse,boat\n")
    (resnet_run / "config.yaml").write_text(f"DATASET: {{ROOT: {pictures}}}")
    assert main([str(resnet_run), "--to", "onnx", "--peers", "b", str(tmp_path / "out")]) == 0
    share = 100 * sum(a == b for a, b in zip(labels, single, strict=True)) / 3
    line = f"accuracy of the export {share:.1f} %, of the run's model 66.7 %, on 3 labelled test images"
    assert line in capsys.readouterr().err and line in (tmp_path / "out" / "README.md").read_text()
    assert re.search(r"same class as the run's model for .* of 3 images", (tmp_path / "out" / "README.md").read_text())


@pytest.mark.parametrize(
    "text", ["image,class\n,boat\n", "image,class\n\x00,\x00,\n" + "x" * 200_000, "image\n00.png\n"]
)
def test_a_damaged_table_of_the_run_is_refused(
    text: str, resnet_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (resnet_run / "test_predictions.csv").write_text(text)
    assert main([str(resnet_run), "--to", "head", str(tmp_path / "out")]) == 2
    assert "test_predictions.csv: " in capsys.readouterr().err and not (tmp_path / "out").exists()
