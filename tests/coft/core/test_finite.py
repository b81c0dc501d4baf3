"""Values that are not finite are found and named."""

from __future__ import annotations

import pytest
import torch

from coft.core.errors import UserError
from coft.core.finite import check_finite, check_models, check_predictions, first_not_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_tensor_that_is_not_finite_is_named(value: float) -> None:
    fine, bad = torch.ones(3), torch.tensor([1.0, value])
    assert (
        first_not_finite({"number": torch.tensor(3), "words": "text", "fine": fine, "bad": bad, "worse": bad}) == "bad"
    )
    assert first_not_finite({"fine": fine, "half": torch.ones(2, dtype=torch.bfloat16)}) == ""
    with pytest.raises(UserError, match=r"file: bad has values that are not finite .*; lower it"):
        check_finite({"bad": bad}, "file", "lower it")


@pytest.mark.parametrize("index", [0, 4, 9])
def test_every_value_is_checked(index: int) -> None:
    rows = torch.zeros(10, 2)
    assert first_not_finite({"rows": rows, "number": torch.tensor(1.0), "none": torch.zeros(0, 2)}) == ""
    rows[index, 1] = torch.inf
    assert first_not_finite({"rows": rows}) == "rows"
    assert first_not_finite({"number": torch.tensor(torch.nan)}) == "number"
    rows[index - 1, 0] = -torch.inf  # the sum of both is nan
    assert first_not_finite({"rows": rows}) == "rows"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_whose_sum_overflows_are_finite(dtype: torch.dtype) -> None:
    large = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)
    assert first_not_finite({"large": large}) == ""
    large[1] = torch.nan
    assert first_not_finite({"large": large}) == "large"


def test_a_weight_that_is_not_finite_is_named_with_its_model() -> None:
    models = {name: torch.nn.Linear(2, 2) for name in ("peer_a", "peer_b")}
    check_models(models, "epoch 1")
    models["peer_b"].bias.data[1] = torch.nan
    with pytest.raises(UserError, match=r"epoch 1: peer_b\.bias has values .*; training has diverged; lower OPTIM\.LR"):
        check_models(models, "epoch 1")


def test_a_log_probability_may_be_minus_infinity_but_not_nan() -> None:
    check_predictions(torch.tensor([[0.0, -torch.inf]]))
    with pytest.raises(UserError, match="not finite"):
        check_predictions(torch.tensor([[0.0, torch.nan]]))
