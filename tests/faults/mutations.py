"""Mutations of files: each is a function that changes a valid file in place."""

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

from .generate import corruptions
from .verdict import CANARY, EITHER, REFUSED, SECRET, Expected

Mutation = Callable[[Path], object]
Mutations = Mapping[str, Mutation]


def read_inputs() -> dict[str, Any]:
    """Read inputs.yaml, with its placeholders filled in."""
    text = Path(__file__).with_name("inputs.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text.replace("{secret}", SECRET).replace("{long}", "x" * 900).replace("{name}", "x" * 250))


INPUTS = read_inputs()


class Exploit:
    """Object whose pickle runs a program when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


# -------------------------------------------------------------------- content


def rewrite(change: Callable[[bytes], bytes]) -> Mutation:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def content(data: bytes | str) -> Mutation:
    """Return the mutation that replaces the content of a file."""
    encoded = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return lambda path: path.write_bytes(encoded)


def contents(texts: Mapping[str, bytes | str]) -> dict[str, Mutation]:
    return {name: content(text) for name, text in texts.items()}


def json_content(value: Any) -> Mutation:
    return content(json.dumps(value))


def torch_content(value: Any) -> Mutation:
    return lambda path: torch.save(value, path)


def truncate(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def flip_bytes(data: bytes, seed: int, alphabet: bytes = bytes(range(256))) -> bytes:
    """Replace a few bytes, with an odd seed only in the header."""
    source, result = random.Random(seed), bytearray(data)
    for _ in range(1 + seed % 5):
        result[source.randrange(min(len(data), 60 if seed % 2 else len(data)))] = source.choice(alphabet)
    return bytes(result)


def flip_bit_of_member(data: bytes, seed: int) -> bytes:
    """Flip a bit in a larger member of a zip file, as torch writes it."""
    source, result = random.Random(seed), bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = source.choice([member for member in archive.infolist() if member.file_size > 64])
        original = archive.read(member)
    result[data.index(original) + source.randrange(len(original))] ^= 1 << source.randrange(8)
    return bytes(result)


def flips(count: int, flip: Callable[[bytes, int], bytes] = flip_bytes) -> dict[str, Mutation]:
    return {f"flipped bytes {seed}": rewrite(partial(flip, seed=seed)) for seed in range(count)}


SYNTAX = {  # characters with a meaning in JSON and YAML
    f"flipped characters {seed}": rewrite(partial(flip_bytes, seed=seed, alphabet=b"{}[]\",:0x-\\ \0&*!'#\n\t"))
    for seed in range(20)
}
GARBAGE: Mutations = {  # valid in no format
    "empty": content(b""),
    "zeros": content(bytes(10_000)),
    "a word": content("hello"),
    "HTML": content("<html><script>alert(1)</script></html>"),
    "nested deeply": content("[" * 100_000),
    "malicious pickle": content(pickle.dumps(Exploit())),
}
CHECKSUMMED: Mutations = {  # damage that a checksum detects
    **{f"truncated to {share:.0%}": rewrite(partial(truncate, share=share)) for share in (0.05, 0.3, 0.6, 0.9, 0.99)},
    "not UTF-8": rewrite(lambda data: b"\xff" + data[1:]),
    "in UTF-16": rewrite(lambda data: data.decode("latin-1").encode("utf-16")),
}
TRAILING: Mutations = {"trailing bytes": rewrite(lambda data: data + b"more" * 100)}
DAMAGE: Mutations = {  # may be noticed or not
    **CHECKSUMMED,
    **TRAILING,
    "a zero byte inside": rewrite(lambda data: data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]),
}
YAML_BOMB = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n + 1}: &a{n + 1} {{{', '.join(f'k{m}: *a{n}' for m in range(9))}}}\n" for n in range(12)
)
NESTED_ALIASES: Mutations = {"nested aliases": content(YAML_BOMB)}


def duplicate_key(path: Path) -> None:
    """Rewrite a mapping in JSON or YAML with its first key twice."""
    record = yaml.safe_load(path.read_text())
    first = next(iter(record))
    path.write_text(f"{json.dumps({first: record[first]})[:-1]}, {json.dumps(record)[1:]}")


DUPLICATE_KEY: Mutations = {"duplicate key": duplicate_key}

# -------------------------------------------------------------------- kind of file


def replace_by(make: Callable[[Path], object]) -> Mutation:
    """Return the mutation that removes a file, and makes something else under its name."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


BROKEN_LINKS: Mutations = {
    "a dangling link": replace_by(lambda path: path.symlink_to("nowhere")),
    "a link to itself": replace_by(lambda path: path.symlink_to(path.name)),
}
SPECIAL_FILES: Mutations = {
    "a pipe": replace_by(os.mkfifo),
    "a device": replace_by(lambda path: path.symlink_to("/dev/zero")),
}
MISSING: Mutations = {"missing": replace_by(lambda path: None), "a folder": replace_by(Path.mkdir), **BROKEN_LINKS}
UNREADABLE: Mutations = {
    **MISSING,
    **SPECIAL_FILES,
    "100 GB sparse": replace_by(make_sparse),
    "without read permission": lambda path: path.chmod(0),
}

# -------------------------------------------------------------------- groups

INVALID: Mutations = {**GARBAGE, **UNREADABLE}  # to be refused
DAMAGED: Mutations = {**DAMAGE, **flips(20)}
DAMAGED_TEXT: Mutations = {**DAMAGED, **SYNTAX}

# -------------------------------------------------------------------- generated


def from_form(
    form: Schema, valid: Any, write: Callable[[Any], Mutation], count: int = 150
) -> dict[Expected, dict[str, Mutation]]:
    """Generate mutations that corrupt one part of a valid object; those that no longer match the form are REFUSED."""
    mutations: dict[Expected, dict[str, Mutation]] = {REFUSED: {}, EITHER: {}}
    for number, (key, value) in enumerate(corruptions(form, valid, count)):
        name = f"{'.'.join(map(str, key)) or 'all'} {number}"
        mutations[EITHER if form.matches(value) else REFUSED][name] = write(value)
    return mutations


def without(mutations: Mutations, *names: str) -> dict[str, Mutation]:
    return {name: mutation for name, mutation in mutations.items() if name not in names}


TEXTS = st.one_of(  # including surrogates
    st.text(st.characters(), max_size=60),
    *(st.text(alphabet, min_size=1, max_size=40) for alphabet in INPUTS["alphabets"]),
)
LINES = st.lists(TEXTS, min_size=2, max_size=5).map("\n".join)
FILE_NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {b"/"[0], 0} & set(name))
