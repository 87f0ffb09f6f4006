"""Safety of the readers: small valid files of every format are mutated and read, as the commands read them.

    python -m benchmarks.fuzz --minutes 20
    python -m benchmarks.fuzz --minutes 5 --only tiff png --seed 7
    python -m benchmarks.fuzz --case 7000042 --keep findings      that case alone, its files kept

A case succeeds or ends with a `UserError` that names a file and is no longer than 2,000 characters. Anything else is a
finding: another exception, a crash, more than 4 s of CPU time (or 16 s in all, so that a busy machine makes no
findings), 1 GB of address space beyond what the process had, a file outside of the case's folders opened or changed, a
connection, a program started, or more than 1 MB printed. Findings of one format, reader, kind and innermost line of the
project are one.

Every worker is a process that has imported everything and forks children, each for a batch of cases; a child ends at
its first finding, which is then tried once more in a child of its own. A case depends on its seed alone: `--case` makes
it again. Linux only. Ends with 0 when nothing was found, with 1 when something was, with 2 when it
was ended early.
"""

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import tyro

from ganvas.console import run_command

CASES_PER_SEED = 1_000_000  # --seed 7 begins with case 7,000,000
# Set before a worker imports its libraries: threads do not survive a fork, and one allocator arena keeps the address
# space that a case takes close to the memory that it asks for.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime would start a thread that asks a server
}


@dataclass(frozen=True)
class Options:
    """Mutate files of every format and read them."""

    minutes: float = 20.0
    """How long to go on."""
    cases: int | None = None
    """Stop after so many cases, if that is earlier."""
    seed: int = 0
    """The first case is a million times this."""
    case: int | None = None
    """Run this case alone."""
    only: tuple[str, ...] = ()
    """Formats to try, as the table names them; all by default."""
    workers: int = 1
    """Processes."""
    keep: Path | None = None
    """Folder for the files of each finding."""
    json: bool = False
    """Print one JSON object."""


@dataclass
class Finding:
    """What went wrong in one way.

    Attributes:
        format: Row of the table.
        reader: A name of `benchmarks.fuzzing.readers.READERS`.
        kind: The exception's type, "time-out", "memory", "crash by SIGSEGV", "outside of its folder" and so on.
        frame: Innermost line of the project.
        text: Message of the first case.
        steps: The first case's file and mutators.
        seeds: Cases that end like this, the first few.
        count: How many there were.
        alone: Whether the first case ends like this in a process of its own.
    """

    format: str
    reader: str
    kind: str
    frame: str
    text: str
    steps: str
    seeds: list[int] = field(default_factory=list)
    count: int = 0
    alone: bool = True


@dataclass
class Result:
    """What a run has found.

    Attributes:
        cases: How many there were, by format.
        refused: How many of them ended with a `UserError`, by format.
        findings: By format, reader, kind and frame.
        seconds: How long it took.
        is_complete: Whether it was not ended early.
    """

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, ...], Finding] = field(default_factory=dict)
    seconds: float = 0.0
    is_complete: bool = False

    def add(self, outcome: Mapping[str, Any]) -> None:
        """Count a case."""
        label = outcome["format"]
        self.cases[label] += 1
        self.refused[label] += outcome["kind"] == "refused"
        if outcome["kind"] in ("read", "refused"):
            return
        values = {name: outcome[name] for name in ("format", "reader", "kind", "frame")}
        found = self.findings.setdefault(
            tuple(values.values()), Finding(**values, text=outcome["text"], steps=outcome["steps"])
        )
        found.count += 1
        found.alone &= outcome["alone"]
        if len(found.seeds) < 5:
            found.seeds.append(outcome["seed"])


def fuzz(options: Options) -> Result:
    """Run cases in worker processes until time or cases are used up.

    What was found before the user or a fault of this program ends it is told all the same.
    """
    os.environ |= ENVIRONMENT
    context, connections, result = multiprocessing.get_context("spawn"), [], Result()
    workers = 1 if options.case is not None else options.workers
    began = time.monotonic()
    processes = []
    for number in range(workers):
        mine, its = context.Pipe(duplex=False)
        processes.append(context.Process(target=_work, args=(its, options, number, workers), daemon=True))
        processes[-1].start()
        its.close()
        connections.append(mine)
    try:
        _collect(connections, result)
        result.is_complete = True
    except (KeyboardInterrupt, EOFError):
        print("It ended early: interrupted, or by an error of a worker, which is above.", file=sys.stderr)
    for process in processes:
        process.terminate()
        process.join()
    result.seconds = time.monotonic() - began
    return result


def _collect(connections: list[Connection], result: Result) -> None:
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            outcome = connection.recv()
            if outcome is None:
                connections.remove(connection)
            else:
                result.add(outcome)


def _work(connection: Connection, options: Options, number: int, workers: int) -> None:
    """Run every ``workers``-th case, from ``number`` on; imports what is heavy."""
    from benchmarks.fuzzing.worker import Worker

    worker = Worker(options.only, options.keep)
    if options.case is not None:
        seeds: Iterable[int] = [options.case]
    else:
        count = CASES_PER_SEED if options.cases is None else options.cases
        first = options.seed * CASES_PER_SEED
        seeds = range(first + number, first + count, workers)
    for outcome in worker.run(seeds, time.monotonic() + 60 * options.minutes):
        connection.send(outcome)
    connection.send(None)


def describe(result: Result) -> str:
    """Write a table of the formats, then the findings."""
    lines = [f"{result.cases.total()} cases in {result.seconds:.0f} s, {len(result.findings)} findings"]
    lines += ["", "| format | cases | refused | findings | seeds |", "| --- | --- | --- | --- | --- |"]
    for label in sorted(result.cases):
        found = [each for each in result.findings.values() if each.format == label]
        seeds = ", ".join(str(each.seeds[0]) for each in found)
        lines.append(f"| {label} | {result.cases[label]} | {result.refused[label]} | {len(found)} | {seeds} |")
    for each in sorted(result.findings.values(), key=lambda one: (one.format, one.kind, one.frame)):
        seeds = ", ".join(map(str, each.seeds))
        alone = "" if each.alone else "; not in a process of its own"
        lines += ["", f"{each.format}, {each.reader}: {each.kind} in {each.frame} ({each.count} cases: {seeds}{alone})"]
        lines += [f"    {each.text}", f"    {each.steps}"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the check; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.fuzz", args=arguments)
    if not sys.platform.startswith("linux"):
        print("This needs Linux: it forks, and limits the memory of a process.", file=sys.stderr)
        return 2
    result = fuzz(options)
    if options.json:
        findings = [asdict(each) for each in result.findings.values()]
        counts = {"cases": dict(result.cases), "refused": dict(result.refused), "seconds": round(result.seconds, 1)}
        print(json.dumps(counts | {"findings": findings}))
    else:
        print(describe(result))
    if not result.is_complete:
        return 2
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.fuzz", main))
