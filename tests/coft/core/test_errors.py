"""Arguments of commands."""

from __future__ import annotations

import pytest

from coft.core.errors import Parser, UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ouput", "x"], "--ouput x; did you mean --output?"),
        (["--out", "x"], "--out x; did you mean --output?"),
        (["--zzz=1"], "--zzz=1; coft --help"),
        (["--count", "many"], "--count: invalid int value: 'many'; coft --help"),
    ],
)
def test_a_bad_argument_is_named_with_the_nearest_flag(words: list[str], message: str) -> None:
    parser = Parser(prog="coft")
    parser.add_argument("--output")
    parser.add_argument("--count", type=int)
    with pytest.raises(UserError) as error:
        parser.parse_args(words)
    assert message in error.value.line
