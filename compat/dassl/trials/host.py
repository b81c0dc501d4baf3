"""Run an unmodified script of a plugin in this process.

The plugin's checkout is first on the import path, its `clip` loads small checkpoints instead of OpenAI's, and the
digits are registered as a data set.

python host.py CHECKOUT CLIPS trainers SCRIPT
python host.py CHECKOUT CLIPS run SCRIPT [argument ...]

The first command prints the script's trainers as JSON. If KILL_AT is set in the environment, the process kills itself
as soon as it has printed this text. Without a GPU, `.cuda()` does nothing. This file imports nothing from this project,
whose packages have the same names as the plugins'.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

TEMPLATE = "a photo of a {}."


class Fuse:
    """Stream that kills the process once a text is written to it.

    Args:
        stream: Stream that all text is forwarded to.
        text: Text that triggers the kill.
    """

    def __init__(self, stream: Any, text: str) -> None:
        self.stream, self.text = stream, text

    def write(self, text: str) -> int:
        """Write a text; kill the process if the text contains the trigger."""
        count: int = self.stream.write(text)
        if self.text in text:
            self.stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def stay_on_cpu() -> None:
    """Without a GPU, patch `.cuda()` of tensors and modules, which some trainers hard-code, to do nothing."""
    import torch

    if torch.cuda.is_available():
        return
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def serve_clips(folder: Path) -> None:
    """Patch the plugin's `clip` to take checkpoints from a folder, by the names of OpenAI's, instead of downloading."""
    clip = importlib.import_module("clip.clip")
    clip._download = lambda url, *_, **__: str(folder / Path(url).name)  # type: ignore[attr-defined]


def add_digits() -> None:
    """Register the digits as a data set like CoOp's: split file, few shots, at most four per class for validation."""
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
    from dassl.utils import read_json

    guesses = importlib.util.find_spec("datasets.datasetbase")  # UPL's base class adds pseudo-labelled images
    base: Any = importlib.import_module("datasets.datasetbase").UPLDatasetBase if guesses else DatasetBase

    class Digits(base):
        """Digits of scikit-learn below DATASET.ROOT."""

        dataset_dir = "digits"

        def __init__(self, cfg: Any) -> None:
            root = Path(cfg.DATASET.ROOT).resolve() / self.dataset_dir
            self.split_path, self.image_dir = str(root / "split_zhou_Digits.json"), str(root / "images")
            train, val, test = map(self.read, ("train", "val", "test"))
            if guesses:
                guessed = self.read_sstrain_data(self.split_path, self.image_dir)
                super().__init__(train_x=train, val=val, test=test, sstrain=guessed)
                return
            shots = cfg.DATASET.NUM_SHOTS
            train = self.generate_fewshot_dataset(train, num_shots=shots)
            val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4))
            super().__init__(train_x=train, val=val, test=test)

        def read(self, part: str) -> list[Datum]:
            """Read the images of a part of the split."""
            rows = read_json(self.split_path)[part]
            return [Datum(f"{self.image_dir}/{path}", label, classname=name) for path, label, name in rows]

    DATASET_REGISTRY.register(Digits)


def load_entry(script: Path) -> None:
    """Import a script without running it, and add a template for the digits to the plugin's CUSTOM_TEMPLATES."""
    spec = importlib.util.spec_from_file_location("plugin_entry", script)
    assert spec and spec.loader
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    for module in list(sys.modules.values()):
        templates = getattr(module, "CUSTOM_TEMPLATES", None)
        if isinstance(templates, dict):
            templates["Digits"] = TEMPLATE


def trainers() -> dict[str, bool]:
    """Return the registered trainers, and whether each of them trains something."""
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.trainer import TrainerBase

    classes = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
    return {name: cls.forward_backward is not TrainerBase.forward_backward for name, cls in classes.items()}


def main(checkout: str, clips: str, action: str, script: str, *arguments: str) -> None:
    """Prepare the process, and run the script or list its trainers."""
    sys.path[0] = checkout
    if "KILL_AT" in os.environ:
        sys.stdout = Fuse(sys.stdout, os.environ["KILL_AT"])
    stay_on_cpu()
    serve_clips(Path(clips))
    add_digits()
    path = Path(checkout) / script
    load_entry(path)
    if action == "trainers":
        print(json.dumps(trainers()))
        return
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
