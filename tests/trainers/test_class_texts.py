"""Class descriptions in every trainer that reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coft.backbones.descriptions import described_features, load_descriptions
from coft.backbones.prompts import ensemble_features, template_features
from coft.core.errors import UserError
from tests.conftest import CLASSNAMES
from tests.trainers.conftest import in_section, templates_of, text_features
from tests.trainers.runs import Run


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoFT", "SelfTraining", "Supervised", "DeFT"])
def test_descriptions_are_mixed_in_with_their_share(trainer: str, run: Run, trained: Run, described: Path) -> None:
    plain = trained(trainer)
    mixed = run(trainer, train=False, DATASET__DESCRIPTIONS=described, DATASET__DESCRIPTIONS_SHARE=0.3)
    templates = templates_of(plain)
    expected = described_features(plain.clip_model, CLASSNAMES, templates, load_descriptions(described), 0.3)
    torch.testing.assert_close(text_features(mixed), expected)
    torch.testing.assert_close(text_features(plain), ensemble_features(plain.clip_model, CLASSNAMES, templates))
    assert not torch.equal(text_features(plain), text_features(mixed))


def test_coft_plus_uses_descriptions_for_seeds_and_predictions(run: Run, described: Path) -> None:
    mixed = run("CoFTPlus", train=False, TRAINER__COFTPLUS__DESCRIPTIONS__FROM=str(described))
    args = (mixed.clip_model, mixed.classnames, templates_of(mixed), load_descriptions(described))
    torch.testing.assert_close(mixed.method.zero_shot_text(), described_features(*args, 0.25))
    torch.testing.assert_close(mixed.method.described, described_features(*args, 1.0))


def test_texts_of_lafter_are_templates_and_descriptions(
    run: Run, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained("LaFTer")  # Shapes has no descriptions
    templates = templates_of(plain)
    for c, texts in enumerate(plain.method.texts()):
        expected = [template_features(plain.clip_model, plain.classnames, t)[c] for t in templates]
        torch.testing.assert_close(texts, torch.stack(expected))
    descriptions = {name: ["lines"] for name in CLASSNAMES} | {"green square": ["four corners", "like grass"]}
    monkeypatch.setattr("coft.engine.class_texts.descriptions_of", lambda *args: descriptions)
    method = (built := run("LaFTer", train=False)).method
    assert [len(texts) - len(templates) for texts in method.texts()] == [1, 2, 1]
    sentence = template_features(built.clip_model, ["like grass a photo of a green square."], "{}")[0]
    torch.testing.assert_close(method.texts()[1][-1], sentence, atol=1e-5, rtol=1e-4)
    without = run("LaFTer", train=False, out="without", TRAINER__LAFTER__DESCRIPTIONS=False)
    assert [len(texts) for texts in without.method.texts()] == [len(templates)] * 3


def test_a_data_set_without_descriptions_gives_a_warning(
    run: Run, trained: Run, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = run("ZeroshotCLIP", train=False, DATASET__DESCRIPTIONS="auto")
    assert torch.equal(text_features(trained("ZeroshotCLIP")), text_features(mixed))
    assert "continues without descriptions" in caplog.text
    caplog.clear()
    assert run("CoFTPlus", train=False, out="plus").method.describe is None
    assert "continues without descriptions" in caplog.text
    caplog.clear()
    caplog.set_level("INFO")
    settings = in_section("COFTPLUS", {"CONTRAST__WEIGHT": 0.0, "ROUNDS": 1, "DESCRIPTIONS__FROM": "given"})
    assert run("CoFTPlus", train=False, out="given", **settings).method.describe is None
    assert "continues without descriptions" not in caplog.text
    assert "All parts of CoFT+ are switched off, so it is CoFT" in caplog.text


def test_bad_descriptions_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CoOp learns its prompts from labels"):
        run("CoOp", train=False, DATASET__DESCRIPTIONS="auto")
    with pytest.raises(UserError, match=r"no\.json: cannot be read"):
        run("CoFTPlus", train=False, TRAINER__COFTPLUS__DESCRIPTIONS__FROM=str(tmp_path / "no.json"))
