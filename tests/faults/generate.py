"""Generated values: valid objects of a form with one corrupted part. The seed determines the sample."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from coft.core.schemas import PATH_MAX, Either, List, Number, PathText, Record, Row, Schema, Text
from coft.core.tensors import Array

Key = tuple[Any, ...]  # keys and indices that lead to a part of an object
LARGEST = 1_000_000  # most entries or characters of a generated value
WRONG_PARTS: tuple[Any, ...] = (
    *(None, True, -2, 7, 1.7, 10**30, float("nan"), float("inf"), "", " ", "x", "x" * 5000, "a\0b", "\x1b[31m"),
    *("\ud800", "../a.png", "/etc/passwd", [], {}, [[1]], {"a": {"b": None}}),
)
DELETED = object()  # replacement that removes a part
sample = {"seed": 0}


def edge_values(form: Schema, valid: Any) -> list[Any]:
    """Return values near the bounds of a form, most of them invalid."""
    match form:
        case Number():
            low, high = form.low, form.high
            return [low - 1, high + 1, low + 0.5, str(valid), [valid], bool(valid), low, high]
        case Text():
            too_long = "x" * min(form.longest + 1, LARGEST)
            odd_letters = [f"{valid}\x1b[2J", f"{valid}\ud800", f"a\0{valid}", f"{valid}\u2028"]
            return [too_long, *odd_letters, [valid], {valid: valid}, valid * 2]
        case PathText():
            too_long = "x" * (PATH_MAX + 1)
            return [too_long, f"{valid}\0", "\ud800", [valid], f"../{valid}", f"{valid}\n", "/"]
        case List():
            entries = list(valid)
            too_many = [(entries * (form.most + 1))[: form.most + 1]] if form.most < LARGEST else []
            too_few = entries[: form.least - 1] if form.least else dict(enumerate(entries))
            return [*too_many, entries * 2, too_few, [entries]]
        case Row():
            return [list(valid)[:-1], [*valid, 0], list(reversed(valid)), dict(enumerate(valid))]
        case Record():
            incomplete = [{key: part for key, part in valid.items() if key != name} for name in form.parts]
            unknown = [{**valid, "\x1b": 1}, {**valid, "unknown": {"a": [1]}}]
            return [*incomplete, *unknown, [valid], list(valid.items()), list(valid)]
        case Either():
            return [value for part in form.forms if part.matches(valid) for value in edge_values(part, valid)]
        case Array():
            return edge_tensors(valid)
    return []


def edge_tensors(valid: torch.Tensor) -> list[Any]:
    """Return tensors of other shapes, types, layouts and devices, tensors with NaN or infinity, and other objects."""
    dtypes = (torch.int64, torch.complex64, torch.float8_e4m3fn, torch.bfloat16, torch.float64, torch.bool)
    huge = torch.zeros(1).expand(*(1 << 14 for _ in range(max(2, valid.dim()))))
    shapes = [valid.new_zeros((*valid.shape, 2)), valid.new_zeros(0), torch.tensor(1.0), valid.reshape(-1)[:-1], huge]
    non_finite = [torch.full_like(valid, float(value)) for value in ("nan", "inf") if valid.is_floating_point()]
    other_kinds = [valid.float().to_sparse(), valid.to("meta"), *(valid.to(dtype) for dtype in dtypes)]
    return [*shapes, *other_kinds, *non_finite, "x", None, [1.0]]


def parts_of(form: Schema, value: Any, key: Key = ()) -> Iterator[tuple[Key, Schema]]:
    """Yield the keys and forms of all parts of a value, first of the value itself."""
    yield key, form
    if isinstance(form, Either):
        form = next(part for part in form.forms if part.matches(value))
    if isinstance(form, Record):
        for name, part in value.items():
            part_form = {**form.parts, **form.optional}.get(name, form.others)
            if part_form is not None:
                yield from parts_of(part_form, part, (*key, name))
    elif isinstance(form, (List, Row)):
        forms = form.forms if isinstance(form, Row) else [form.of] * len(value)
        for number, (part_form, part) in enumerate(zip(forms, value, strict=True)):
            yield from parts_of(part_form, part, (*key, number))


def part_at(tree: Any, key: Key) -> Any:
    for name in key:
        tree = tree[name]
    return tree


def replaced(tree: Any, key: Key, part: Any) -> Any:
    """Return a copy of an object with another part at a key, or without it."""
    if not key:
        return part
    result = list(tree) if isinstance(tree, tuple) else copy.copy(tree)
    if part is DELETED and len(key) == 1:
        del result[key[0]]
    else:
        result[key[0]] = replaced(tree[key[0]], key[1:], part)
    return result


def corruptions(form: Schema, valid: Any, count: int) -> list[tuple[Key, Any]]:
    """Return up to `count` copies of an object with one part replaced or deleted, and the keys of these parts."""
    values = [
        (key, value)
        for key, part_form in parts_of(form, valid)
        for value in (*edge_values(part_form, part_at(valid, key)), *WRONG_PARTS, *([DELETED] if key else []))
    ]
    chosen = random.Random(sample["seed"]).sample(values, min(count, len(values)))
    return [(key, replaced(valid, key, value)) for key, value in chosen]


def draw(strategy: st.SearchStrategy[Any], count: int = 300) -> list[Any]:
    """Draw up to `count` different examples; the seed determines them."""
    set_hypothesis_home_dir(str(Path(tempfile.gettempdir()) / "coft-hypothesis"))  # not in the checkout
    options: dict[str, Any] = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
    examples: dict[str, Any] = {}

    @seed(sample["seed"])
    @settings(max_examples=count, phases=(Phase.generate,), **options)
    @given(strategy)
    def collect(example: Any) -> None:
        examples[repr(example)] = example

    collect()
    return list(examples.values())
