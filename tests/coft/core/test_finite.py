"""What is no number is named."""

from __future__ import annotations

import pytest
import torch

from coft.core.errors import UserError
from coft.core.finite import check_finite, check_predictions, first_not_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_tensor_that_is_not_finite_is_named(value: float) -> None:
    fine, bad = torch.ones(3), torch.tensor([1.0, value])
    assert (
        first_not_finite({"number": torch.tensor(3), "words": "text", "fine": fine, "bad": bad, "worse": bad}) == "bad"
    )
    assert first_not_finite({"fine": fine, "half": torch.ones(2, dtype=torch.bfloat16)}) == ""
    with pytest.raises(UserError, match=r"file: bad has values that are not finite .*; lower it"):
        check_finite({"bad": bad}, "file", "lower it")


def test_a_class_may_be_impossible_but_not_unknown() -> None:
    check_predictions(torch.tensor([[0.0, -torch.inf]]))
    with pytest.raises(UserError, match="not finite"):
        check_predictions(torch.tensor([[0.0, torch.nan]]))
