"""The evidence that a run keeps for its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from coft.core.errors import UserError
from coft.core.table import Table
from coft.report import image_facts
from coft.report.image_facts import read_evidence, write_frozen, write_peers


@pytest.fixture
def features() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=1)


def test_evidence_round_trip(tmp_path: Path, features: torch.Tensor) -> None:
    text = features[:3]
    write_frozen(tmp_path, ["a", "<b>", "c\n"], Table.of(features), text, 50.0)
    write_peers(tmp_path, {"peer_a": torch.arange(40) % 3, "peer_b": torch.zeros(40, dtype=torch.long)})
    evidence = read_evidence(tmp_path)
    assert evidence is not None and evidence.classes == ["a", "<b>", "c\n"] and evidence.scale == 50
    assert list(evidence.zero_shot) == [int((row @ text.T).argmax()) for row in features]
    assert list(evidence.sample) == list(range(40)) and np.allclose(evidence.features, features, atol=1e-3)
    assert list(evidence.peers["peer_a"][:4]) == [0, 1, 2, 0] and np.array_equal(evidence.text, text.numpy())
    assert read_evidence(tmp_path / "nothing") is None


def test_the_sample_is_limited(features: torch.Tensor, tmp_path: Path) -> None:
    repeated = features.repeat(150, 1)
    write_frozen(tmp_path, ["a", "b", "c"], Table.of(repeated), features[:3], 50.0)
    evidence = read_evidence(tmp_path)
    assert evidence is not None and len(evidence.sample) == len(evidence.features) == image_facts.MIN_SAMPLE
    assert len(set(evidence.sample)) == image_facts.MIN_SAMPLE and evidence.sample.max() < len(repeated)
    assert np.allclose(evidence.features, repeated[evidence.sample], atol=1e-3)


@pytest.mark.parametrize("damage", ["cut", "version", "labels", "key", "scale"])
def test_damaged_files_are_refused(tmp_path: Path, features: torch.Tensor, damage: str) -> None:
    write_frozen(tmp_path, ["a", "b", "c"], Table.of(features), features[:3], 50.0)
    path = tmp_path / image_facts.FOLDER / image_facts.FROZEN
    classes = json.dumps(["a", "b", "c"])
    arrays, metadata = load_file(path), {"version": image_facts.VERSION, "classes": classes, "scale": "50.0"}
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "version":
        save_file(arrays, path, metadata | {"version": "0"})
    elif damage == "labels":
        save_file(arrays | {"zero_shot": np.full(40, 7, dtype=np.int32)}, path, metadata)
    elif damage == "scale":
        save_file(arrays, path, {key: value for key, value in metadata.items() if key != "scale"})
    else:
        save_file({key: value for key, value in arrays.items() if key != "text"}, path, metadata)
    with pytest.raises(UserError, match=str(tmp_path / "report")) as error:
        read_evidence(tmp_path)
    assert "\n" not in str(error.value)
