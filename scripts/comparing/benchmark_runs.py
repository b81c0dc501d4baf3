"""compare.sh --benchmark: report what is missing, do the runs without a result, write the tables."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from coft.core.errors import UserError, did_you_mean
from coft.core.experiment import versions
from coft.core.files import replacing
from coft.core.words import counted
from scripts.paths import display_path

from .benchmark import Benchmark, Unit, listed_results, plan_units, read_benchmark, restrict, rows_of
from .benchmark_tables import write_report
from .list import Result, add_to_list, identity, read_result
from .needs import missing_inputs
from .options import choose_devices, failed_lines, report_failures
from .paper_tables import write_paper
from .plan import Run
from .run import do_runs, split_finished
from .tables import NOTHING

Planned = Mapping[Unit, Sequence[Run]]


def run_benchmark(args: argparse.Namespace, command: Sequence[str], called: str) -> int:
    """Do the missing runs of a benchmark, add them to the list, and write the tables. Returns the exit code."""
    benchmark = read_benchmark(args.benchmark)
    benchmark = restrict(benchmark, args.sets, list(filter(None, args.backbone)), args.seeds or [])
    choose_devices(args, every=bool(benchmark.sets))
    named = [method.name for method in benchmark.methods]
    if unknown := [name for name in args.again if name not in named]:
        raise UserError(f"--again {unknown[0]}: no such row; {did_you_mean(unknown[0], named)}")
    planned = plan_units(benchmark, str(args.data.resolve()), args.output)
    listed = listed_results(planned, args.kept)
    all_runs = [run for runs in planned.values() for run in runs]
    missing = [run for run in all_runs if run not in listed or run.method.name in args.again]
    images = {name: facts.train for name, facts in benchmark.sets.items()}
    of_part = runs_of_part(
        {run: images.get(unit.dataset, 0) for unit, runs in planned.items() for run in runs}, args.part
    )
    unavailable = {} if args.no_run else missing_inputs(benchmark, args.data.resolve(), fetch=not args.dry_run)
    available = {run for unit, runs in planned.items() if unit not in unavailable for run in runs}
    todo = [run for run in missing if run in of_part & available]
    if benchmark.sets or args.dry_run:
        left = split_finished([run for run in missing if run in of_part])[1]
        print_plan(benchmark, planned, left, unavailable, args)
    if args.dry_run:
        return 0
    if unavailable and not available:
        raise UserError(f"nothing can be run: {'; '.join(lines_of(unavailable))}")
    failures = do_runs(todo, args, command, list(listed))
    new = {run: result for run in missing if (result := read_result(run))}
    results = {**listed, **new}
    if not results:
        print(NOTHING, file=sys.stderr)
        return report_failures(failures)
    if args.kept:
        identities = {run: identity(run, unit.settings) for unit, runs in planned.items() for run in runs}
        add_to_list(args.kept, [(identities[run], result) for run, result in new.items()])
    remarks = [*lines_of(unavailable), *failed_lines(failures), *other_commit_warning(results)]
    report = publish(benchmark, planned, results, args, called, remarks)
    print(report)
    return max(report_failures(failures), int(bool(unavailable)))


def publish(
    benchmark: Benchmark,
    planned: Planned,
    results: Mapping[Run, Result],
    args: argparse.Namespace,
    called: str,
    remarks: Sequence[str],
) -> str:
    """Write all tables. Returns the text to print: the tables, and the names of the files."""
    rows = rows_of(planned, results)
    path = args.output / "benchmark" / f"{Path(args.benchmark).stem}.md"
    if benchmark.sets:
        return write_paper(path, benchmark, rows, called, remarks)
    report = write_report(rows, called, benchmark.bars, remarks)
    with replacing(path) as draft:
        draft.write_text(report, encoding="utf-8")
    return f"{report}\n  {display_path(path)}"


def other_commit_warning(results: Mapping[Run, Result]) -> list[str]:
    """Return a warning line if results are of other commits than this one, whose code may differ."""
    here = versions("none").get("commit", "")
    others = Counter(result.commit for result in results.values() if result.commit and here)
    others.pop(here, None)
    if not others:
        return []
    commits = counted(len(others), "other commit")
    return [
        f"{counted(others.total(), 'result')} of {commits} than {here} count. Remove their folders to run them again, "
        "or with --kept add --again ROW"
    ]


# ---------------------------------------------------------------- before it starts


def runs_of_part(runs: Mapping[Run, int], part: tuple[int, int]) -> set[Run]:
    """Return the runs of one of several machines. The parts are disjoint, and large data sets are spread over them.

    Args:
        runs: Number of training images, 0 if unknown, by run; of all runs of the benchmark, finished or not, so that
            the parts do not depend on what is finished where.
        part: Number of the part, from 1, and number of parts.
    """
    number, count = part
    return {*sorted(runs, key=lambda run: (-runs[run], run.title))[number - 1 :: count]}


def print_plan(
    benchmark: Benchmark,
    planned: Planned,
    left: Sequence[Run],
    unavailable: Mapping[Unit, Sequence[str]],
    args: argparse.Namespace,
) -> None:
    """Print how many runs are left, and what is missing."""
    say = partial(print, file=sys.stderr)
    total = sum(map(len, planned.values()))
    number, parts = args.part
    of_part = f", of part {number} of {parts}" if parts > 1 else ""
    say(f"benchmark {args.benchmark}: {len(benchmark.methods)} rows, {total} runs; to be done{of_part}: {len(left)}")
    for line in lines_of(unavailable):
        say(f"missing: {line}")
    if unavailable:
        lost = sum(run in {*left} for unit in unavailable for run in planned[unit])
        say(f"{counted(lost, 'run')} cannot be done; the table will have the others")


def lines_of(unavailable: Mapping[Unit, Sequence[str]]) -> list[str]:
    """Return the lines about what is missing, without duplicates."""
    return list(dict.fromkeys(line for lines in unavailable.values() for line in lines))
