"""Fuzz the readers: mutate small valid files of every format, and read them as the commands do.

    python -m benchmarks.fuzz --minutes 20
    python -m benchmarks.fuzz --minutes 5 --only tiff png --seed 7
    python -m benchmarks.fuzz --case 7000042 --keep findings      that case alone, its files kept

A case succeeds or ends with a `UserError` that names a file and has at most 2,000 characters. A finding is: another
exception, a crash, more than 4 s of CPU time or 16 s in all, more than 1 GB of added address space, a file outside of
the case's folders opened or changed, a connection, a program started, or more than 1 MB printed. Findings of one
format, reader, kind and innermost line of the project are one.

Each case runs in a forked child and depends on its seed alone. Linux only. Exit code: 0 without findings, 1 with, 2
when it was ended early.
"""

import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro

from benchmarks.fuzzing.outcome import Outcome
from ganvas.console import run_command

CASES_PER_SEED = 1_000_000  # --seed 7 starts with case 7,000,000
# Threads do not survive a fork, and with one allocator arena the address space of a case stays close to the memory that
# it asks for.
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
    """Duration."""
    cases: int | None = None
    """Stop after so many cases."""
    seed: int = 0
    """First case, in millions."""
    case: int | None = None
    """Run this case alone."""
    only: tuple[str, ...] = ()
    """Formats to try; all by default."""
    keep: Path | None = None
    """Folder for the files of each finding."""
    json: bool = False
    """Print one JSON object."""


@dataclass
class Result:
    """What a run has found.

    Attributes:
        cases: Number of cases by format.
        refused: How many of them ended with a `UserError`, by format.
        findings: The cases of each finding, by format, reader, kind and frame.
        seconds: Duration.
        is_complete: Whether it ran to its end.
    """

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, ...], list[Outcome]] = field(default_factory=dict)
    seconds: float = 0.0
    is_complete: bool = False

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.cases[outcome.format] += 1
        self.refused[outcome.format] += outcome.kind == "refused"
        if outcome.is_finding:
            self.findings.setdefault((outcome.format, outcome.reader, outcome.kind, outcome.frame), []).append(outcome)

    def summary(self) -> dict[str, Any]:
        """Return what ``--json`` prints; a finding has its first five seeds, and the text of the first."""
        findings = []
        for cases in sorted(self.findings.values(), key=lambda each: (each[0].format, each[0].kind, each[0].frame)):
            finding = asdict(cases[0]) | {"count": len(cases)}
            del finding["seed"]
            findings.append(finding | {"seeds": [case.seed for case in cases[:5]]})
        counts = {"cases": dict(self.cases), "refused": dict(self.refused), "seconds": round(self.seconds, 1)}
        return counts | {"findings": findings}


def fuzz(options: Options) -> Result:
    """Run cases until time or cases are used up; findings before an interrupt are returned, too."""
    from benchmarks.fuzzing.worker import Worker

    result, began = Result(), time.monotonic()
    worker = Worker(options.only, options.keep)
    first = options.seed * CASES_PER_SEED
    seeds = range(first, first + (options.cases or CASES_PER_SEED)) if options.case is None else [options.case]
    try:
        for seed in seeds:
            if time.monotonic() - began > 60 * options.minutes:
                break
            if not options.only or worker.format(seed) in options.only:
                result.add(worker.run(seed))
        result.is_complete = True
    except KeyboardInterrupt:
        print("Ended early: interrupted.", file=sys.stderr)
    result.seconds = time.monotonic() - began
    return result


def describe(result: Result) -> str:
    """Write a table of the formats, then the findings."""
    findings = result.summary()["findings"]
    lines = [f"{result.cases.total()} cases in {result.seconds:.0f} s, {len(findings)} findings"]
    lines += ["", "| format | cases | refused | findings | seeds |", "| --- | --- | --- | --- | --- |"]
    for label in sorted(result.cases):
        seeds = [str(each["seeds"][0]) for each in findings if each["format"] == label]
        row = (label, result.cases[label], result.refused[label], len(seeds), ", ".join(seeds))
        lines.append(f"| {' | '.join(map(str, row))} |")
    for each in findings:
        cases = ", ".join(map(str, each["seeds"]))
        place = f"{each['format']}, {each['reader']}: {each['kind']} in {each['frame']}"
        lines += ["", f"{place} ({each['count']} cases: {cases})", f"    {each['text']}", f"    {each['steps']}"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the check; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.fuzz", args=arguments)
    if not sys.platform.startswith("linux"):
        print("This needs Linux: it forks, and limits the memory of a process.", file=sys.stderr)
        return 2
    result = fuzz(options)
    print(json.dumps(result.summary()) if options.json else describe(result))
    if not result.is_complete:
        return 2
    return 1 if result.findings else 0


if __name__ == "__main__":
    if not os.environ.items() >= ENVIRONMENT.items():  # the allocator reads its variable when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.fuzz", *sys.argv[1:]], os.environ | ENVIRONMENT)
    sys.exit(run_command("benchmarks.fuzz", main))
