"""Generate class descriptions with a language model: bash scripts/describe.sh --classes FILE --model NAME.

OPENAI_BASE_URL is the endpoint (default: OpenAI's), and OPENAI_API_KEY the key. Each class is written at once: after a
stop or a failure the same command resumes. Classes that the output file already describes do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import openai
from tqdm import tqdm

from coft.backbones.descriptions import MAX_SENTENCES_PER_CLASS, Descriptions, class_key, load_descriptions
from coft.core.errors import Parser, UserError
from coft.core.exit_codes import guarded
from coft.core.files import ensure_folder, replacing
from coft.core.schemas import Number, Record, SchemaError, whole
from coft.core.untrusted import read_json
from coft.engine.class_names import is_file
from scripts.paths import called_from

from .asking import Task, UnusableAnswers, describe, make_client
from .classes import NamedClass, named_classes

Described = tuple[NamedClass, list[str] | UnusableAnswers, int]

ARGUMENTS = Record(
    {
        **{"sentences": whole(1, MAX_SENTENCES_PER_CLASS), "workers": whole(1, 64), "retries": whole(0, 100)},
        **{"attempts": whole(1, 1000), "timeout": Number(0.001, 3600)},
    }
)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = Parser(prog="scripts/describe.sh", description="Generate class descriptions with a language model.")
    parser.add_argument(
        "--classes",
        required=True,
        help="a file with a class name on each line, a meaning after a tab; or 'tabby cat, fox, ...'",
    )
    parser.add_argument("--model", default="", help="name of the model at the endpoint")
    parser.add_argument(
        "--out", type=called_from, help="file of descriptions (default: the file of classes, ending in .json)"
    )
    parser.add_argument("--sentences", type=int, default=5, help="sentences per class (default: 5)")
    parser.add_argument("--about", default="", help="kind of images, if not photos; for example 'satellite images'")
    parser.add_argument("--workers", type=int, default=4, help="concurrent requests (default: 4)")
    parser.add_argument(
        "--retries", type=int, default=6, help="how often a rejected or failed request is sent again (default: 6)"
    )
    parser.add_argument("--attempts", type=int, default=4, help="maximum number of answers per class (default: 4)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for an answer (default: 120)")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Check the numbers and the name of the model.

    Raises:
        UserError: If a number is out of range, or there is no model.
    """
    if not args.model:
        raise UserError("--model is missing; name a model that the endpoint has")
    try:
        ARGUMENTS.check({name: getattr(args, name) for name in ARGUMENTS.parts})
    except SchemaError as error:
        raise UserError(f"--{error}") from error


def output_path(args: argparse.Namespace) -> Path:
    """Return the path of the descriptions: --out, or the path of the file of classes with the suffix .json.

    Raises:
        UserError: If there is neither --out nor a file of classes.
    """
    if args.out:
        return Path(args.out)
    path = called_from(args.classes)
    if not is_file(path):
        raise UserError("--out is missing; name the file of descriptions, such as pets.json")
    return path.with_suffix(".json")


def existing_descriptions(path: Path) -> Descriptions:
    """Read the descriptions that the output file already has, by class name as written there.

    Raises:
        UserError: If the file exists and has another format.
    """
    if not path.is_file():
        return {}
    load_descriptions(path)
    return dict(read_json(path))


def describe_all(client: openai.OpenAI, items: Sequence[NamedClass], task: Task, workers: int) -> Iterator[Described]:
    """Describe classes, several at a time.

    Args:
        client: Client of the endpoint.
        items: Classes to describe.
        task: Parameters of the descriptions.
        workers: Number of concurrent questions.

    Yields:
        A class, its sentences or the reason why there are none, and the number of answers needed.

    Raises:
        UserError: If the endpoint fails. No more questions are sent then.
    """
    failures: list[Exception] = []  # checked by workers: the next class may start before a failure is handled below

    def one(item: NamedClass) -> tuple[list[str] | UnusableAnswers, int]:
        if failures:
            raise failures[0]
        try:
            return describe(client, item, task)
        except UnusableAnswers as error:
            return error, task.attempts
        except Exception as error:
            failures.append(error)
            raise

    pool = ThreadPoolExecutor(workers)  # not as a context, which would wait for answers after a failure or Ctrl-C
    try:
        futures = {pool.submit(one, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], *future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def write_descriptions(path: Path, descriptions: Descriptions) -> None:
    """Write a file of descriptions, completely or not at all.

    Raises:
        UserError: If the file cannot be written.
    """
    text = json.dumps(descriptions, indent=1, ensure_ascii=False) + "\n"
    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error})") from error


def run(args: argparse.Namespace) -> str:
    """Describe the classes that have no description yet, and write each to the output file at once.

    Returns:
        A line that says what was done.

    Raises:
        UserError: If a class could not be described; the others are written.
    """
    check_arguments(args)
    classes, path = named_classes(args.classes), output_path(args)
    existing, new = existing_descriptions(path), Descriptions()
    described = {class_key(name) for name in existing}
    missing = [item for item in classes if class_key(item.name) not in described]
    answers, failures = 0, list[UnusableAnswers]()
    for item, result, num_answers in _ask_for(missing, args, path) if missing else ():
        answers += num_answers
        if isinstance(result, UnusableAnswers):
            failures.append(result)
        else:
            new[item.name] = result
            write_descriptions(path, existing | {item.name: new[item.name] for item in missing if item.name in new})
    if failures:
        others = f" (and {len(failures) - 1} more classes)" if failures[1:] else ""
        raise UserError(
            f"{failures[0].line}{others}; {len(new)} of {len(missing)} classes are done and stored, the same command "
            "asks for the others again"
        )
    sentences = sum(map(len, (existing | new).values()))
    return (
        f"{path}: {len(existing | new)} classes, {sentences} sentences ({len(classes) - len(missing)} classes were "
        f"there, {len(missing)} asked for with {answers} answers)"
    )


def _ask_for(items: Sequence[NamedClass], args: argparse.Namespace, path: Path) -> Iterable[Described]:
    """Ask the endpoint for descriptions, with a progress bar. The output folder is made before the first question."""
    task = Task(args.model, args.sentences, args.about.strip(), args.attempts)
    client = make_client(args.retries, args.timeout)
    ensure_folder(path.parent, "--out")
    return tqdm(describe_all(client, items, task, args.workers), "classes", len(items), disable=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 2 after a mistake of the user or a failure of the endpoint.
    """

    def work() -> int:
        print(run(make_parser().parse_args(argv)))
        return 0

    return guarded(work, "stopped; the same command goes on")


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # threads may still wait for answers; accepted answers are on disk
