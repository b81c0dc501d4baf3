"""Has descriptions of classes written by a language model: bash scripts/describe.sh --classes FILE --model NAME.

The endpoint is OPENAI_BASE_URL's (default: OpenAI's), the key OPENAI_API_KEY's. What was answered is kept: a run that
was stopped or failed goes on with the same command. Classes that the output describes already are left as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import openai
from tqdm import tqdm

from coft.backbones.descriptions import Descriptions, class_key, load_descriptions
from coft.core.errors import Parser, UserError
from coft.core.exit_codes import INTERRUPTED, guarded
from coft.core.files import replacing
from coft.core.paths import cache_folder
from coft.engine.class_names import is_file
from scripts.paths import called_from

from .asking import Task, UnusableAnswers, describe, make_client, opening
from .classes import NamedClass, named_classes
from .kept import KeptAnswers


def make_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = Parser(prog="scripts/describe.sh", description="Have descriptions of classes written by a language model.")
    parser.add_argument(
        "--classes",
        required=True,
        help="a file with a class name a line, a meaning after a tab; or 'tabby cat, fox, ...'",
    )
    parser.add_argument("--model", default="", help="name that the endpoint knows the model by")
    parser.add_argument(
        "--out", type=called_from, help="file of descriptions (default: the file of classes, ending in .json)"
    )
    parser.add_argument("--sentences", type=int, default=5, help="a class (default: 5)")
    parser.add_argument("--about", default="", help="what the pictures are, if not photos: 'satellite images'")
    parser.add_argument("--workers", type=int, default=4, help="questions at a time (default: 4)")
    parser.add_argument("--retries", type=int, default=6, help="of a rejected or failed request (default: 6)")
    parser.add_argument("--attempts", type=int, default=4, help="answers a class until it is given up (default: 4)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for an answer (default: 120)")
    parser.add_argument(
        "--cache", type=called_from, default=cache_folder() / "describe", help="folder of accepted answers"
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the numbers, and the name that has no default.

    Raises:
        UserError: If one makes no sense.
    """
    if not args.model:
        raise UserError("--model is missing; name a model that the endpoint has")
    for name, least in (("sentences", 1), ("workers", 1), ("retries", 0), ("attempts", 1), ("timeout", 0.001)):
        if not getattr(args, name) >= least:
            raise UserError(f"--{name} is {getattr(args, name)}; expected at least {least}")


def output(args: argparse.Namespace) -> Path:
    """Where descriptions go.

    Raises:
        UserError: If that is not said, and there is no file of classes to call it after.
    """
    if args.out:
        return Path(args.out)
    path = called_from(args.classes)
    if not is_file(path):
        raise UserError("--out is missing; name the file of descriptions, such as pets.json")
    return path.with_suffix(".json")


def described_already(path: Path) -> Descriptions:
    """Descriptions that the output file has, names as they stand there.

    Raises:
        UserError: If there is a file that is none of descriptions.
    """
    if not path.exists():
        return {}
    load_descriptions(path)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def answers(
    client: openai.OpenAI, items: Sequence[NamedClass], task: Task, kept: KeptAnswers, workers: int
) -> Iterator[tuple[NamedClass, list[str] | UnusableAnswers, int]]:
    """Describe classes, several at a time, and keep each answer as it comes.

    Yields:
        A class, its sentences or why there are none, and how many answers it took.

    Raises:
        UserError: If the endpoint fails; questions that have not been sent are not sent any more.
    """
    failures: list[Exception] = []  # a worker may be at its next class before anyone has seen that the last one failed

    def one(item: NamedClass) -> tuple[list[str] | UnusableAnswers, int]:
        if failures:
            raise failures[0]
        question = opening(item, task)
        known = kept.get(question, item.plain, task.count)
        if known is not None:
            return known, 0
        try:
            sentences, taken = describe(client, item, task)
        except UnusableAnswers as error:
            return error, task.attempts
        except Exception as error:
            failures.append(error)
            raise
        kept.put(question, item.name, sentences)
        return sentences, taken

    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(one, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def write(path: Path, descriptions: Descriptions) -> None:
    """Write a file of descriptions, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    text = json.dumps(descriptions, indent=1, ensure_ascii=False) + "\n"
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error}); the answers are kept") from error


def run(args: argparse.Namespace) -> str:
    """Describe what is not described.

    Returns:
        What was done, in one line.

    Raises:
        UserError: If something of it cannot be done; nothing is written then, but answers are kept.
    """
    check(args)
    items, out = named_classes(args.classes), output(args)
    before = described_already(out)
    known = {class_key(name) for name in before}
    missing = [item for item in items if class_key(item.name) not in known]
    found, failures, taken = _ask_for(missing, args) if missing else ({}, [], [])
    if failures:
        others = f" (and {len(failures) - 1} more classes)" if failures[1:] else ""
        raise UserError(
            f"{failures[0].line}{others}; {len(found)} of {len(missing)} classes are done and kept, the same command "
            "asks for the others again"
        )
    merged = before | {item.name: found[item.name] for item in missing}
    if missing:
        write(out, merged)
    there, resumed, asked = len(items) - len(missing), taken.count(0), len(missing) - taken.count(0)
    return (
        f"{out}: {len(merged)} classes, {sum(map(len, merged.values()))} sentences ({there} classes were there, "
        f"{resumed} kept from an earlier run, {asked} asked for with {sum(taken)} answers)"
    )


def _ask_for(
    items: Sequence[NamedClass], args: argparse.Namespace
) -> tuple[Descriptions, list[UnusableAnswers], list[int]]:
    task = Task(args.model, args.sentences, args.about.strip(), args.attempts)
    client = make_client(args.retries, args.timeout)
    kept = KeptAnswers(args.cache, (str(client.base_url), task.model, str(task.count)))
    found: Descriptions = {}
    failures, taken = [], []
    progress = tqdm(answers(client, items, task, kept, args.workers), "classes", len(items), disable=None)
    for item, result, times in progress:
        taken.append(times)
        if isinstance(result, UnusableAnswers):
            failures.append(result)
        else:
            found[item.name] = result
    return found, failures, taken


def main(argv: Sequence[str] | None = None) -> int:
    """Describe classes.

    Returns:
        0, or 2 after a mistake of the user's or of the endpoint's.
    """

    def work() -> int:
        print(run(make_parser().parse_args(argv)))
        return 0

    return guarded(work, "stopped; the same command goes on")


if __name__ == "__main__":
    if (code := main()) == INTERRUPTED:
        os._exit(code)  # threads may still wait for answers; what was accepted is on disk
    sys.exit(code)
