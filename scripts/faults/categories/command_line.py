"""Flags of the commands: wrong, missing, at odds with each other."""

from __future__ import annotations

from functools import partial

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "command-line"
REFUSED = Right.REFUSED
ODD = (
    "",
    " ",
    "\n",
    "x" * 5000,
    "\x1b[31mred",
    "a\x00b",
    "\udcff",
    "-",
    "--",
    "~",
    "/dev/null",
    "/proc/self/mem",
    "☃",
    "1e400",
)


def cases(quick: bool) -> list[Case]:
    """All cases."""
    return [*of_train(), *of_scripts(), *of_coft(), *of_config_files()]


def of_train() -> list[Case]:
    """Cases of train.py."""
    wrong = {
        "a config that is Python": (("--config-file", "x.py"), "x.py"),
        "a config that is a folder": (("--config-file", "."), "--config-file"),
        "a config that is not there": (("--dataset-config-file", "none.yaml"), "none.yaml"),
        "a seed that is no number": (("--seed", "one"), "--seed"),
        "a seed beyond 2^32": (("--seed", str(2**32)), "SEED"),
        "a huge seed": (("--seed", "9" * 400), "SEED"),
        "a trainer that is none": (("--trainer", "Coft"), "--trainer"),
        "a backbone that is none": (("--backbone", "ViT-B/1"), "ViT-B/1"),
        "evaluation without a model": (("--eval-only",), "--eval-only"),
        "resumption of nothing": (("--resume", "nowhere"), "nowhere"),
        "evaluation of nothing": (("--eval-only", "--model-dir", "nowhere"), "nowhere"),
        "a model to evaluate, and training": (("--model-dir", "."), "--model-dir"),
        "an epoch to evaluate, and training": (("--load-epoch", "3"), "--load-epoch"),
        "evaluation, and resumption": (("--eval-only", "--model-dir", ".", "--resume", "."), "--resume"),
        "an epoch that is none": (("--eval-only", "--model-dir", ".", "--load-epoch", "x"), "--load-epoch"),
        "an unknown flag's value": (("--transforms", "upside_down"), "upside_down"),
        "an output folder below a file": (("--output-dir", "train.py/x"), "train.py/x"),
        "an output folder with a name too long": (("--output-dir", "x" * 300), "x" * 100),
    }
    found = [
        Case(CATEGORY, name, partial(trained, flags=flags), REFUSED, (names, "--"))
        for name, (flags, names) in wrong.items()
    ]
    for flag in (
        "--backbone",
        "--config-file",
        "--dataset-config-file",
        "--trainer",
        "--resume",
        "--output-dir",
        "--head",
    ):
        for text in ODD:
            right = Right.EITHER
            found.append(Case(CATEGORY, f"{flag} {text[:20]!r}", partial(configured, flags=(f"{flag}={text}",)), right))
    return found


def trained(scene: Scene, flags: tuple[str, ...]) -> None:
    """Train with flags."""
    scene.train(*flags)


def configured(scene: Scene, flags: tuple[str, ...]) -> None:
    """Make the config of flags."""
    scene.config(*flags)


def of_scripts() -> list[Case]:
    """Cases of what the scripts of trainers translate."""
    own = ("--images", "weights", "--classes", "a, b")
    wrong: dict[str, tuple[str, ...]] = {
        "a data set that is none": ("digitz",),
        "own images without --images": ("folder", "--classes", "a, b"),
        "own images without --classes": ("folder", "--images", "weights"),
        "--images of another data set": ("digits", *own),
        "shots without labels": ("digits", "--shots", "4"),
        "a preset that is none": ("digits", "--preset", "as_print"),
        "a preset with a path": ("digits", "--preset", "../CoFT/photo"),
        "a seed that is none": ("digits", "--seed", "1.5"),
        "a seed that is negative": ("digits", "--seed", "-7"),
        "a key without a value": ("digits", "OPTIM.LR"),
        "an unknown flag": ("digits", "--classnames", "a"),
        "one class": ("folder", "--images", "weights", "--classes", "a"),
    }
    found = [
        Case(CATEGORY, f"script: {name}", partial(scripted, words=words), REFUSED) for name, words in wrong.items()
    ]
    return [*found, Case(CATEGORY, "script: TRUST_JIT", trusting, Right.FINE)]


def scripted(scene: Scene, words: tuple[str, ...]) -> None:
    """Translate a script's arguments, and make the config."""
    import train
    import trainers
    from scripts.launch import parse, train_arguments
    from trainers.config import make_cfg

    args = parse("CoFT", [*words, "--backbone", str(scene.clip)] if "--backbone" not in words else list(words))
    make_cfg(train.make_parser().parse_args(train_arguments("CoFT", args)), trainers.extend_cfg)
    if "--images" in words:  # what is left is said when the images are looked for
        from coft.engine.class_names import read_classes

        read_classes(args.classes)


