from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coft.backbones import load
from coft.backbones.load import Architecture
from coft.backbones.open_clip_names import ALIASES
from coft.core.errors import UserError
from coft.engine import trainer_configs
from scripts import default_backbone, launch
from tests.open_clip_models import CONFIGS, write_model
from train import make_parser
from trainers import extend_cfg
from trainers.config import make_cfg

ROOT = Path(launch.__file__).parents[1]


def arguments(trainer: str, *argv: str) -> list[str]:
    return launch.train_arguments(trainer, launch.parse(trainer, argv))


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_default_is_digits_with_embedded_clip() -> None:
    argv = arguments("CoFT")
    assert value(argv, "--backbone") == "embedded" and value(argv, "--seed") == "1"
    assert value(argv, "--dataset-config-file").endswith("configs/datasets/digits.yaml")
    assert value(argv, "--config-file").endswith("configs/trainers/CoFT/embedded.yaml")
    assert value(argv, "--output-dir") == "output/digits/CoFT/embedded/seed1"


def test_default_backbone_of_benchmarks_is_vit_b_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_backbone, "can_download", lambda name: True)
    argv = arguments("UPL", "eurosat", "--seed", "3")
    assert value(argv, "--backbone") == "ViT-B/16"
    assert value(argv, "--config-file").endswith("configs/trainers/UPL/vit_b16_ep50.yaml")
    assert value(argv, "--output-dir") == "output/eurosat/UPL/vit_b16/seed3"


def test_config_of_local_backbone_file(checkpoints: dict[str, Path]) -> None:
    argv = arguments("CoFT", "digits", "--backbone", str(checkpoints["vit"]))
    assert value(argv, "--config-file").endswith("embedded.yaml")
    assert value(argv, "--output-dir") == "output/digits/CoFT/vit/seed1"
    assert launch.trainer_config("CoFT", "RN101").name == "default.yaml"
    assert launch.trainer_config("CoOp", "RN101").name == "rn101.yaml"
    assert launch.trainer_config("UPL", "RN101").name == "rn50_ep50.yaml"


def test_epochs_of_coop_on_imagenet_do_not_depend_on_shots() -> None:
    argv = arguments("CoOp", "imagenet", "--shots", "16", "--backbone", "RN50")
    assert value(argv, "OPTIM.MAX_EPOCH") == "50"


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200)])
def test_shots_set_epochs_of_coop(shots: int, epochs: int) -> None:
    argv = arguments("CoOp", "digits", "--shots", str(shots))
    assert value(argv, "DATASET.NUM_SHOTS") == str(shots) and value(argv, "OPTIM.MAX_EPOCH") == str(epochs)
    assert f"embedded_{shots}shots" in value(argv, "--output-dir")


def test_settings_are_passed_on_and_change_output_folder() -> None:
    plain, changed = arguments("CoFT"), arguments("CoFT", "digits", "TRAINER.COFT.FILTER", "own")
    assert changed[-2:] == ["TRAINER.COFT.FILTER", "own"]
    assert value(plain, "--output-dir") != value(changed, "--output-dir")
    without_dataset = arguments("CoFT", "--seed", "2", "TRAINER.COFT.FILTER", "own", "SEED", "-1")
    assert without_dataset[-4:] == ["TRAINER.COFT.FILTER", "own", "SEED", "-1"]
    assert value(without_dataset, "--dataset-config-file").endswith("digits.yaml")


def test_data_variable_sets_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(arguments("CoFT"), "--root") == "data"
    monkeypatch.setenv("DATA", "/elsewhere")
    assert value(arguments("CoFT"), "--root") == "/elsewhere"
    monkeypatch.setenv("CALLED_FROM", str(Path.cwd()))  # the project folder: relative paths stay relative
    argv = arguments("CoFT", "--data", "sets", "--output-dir", "out")
    assert value(argv, "--root") == "sets" and value(argv, "--output-dir") == "out"


