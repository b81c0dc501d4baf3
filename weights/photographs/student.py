"""The student: CLIP's causal text transformer, trained to predict the teacher's directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from coft.core.errors import UserError
from coft.core.files import replacing
from weights.photographs.captions import Batch, Entry, batches

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 3}
DIMENSIONS = 256
SHARPNESS = 1 / 0.07  # scale of the similarities in a batch: CLIP's initial logit scale, which is also the final one
TOKEN_STD = 0.02  # standard deviation of token embeddings, as in CLIP and in CoOp's random contexts
NOISE = (0.5, 3.0)  # range of the standard deviation of random vectors, as a multiple of TOKEN_STD
POOL = 16  # number of batches that are drawn and sorted by length together


@dataclass(frozen=True)
class Recipe:
    """Training settings.

    Attributes:
        steps: Number of batches.
        batch: Number of captions per batch.
        lr: Peak learning rate (AdamW, linear warm-up, cosine to zero).
        warmup: Number of warm-up steps.
        weight_decay: Weight decay of matrices other than the token embedding.
        seed: Seed of all random numbers.
    """

    steps: int = 2000
    batch: int = 512
    lr: float = 2e-3
    warmup: int = 200
    weight_decay: float = 0.05
    seed: int = 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * (0.5 + 0.5 * math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


def new_student(vision: dict[str, Any], words: Tensor, seed: int) -> open_clip.CLIP:
    """Build a CLIP of open_clip with an untrained text tower whose token embeddings are initialised from given ones.

    Args:
        vision: `vision_cfg` of open_clip.
        words: Embedding of each token, of any width of at least 256. Shape (49408, width).
        seed: Seed of all other weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(DIMENSIONS, vision, open_clip.CLIPTextCfg(**TEXT))
        noise = torch.randn(len(words), TEXT["width"])
    centred = words - words.mean(dim=0)
    reduced = centred @ torch.linalg.svd(centred.double(), full_matrices=False).Vh[: TEXT["width"]].t().float()
    start = reduced / reduced.std() + 0.3 * noise  # noise separates tokens with the same spelling for MiniLM
    with torch.no_grad():
        model.token_embedding.weight.copy_(start * TOKEN_STD / start.std())
    return model


def encode(model: Any, embeddings: Tensor, positions: Tensor, ends: Tensor) -> Tensor:
    """Compute features of token embeddings, not normalized.

    The result is that of open_clip, but for arbitrary positions, and without tokens after the longest caption.

    Args:
        model: CLIP with the text tower.
        embeddings: Token embeddings. Shape (n, length, width).
        positions: Position of each token. Shape (n, length).
        ends: Index of each end mark. Shape (n,).

    Returns:
        Features. Shape (n, 256).
    """
    x = embeddings + model.positional_embedding[positions]
    for block in model.transformer.resblocks:
        packed = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, key, value = packed.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + block.attn.out_proj(y.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    last = model.ln_final(x[torch.arange(len(x)), ends])
    return last @ model.text_projection


def embed(model: Any, batch: Batch, source: torch.Generator) -> Tensor:
    """Return token embeddings of captions, with noise of 0.5 to 3 times the tokens' initial standard deviation."""
    embeddings = model.token_embedding(batch.tokens)
    if not batch.noise.any():
        return embeddings
    low, high = NOISE
    size = torch.exp(torch.empty(len(embeddings), 1, 1).uniform_(math.log(low), math.log(high), generator=source))
    random = torch.randn(embeddings.shape, generator=source) * size * TOKEN_STD
    return torch.where(batch.noise[..., None], random, embeddings)


def distance(features: Tensor, targets: Tensor, sharpness: float = SHARPNESS) -> Tensor:
    """Compute the loss: one minus the cosine, plus the KL divergence of the similarities to all targets of the batch.

    Args:
        features: Features of the student. Shape (n, k).
        targets: Unit-length directions of the teacher. Shape (n, k).
        sharpness: Scale of the similarities before the softmax.
    """
    features = F.normalize(features, dim=1)
    target_probabilities = (sharpness * targets @ targets.t()).softmax(dim=1)
    log_probabilities = (sharpness * features @ targets.t()).log_softmax(dim=1)
    divergence = F.kl_div(log_probabilities, target_probabilities, reduction="batchmean")
    return 1 - (features * targets).sum(dim=1).mean() + divergence


class Distillation:
    """Training of the text tower, resumed from the last saved state.

    Args:
        model: Student to train.
        entries: Names and meanings from which captions are made.
        weights: Sampling weight of each entry. Shape (number of entries,).
        targets: Directions of the teacher. Shape (rows, 256).
        recipe: Training settings.
        folder: Folder of the saved state.
    """

    def __init__(
        self, model: Any, entries: Sequence[Entry], weights: Tensor, targets: Tensor, recipe: Recipe, folder: Path
    ) -> None:
        self.model, self.entries, self.weights, self.targets = model, entries, weights, targets
        self.recipe, self.state = recipe, folder / "student.pt"
        named = [(name, p) for name, p in model.named_parameters() if not name.startswith(("visual", "logit"))]
        decayed = [p for name, p in named if p.ndim >= 2 and "embedding" not in name]
        others = [p for name, p in named if p.ndim < 2 or "embedding" in name]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        self.parameters = [*decayed, *others]
        self.step, self.losses = 0, list[float]()

    def run(self, save_every: int = 320) -> list[float]:
        """Train to the end.

        Args:
            save_every: Number of steps between saved states.

        Returns:
            Mean loss of each pool of batches.
        """
        self._resume()
        with tqdm(total=self.recipe.steps, initial=self.step, desc="text tower", unit="step") as bar:
            while self.step < self.recipe.steps:
                number = min(POOL, self.recipe.steps - self.step)
                self.losses.append(self._pool(number))
                bar.update(number)
                bar.set_postfix(loss=f"{self.losses[-1]:.4f}", refresh=False)
                if self.step % save_every < number or self.step == self.recipe.steps:
                    self._save()
        return self.losses

    def _pool(self, number: int) -> float:
        source = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        pool = batches(self.entries, self.weights, self.recipe.batch, number, source)
        return sum(self._train(batch, source) for batch in pool) / number

    def _train(self, batch: Batch, source: torch.Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):  # fused: slow backward in bf16
            features = encode(self.model, embed(self.model, batch, source), batch.positions, batch.ends)
        loss = distance(features.float(), self.targets[batch.targets])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _save(self) -> None:
        text = {k: v for k, v in self.model.state_dict().items() if not k.startswith("visual")}
        progress = {"step": self.step, "losses": self.losses, "recipe": asdict(self.recipe)}
        with replacing(self.state) as draft:
            torch.save(progress | {"text": text, "optimizer": self.optimizer.state_dict()}, draft)

    def _resume(self) -> None:
        if not self.state.is_file():
            return
        try:
            state = torch.load(self.state, weights_only=True)
        except Exception as error:  # torch raises any exception on damaged bytes
            raise UserError(
                f"{self.state}: cannot be read ({type(error).__name__}); delete it to start again"
            ) from error
        if state["recipe"] != asdict(self.recipe):
            raise UserError(f"{self.state}: belongs to another recipe; move it away, or restore the recipe")
        self.model.load_state_dict(state["text"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], state["losses"]
