"""Both pre-trainings from end to end, and the records that they write."""

import importlib.metadata
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from clip.model import CLIP
from torch import Tensor

from coft.backbones.load import load_clip
from coft.core.errors import UserError
from coft.core.files import replacing, write_table
from weights.pretrain.captions import Captions
from weights.pretrain.checkpoint import compact
from weights.pretrain.distil import Distillation, take_text_tower
from weights.pretrain.evaluate import Task, accuracy, compact_tokenizer, development_tasks, text_features
from weights.pretrain.library import Library, open_library, read_aliases
from weights.pretrain.model import EMBED_DIM, TEXT, TOWERS, Student, build_clip
from weights.pretrain.names import spoken
from weights.pretrain.packages import install, licence_table, of_role, pinned
from weights.pretrain.train import Recipe, Trainer, Words

logger = logging.getLogger(__name__)

RECIPES = {
    "embedded": Recipe(steps=4500),
    "embedded-vit": Recipe(steps=1500, lr=1.5e-3, distilled=0.85, mild_after=0.85, seed=2),
}
NAMES = 4096  # number of concepts for which the student learns the teacher's probabilities


class Pretraining:
    """Shared state of both pre-trainings: drawings, captions, words, and tasks for the learning curve.

    Args:
        library: Training drawings.
        aliases: Other words for concepts.
        tasks: Zero-shot tasks for the learning curve.
        near_duplicates: Number of removed near-duplicates, by held-out data set.
        cache_dir: Parent of the folders with training states.
        out_dir: Folder of checkpoints and records.
        compiled: Whether to compile the image encoder, which needs a C++ compiler.
    """

    def __init__(
        self,
        *,
        library: Library,
        aliases: Mapping[str, list[str]],
        tasks: list[Task],
        near_duplicates: Mapping[str, int],
        cache_dir: Path,
        out_dir: Path,
        compiled: bool = True,
    ) -> None:
        self.library, self.tasks, self.near_duplicates = library, tasks, dict(near_duplicates)
        self.cache_dir, self.out_dir, self.compiled = cache_dir, out_dir, compiled
        self.captions = Captions(library.concepts, dict(aliases), library.kinds)
        self.words = Words(library)
        self.tokenize = compact_tokenizer(self.captions.token_ids)

    @classmethod
    def from_packages(cls, cache_dir: Path, out_dir: Path) -> "Pretraining":
        """Install packages, check their licences, render and filter the drawings."""
        packages = list(pinned())
        install(cache_dir, packages)
        write_table(pd.DataFrame(licence_table(cache_dir, packages)), out_dir / "licences.csv")
        library, near_duplicates = open_library(cache_dir)
        aliases = read_aliases(cache_dir, set(library.concepts))
        tasks = development_tasks(cache_dir)
        return cls(
            library=library,
            aliases=aliases,
            tasks=tasks,
            near_duplicates=near_duplicates,
            cache_dir=cache_dir,
            out_dir=out_dir,
        )

    def train(self, name: str, recipe: Recipe) -> Path:
        """Train ``embedded``, or distil it to ``embedded-vit``, and write the checkpoint and the learning curve.

        Returns:
            Path of the checkpoint.
        """
        torch.manual_seed(recipe.seed)
        student = Student(name, len(self.captions.token_ids), len(self.words.words))
        distillation = None
        if name == "embedded-vit":
            teacher = self._teacher()
            take_text_tower(student.clip, teacher)
            distillation = Distillation(teacher, self._features_of_names(teacher))
        trainer = Trainer(
            student=student,
            library=self.library,
            captions=self.captions,
            words=self.words,
            recipe=recipe,
            folder=self.cache_dir / "runs" / name,
            evaluate=self._figures,
            distillation=distillation,
            compiled=self.compiled,
        )
        trainer.run()
        write_table(pd.DataFrame(trainer.curve), self.out_dir / f"curve-{name}.csv")
        path = self.out_dir / f"{name}.pt"
        checkpoint = compact(student.clip.state_dict(), self.captions.token_ids, self._meta(name, recipe))
        with replacing(path) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)
        return path

    def _teacher(self) -> CLIP:
        path = self.out_dir / "embedded.pt"
        if not path.is_file():
            raise UserError(f"{path} is missing; train embedded first, embedded-vit learns from it")
        state = load_clip(str(path)).state_dict()
        state["token_embedding.weight"] = state["token_embedding.weight"][self.captions.token_ids]
        teacher = build_clip("embedded", len(self.captions.token_ids))
        teacher.load_state_dict(state)
        return teacher

    def _features_of_names(self, teacher: CLIP) -> Tensor:
        """Return the teacher's text features of the concepts with the most drawings, ``[K, D]``."""
        counts = np.bincount(self.library.label, minlength=len(self.library.concepts))
        most_drawn = np.argsort(-counts, kind="stable")[:NAMES]
        names = [spoken(self.library.concepts[number]) for number in most_drawn]
        parts = [names[start : start + 256] for start in range(0, len(names), 256)]
        return torch.cat([text_features(teacher.eval(), part, ("{}",), self.tokenize) for part in parts])

    def _figures(self, student: Student) -> dict[str, float]:
        return {task.name: accuracy(student.clip, task, self.tokenize) for task in self.tasks}

    def _meta(self, name: str, recipe: Recipe) -> dict[str, Any]:
        architecture = {"image_size": 64, "embed_dim": EMBED_DIM, **TOWERS[name], **TEXT}
        packages = {p.npm_name: p.version for p in of_role("icons", "emoji", "fonts", "aliases")}
        return {
            "name": name,
            "architecture": {key: list(v) if isinstance(v, tuple) else v for key, v in architecture.items()},
            "recipe": asdict(recipe),
            "drawings": len(self.library),
            "concepts": len(self.library.concepts),
            "twins_removed": self.near_duplicates,
            "torch": importlib.metadata.version("torch"),
            "packages": packages,
        }
