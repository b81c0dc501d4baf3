from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from coft.core.errors import UserError
from coft.core.settings import checked, flatten, implied, keys, load, setting, share


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.1, "how fast", above=0.0, below=1.0, phase2=False)
    from_: str = setting("auto", "where from")


@dataclass(frozen=True)
class Outer:
    count: int = setting(3, "how many", at_least=1, at_most=9)
    loud: bool = setting(False, "how loud")
    part: float = share(0.5, "how much")
    kind: str = setting("one", "which", choices=("one", "two"), phase2=True, in_phase1=("two",))
    pair: tuple[float, ...] = setting((0.0, 1.0), "from, to", lengths=(0, 2))
    steps: tuple[int, ...] = setting((), "when", at_least=1)
    inner: Inner = field(default_factory=lambda: Inner(rate=0.2), metadata={"phase2": True, "free": True})

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.loud and self.kind == "two":
            yield "KIND", "loud ones are of kind one"


def test_keys_of_a_class_include_those_of_its_sections() -> None:
    assert [(key.name, key.default, key.expected, key.help) for key in keys(Outer, "A").values()] == [
        ("A.COUNT", 3, "a whole number from 1 to 9", "how many"),
        ("A.LOUD", False, "True or False", "how loud"),
        ("A.PART", 0.5, "a number from 0 to 1", "how much"),
        ("A.KIND", "one", "one of one, two", "which"),
        ("A.PAIR", (0.0, 1.0), "a list of 0 or 2 numbers, such as [0.5, 1]", "from, to"),
        ("A.STEPS", (), "a list of whole numbers of at least 1, such as [20, 40]", "when"),
        ("A.INNER.RATE", 0.2, "a number above 0 and below 1", "how fast"),
        ("A.INNER.FROM", "auto", "text", "where from"),
    ]
    rate, from_ = (key for key in keys(Outer).values() if "INNER" in key.name)
    assert (rate.phase2, rate.free) == (False, True) and (from_.phase2, from_.free) == (True, True)


def test_same_phase1_depends_on_whether_phase_one_reads_the_setting() -> None:
    settings = keys(Outer)
    assert settings["KIND"].same_phase1("one", "other") and not settings["KIND"].same_phase1("two", "one")
    assert settings["COUNT"].same_phase1(1, 1) and not settings["COUNT"].same_phase1(1, 2)
    assert settings["INNER.FROM"].same_phase1("a", "b")


def test_values_are_converted_to_the_type_of_the_field() -> None:
    values = flatten({"A": {"PART": 1, "PAIR": [1, 2], "INNER": {"FROM": "there"}, "MORE": 1}})
    settings = load(Outer, values, "A")
    assert settings == Outer(part=1.0, pair=(1.0, 2.0), inner=Inner(rate=0.2, from_="there"))
    assert type(settings.part) is float and type(settings.pair[0]) is float
    assert load(Outer, {}) == Outer() and load(settings, {}) == settings


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"COUNT": True}, "A.COUNT is True; expected a whole number from 1 to 9"),
        ({"COUNT": 3.0}, "A.COUNT is 3.0; "),
        ({"COUNT": 10}, "A.COUNT is 10; "),
        ({"COUNT": 10**6000}, "A.COUNT is a number of thousands of digits; "),
        ({"STEPS": [2**40]}, "A.STEPS is [1099511627776]; "),
        ({"LOUD": 1}, "A.LOUD is 1; "),
        ({"PART": float("nan")}, "A.PART is nan; "),
        ({"PART": "0.5"}, "A.PART is '0.5'; "),
        ({"KIND": "tow"}, "A.KIND is 'tow'; expected one of one, two; did you mean 'two'?"),
        ({"KIND": "two", "LOUD": True}, "A.KIND is 'two'; loud ones are of kind one"),
        ({"PAIR": [1.0, "x"]}, "A.PAIR is [1.0, 'x']; "),
        ({"PAIR": [1.0]}, "A.PAIR is [1.0]; "),
        ({"INNER": {"RATE": 1}}, "A.INNER.RATE is 1; "),
        ({"INNER": {"FROM": 5}}, "A.INNER.FROM is 5; expected text"),
    ],
)
def test_bad_values_are_refused(tree: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        load(Outer, flatten(tree, "A"), "A")
    assert error.value.line.startswith(line)


def test_an_undeclared_key_has_the_type_of_its_default() -> None:
    assert checked(implied("A", 1), 2) == 2 and checked(implied("A", [1]), ("a", 2.0)) == ("a", 2.0)
    assert checked(implied("A", None), {"any": "thing"}) == {"any": "thing"}
    for key, value in ((implied("A", 1), "2"), (implied("A", ()), 1), (implied("A", ()), [[1]])):
        with pytest.raises(UserError, match=r"A is .*; expected a "):
            checked(key, value)
