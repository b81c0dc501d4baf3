"""Command lines with wrong or odd arguments, class names, and the answers of an endpoint."""

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

from .formats import accept_classes
from .generate import draw
from .mutations import DAMAGE, GARBAGE, INPUTS, SYNTAX, TEXTS, Mutation, from_form, json_content
from .verdict import ACCEPTED, EITHER, REFUSED, SECRET, Case, WrongResult
from .workspace import Workspace, call

MAINS = {"launch": launch.main, "coft": coft, "data": get_data.main, "describe": describe}


def fill(workspace: Workspace, argument: str) -> str:
    """Fill in the placeholders of an argument."""
    for name in ("clip", "images", "run"):
        if f"{{{name}}}" in argument:
            argument = argument.replace(f"{{{name}}}", str(getattr(workspace, name)))
    return argument


def run_line(workspace: Workspace, line: str) -> None:
    name, *arguments = [fill(workspace, word) for word in shlex.split(line)]
    workspace.train(*arguments) if name == "train" else call(MAINS[name], *arguments)


def set_flag(workspace: Workspace, flag: str, value: str) -> None:
    workspace.make_config(f"{flag}={fill(workspace, value)}")


def command_lines() -> Iterator[Case]:
    """Wrong command lines, and odd values of all flags of train.py."""
    for line, name in INPUTS["commands"].items():
        yield Case("command-line", f"{line:.100}", partial(run_line, line=line), REFUSED, (name,))
    for name, default in vars(train.make_parser().parse_args([])).items():
        flag = f"--{name.replace('_', '-')}"
        for value in INPUTS["odd values"] if name != "opts" and not isinstance(default, bool) else ():
            yield Case("command-line", f"{flag} {value[:20]!r}", partial(set_flag, flag=flag, value=value))


def class_names() -> Iterator[Case]:
    """Class names on a command line."""
    names = INPUTS["class names"]
    for expected, texts in ((ACCEPTED, names["accepted"]), (REFUSED, names["refused"]), (EITHER, draw(TEXTS))):
        for number, text in enumerate(texts):
            run = partial(accept_classes, classes=text)
            yield Case("classes", f"class names, {expected.value}: {number}", run, expected)
    for text in names["duplicates"]:
        second = text.partition(", ")[2]
        run = partial(accept_classes, classes=text)
        yield Case("classes", f"duplicates: {text!r}", run, REFUSED, (second.strip(), repr(second)))


def completion(answer: str) -> dict[str, Any]:
    """Return the body of a chat completion."""
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def describe_class(workspace: Workspace, body: bytes, status: int = 200, url: str = "", key: str = SECRET) -> None:
    """Describe a class with an endpoint that sends a reply, or with one at another URL."""
    names = workspace.write("names.txt", "cat\n")
    flags = "--model m --out out.json --retries 0 --sentences 3 --attempts 2 --timeout 5 --workers 1"
    arguments = [*flags.split(), "--classes", names]
    with FakeEndpoint({"cat": [Reply(body, status)]}) as endpoint:
        variables = {"OPENAI_BASE_URL": url or endpoint.url, "OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1"}
        with mock.patch.dict(os.environ, variables):
            try:
                call(describe, *arguments)
            finally:
                output = workspace.folder / "out.json"
                if output.exists() and b"A picture of cat" not in output.read_bytes():
                    raise WrongResult("wrong descriptions were written")


def describe_mutated(workspace: Workspace, mutate: Mutation) -> None:
    """Describe a class with an endpoint that sends a mutated reply."""
    path = workspace.write("reply", json.dumps(completion(good("cat"))))
    mutate(path)
    describe_class(workspace, path.read_bytes())


def endpoint_replies() -> Iterator[Case]:
    """Replies of an endpoint, its URL, and the API key."""

    def case(name: str, body: bytes, **options: Any) -> Case:
        return Case("endpoint", name, partial(describe_class, body=body, **options), REFUSED, ("http", "cat"))

    valid = completion(good("cat"))
    generated = from_form(ANSWER, valid, json_content, 60)
    refused, either = {**GARBAGE, **generated[REFUSED]}, {**DAMAGE, **SYNTAX, **generated[EITHER]}
    for expected, mutations in ((REFUSED, refused), (EITHER, either)):
        for name, mutate in mutations.items():
            run = partial(describe_mutated, mutate=mutate)
            yield Case("endpoint", f"reply: {name}", run, expected, ("http", "cat"))
    yield Case("endpoint", "a valid reply", partial(describe_class, body=json.dumps(valid).encode()), ACCEPTED)
    long = {"ten million letters": "x" * 10_000_000, "endless thoughts": "<think>" * 1000, "nested": "[" * 200_000}
    for name, text in (INPUTS["endpoint answers"] | long).items():
        yield case(f"answer: {name}", json.dumps(completion(text)).encode())
    for status, text in INPUTS["endpoint statuses"].items():
        yield case(f"status {status}", text.encode(), status=status)
    for number, url in enumerate(INPUTS["endpoint addresses"]):
        run = partial(describe_class, body=b"", url=url)
        yield Case("endpoint", f"address {number}", run, REFUSED, ("OPENAI_BASE_URL", "http"))
    for number, key in enumerate(INPUTS["API keys"]):
        run = partial(describe_class, body=b"no: " + key.encode(), status=401, key=key)
        yield Case("endpoint", f"API key {number}", run, EITHER, ("KEY", "http"))
