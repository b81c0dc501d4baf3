"""Arguments of commands."""

from __future__ import annotations

import pytest

from coft.core.errors import Parser, UserError


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ouput", "x"], "unrecognized arguments: --ouput x; did you mean --output?"),
        (["--out", "x"], "unrecognized arguments: --out x; did you mean --output?"),
        (["--zzz=1"], "unrecognized arguments: --zzz=1; coft --help lists what is available"),
        (["--count", "many"], "argument --count: invalid int value: 'many'; coft --help lists what is available"),
    ],
)
def test_a_flag_that_is_not_known_is_named_with_the_nearest(words: list[str], reason: str) -> None:
    parser = Parser(prog="coft")
    parser.add_argument("--output")
    parser.add_argument("--count", type=int)
    with pytest.raises(UserError) as caught:
        parser.parse_args(words)
    assert caught.value.line == reason