def trusting(scene: Scene) -> None:
    """Use a TorchScript archive through a script."""
    import torch

    from ..scene import tiny_clip

    traced = torch.jit.trace(
        tiny_clip(), (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int64)), check_trace=False
    )
    traced.save(str(scene.place / "jit.pt"))
    words = ("digits", "--backbone", str(scene.place / "jit.pt"), "MODEL.BACKBONE.TRUST_JIT", "True")
    scripted(scene, words)


def of_coft() -> list[Case]:
    """Cases of the command `coft`."""
    wrong: dict[str, tuple[str, ...]] = {
        "an unknown command": ("adopt",),
        "adapt without classes": ("adapt", "weights"),
        "adapt with a word for a setting": ("adapt", "weights", "--classes", "a, b", "fast"),
        "adapt with an unknown setting": ("adapt", "weights", "--classes", "a, b", "speed=1"),
        "adapt of no folder": ("adapt", "no-such-folder", "--classes", "a, b"),
        "adapt of no image": ("adapt", "configs", "--classes", "a, b"),
        "adapt with a method that is none": ("adapt", "weights", "--classes", "a, b", "--method", "deft"),
        "adapt with NaN": ("adapt", "weights", "--classes", "a, b", "optim__lr=nan"),
        "predict by nothing": ("predict", "no-such-run", "weights"),
        "predict without images": ("predict", "configs"),
        "export to nothing": ("export", "configs", "x", "--to", "pdf"),
        "report of nothing": ("report", "no-such-run"),
        "completion of no shell": ("completion", "sh"),
    }
    return [Case(CATEGORY, f"coft: {name}", partial(called, words=words), REFUSED) for name, words in wrong.items()]


def called(scene: Scene, words: tuple[str, ...]) -> None:
    """Call the command."""
    import contextlib
    import io

    from coft.cli.main import main
    from coft.core.errors import UserError

    words = tuple(str(scene.place / "out") if word == "x" else word for word in words)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main([*words, "--output", str(scene.place / "adapted")] if words[0] == "adapt" else words)
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if code == 2 and len(lines) == 1:
        raise UserError(lines[0].removeprefix("error: "))
    if code:
        raise Wrong(f"exit code {code} with {len(lines)} lines of error")


CONFIGS = {
    "empty": "",
    "a list": "[1, 2]",
    "a text": "hello",
    "a number": "5",
    "not closed": "OPTIM: {LR: 0.1",
    "tabs": "OPTIM:\n\tLR: 0.1",
    "a key twice": "OPTIM: {LR: 0.1, LR: 0.2}",
    "an unknown section": "OPTIMM: {LR: 0.1}",
    "a section for a key": "OPTIM: {LR: {A: 1}}",
    "a key for a section": "OPTIM: 5",
    "a dotted key": "OPTIM.LR: 0.1",
    "anchors without end": "a: &a [*a]",
    "a bomb": "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\nOPTIM: {LR: *a}",
    "nested deeply": "[" * 5000,
    "code": "!!python/object/apply:os.system ['true']",
    "a date": "OPTIM: {LR: 2020-01-01}",
    "binary": "OPTIM: {LR: !!binary aGVsbG8=}",
    "a number for a key": "1: 2",
    "null for a key": "null: 2",
    "a list for a key": "? [1, 2]\n: 3",
    "two documents": "OPTIM: {LR: 0.1}\n---\nOPTIM: {LR: 0.2}",
    "a huge number": f"OPTIM: {{LR: {'9' * 5000}}}",
    "control characters": "OPTIM: {LR: \x07}",
    "escapes in a key": '"\\e[31mOPTIM": {LR: 0.1}',
}
BYTES = {"latin": b"OPTIM: {NAME: \xe4}", "utf-16": "OPTIM: {LR: 0.1}".encode("utf-16"), "zeros": bytes(4000)}


def of_config_files() -> list[Case]:
    """Cases of config files."""
    texts: dict[str, str | bytes] = {**CONFIGS, **BYTES}
    return [
        Case(
            CATEGORY,
            f"config: {name}",
            partial(read, content=content),
            Right.FINE if name == "empty" else REFUSED,
            ("own.yaml",),
        )
        for name, content in texts.items()
    ]


def read(scene: Scene, content: str | bytes) -> None:
    """Read a config."""
    scene.config("--config-file", str(scene.file("own.yaml", content)))
