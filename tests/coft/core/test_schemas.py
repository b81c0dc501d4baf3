"""Schemas accept and refuse values, and name the part that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coft.core.schemas import (
    Either,
    Flag,
    List,
    Number,
    PathText,
    Record,
    Row,
    Schema,
    SchemaError,
    Text,
    maybe,
    numbers,
    whole,
)
from coft.core.tensors import FLOATS, Array, floats, load_saved
from coft.core.untrusted import parse_json

NAN, INFINITE = float("nan"), float("inf")
EXAMPLES: list[tuple[Schema, list[Any], list[Any]]] = [
    (whole(1, 5), [1, 5], [0, 6, 1.0, True, "1", None, NAN, 10**30]),
    (Number(0, 1), [0, 0.5, 1], [-0.1, 1.1, NAN, INFINITE, True, "0.5", [0.5], None]),
    (Flag(), [True, False], [0, 1, "true", None]),
    (Text(3), ["", "abc", "犬"], ["abcd", "a\n", "\x1b", "\0", "\ud800", "\u2028", b"a", 3, None]),
    (Text(30, least=1, lines=True), ["a", "a\nb\t"], ["", " \n", "a\x07b"]),
    (Text(choices=("a", "b")), ["a"], ["c", "", None]),
    (PathText(), ["a", "/a\nb", "caf\udce9"], ["", "a\0", "\ud800", "x" * 5000, None, 3]),
    (maybe(whole(0, 1)), [None, 0], [2, "x", False]),
    (Either((Flag(), Text(3))), [True, "abc"], [1, None, "abcd"]),
    (numbers(0, 1, 3), [[0, 0.5, 1], (1, 1, 1)], [[0.5], [0.5] * 4, 0.5, "abc", [None] * 3, [[0.5]] * 3]),
    (List(Text(1), 1, 2), [["a"]], [[], ["a"] * 3, "a", {"a": 1}, None]),
    (List(Text(1), key=str.lower), [["a", "b"], []], [["a", "A"], ["a", "b", "a"]]),
    (Row((Text(1), whole(0))), [["a", 0], ("a", 7)], [["a"], ["a", 0, 0], [0, "a"], "a0"]),
    (
        Record({"a": Flag()}, {"b": Flag()}),
        [{"a": True}, {"a": True, "b": False}],
        [{}, {"a": 1}, {"a": True, "c": 1}, []],
    ),
    (Record(others=Flag()), [{}, {"x": True}], [{"x": 1}, {"\x1b": True}, {1: True}, None]),
    (floats((1, 3), 2), [torch.zeros(3, 2), torch.zeros(1, 2).half()], [torch.zeros(4, 2), torch.zeros(2), [[0, 0]]]),
    (Array(), [torch.zeros(2), torch.zeros(2).int()], [torch.eye(2).to_sparse(), torch.zeros(1, device="meta")]),
    (Array(), [torch.zeros(())], [torch.zeros(1).expand(1 << 12, 1 << 12), torch.zeros(2).to(torch.complex64), None]),
    (Array(dtypes=FLOATS), [torch.zeros(2).bfloat16()], [torch.zeros(2).int(), torch.zeros(2).to(torch.float8_e4m3fn)]),
]


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"), EXAMPLES, ids=lambda x: str(x)[:40] if isinstance(x, Schema) else ""
)
def test_a_schema_accepts_valid_values_only(schema: Schema, valid: list[Any], invalid: list[Any]) -> None:
    for value in valid:
        schema.check(value)
    for value in invalid:
        with pytest.raises(SchemaError, match=r"expected|which is unknown|has no"):
            schema.check(value)


def test_the_wrong_part_is_named() -> None:
    schema = Record({"rows": List(Record({"size": whole(1, 9)}))})
    with pytest.raises(SchemaError, match=r"^file\.rows\[1\]\.size is 10; expected a whole number from 1 to 9$"):
        schema.check({"rows": [{"size": 1}, {"size": 10}]}, "file")
    with pytest.raises(SchemaError, match=r"^rows\[0\] has no 'size'$"):
        schema.check({"rows": [{}]})


@pytest.mark.parametrize(
    "content",
    [
        {"a": [torch.eye(3).to_sparse()]},
        (torch.zeros(2, device="meta"),),
        {"a": {"b": torch.zeros(1).expand(1 << 14, 1 << 14)}},
        torch.nn.Linear(1, 1),
    ],
    ids=["sparse", "meta", "larger than the file", "an object"],
)
def test_saved_files_with_sparse_or_oversized_tensors_or_objects_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file")
    with pytest.raises(ValueError):
        load_saved(tmp_path / "file")


def test_json_with_a_key_twice_is_refused() -> None:
    assert parse_json('{"cat": [{"a": 1}, {"a": 2}]}') == {"cat": [{"a": 1}, {"a": 2}]}
    with pytest.raises(ValueError, match="'cat' is listed twice"):
        parse_json('[{"fox": 1, "cat": 2, "cat": 3}]')
