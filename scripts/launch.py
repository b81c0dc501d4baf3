"""Entry point of the trainers' scripts: finds the configs of a data set and a backbone, then calls train.py.

bash scripts/coft.sh [DATASET] [--backbone NAME] [--seed S] [--data DIR] [--output-dir DIR] [KEY VALUE ...]
bash scripts/coft.sh DATASET --gpus N [--nnodes M --rdzv-endpoint HOST:PORT] [...]
bash scripts/coft.sh folder --images DIR --classes "NAME, NAME, ..." | FILE [--labels-from-folders] [...]
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from coft.backbones.members import SEPARATOR, member_names  # noqa: E402
from coft.backbones.open_clip_names import PREFIX, local_path  # noqa: E402
from coft.core.errors import Parser, UserError, did_you_mean  # noqa: E402
from coft.core.exit_codes import guarded  # noqa: E402
from coft.core.experiment import flatten  # noqa: E402
from coft.core.untrusted import read_text  # noqa: E402
from coft.core.yaml_text import parse_yaml  # noqa: E402
from coft.engine.class_names import is_file, read_classes  # noqa: E402
from coft.engine.trainer_configs import is_checkpoint, slug, trainer_config  # noqa: E402
from scripts.default_backbone import BEST, EMBEDDED_SETS, default_backbone  # noqa: E402
from scripts.paths import called_from, data_folder, display_path  # noqa: E402

CONFIGS = ROOT / "configs"
WITH_LABELS = ("CoOp", "Supervised")  # trainers that refuse a user's own images
OR_ON_YOUR_OWN = ", or on your own images: bash scripts/{} folder --images DIR --classes NAMES --output-dir RUN"
PATH_SETTINGS = ("DESCRIPTIONS", "DESCRIPTIONS.FROM", "PHASE1_FROM", "INIT_WEIGHTS")  # ends of keys
NO_PATHS = ("", "none", "auto", "given")  # their values that are no paths, even if a file has that name
SHOT_EPOCHS = {1: 50, 2: 100, 4: 100}  # epochs of CoOp by shots; 200 for more shots, but 50 on ImageNet


def make_parser(trainer: str) -> argparse.ArgumentParser:
    """Build the parser of a trainer's script."""
    script = script_of(trainer)
    parser = Parser(
        prog=f"scripts/{script}",
        description=f"Run {trainer} on a data set" + ("." if trainer in WITH_LABELS else OR_ON_YOUR_OWN.format(script)),
        epilog="KEY VALUE: .venv/bin/python scripts/settings.py lists all settings",
    )
    folder = parser.add_argument_group("your own images", "data set 'folder'")
    folder.add_argument("--images", default="", metavar="DIR", help="folder of images, with or without sub-folders")
    folder.add_argument(
        "--classes",
        default="",
        metavar="NAMES",
        help="class names separated by commas, or a file with one class a line; there 'sofa | couch' adds a synonym, "
        "and sentences after tabs describe the class. Name every kind of image: others get one of your names",
    )
    folder.add_argument(
        "--labels-from-folders",
        action="store_true",
        help="sub-folders are named after the classes: report the accuracy",
    )
    parser.add_argument(
        "--backbone",
        help=f"OpenAI's name, a checkpoint's path, {PREFIX}MODEL/TAG, {PREFIX}FOLDER, 'photo', or 'embedded' (default "
        f"for {', '.join(sorted(EMBEDDED_SETS))}; for your own images photo without a GPU; else {BEST}, or photo where "
        "that cannot be downloaded)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all random numbers; default: 1")
    shots = "labelled images per class; default: 16" if trainer == "CoOp" else argparse.SUPPRESS
    parser.add_argument("--shots", type=int, help=shots)
    parser.add_argument(
        "--data",
        type=called_from,
        default=data_folder(),
        help="folder of all data sets (default: $DATA or data)",
    )
    parser.add_argument(
        "--preset", help="a named group of settings from configs/trainers/<trainer>, for example as_printed"
    )
    parser.add_argument("--quiet", action="store_true", help="print warnings only; log.txt has everything")
    parser.add_argument(
        "--verbose", action="store_true", help="print everything that goes to log.txt, by epoch and batch"
    )
    distributed = parser.add_argument_group("several processes", "docs/howto/several-gpus.md")
    distributed.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="number of processes on this machine, one per GPU"
    )
    distributed.add_argument(
        "--nnodes", type=int, default=1, metavar="M", help="number of machines; run the same command on each"
    )
    distributed.add_argument(
        "--rdzv-endpoint", default="", metavar="HOST:PORT", help="address of the machine that coordinates the others"
    )
    parser.add_argument("--output-dir", type=called_from, help="default: output/<dataset>/<trainer>/<backbone>/seed<S>")
    parser.add_argument("words", nargs="*", metavar="DATASET KEY VALUE", help="data set (default: digits), settings")
    return parser


