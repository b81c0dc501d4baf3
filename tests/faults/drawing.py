"""Values drawn from forms: sound ones, and sound ones of which one part is none of its form; the same for a seed."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from coft.core.schemas import Either, List, Number, PathText, Record, Row, Schema, Text
from coft.core.tensors import Array

Place = tuple[Any, ...]  # keys and numbers that lead to a part
MOST = 1_000_000  # entries or characters of what is drawn
LEAVES: tuple[Any, ...] = (
    *(
        None,
        True,
        -2,
        7,
        1.7,
        10**30,
        float("nan"),
        float("inf"),
        "",
        " ",
        "x",
        "x" * 5000,
        "a\0b",
        "\x1b[31m",
        "\ud800",
    ),
    *("../a.png", "/etc/passwd", [], {}, [[1]], {"a": {"b": None}}),
)
GONE = object()  # in place of a part that is left out
chosen = {"seed": 0}


@singledispatch
def strange(form: Schema, sound: Any) -> list[Any]:
    """Values near the bounds of a form, most of them beyond.

    Args:
        form: The form.
        sound: A value of it.
    """
    return []


@strange.register
def _(form: Number, sound: Any) -> list[Any]:
    return [form.low - 1, form.high + 1, form.low + 0.5, str(sound), [sound], bool(sound), form.low, form.high]


@strange.register
def _(form: Text, sound: Any) -> list[Any]:
    long = "x" * min(form.longest + 1, MOST)
    return [
        long,
        f"{sound}\x1b[2J",
        f"{sound}\ud800",
        f"a\0{sound}",
        [sound],
        {sound: sound},
        f"{sound}\u2028",
        sound * 2,
    ]


@strange.register
def _(form: PathText, sound: Any) -> list[Any]:
    return ["x" * (form.longest + 1), f"{sound}\0", "\ud800", [sound], f"../{sound}", f"{sound}\n", "/"]


@strange.register
def _(form: List, sound: Any) -> list[Any]:
    much = [(list(sound) * (form.most + 1))[: form.most + 1]] if form.most < MOST else []
    return [
        *much,
        list(sound) * 2,
        list(sound)[: form.least - 1] if form.least else dict(enumerate(sound)),
        [list(sound)],
    ]


@strange.register
def _(form: Row, sound: Any) -> list[Any]:
    return [list(sound)[:-1], [*sound, 0], list(reversed(sound)), dict(enumerate(sound))]


@strange.register
def _(form: Record, sound: Any) -> list[Any]:
    less = [{key: part for key, part in sound.items() if key != name} for name in form.parts]
    return [*less, {**sound, "\x1b": 1}, {**sound, "unknown": {"a": [1]}}, [sound], list(sound.items()), list(sound)]


@strange.register
def _(form: Either, sound: Any) -> list[Any]:
    return [value for part in form.forms if part.matches(sound) for value in strange(part, sound)]


@strange.register
def _(form: Array, sound: torch.Tensor) -> list[Any]:
    others = [sound.new_zeros((*sound.shape, 2)), sound.new_zeros(0), torch.tensor(1.0), "x", None, [1.0]]
    types = [torch.int64, torch.complex64, torch.float8_e4m3fn, torch.bfloat16, torch.float64, torch.bool]
    large = torch.zeros(1).expand(*(1 << 14 for _ in range(max(2, sound.dim()))))
    odd = [sound.float().to_sparse(), sound.to("meta"), large, sound.reshape(-1)[:-1]]
    spoiled = [torch.full_like(sound, value) for value in (float("nan"), float("inf")) if sound.is_floating_point()]
    return [*others, *(sound.to(kind) for kind in types), *odd, *spoiled]


def parts_of(form: Schema, value: Any, place: Place = ()) -> Iterator[tuple[Place, Schema]]:
    """All parts of a value with their forms, itself first."""
    yield place, form
    if isinstance(form, Either):
        form = next(part for part in form.forms if part.matches(value))
    if isinstance(form, Record):
        for key, part in value.items():
            of_part = {**form.parts, **form.optional}.get(key, form.others)
            if of_part is not None:
                yield from parts_of(of_part, part, (*place, key))
    elif isinstance(form, (List, Row)):
        forms = form.forms if isinstance(form, Row) else [form.of] * len(value)
        for number, (of_part, part) in enumerate(zip(forms, value, strict=True)):
            yield from parts_of(of_part, part, (*place, number))


def part_at(tree: Any, place: Place) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def changed(tree: Any, place: Place, part: Any) -> Any:
    """A value with another part in a place, or without it."""
    if not place:
        return part
    result = copy.copy(tree)
    result = list(result) if isinstance(result, tuple) else result
    if part is GONE and len(place) == 1:
        del result[place[0]]
    else:
        result[place[0]] = changed(tree[place[0]], place[1:], part)
    return result


def spoiled(form: Schema, tree: Any) -> st.SearchStrategy[tuple[Place, Any]]:
    """A value of a form in which one part is left out or another, and where: type, range, length, letters, dtype."""

    def others(item: tuple[Place, Schema]) -> st.SearchStrategy[tuple[Place, Any]]:
        place, part = item
        sound = part_at(tree, place)
        values = [*strange(part, sound), *LEAVES, *([GONE] if place else [])]
        return st.sampled_from(values).map(lambda value: (place, changed(tree, place, value)))

    return st.sampled_from(list(parts_of(form, tree))).flatmap(others)


def change_of(example: tuple[Place, Any]) -> str:
    """What tells a spoiled value from others of the same sound one: the place and its part."""
    place, tree = example
    try:
        return f"{place} {part_at(tree, place)!r}"
    except (KeyError, IndexError):
        return f"{place} is gone"


def drawn(kind: st.SearchStrategy[Any], count: int = 300, key: Callable[[Any], str] = repr) -> list[Any]:
    """Examples that hypothesis draws, the same ones for a seed; those that come twice, by the key, are there once."""
    set_hypothesis_home_dir(str(Path(tempfile.gettempdir()) / "coft-hypothesis"))  # not in the checkout
    quiet: dict[str, Any] = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
    examples: dict[str, Any] = {}

    @seed(chosen["seed"])
    @settings(max_examples=count, phases=(Phase.generate,), **quiet)
    @given(kind)
    def collect(example: Any) -> None:
        examples[key(example)] = example

    collect()
    return list(examples.values())
