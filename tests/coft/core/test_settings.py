from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coft.core.errors import UserError
from coft.core.settings import defaults, keys, load, rows, setting, share
from scripts import settings as page


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.1, "how fast", above=0.0, below=1.0)
    from_: str = setting("auto", "where from")


@dataclass(frozen=True)
class Outer:
    count: int = setting(3, "how many", at_least=1, at_most=9)
    loud: bool = setting(False, "how loud")
    part: float = share(0.5, "how much")
    kind: str = setting("one", "which", choices=("one", "two"))
    pair: tuple[float, ...] = setting((0.0, 1.0), "from, to", fits=lambda v: len(v) == 2, words="two")
    inner: Inner = field(default_factory=lambda: Inner(rate=0.2))

    def misfits(self) -> Iterator[tuple[str, str]]:
        if self.loud and self.kind == "two":
            yield "KIND", "loud ones are of kind one"


def test_defaults_and_rows() -> None:
    inner = {"RATE": 0.2, "FROM": "auto"}
    outer = {"COUNT": 3, "LOUD": False, "PART": 0.5, "KIND": "one", "PAIR": (0.0, 1.0), "INNER": inner}
    assert defaults(Outer) == outer and load(Outer, outer) == Outer() and load(Outer, {}) == Outer()
    assert list(keys(Outer, "A")) == [*(f"A.{key}" for key in list(outer)[:-1]), "A.INNER.RATE", "A.INNER.FROM"]
    assert rows(Outer, "A") == [
        ("A.COUNT", "3", "a whole number from 1 to 9", "how many"),
        ("A.LOUD", "False", "True or False", "how loud"),
        ("A.PART", "0.5", "a number from 0 to 1", "how much"),
        ("A.KIND", "'one'", "one of one, two", "which"),
        ("A.PAIR", "[0.0, 1.0]", "a list of numbers, such as [0.5, 1], two", "from, to"),
        ("A.INNER.RATE", "0.2", "a number above 0 and below 1", "how fast"),
        ("A.INNER.FROM", "'auto'", "text", "where from"),
    ]


def test_what_is_equal_is_taken() -> None:
    made = load(Outer, {"PART": 1, "PAIR": [1, 2], "INNER": {"FROM": "there"}})
    assert made == Outer(part=1.0, pair=(1.0, 2.0), inner=Inner(rate=0.2, from_="there"))
    assert type(made.part) is float and type(made.pair[0]) is float


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"COUNT": True}, "A.COUNT is True; expected a whole number from 1 to 9"),
        ({"COUNT": 3.0}, "A.COUNT is 3.0; expected a whole number from 1 to 9"),
        ({"COUNT": 10}, "A.COUNT is 10; expected a number from 1 to 9"),
        (
            {"COUNT": 10**6000},
            "A.COUNT is a number of thousands of digits; expected a whole number from 1 to 9, and no",
        ),
        ({"LOUD": 1}, "A.LOUD is 1; expected True or False"),
        ({"PART": float("nan")}, "A.PART is nan; expected a number from 0 to 1, and no more than"),
        ({"PART": "0.5"}, "A.PART is '0.5'; expected a number from 0 to 1"),
        ({"KIND": "tow"}, "A.KIND is 'tow'; expected one of one, two; did you mean 'two'?"),
        ({"KIND": "two", "LOUD": True}, "A.KIND is 'two'; loud ones are of kind one"),
        ({"PAIR": 1.0}, "A.PAIR is 1.0; expected a list of numbers, such as [0.5, 1], two"),
        ({"PAIR": [1.0, "x"]}, "A.PAIR is [1.0, 'x']; expected a list of numbers, such as [0.5, 1], two"),
        ({"PAIR": [1.0]}, "A.PAIR is (1.0,); expected two"),
        ({"INNER": 5}, "A.INNER is 5; expected a section with the keys RATE, FROM"),
        ({"INNER": {"RATE": 1}}, "A.INNER.RATE is 1.0; expected a number above 0 and below 1"),
        ({"INNER": {"FROM": 5}}, "A.INNER.FROM is 5; expected text; write \"'5'\" for a text that looks like this"),
        ({"INNER": {"RAET": 1}}, "unknown config key 'A.INNER.RAET'; did you mean 'A.INNER.RATE'?"),
    ],
)
def test_what_is_not_is_refused(tree: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        load(Outer, tree, "A")
    assert error.value.line.startswith(line)


def test_other_keys_are_passed_over_on_demand() -> None:
    assert load(Outer, {"MORE": 1, "INNER": {"MORE": 2}}, "A", others=True) == Outer()


def test_the_page_of_settings_is_up_to_date() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert Path(page.PAGE).is_file() and page.page(text) == text, "run: python scripts/settings.py"
