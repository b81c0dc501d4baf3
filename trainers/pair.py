"""What trainers of two peers share: the numbers that a run writes, and the optimizer of Phase I."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from coft.core.errors import UserError
from coft.core.experiment import FREE_KEYS, flatten, saved_config
from coft.engine.results import keep_evidence
from coft.engine.run_log import RunLog
from coft.method.filters import HARD
from dassl.optim import build_optimizer

from .base import MethodTrainer
from .data import labels_known
from .reporting import write_test_predictions

OF_PHASE2 = re.compile(  # keys
    r"TRAINER\.\w+\.(PHASE2\.\w+|CONTRAST\.\w+|ROUNDS|FILTER|KNOWS|AUROC|COVERAGE|NOISE|RATE)|TRAIN\.(?!GUARD)\w+|TEST\.\w+"
)
PLUS = "TRAINER.COFTPLUS."
PARTS = tuple(PLUS + part for part in ("ROUNDS", "CONTRAST.", "DESCRIPTIONS."))  # what CoFT does not have
IN_PHASE1 = {*HARD, "seeds"}  # values of these keys that change Phase I all the same


class PairTrainer(MethodTrainer):
    """A trainer of two peers, `peer_a` and `peer_b`. OPTIM says how Phase I trains; OPTIM.MAX_EPOCH is not read.

    Attributes:
        log: What the run leaves for people to read.
    """

    label_free = True
    log: RunLog

    def build_model(self) -> None:
        """Build the method, watched by the log."""
        cfg, paths = self.cfg, self.images.pool.paths
        self.log = RunLog(Path(cfg.OUTPUT_DIR), paths, self.classnames, self.diagnostics, self.started, self.world)
        super().build_model()

    @property
    def phase1_optimizer(self) -> Any:
        """What makes the optimizer of Phase I."""
        return partial(optimizer_of, self.cfg.OPTIM)

    def resume_model_if_exist(self, directory: Any) -> int:
        """Resume, with the numbers of the earlier part of the run."""
        epochs_done = super().resume_model_if_exist(directory)
        self.log.resume(epochs_done, Path(directory))
        return epochs_done

    def check_fork(self, cfg: Any) -> None:
        """Refuse a run to fork from that is none, or another one in what Phase I depends on.

        Raises:
            UserError: Naming the key.
        """
        folder = cfg.TRAIN.FORK
        saved, present = saved_config(Path(folder)), flatten(yaml.safe_load(cfg.dump()))
        if saved is None:
            raise UserError(f"TRAIN.FORK {folder}: holds no run; give the output folder of one")
        if key := phase1_difference(saved, present):
            raise UserError(
                f"TRAIN.FORK {folder}: {key} is {saved.get(key)!r} there, {present.get(key)!r} here, and Phase I "
                f"depends on it; only settings of Phase II may differ"
            )
        if not next(Path(folder).glob("*/model.pth.tar-*"), None):
            raise unfinished(folder)

    def forked(self) -> int:
        """Take Phase I of the run that TRAIN.FORK names, and its numbers.

        Raises:
            UserError: See `check_fork`; or if that run has not come so far.
        """
        super().forked()
        folder = self.cfg.TRAIN.FORK
        if not folder:
            return 0
        done = next(epoch for epoch in range(self.method.epochs) if self.method.phase(epoch) == 2)
        if not all((Path(folder) / name / f"model.pth.tar-{done}").is_file() for name in self.get_model_names()):
            raise unfinished(folder)
        self.load_model(folder, epoch=done)
        self.log.resume(done, Path(folder))
        return done

    def before_train(self) -> None:
        """Resume; or choose the seeds, and measure the zero-shot model."""
        super().before_train()
        if self.start_epoch == 0:
            self.log.add(0, "zero-shot", **self.accuracies())

    def epoch_ended(self) -> None:
        """Measure for the curves, and save the end of Phase I in any case."""
        done, every = self.epoch + 1, self.cfg.TRAIN.EVAL_FREQ
        phase = self.method.phase(self.epoch)
        ends = done == self.max_epoch or phase != self.method.phase(done)
        measured = self.accuracies() if ends or (every and done % every == 0) else {}
        if ends and measured and done < self.max_epoch:
            write_test_predictions(self, {f"phase{phase}": self.predicted.of_all()})
        for key, value in self.log.add(done, f"phase{phase}", **measured).items():
            self.write_scalar(f"coft/{key}", value, done)
        if ends and done < self.max_epoch:
            self.save_model(self.epoch, self.output_dir)

    def after_train(self) -> None:
        """Evaluate as Dassl does, and write what is left for people to read."""
        self.results |= self.log.results()
        super().after_train()
        if self.world.writes:
            self.log.finish()

    def keep_evidence(self) -> None:
        """Keep what the frozen CLIP knows of the unlabeled images."""
        keep_evidence(self.method, Path(self.output_dir))

    def accuracies(self) -> dict[str, float]:
        """Test accuracy (percent) of each peer and of both, for the curves; nothing depends on it.

        Empty where no label is known.
        """
        if not labels_known(self.dm.dataset):
            return {}
        self.set_model_mode("eval")
        right = dict.fromkeys([*self.method.models, "both"], 0)
        self.predicted.forget()
        with self.clock.part("evaluation"):
            for batch in self.test_loader:
                image, label = self.parse_batch_test(batch)
                guesses = self.method.predict_each(image)
                guesses["both"] = torch.stack(list(guesses.values())).mean(dim=0)
                self.predicted.add(guesses["both"])
                for who, probabilities in guesses.items():
                    right[who] += int((probabilities.argmax(dim=1) == label).sum())
        total, counts = len(self.dm.dataset.test), self.world.sum(torch.tensor(list(right.values()))).tolist()
        return {f"accuracy_{who}": 100 * count / total for who, count in zip(right, counts, strict=True)}


def phase1_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """The first key by which two flattened configs differ in Phase I; None where that is the same.

    CoFT+ without descriptions has CoFT's.
    """
    name = "TRAINER.NAME"
    if first.get(name) != second.get(name):
        first, second = _as_coft(first), _as_coft(second)
    for key in (name, *sorted(first.keys() | second.keys())):
        values = first.get(key), second.get(key)
        of_phase2 = OF_PHASE2.fullmatch(key) and IN_PHASE1.isdisjoint(map(str, values))
        if values[0] != values[1] and key not in FREE_KEYS and not of_phase2:
            return key
    return None


def _as_coft(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flattened config of CoFT that has the Phase I of a CoFT+ without descriptions; any other as it is."""
    source = config.get(f"{PLUS}DESCRIPTIONS.FROM")
    named = config.get("DATASET.CLASSES")  # a file may describe the classes
    if config.get("TRAINER.NAME") != "CoFTPlus" or not (source == "none" or (source == "given" and not named)):
        return config
    shared = {key.replace(PLUS, "TRAINER.COFT."): value for key, value in config.items() if not key.startswith(PARTS)}
    return shared | {"TRAINER.NAME": "CoFT"}


def unfinished(folder: str) -> UserError:
    """What is wrong with a run to fork from that is still in Phase I."""
    return UserError(f"TRAIN.FORK {folder}: has not finished Phase I; let it go on until then")


def optimizer_of(settings: Any, parameters: Iterable[nn.Parameter]) -> Any:
    """Build Dassl's optimizer by the section OPTIM."""
    return build_optimizer(list(parameters), settings)