def test_paths_are_relative_to_the_callers_folder(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = checkpoints["vit"].parent
    monkeypatch.setenv("CALLED_FROM", str(here))
    (here / "names.txt").write_text("cat\ndog\n")
    flags = ["folder", "--images", "pictures", "--classes", "names.txt", "--output-dir", "out", "--data", "sets"]
    argv = arguments("CoFT", *flags, "--backbone", "vit.pt")
    assert value(argv, "DATASET.IMAGES") == repr(str((here / "pictures").resolve()))
    assert value(argv, "DATASET.CLASSES") == repr(str((here / "names.txt").resolve()))
    paths = {"--output-dir": "out", "--root": "sets", "--backbone": "vit.pt"}
    assert {flag: value(argv, flag) for flag in paths} == {flag: str(here / name) for flag, name in paths.items()}
    for pair, expected in (
        ("vit.pt+embedded", f"{here / 'vit.pt'}+embedded"),
        ("photo+vit.pt", f"photo+{here}/vit.pt"),
    ):
        assert value(arguments("CoFT", "digits", "--backbone", pair), "--backbone") == expected
    argv = arguments("CoFT", "folder", "--images", str(tmp_path), "--classes", "cat, dog")
    assert value(argv, "DATASET.CLASSES") == repr("cat, dog")  # not a file
    assert value(argv, "--root") == "data" and value(argv, "--output-dir").startswith(
        "output/"
    )  # relative to the project
    (here / "run").mkdir()
    (here / "none").mkdir()
    argv = arguments("CoFT", "digits", "DATASET.DESCRIPTIONS", "none", "TRAIN.PHASE1_FROM", "")
    assert value(argv, "DATASET.DESCRIPTIONS") == "none" and value(argv, "TRAIN.PHASE1_FROM") == ""
    settings = {"DATASET.DESCRIPTIONS": "names.txt", "TRAIN.PHASE1_FROM": "run", "MODEL.INIT_WEIGHTS": "missing"}
    argv = arguments("CoFT", "digits", *(word for pair in settings.items() for word in pair))
    resolved = [str(here / "names.txt"), str(here / "run"), "missing"]
    assert [value(argv, key) for key in settings] == resolved
    monkeypatch.setenv("DATA", "mine")
    assert value(arguments("CoFT"), "--root") == str(here / "mine")


def test_open_clip_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    folder = write_model(tmp_path / "models" / "My CNN", CONFIGS["timm-cnn"])
    for name in ("models/My CNN", "./models/My CNN", "models/My CNN/open_clip_model.safetensors"):
        argv = arguments("CoFT", "digits", "--backbone", f"open_clip:{name}")
        assert value(argv, "--backbone") == f"open_clip:{tmp_path / name}"
        assert value(argv, "--config-file").endswith("CoFT/photo.yaml")  # a light CNN
        assert value(argv, "--output-dir") == "output/digits/CoFT/open_clip_my_cnn/seed1"
    heavy = arguments("CoFT", "digits", "--backbone", "open_clip:RN50/openai")
    assert value(heavy, "--config-file").endswith("CoFT/default.yaml")
    argv = arguments("UPL", "digits", "--backbone", "open_clip:ViT-B-16/laion2b_s34b_b88k")
    assert value(argv, "--backbone") == "open_clip:ViT-B-16/laion2b_s34b_b88k"
    assert value(argv, "--config-file").endswith("UPL/vit_b16_ep50.yaml")
    assert value(argv, "--output-dir") == "output/digits/UPL/open_clip_vit_b_16laion2b_s34b_b88k/seed1"
    monkeypatch.setitem(ALIASES, "photo", folder)
    monkeypatch.setattr(trainer_configs, "CONFIGS", tmp_path)
    configs = tmp_path / "trainers" / "CoFT"
    configs.mkdir(parents=True)
    (configs / "rn50.yaml").touch()
    for stem in ("default", "photo"):
        (configs / f"{stem}.yaml").touch()
        assert launch.trainer_config("CoFT", "photo") == configs / f"{stem}.yaml"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("CoFT eurosatt", "did you mean 'eurosat'"),
        ("LaFTer --seed abc", "--seed: .*scripts/run.sh LaFTer --help"),
        ("CoFT digits --shots 4", "--shots"),
        ("Supervised digits --shots 4", r"DATASET\.NUM_SHOTS 4"),
        ("CoOp digits --shots 0", "--shots"),
        ("CoFT digits --preset as_prited", "did you mean 'as_printed'"),
        ("UPL digits --preset x", "--preset"),
        ("CoFT folder", "--images"),
        ("CoFT folder --images x", "--classes"),
        ("CoFT digits --images x", "--images is for your own images, .*; write: folder --images DIR"),
        ("CoFT --labels-from-folders", "--labels-from-folders"),
    ],
)
def test_mistakes_are_named(argv: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arguments(*argv.split())


def test_missing_dataset_is_one_line_with_exit_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ("--output-dir", str(tmp_path / "out"))
    assert launch.main(["CoFT", "eurosat", "--backbone", "embedded", "--data", str(tmp_path), *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(tmp_path / "eurosat") in line and "bash scripts/data.sh eurosat" in line


TRAINERS = sorted(path for path in (ROOT / "configs" / "trainers").glob("*/*.yaml") if launch.is_complete(path))
DATASETS = sorted((ROOT / "configs" / "datasets").glob("*.yaml"))
DIGITS = ROOT / "configs" / "datasets" / "digits.yaml"
PAIRS = [(config, DIGITS) for config in TRAINERS] + [(TRAINERS[0], dataset) for dataset in DATASETS]


@pytest.mark.parametrize(("config", "dataset"), PAIRS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_is_valid(config: Path, dataset: Path) -> None:
    argv = ["--trainer", config.parent.name, "--config-file", str(config), "--dataset-config-file", str(dataset)]
    cfg = make_cfg(
        make_parser().parse_args([*argv, *(["--backbone", "RN50"] if "default" in config.name else [])]), extend_cfg
    )
    assert cfg.INPUT.SIZE[0] in (64, 128, 224) and len(cfg.INPUT.PIXEL_MEAN) == 3 and cfg.SEED >= 0


def test_command_line_overrides_preset() -> None:
    args = launch.parse("CoFT", ["digits", "--preset", "as_printed", "TRAINER.COFT.N_CTX", "4"])
    cfg = make_cfg(make_parser().parse_args(launch.train_arguments("CoFT", args)), extend_cfg).TRAINER.COFT
    assert (cfg.CLEAN_RULE, cfg.FILTER, cfg.PHASE2.EMA) == ("sigmoid", "min-p-clean-hard", 0.0)
    assert cfg.N_CTX == 4


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP2", "CoFT"])
def test_trainer_without_config_uses_defaults(trainer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if trainer == "CoFT":
        monkeypatch.setattr(trainer_configs, "CONFIGS", tmp_path)
        monkeypatch.setattr(launch, "CONFIGS", tmp_path)
    argv = launch.train_arguments(trainer, launch.parse(trainer, ["digits"]))
    cfg = make_cfg(make_parser().parse_args(argv), extend_cfg)
    assert cfg.DATASET.NAME == "Digits" and trainer == cfg.TRAINER.NAME
    assert ("--config-file" in argv, "--dataset-config-file" in argv) == (False, trainer != "CoFT")


@pytest.mark.parametrize(
    ("words", "dataset"),
    [("DTD", "dtd"), ("PACS SEED 2", "pacs"), ("SEED 2", "digits"), ("TRAIN.GUARD False", "digits")],
)
def test_capitals_name_a_data_set_if_there_is_one(words: str, dataset: str) -> None:
    args = launch.parse("CoFT", words.split())
    assert args.dataset == dataset and [word for word in args.opts if word in words] == args.opts


def test_dataset_name_ignores_case_and_arguments_are_not_changed() -> None:
    args = launch.parse("CoFT", ["Digits", "--preset", "as_printed"])
    first, second = launch.train_arguments("CoFT", args), launch.train_arguments("CoFT", args)
    assert first == second and str(DIGITS) in first and first[first.index("--backbone") + 1] == "embedded"


def test_trust_jit_reaches_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = []
    monkeypatch.setattr(load, "architecture", lambda name, trust: trusted.append(trust) or Architecture(64, False))
    for text in ("True", "False"):
        argv = ["digits", "--backbone", "x.pt", "MODEL.BACKBONE.TRUST_JIT", text]
        launch.train_arguments("CoFT", launch.parse("CoFT", argv))
    assert trusted == [True, False]


CONTEXTS = ("rn50_ctxv1", "rn50_ep50_ctxv1", "vit_b16_ctxv1", "vit_b16_ep50_ctxv1", "vit_b16_ep100_ctxv1")
EPOCHS = ("rn50_ep50", "rn50_ep100", "rn101_ep50", "vit_b16_ep50", "vit_b16_ep100", "vit_b32_ep50")
COOP_CONFIGS = ("rn50", "rn101", "vit_b16", "vit_b32", "rn50_val", *EPOCHS, *CONTEXTS)


def test_configs_of_coop_exist_under_its_names() -> None:
    folder = ROOT / "configs" / "trainers" / "CoOp"
    assert [name for name in COOP_CONFIGS if not (folder / f"{name}.yaml").is_file()] == []


def test_seed_zero_is_kept(tmp_path: Path) -> None:
    argv = arguments("CoFT", "digits", "--seed", "0", "--output-dir", str(tmp_path))
    assert make_cfg(make_parser().parse_args(argv), extend_cfg).SEED == 0


def settings(argv: list[str]) -> dict[str, str]:
    """Return the KEY VALUE pairs at the end of the arguments of train.py."""
    start = argv.index("DATASET.IMAGES")
    return dict(zip(argv[start::2], argv[start + 1 :: 2], strict=True))


def test_images_and_classes_become_settings(tmp_path: Path) -> None:
    argv = arguments("CoFT", "folder", "--images", str(tmp_path), "--classes", "cat, dog", "INPUT.AUGMENT", "symbols")
    assert value(argv, "--dataset-config-file").endswith("configs/datasets/folder.yaml")
    expected = {"DATASET.IMAGES": repr(str(tmp_path)), "DATASET.CLASSES": "'cat, dog'"}
    assert settings(argv) == {**expected, "DATASET.LABELS_FROM_FOLDERS": "False", "INPUT.AUGMENT": "symbols"}
    other = arguments("CoFT", "folder", "--images", str(tmp_path), "--classes", "cat, owl", "INPUT.AUGMENT", "symbols")
    assert value(argv, "--output-dir") != value(other, "--output-dir")


@pytest.mark.parametrize(("images", "classes"), [("2024", "0, 1, 2"), ("None", "True, False"), ("it's", 'a "b", c')])
def test_names_that_look_like_numbers_stay_text(
    images: str, classes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--images", images, "--classes", classes, "--labels-from-folders", "--backbone", "embedded")
    argv = arguments("ZeroshotCLIP", "folder", *flags)
    cfg = make_cfg(make_parser().parse_args(argv), extend_cfg)
    assert (str(tmp_path / images), classes) == (cfg.DATASET.IMAGES, cfg.DATASET.CLASSES)
    assert cfg.DATASET.LABELS_FROM_FOLDERS is True


def test_help_and_missing_images_need_no_torch(tmp_path: Path) -> None:
    commands = [["CoFT", "--help"], ["CoFT", "folder", "--images", str(tmp_path / "nowhere"), "--classes", "cat, dog"]]
    code = f"""
import sys
from scripts.launch import main
for argv in {commands!r}:
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    print("exit code", code, "torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("exit code")]
    assert lines == ["exit code 0 False", "exit code 2 False"] and "nowhere" in ended.stderr


def test_help_needs_no_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        launch.main(["--help"])
    assert end.value.code == 0 and "TRAINER" in capsys.readouterr().out