def script_of(trainer: str) -> str:
    """Return the name of the script that runs a trainer."""
    return {"CoFT": "coft.sh", "CoFTPlus": "coft_plus.sh"}.get(trainer, f"run.sh {trainer}")


def parse(trainer: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a script's arguments; flags may come anywhere. A first word that is not a config key is the data set."""
    args = make_parser(trainer).parse_intermixed_args(argv)
    word = args.words[0] if args.words else ""
    is_key = re.fullmatch(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*", word) and config_name(word) == word
    named = bool(word) and not is_key
    args.dataset = config_name(args.words[0]) if named else "digits"
    args.opts = args.words[1:] if named else args.words
    return args


def train_arguments(trainer: str, args: argparse.Namespace) -> list[str]:
    """Translate a script's arguments to those of train.py.

    Raises:
        UserError: If the data set is unknown, or an argument is wrong.
    """
    dataset_flags, dataset_settings = dataset_arguments(args.dataset)
    backbone = backbone_of(args)
    args = argparse.Namespace(**vars(args))
    args.opts = [*preset(trainer, args.preset), *folder_settings(args), *with_callers_paths(args.opts)]
    opts = [*shot_settings(trainer, args.shots, args.dataset), *args.opts]
    argv = ["--trainer", trainer, "--backbone", backbone, "--seed", str(args.seed), "--root", str(args.data)]
    argv += dataset_flags
    if config := trainer_config(trainer, backbone, trusts(args.opts)):
        argv += ["--config-file", str(config)]
    argv += ["--output-dir", str(args.output_dir or output_dir(trainer, backbone, args))]
    flag = ["--quiet"] if args.quiet else [] if args.verbose else ["--brief"]
    return [*argv, *flag, *dataset_settings, *opts]


def config_name(dataset: str) -> str:
    """Return the name of a data set's config, ignoring case; the given name if there is no such config."""
    stems = {path.stem.lower(): path.stem for path in (CONFIGS / "datasets").glob("*.yaml")}
    return stems.get(dataset.lower(), dataset)


def dataset_arguments(name: str) -> tuple[list[str], list[str]]:
    """Return the flags and settings that select a data set: its config or, without one, its name in Dassl's registry.

    Raises:
        UserError: If there is neither.
    """
    config = CONFIGS / "datasets" / f"{name}.yaml"
    if config.is_file():
        return ["--dataset-config-file", str(config)], []
    import datasets  # noqa: F401 - registers ours
    from dassl.data.datasets import DATASET_REGISTRY

    registered = {title.lower(): title for title in DATASET_REGISTRY.registered_names()}
    if name.lower() in registered:
        return [], ["DATASET.NAME", registered[name.lower()]]
    names = sorted({path.stem for path in (CONFIGS / "datasets").glob("*.yaml")} | set(registered))
    raise UserError(f"unknown data set {name!r}; {did_you_mean(name, names)}")


def preset(trainer: str, name: str | None) -> list[str]:
    """Return the settings of a preset.

    Raises:
        UserError: If the trainer has no preset of this name.
    """
    if name is None:
        return []
    folder = CONFIGS / "trainers" / trainer
    presets = [path.stem for path in folder.glob("*.yaml") if not is_complete(path)]
    if name not in presets:
        hint = did_you_mean(name, presets) if presets else f"{trainer} has none"
        raise UserError(f"--preset {name}: no such preset; {hint}")
    settings = flatten(parse_yaml(read_text(folder / f"{name}.yaml")))
    return [word for key, value in settings.items() for word in (key, str(value))]


def is_complete(path: Path) -> bool:
    """Return whether a file configures a whole run. A preset changes only a few settings."""
    return "DATALOADER" in parse_yaml(read_text(path))


def backbone_of(args: argparse.Namespace) -> str:
    """Return the name of the backbone, or the path of its checkpoint."""
    if args.backbone is None:
        return default_backbone(args.dataset)
    whole = is_file(called_from(args.backbone))  # its name may contain the separator
    return SEPARATOR.join(map(member_of, [args.backbone] if whole else member_names(args.backbone)))


def member_of(name: str) -> str:
    """Return the name of a backbone, or the path of its checkpoint."""
    if name.startswith(PREFIX):
        path = called_from(name.removeprefix(PREFIX))
        return f"{PREFIX}{path}" if path.exists() or local_path(name) else name
    return str(called_from(name)) if is_checkpoint(name) else name


def folder_settings(args: argparse.Namespace) -> list[str]:
    """Return the settings of a user's own images.

    Raises:
        UserError: If a flag is missing, or given for another data set.
    """
    values_of = {"--images": args.images, "--classes": args.classes, "--labels-from-folders": args.labels_from_folders}
    if args.dataset != "folder":
        unused = [flag for flag, value in values_of.items() if value]
        if unused:
            raise UserError(
                f"{unused[0]} is for your own images, the data set 'folder', not {args.dataset!r}; "
                f"write: folder --images DIR --classes NAMES"
            )
        return []
    for flag, what in (
        ("--images", "the folder of your images"),
        ("--classes", "class names, or a file of them"),
    ):
        if not values_of[flag]:
            raise UserError(f"data set folder: {flag} is missing; give {what}")
    names = called_from(args.classes)
    classes = str(names.resolve()) if is_file(names) else args.classes
    read_classes(classes)  # raises if the class names are wrong
    # As literals: a folder named 2024 is not a number, and "0, 1" not a tuple.
    values = {"IMAGES": repr(str(called_from(args.images).resolve())), "CLASSES": repr(classes)}
    values["LABELS_FROM_FOLDERS"] = str(args.labels_from_folders)
    return [word for key, value in values.items() for word in (f"DATASET.{key}", value)]


def with_callers_paths(settings: Sequence[str]) -> list[str]:
    """Return keys and values, with files and folders relative to the caller, as they are for flags."""

    def resolved(key: str, word: str) -> str:
        is_path = key.endswith(PATH_SETTINGS) and word not in NO_PATHS and called_from(word).exists()
        return str(called_from(word)) if is_path else word

    return [resolved(key, word) for key, word in zip(["", *settings], settings, strict=False)]


def shot_settings(trainer: str, shots: int | None, dataset: str) -> list[str]:
    """Return the settings for a number of shots: the shots and CoOp's number of epochs for them.

    Raises:
        UserError: If the trainer takes no number of shots, or the number is below 1.
    """
    if trainer != "CoOp":
        if shots is not None and trainer == "Supervised":
            raise UserError(f"--shots: Supervised has all labels; for {shots} a class add DATASET.NUM_SHOTS {shots}")
        if shots is not None:
            raise UserError(f"--shots: {trainer} does not use it; leave it out")
        return []
    shots = 16 if shots is None else shots
    if shots < 1:
        raise UserError(f"--shots is {shots}; expected at least 1")
    epochs = 50 if dataset == "imagenet" else SHOT_EPOCHS.get(shots, 200)
    return ["DATASET.NUM_SHOTS", str(shots), "OPTIM.MAX_EPOCH", str(epochs)]


def trusts(opts: Sequence[str]) -> bool:
    """Return whether the settings allow TorchScript archives that are not OpenAI's."""
    return ("MODEL.BACKBONE.TRUST_JIT", "True") in zip(opts[::2], opts[1::2], strict=False)


def output_dir(trainer: str, backbone: str, args: argparse.Namespace) -> str:
    """Return the default output folder, which differs for each combination of arguments."""
    shots = f"_{args.shots or 16}shots" if trainer == "CoOp" else ""
    changes = f"-{hashlib.sha256(repr(args.opts).encode()).hexdigest()[:8]}" if args.opts else ""
    return f"output/{args.dataset}/{trainer}/{slug(backbone)}{shots}/seed{args.seed}{changes}"


def main(argv: Sequence[str]) -> int:
    """Run a trainer.

    Args:
        argv: Trainer's name, then the script's arguments.
    """
    trainer, rest = argv[0] if argv else "", argv[1:]
    if trainer in ("-h", "--help"):
        trainer, rest = "TRAINER", ["--help"]

    def work() -> int:
        args = parse(trainer, rest)
        folder_settings(args)  # finds mistakes before the import of torch, which takes seconds
        if args.images and not called_from(args.images).exists():
            raise UserError(f"--images {args.images}: no such folder; check the path")
        return launch(trainer, args)

    return guarded(work)


def launch(trainer: str, args: argparse.Namespace) -> int:
    """Run a trainer with a script's arguments.

    Raises:
        UserError: If there is no such trainer, or its settings are wrong.
    """
    import train  # registers trainers and data sets
    from dassl.engine import TRAINER_REGISTRY

    if trainer not in TRAINER_REGISTRY.registered_names():
        hint = did_you_mean(trainer, TRAINER_REGISTRY.registered_names())
        raise UserError(f"trainer {trainer!r}: no such trainer; {hint}")
    arguments = train_arguments(trainer, args)
    place = arguments.index("--output-dir") + 1
    arguments[place] = str(display_path(Path(arguments[place])))
    if (args.gpus, args.nnodes) != (1, 1):
        from scripts.distributed import run_distributed

        return run_distributed(args.gpus, args.nnodes, args.rdzv_endpoint, arguments)
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
