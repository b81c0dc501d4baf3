"""What may be wrong with a file, whatever it should hold. A mutation changes a file that is as it should be."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from coft.core.schemas import Schema

from .drawing import change_of, drawn, spoiled
from .oracle import EITHER, MARK, REFUSED, SECRET, Right

Mutation = Callable[[Path], object]


def inputs() -> dict[str, Any]:
    """What inputs.yaml has, its placeholders filled."""
    text = Path(__file__).with_name("inputs.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text.replace("{secret}", SECRET).replace("{long}", "x" * 900).replace("{name}", "x" * 250))


INPUTS = inputs()


class Program:
    """A pickle that would run a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def rewriting(change: Callable[[bytes], bytes]) -> Mutation:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def holding(content: bytes | str) -> Mutation:
    """The mutation that gives a file another content."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def contents(texts: Mapping[str, bytes | str]) -> dict[str, Mutation]:
    return {name: holding(text) for name, text in texts.items()}


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def flipped(data: bytes, seed: int, letters: bytes = bytes(range(256))) -> bytes:
    """A file with a few other bytes; with every other seed, in its header."""
    source, result = random.Random(seed), bytearray(data)
    for _ in range(1 + seed % 5):
        result[source.randrange(min(len(data), 60 if seed % 2 else len(data)))] = source.choice(letters)
    return bytes(result)


def flipped_member(data: bytes, seed: int) -> bytes:
    """A zip file, as torch writes it, with another bit in one of its larger members."""
    source, result = random.Random(seed), bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = source.choice([member for member in archive.infolist() if member.file_size > 64])
        content = archive.read(member)
    result[data.index(content) + source.randrange(len(content))] ^= 1 << source.randrange(8)
    return bytes(result)


def flips(count: int, flip: Callable[..., bytes] = flipped, **options: Any) -> dict[str, Mutation]:
    """Mutations of a few bytes, or letters."""
    kind = "letters" if options else "bytes"
    return {f"other {kind} {seed}": rewriting(partial(flip, seed=seed, **options)) for seed in range(count)}


LETTERS = flips(20, letters=b"{}[]\",:0x-\\ \0&*!'#\n\t")  # which mean something to JSON and YAML
GARBAGE: dict[str, Mutation] = {  # which is no file of any kind
    "empty": holding(b""),
    "zeros": holding(bytes(10_000)),
    "a word": holding("hello"),
    "HTML": holding("<html><script>alert(1)</script></html>"),
    "nested deeply": holding("[" * 100_000),
    "a program": holding(pickle.dumps(Program())),
}
DAMAGE: dict[str, Mutation] = {  # which may be seen, or make no difference
    **{f"cut to {share:.0%}": rewriting(partial(cut, share=share)) for share in (0.05, 0.3, 0.6, 0.9, 0.99)},
    "bytes after it": rewriting(lambda data: data + b"more" * 100),
    "not UTF-8": rewriting(lambda data: b"\xff" + data[1:]),
    "in UTF-16": rewriting(lambda data: data.decode("latin-1").encode("utf-16")),
    "a zero within": rewriting(lambda data: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]),
}


GROWING = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{{', '.join(f'k{m}: *a{n}' for m in range(9))}}}\n" for n in range(12)
)
ALIASES: dict[str, Mutation] = {"aliases of aliases": lambda path: path.write_text(GROWING)}


def name_again(path: Path) -> None:
    """Write a mapping in JSON or YAML once more, with its first name twice."""
    record = yaml.safe_load(path.read_text())
    first = next(iter(record))
    path.write_text(f"{json.dumps({first: record[first]})[:-1]}, {json.dumps(record)[1:]}")


TWICE: dict[str, Mutation] = {"a name twice": name_again}


def placing(make: Callable[[Path], object]) -> Mutation:
    """The mutation that puts something else in a file's place."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


NOT_THERE: dict[str, Mutation] = {
    "not there": placing(lambda path: None),
    "a folder": placing(Path.mkdir),
    "a link to nothing": placing(lambda path: path.symlink_to("nowhere")),
    "a circle of links": placing(lambda path: path.symlink_to(path.name)),
}
PLACES: dict[str, Mutation] = {
    **NOT_THERE,
    "a pipe": placing(os.mkfifo),
    "a device": placing(lambda path: path.symlink_to("/dev/zero")),
    "100 GB of nothing": placing(sparse),
    "not to be read": lambda path: path.chmod(0),
}


def by_form(
    form: Schema, tree: Any, hold: Callable[[Any], Mutation], count: int = 150
) -> dict[Right, dict[str, Mutation]]:
    """Mutations of a file that holds a value of a form: one part is another. The form says which have to be refused."""
    made: dict[Right, dict[str, Mutation]] = {REFUSED: {}, EITHER: {}}
    for number, (place, value) in enumerate(drawn(spoiled(form, tree), count, change_of)):
        right = EITHER if form.matches(value) else REFUSED
        made[right][f"{'.'.join(map(str, place)) or 'all'} {number}"] = hold(value)
    return made


def in_json(value: Any) -> Mutation:
    return holding(json.dumps(value))


def in_yaml(value: Any) -> Mutation:
    return holding(yaml.safe_dump(json.loads(json.dumps(value))))


def saving(value: Any) -> Mutation:
    return lambda path: torch.save(value, path)


def in_torch(change: Callable[[Any], Any]) -> Mutation:
    """The mutation that applies a function to what torch has saved."""

    def rewrite(path: Path) -> None:
        torch.save(change(torch.load(path, weights_only=True)), path)

    return rewrite


def only(mutations: Mapping[str, Mutation], *names: str) -> dict[str, Mutation]:
    return {name: mutations[name] for name in names}


def without(mutations: Mapping[str, Mutation], *names: str) -> dict[str, Mutation]:
    return {name: mutation for name, mutation in mutations.items() if name not in names}


TEXTS = st.one_of(  # surrogates included
    st.text(st.characters(), max_size=60),
    *(st.text(letters, min_size=1, max_size=40) for letters in INPUTS["alphabets"]),
)
LINES = st.lists(TEXTS, min_size=2, max_size=5).map("\n".join)
NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {b"/"[0], 0} & set(name))  # of files
