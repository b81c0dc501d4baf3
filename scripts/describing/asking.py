"""Questions to the model, and answers that are asked for again until they can be used."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from coft.core.errors import UserError

from .answers import sentences_in, sift
from .classes import NamedClass

Messages = list[ChatCompletionMessageParam]
NO_ENDPOINT = "answers in no form of OpenAI's chat completions; mind the /v1 at the end"
LONGEST = 100_000  # characters of an answer that are read
NO_KEY = "none"  # servers of one's own ask for no key, but the client wants one


class UnusableAnswers(UserError):
    """A class that the model did not describe as asked, however often."""


@dataclass(frozen=True)
class Task:
    """How classes are to be described.

    Attributes:
        model: Name that the endpoint knows it by.
        count: Sentences a class.
        about: What the pictures are ("satellite images"); empty for photos.
        attempts: Answers a class until it is given up.
    """

    model: str
    count: int
    about: str = ""
    attempts: int = 4


def make_client(retries: int, timeout: float) -> openai.OpenAI:
    """Make a client of the endpoint that OPENAI_BASE_URL and OPENAI_API_KEY name.

    Args:
        retries: How often a request is sent again that was rejected for its rate, timed out or met a server's error,
            after a pause that grows, or that the server names.
        timeout: Seconds to wait for an answer.

    Raises:
        UserError: If neither variable is set, or the address is none.
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
    except Exception as error:  # the client's own, and those of what it is built on
        raise UserError(f"OPENAI_BASE_URL is {url!r}, which is no address ({error}); set it again") from error


def opening(item: NamedClass, task: Task) -> Messages:
    """Build the question for a class."""
    pictures = task.about or "photos"
    meant = f" What is meant: {item.meaning}." if item.meaning else ""
    return [
        {
            "role": "system",
            "content": "You write what things look like, for a program that matches texts with pictures. You answer "
            "with a JSON list of strings and nothing else.",
        },
        {
            "role": "user",
            "content": f"Write {task.count} different English sentences on what {item.plain!r} looks like in "
            f"{pictures}.{meant} Each sentence has the exact words {item.plain!r} in it, is 8 to 25 words long, and is "
            "about something else that can be seen: shape, color, parts, texture, setting, or what tells it from "
            "things that look alike. No opinions, no uses, nothing that a picture cannot show.",
        },
    ]


def describe(client: openai.OpenAI, item: NamedClass, task: Task) -> tuple[list[str], int]:
    """Ask until there are enough usable sentences; those of a bad answer that are usable count.

    Returns:
        `task.count` sentences, and how many answers it took.

    Raises:
        UnusableAnswers: If `task.attempts` answers were not enough.
        UserError: If the endpoint fails.
    """
    good: list[str] = []
    question = opening(item, task)
    faults: list[str] = []
    for attempt in range(1, task.attempts + 1):
        answer = ask(client, task.model, question)
        usable, faults = sift(sentences_in(answer), item.plain, good)
        good += usable
        if len(good) >= task.count:
            return good[: task.count], attempt
        question = [*opening(item, task), *correction(answer, faults, good, task)]
    last = faults[0] if faults else "no list of sentences in it"
    raise UnusableAnswers(
        f"class {item.name!r}: {len(good)} of {task.count} usable sentences after {task.attempts} answers; "
        f"of the last one: {last}; take another --model, or more --attempts"
    )


def correction(answer: str, faults: Sequence[str], good: Sequence[str], task: Task) -> Messages:
    """Tell the model what was wrong, and what is still missing."""
    wrong = "; ".join(faults) or "there was no JSON list of strings in it"
    kept = f" These are fine, do not repeat them: {json.dumps(list(good), ensure_ascii=False)}." if good else ""
    missing = task.count - len(good)
    return [
        {"role": "assistant", "content": answer or "[]"},
        {
            "role": "user",
            "content": f"That cannot be used: {wrong}.{kept} Write {missing} more, as a JSON list of strings.",
        },
    ]


def ask(client: openai.OpenAI, model: str, messages: Messages) -> str:
    """Send one question.

    Returns:
        The answer's text; empty if it was cut off, withheld or left out.

    Raises:
        UserError: If the endpoint refuses, cannot be reached, or does not speak this language.
    """
    url = str(client.base_url)
    try:
        completion = client.chat.completions.create(model=model, messages=messages)
    except openai.OpenAIError as error:
        raise UserError(f"{url}: {_reason(error, model)}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # what odd answers lead the client to
        raise UserError(f"{url}: {NO_ENDPOINT}") from error
    if not isinstance(completion, ChatCompletion):  # the client hands on what is no JSON
        raise UserError(f"{url}: {NO_ENDPOINT}")
    try:
        choice = completion.choices[0]
        text, ending = choice.message.content, choice.finish_reason
    except (AttributeError, TypeError, IndexError):  # some gateways report an error of the model's like this
        return ""
    if not isinstance(text, str) or ending in ("length", "content_filter"):
        return ""
    return text[:LONGEST]


def _reason(error: openai.OpenAIError, model: str) -> str:
    said = " ".join(str(getattr(error, "message", error)).split())[:200]
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"refuses the key of OPENAI_API_KEY ({said}); set another"
    if isinstance(error, openai.NotFoundError):
        return f"does not know the model {model!r}, or is no such endpoint ({said}); mind the /v1 at the end"
    if isinstance(error, openai.RateLimitError):
        return f"limits the rate, or the quota is used up ({said}); run the same command again later"
    if isinstance(error, openai.APITimeoutError):
        return "does not answer in time; try a longer --timeout"
    if isinstance(error, openai.APIConnectionError):
        return f"cannot be reached ({error.__cause__ or said}); see to OPENAI_BASE_URL and the network"
    return f"{said}; see to the endpoint and --model"
