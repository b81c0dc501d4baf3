"""Query the language model until enough of its sentences are usable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import openai
from openai.types.chat import ChatCompletionMessageParam

from coft.core.errors import UserError, in_a_line
from coft.core.schemas import Anything, List, Record
from coft.core.untrusted import parse_json

from .answers import sentences_in, sift
from .classes import NamedClass

Messages = list[ChatCompletionMessageParam]
NO_ENDPOINT = "answers in no form of OpenAI's chat completions; mind the /v1 at the end"
LONGEST = 100_000  # characters of an answer that are read at most
MAX_BYTES = 1 << 24  # largest size of a response
SCHEMA = Record(others=Anything())
CHOICE = Record({"message": Record({"content": Anything()}, others=Anything())}, others=Anything())
ANSWER = Record({"choices": List(CHOICE, 1, 100)}, others=Anything())
NO_KEY = "none"  # the client requires a key, even for a server without keys


class UnusableAnswers(UserError):
    """A class that the model did not describe properly in any attempt."""


@dataclass(frozen=True)
class Task:
    """Parameters of the descriptions.

    Attributes:
        model: Name of the model at the endpoint.
        count: Number of sentences per class.
        about: Kind of the pictures ("satellite images"); empty for photos.
        attempts: Largest number of answers per class.
    """

    model: str
    count: int
    about: str = ""
    attempts: int = 4


def make_client(retries: int, timeout: float) -> openai.OpenAI:
    """Make a client of the endpoint that OPENAI_BASE_URL and OPENAI_API_KEY name.

    Args:
        retries: Number of times that a request is repeated after a rate limit, a timeout or a server error. The pauses
            grow, unless the server sets them.
        timeout: Seconds to wait for an answer.

    Raises:
        UserError: If neither variable is set, or the address is wrong.
    """
    url, key = os.environ.get("OPENAI_BASE_URL", "").strip(), os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and not url:
        raise UserError("OPENAI_API_KEY is not set; set it, or OPENAI_BASE_URL to a server that needs no key")
    if url and not url.startswith(("http://", "https://")):
        raise UserError(f"OPENAI_BASE_URL is {url!r}; expected an address such as http://localhost:8000/v1")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError("OPENAI_API_KEY has a character that no key has, such as a line break; set it again")
    try:
        return openai.OpenAI(api_key=key or NO_KEY, base_url=url or None, max_retries=retries, timeout=timeout)
    except Exception as error:  # raised by the client or the libraries below it
        raise UserError(f"OPENAI_BASE_URL is {url!r}, which is no address ({error}); set it again") from error


def question_for(item: NamedClass, task: Task) -> Messages:
    """Build the question for a class."""
    pictures = task.about or "photos"
    meaning = f" What is meant: {item.meaning}." if item.meaning else ""
    return [
        {
            "role": "system",
            "content": "You write what things look like, for a program that matches texts with pictures. You answer "
            "with a JSON list of strings and nothing else.",
        },
        {
            "role": "user",
            "content": f"Write {task.count} different English sentences on what {item.plain!r} looks like in "
            f"{pictures}.{meaning} Each sentence has the exact words {item.plain!r} in it, is 8 to 25 words long, and "
            "is about something else that can be seen: shape, color, parts, texture, setting, or what tells it from "
            "things that look alike. No opinions, no uses, nothing that a picture cannot show.",
        },
    ]


def describe(client: openai.OpenAI, item: NamedClass, task: Task) -> tuple[list[str], int]:
    """Query the model until there are enough usable sentences. Usable sentences of an incomplete answer count.

    Args:
        client: Client of the endpoint.
        item: Class to describe.
        task: Parameters of the descriptions.

    Returns:
        `task.count` sentences, and the number of answers needed.

    Raises:
        UnusableAnswers: If `task.attempts` answers were not enough.
        UserError: If the endpoint fails.
    """
    sentences: list[str] = []
    question = question_for(item, task)
    faults: list[str] = []
    for attempt in range(1, task.attempts + 1):
        answer = ask(client, task.model, question)
        usable, faults = sift(sentences_in(answer), item.plain, sentences)
        sentences += usable
        if len(sentences) >= task.count:
            return sentences[: task.count], attempt
        question = [*question_for(item, task), *correction_for(answer, faults, sentences, task)]
    last_fault = faults[0] if faults else "no list of sentences in it"
    raise UnusableAnswers(
        f"class {item.name!r}: {len(sentences)} of {task.count} usable sentences after {task.attempts} answers; "
        f"of the last one: {last_fault}; take another --model, or more --attempts"
    )


def correction_for(answer: str, faults: Sequence[str], sentences: Sequence[str], task: Task) -> Messages:
    """Build the follow-up to an incomplete answer: what was wrong, and how many sentences are missing."""
    faults_text = "; ".join(faults) or "there was no JSON list of strings in it"
    listed = json.dumps(list(sentences), ensure_ascii=False)
    note = f" These are fine, do not repeat them: {listed}." if sentences else ""
    missing = task.count - len(sentences)
    return [
        {"role": "assistant", "content": answer or "[]"},
        {
            "role": "user",
            "content": f"That cannot be used: {faults_text}.{note} Write {missing} more, as a JSON list of strings.",
        },
    ]


def ask(client: openai.OpenAI, model: str, messages: Messages) -> str:
    """Send one question.

    Args:
        client: Client of the endpoint.
        model: Name of the model at the endpoint.
        messages: The question.

    Returns:
        Text of the answer; empty if it was truncated, filtered or missing.

    Raises:
        UserError: If the endpoint refuses the request, cannot be reached, or has another interface.
    """
    url = str(client.base_url)
    try:
        with client.chat.completions.with_streaming_response.create(model=model, messages=messages) as response:
            body = b"".join(_parts(response.iter_bytes(), float(str(client.timeout))))
    except openai.OpenAIError as error:
        raise UserError(f"{url}: {_reason(error, model)}") from error
    except Exception as error:  # raised by the HTTP library below the client, which depends on its version
        raise UserError(
            f"{url}: its answer breaks off ({in_a_line(error)}); run the same command again later"
        ) from error
    try:
        completion = parse_json(body)
        SCHEMA.check(completion)
    except ValueError as error:
        raise UserError(f"{url}: {NO_ENDPOINT}") from error
    if not ANSWER.matches(completion):  # some gateways report an error of the model in this way
        return ""
    choice = completion["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str) or choice.get("finish_reason") in ("length", "content_filter"):
        return ""
    return text[:LONGEST]


def _parts(parts: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """Yield the parts of an answer, with a time limit for the whole answer, even if single bytes keep coming.

    Raises:
        TimeoutError: If the answer takes longer than `seconds`.
        ValueError: If it is too large.
    """
    until, count = time.monotonic() + seconds, 0
    for part in parts:
        count += len(part)
        if count > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise TimeoutError("too slow; try a longer --timeout")
        yield part


def _reason(error: openai.OpenAIError, model: str) -> str:
    message = " ".join(str(getattr(error, "message", error)).split())[:200]
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"refuses the key of OPENAI_API_KEY ({message}); set another"
    if isinstance(error, openai.NotFoundError):
        return f"does not know the model {model!r}, or is no such endpoint ({message}); mind the /v1 at the end"
    if isinstance(error, openai.RateLimitError):
        return f"limits the rate, or the quota is used up ({message}); run the same command again later"
    if isinstance(error, openai.APITimeoutError):
        return "does not answer in time; try a longer --timeout"
    if isinstance(error, openai.APIConnectionError):
        return f"cannot be reached ({error.__cause__ or message}); see to OPENAI_BASE_URL and the network"
    return f"{message}; see to the endpoint and --model"
