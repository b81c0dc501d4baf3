"""Untrusted backbone files: bad content is refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coft.backbones.feature_cache import cached
from coft.backbones.load import EMBEDDED, architecture, load_clip
from coft.backbones.prompts import template_features
from coft.core.errors import UserError
from tests.open_clip_models import CONFIGS, HALF, write_model

State = dict[str, Any]


def replace_tensor(name: str, change: Callable[[Tensor], Any]) -> Callable[[State], State]:
    return lambda state: {**state, name: change(state[name])}


CLIPS: dict[str, Callable[[State], Any]] = {
    "one key": lambda state: {"text_projection": state["text_projection"]},
    "a text": replace_tensor("visual.conv1.weight", lambda x: "x"),
    "texts": lambda state: dict.fromkeys(state, "x"),
    "no visual tower": lambda state: {name: x for name, x in state.items() if not name.startswith("visual")},
    "a small vocabulary": replace_tensor("token_embedding.weight", lambda x: x[:100]),
    "a huge vocabulary": replace_tensor("token_embedding.weight", lambda x: x[:1, :1].expand(10**7, x.shape[1])),
    "short texts": replace_tensor("positional_embedding", lambda x: x[:10]),
    "many patches": replace_tensor("visual.attnpool.positional_embedding", lambda x: x.new_zeros(40_001, x.shape[1])),
    "no square": replace_tensor("visual.attnpool.positional_embedding", lambda x: x.new_zeros(6, x.shape[1])),
    "whole numbers": replace_tensor("visual.layer1.0.conv1.weight", lambda x: x.int()),
    "complex": replace_tensor("text_projection", lambda x: x.to(torch.complex64)),
    "sparse": replace_tensor("text_projection", lambda x: x.to_sparse()),
    "meta": replace_tensor("text_projection", lambda x: x.to("meta")),
    "scales": replace_tensor("logit_scale", lambda x: torch.zeros(3)),
    "numbers for names": lambda state: {**state, 1: torch.zeros(1)},
}


@pytest.mark.parametrize("kind", list(CLIPS))
def test_a_bad_state_dict_is_refused(kind: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save(CLIPS[kind](torch.load(checkpoints["resnet"], weights_only=True)), path)
    for read in (architecture, load_clip):
        if read is load_clip or kind != "whole numbers":  # found when the model is built
            with pytest.raises(UserError, match=r"file\.pt") as error:
                read(str(path))
            assert "\n" not in str(error.value)


def change_spelling(**parts: Any) -> Callable[[State], State]:
    return lambda state: {**state, "spelling": {**state["spelling"], **parts}}


COMPACT: dict[str, Callable[[State], State]] = {
    "another format": lambda state: {**state, "format": "other/1"},
    "no spelling": lambda state: {**state, "spelling": {}},
    "a scale that is a text": change_spelling(scale="x"),
    "a scale that is none": change_spelling(scale=float("nan")),
    "a norm of nothing": change_spelling(norm=None),
    "few buckets": change_spelling(weight=torch.zeros(3, 3, dtype=torch.int8)),
    "another width": change_spelling(weight=torch.zeros(2048, 5, dtype=torch.int8)),
    "a weight that is a text": change_spelling(weight="x"),
    "no tokens": lambda state: {**state, "token_ids": state["token_ids"][:0]},
    "tokens in descending order": lambda state: {**state, "token_ids": state["token_ids"].flip(0)},
    "tokens of floats": lambda state: {**state, "token_ids": state["token_ids"].float()},
    "tokens in columns": lambda state: {**state, "token_ids": state["token_ids"][:, None]},
    "a scalar": lambda state: {
        **state,
        "state_dict": {**state["state_dict"], "token_embedding.weight": torch.ones(())},
    },
    "a text": lambda state: {**state, "state_dict": {**state["state_dict"], "visual.conv1.weight": "x"}},
}


@pytest.mark.parametrize("kind", list(COMPACT))
def test_a_damaged_compact_checkpoint_is_refused(kind: str, tmp_path: Path) -> None:
    torch.save(COMPACT[kind](torch.load(EMBEDDED["embedded"], weights_only=True)), tmp_path / "file.pt")
    with pytest.raises(UserError, match=r"file\.pt"):
        load_clip(str(tmp_path / "file.pt"))


def test_names_in_different_scripts_have_different_features(checkpoints: dict[str, Path]) -> None:
    for name in ("embedded", str(checkpoints["vit"])):
        features = template_features(load_clip(name), ["犬", "собака", "كلب", "चित्र"], "a {}.")
        assert features.isfinite().all() and len(features.unique(dim=0)) == 4


PARTS: list[tuple[str, tuple[Any, ...]]] = [
    ("model_cfg.vision_cfg.image_size", ("x", None, -1, 0, 1.5, True, [], [32], [32, "x"], {}, 10**9, 2**70, [32, 40])),
    ("model_cfg.vision_cfg.layers", (10**6, -1, "x", [1, 2])),
    ("model_cfg.text_cfg.layers", (10**6, 10**30)),
    ("model_cfg.text_cfg.context_length", (0, "x")),
    ("model_cfg.text_cfg.vocab_size", (100, 10**9)),
    ("model_cfg.text_cfg.tokenizer_kwargs", ("x", 5)),
    ("model_cfg.embed_dim", (0, 10**9, None)),
    ("preprocess_cfg", ("x", 5, [1], True)),
    ("preprocess_cfg.mean", (0.5, "abc", [0.5], [0.5] * 4, ["a"] * 3, [float("nan")] * 3, [-1] * 3, True)),
    ("preprocess_cfg.std", ([0, 0, 0], [0.5] * 4, 1, [[0.5]] * 3)),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in PARTS for value in values])
def test_a_bad_value_in_a_config_is_refused(name: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "open-clip-of-others"
    if not folder.is_dir():
        write_model(folder, CONFIGS["vit"])
    config = json.loads(json.dumps({"model_cfg": CONFIGS["vit"], "preprocess_cfg": HALF}))
    *above, last = name.split(".")
    node = config
    for part in above:
        node = node[part]
    node[last] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"backbone open_clip:.*open-clip-of-others"):
        architecture(f"open_clip:{folder}")
        load_clip(f"open_clip:{folder}")


def test_pipes_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", CONFIGS["vit"])
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        (tmp_path / "model" / name).unlink()
        os.mkfifo(tmp_path / "model" / name)
        with pytest.raises(UserError):
            load_clip(f"open_clip:{tmp_path / 'model'}")


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(3, 4),
        torch.zeros(6, 5),
        torch.tensor(1.0),
        torch.zeros(0),
        torch.zeros(6, 4).int(),
        torch.zeros(6, 4).double(),
        torch.zeros(6, 4, 1),
        torch.eye(6)[:, :4].to_sparse(),
        torch.zeros(1).expand(6, 10**9),
        torch.zeros(6, 4, device="meta"),
        ["x"],
    ],
    ids=str,
)
def test_a_cached_tensor_of_another_shape_or_type_is_computed_again(other: Any, tmp_path: Path) -> None:
    features = torch.arange(24.0).view(6, 4)
    cached(lambda: features, tmp_path, "key", shape=(6, 4))
    torch.save(other, next(tmp_path.iterdir()))
    assert torch.equal(cached(lambda: features, tmp_path, "key", shape=(6, 4)), features)
    assert torch.equal(torch.load(next(tmp_path.iterdir())), features)
