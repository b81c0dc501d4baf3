"""Commands x words: flags that are wrong, missing or at odds, names of classes, and what an endpoint answers."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import train
from coft.cli.main import main as coft
from scripts import get_data, launch
from scripts.describing.__main__ import main as describe
from scripts.describing.asking import ANSWER
from tests.scripts.describing.endpoint import FakeEndpoint, Reply, good

from .drawing import drawn
from .formats import accept_names
from .mutations import DAMAGE, GARBAGE, INPUTS, LETTERS, TEXTS, Mutation, by_form, in_json
from .oracle import EITHER, FINE, REFUSED, SECRET, Case, Wrong
from .scene import Scene, call

MAINS = {"launch": launch.main, "coft": coft, "data": get_data.main, "describe": describe}


def placed(scene: Scene, word: str) -> str:
    """A word, its placeholders filled."""
    for name in ("clip", "images", "run"):
        if f"{{{name}}}" in word:
            word = word.replace(f"{{{name}}}", str(getattr(scene, name)))
    return word


def run(scene: Scene, line: str) -> None:
    """Run a command in this process."""
    name, *words = [placed(scene, word) for word in shlex.split(line)]
    scene.train(*words) if name == "train" else call(MAINS[name], *words)


def with_flag(scene: Scene, flag: str, word: str) -> None:
    """Make the config of a flag."""
    scene.config(f"{flag}={placed(scene, word)}")


def flags() -> Iterator[Case]:
    """Lines that are wrong, and all flags of train.py that take a value with odd words."""
    for line, name in INPUTS["commands"].items():
        yield Case("command-line", f"{line:.100}", partial(run, line=line), REFUSED, (name,))
    for name, default in vars(train.make_parser().parse_args([])).items():
        flag = f"--{name.replace('_', '-')}"
        for word in INPUTS["odd words"] if name != "opts" and not isinstance(default, bool) else ():
            yield Case("command-line", f"{flag} {word[:20]!r}", partial(with_flag, flag=flag, word=word))


def names() -> Iterator[Case]:
    """Names of classes in a command."""
    given = INPUTS["names"]
    for right, texts in ((FINE, given["fine"]), (REFUSED, given["refused"]), (EITHER, drawn(TEXTS))):
        for number, text in enumerate(texts):
            yield Case("classes", f"names, {right.value}: {number}", partial(accept_names, text=text), right)
    for text in given["the same"]:
        second = text.partition(", ")[2]
        named = (second.strip(), repr(second))
        yield Case("classes", f"the same: {text!r}", partial(accept_names, text=text), REFUSED, named)


BODY = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}


def completion(answer: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    return BODY | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def ask(scene: Scene, reply: bytes, status: int = 200, url: str = "", key: str = SECRET) -> None:
    """Have a class described by an endpoint that replies so, or at an address."""
    names, numbers = scene.file("names.txt", "cat\n"), "--retries 0 --sentences 3 --attempts 2 --timeout 5 --workers 1"
    words = [*f"--model m --out out.json {numbers}".split(), "--classes", names, "--cache", scene.place / "kept"]
    with FakeEndpoint({"cat": [Reply(reply, status)]}) as endpoint:
        variables = {"OPENAI_BASE_URL": url or endpoint.url, "OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1"}
        with mock.patch.dict(os.environ, variables):
            try:
                call(describe, *words)
            finally:
                written = scene.place / "out.json"
                if written.exists() and b"A picture of cat" not in written.read_bytes():
                    raise Wrong("a file of descriptions was written")


def ask_mutated(scene: Scene, mutate: Mutation) -> None:
    """The same, where a good reply has a mutation."""
    path = scene.file("reply", json.dumps(completion(good("cat"))))
    mutate(path)
    ask(scene, path.read_bytes())


def replies() -> Iterator[Case]:
    """Replies of an endpoint: bodies, answers in them, refusals that repeat the key; addresses; keys."""
    told = ("http", "cat")
    tree = completion(good("cat"))
    formed = by_form(ANSWER, tree, in_json, 60)
    either = DAMAGE | LETTERS | formed[EITHER]
    for right, mutations in ((REFUSED, GARBAGE | formed[REFUSED]), (EITHER, either)):
        for name, mutate in mutations.items():
            yield Case("endpoint", f"reply: {name}", partial(ask_mutated, mutate=mutate), right, told)
    long = {"ten million letters": "x" * 10_000_000, "thoughts without end": "<think>" * 1000}
    long["nested deeply"] = "[" * 200_000
    for name, text in (INPUTS["answers"] | long).items():
        reply = json.dumps(completion(text)).encode()
        yield Case("endpoint", f"answer: {name}", partial(ask, reply=reply), REFUSED, told)
    for status, text in INPUTS["statuses"].items():
        yield Case("endpoint", f"status {status}", partial(ask, reply=text.encode(), status=status), REFUSED, told)
    for number, url in enumerate(INPUTS["addresses"]):
        names = ("OPENAI_BASE_URL", "http")
        yield Case("endpoint", f"address {number}", partial(ask, reply=b"", url=url), REFUSED, names)
    for number, key in enumerate(INPUTS["keys"]):
        reply = b"no: " + key.encode()
        yield Case("endpoint", f"key {number}", partial(ask, reply=reply, status=401, key=key), EITHER, ("KEY", "http"))
    yield Case("endpoint", "as it should be", partial(ask, reply=json.dumps(tree).encode()), FINE)
