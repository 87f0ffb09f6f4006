"""The process of `benchmarks.fuzz` that makes cases and runs each in a forked child, under limits."""

import contextlib
import faulthandler
import gc
import importlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.fuzzing.corpus import CHANGED, Files, Sample, make_corpus
from benchmarks.fuzzing.mutators import bomb, mutate
from benchmarks.fuzzing.outcome import Outcome
from benchmarks.fuzzing.readers import READERS, translator
from ganvas.errors import UserError

CPU_SECONDS, WALL_SECONDS = 4, 16  # of a case
MEMORY = 2**30  # bytes of address space that a case may add
MAX_PIXELS = 2**24  # of an image; one at the everyday limit takes more time and memory than a case has
PRINTED = 2**20  # bytes that a case may print
LONGEST = 2000  # characters of a message
NO_LINE = "no line of the project"

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tuple(f"{ROOT / package}{os.sep}" for package in ("ganvas", "pix2pix", "cyclegan", "dcgan", "data_scripts"))
# What libraries read on their own: their files, and the system's description of itself.
LIBRARIES = tuple(os.path.realpath(path) for path in (ROOT, sys.prefix, sys.base_prefix, Path(os.__file__).parent))
SYSTEM = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/etc/localtime", "/etc/mime.types")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
FRAME = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')


@dataclass(frozen=True)
class Case:
    """A folder of files, one of them mutated, and how it is read."""

    sample: Sample
    target: str
    reader: str
    files: Files
    steps: list[str]


class Worker:
    """Makes cases, and runs them in children.

    Args:
        only: Formats to try; all where it is empty.
        keep: Folder for the files of each finding.

    Raises:
        ValueError: The corpus has no such format.
    """

    def __init__(self, only: Sequence[str] = (), keep: Path | None = None) -> None:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
        self.samples: dict[str, list[Sample]] = {}
        for sample in _in_child(make_corpus):  # this process stays without threads
            self.samples.setdefault(sample.format, []).append(sample)
        if unknown := set(only) - self.samples.keys():
            raise ValueError(f"--only {', '.join(unknown)}: the formats are {', '.join(self.samples)}")
        self._only, self._keep = frozenset(only), keep
        for size in ("trained", "native"):
            translator(size)
        for name in _in_child(self._modules_of_readers):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for wbits in (15, 31):
            bomb(wbits)  # would take a second in each child
        gc.freeze()  # so that a child's collections copy no memory

    def _modules_of_readers(self) -> list[str]:
        """Read one sample by each reader; return the modules that were imported for that."""
        before = set(sys.modules)
        for reader, read in READERS.items():
            sample = next(s for each in self.samples.values() for s in each if reader in s.readers)
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError), _quiet(Path(os.devnull)):
                _write(Path(folder), sample.files)
                read(Path(folder), next(iter(sample.targets)))
        return sorted(set(sys.modules) - before)

    def format(self, seed: int) -> str:
        """Return the format of a seed's case."""
        return random.Random(f"format of {seed}").choice(list(self.samples))

    def case(self, seed: int) -> Case:
        """Make the case of a seed."""
        rng = random.Random(seed)
        sample = rng.choice(self.samples[self.format(seed)])
        target = rng.choice(list(sample.targets))
        reader, kind = rng.choice(sample.readers), sample.targets[target]
        others = [other.files[name] for other in self.samples[sample.format]
                  for name in other.targets if other.targets[name] == kind]  # fmt: skip
        files = dict(sample.files)
        files[target], steps = mutate(rng, kind, files[target], rng.choice(others))
        if sample.repair is not None and rng.random() < 0.9:
            sample.repair(files)
        if len(files) == 1 and sample.readers[0] == "read" and rng.random() < 0.03:  # a wrong suffix
            name = Path(target).with_suffix(rng.choice((".tif", ".png", ".npy", ".jpg"))).name
            files, target = {name: files[target]}, name
        return Case(sample, target, reader, files, steps)

    def run(self, seed: int) -> Outcome:
        """Run the case of a seed in a child."""
        outcome = Outcome(seed, self.format(seed))
        with tempfile.TemporaryDirectory(prefix="ganvas-fuzz-") as folder:
            place, was_killed = Path(folder), False
            child, reading = _fork(lambda writing: self._run_in_child(outcome, place, writing))
            with reading:
                while True:
                    if not reading.poll(WALL_SECONDS):
                        was_killed = True
                        os.kill(child, signal.SIGXCPU)  # faulthandler writes where it was
                        time.sleep(1)
                        os.kill(child, signal.SIGKILL)
                    try:
                        outcome = reading.recv()
                    except EOFError:
                        break
            _, status = os.waitpid(child, 0)
            if not outcome.kind:
                outcome = _death(outcome, status, was_killed, place)
        if outcome.is_finding and self._keep is not None:
            _write(self._keep / f"{outcome.format}-{seed}".replace(" ", "-"), self.case(seed).files)
        return outcome

    def _run_in_child(self, outcome: Outcome, place: Path, writing: Connection) -> None:
        """Make and read a case; report when it is made, and how it ended."""
        trace = (place / "trace").open("w")
        faulthandler.enable(trace)
        faulthandler.register(signal.SIGXCPU, trace, all_threads=True, chain=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        case = self.case(outcome.seed)
        outcome = replace(outcome, reader=case.reader, steps=f"{case.target}: {', '.join(case.steps)}")
        writing.send(outcome)
        kind, frame, text = _read_case(case, place)
        text = text.encode("utf-8", "backslashreplace").decode()[:300].replace("\n", " ")
        writing.send(replace(outcome, kind=kind, frame=frame, text=text))


def _fork(function: Callable[[Connection], object]) -> tuple[int, Connection]:
    """Call a function in a child with the writing end of a pipe; return the child's id and the reading end."""
    reading, writing = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            function(writing)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    writing.close()
    return child, reading


def _in_child(make: Callable[[], Any]) -> Any:
    """Return a function's result from a child, which keeps its threads and memory to itself."""
    child, reading = _fork(lambda writing: writing.send(make()))
    with reading:
        made = reading.recv()
    os.waitpid(child, 0)
    return made


def _death(case: Outcome, status: int, was_killed: bool, place: Path) -> Outcome:
    """Describe how a case ended its process."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if was_killed or number == signal.SIGXCPU:
        kind = "time-out"
    else:
        kind = f"crash by {signal.Signals(number).name}" if number else f"exit {os.WEXITSTATUS(status)}"
    trace = (place / "trace").read_text(errors="replace")
    found = next((match for match in FRAME.finditer(trace) if match[1].startswith(PROJECT)), None)
    frame = f"{Path(found[1]).relative_to(ROOT)}:{found[2]} {found[3]}" if found else NO_LINE
    return replace(case, kind=kind, frame=frame, text=trace.partition("\n")[0])


# --- in the child ----------------------------------------------------------------------------------------------------


class Guard:
    """An audit hook that notes the first thing that a case does outside of its folders."""

    def __init__(self, place: Path) -> None:
        self._inside = (os.path.realpath(place / "case") + os.sep, os.path.realpath(place / "tmp") + os.sep)
        self.is_on = False
        self.noted = self.frame = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Check an event."""
        if not self.is_on or self.noted:
            return
        if event in FORBIDDEN:
            self.noted = f"{event} {arguments!r}"[:300]
        elif event == "open" or event in CHANGES:
            flags = arguments[2] if event == "open" else os.O_RDWR
            writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes | os.PathLike) and not self._is_allowed(os.fsdecode(path), writes):
                    self.noted = f"{event} {os.fsdecode(path)[:300]}"
        if self.noted:
            stack = traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)
            self.frame = _innermost(reversed(stack))

    def _is_allowed(self, path: str, writes: bool) -> bool:
        real = os.path.realpath(path)
        if (real + os.sep).startswith(self._inside) or real.startswith(SYSTEM):
            return True
        return not writes and real.startswith(LIBRARIES)


def _read_case(case: Case, place: Path) -> tuple[str, str, str]:
    """Read a case under limits; return the outcome's kind, frame and text."""
    guard, folder, temporary, output = Guard(place), place / "case", place / "tmp", place / "output"
    temporary.mkdir()
    (place / "outside.jpg").write_bytes(b"")
    (place / "outside.tif").write_bytes(b"II*\0")
    output.touch()
    _write(folder, case.files)
    before = {path.name for path in place.iterdir()}
    tempfile.tempdir = str(temporary)
    os.chdir(folder)
    sys.addaudithook(guard)
    with _limits(), _quiet(output):
        guard.is_on = True
        try:
            READERS[case.reader](folder, case.target)
            kind, frame, text = "read", "", ""
        except UserError as error:
            kind, frame, text = _check_message(error, [*case.files, folder.name])
        except BaseException as error:
            kind = "memory" if isinstance(error, MemoryError) else type(error).__name__
            frame, text = _line_of(error), str(error)
        guard.is_on = False
    after = {path.name for path in place.iterdir()}
    if guard.noted:
        kind, frame, text = "outside of its folder", guard.frame, guard.noted
    elif output.stat().st_size > PRINTED:
        kind, text = "prints too much", f"{output.stat().st_size} bytes"
    elif after != before:
        kind, text = "outside of its folder", f"{before} became {after}"
    return kind, frame, text.replace(str(place), "")


def _check_message(error: UserError, names: Sequence[str]) -> tuple[str, str, str]:
    """Find messages that are too long, name no file, or hide that memory ran out."""
    message, cause = str(error), error.__context__
    while cause is not None:
        # Python's parser also raises MemoryError, for nested expressions.
        if isinstance(cause, MemoryError) and traceback.extract_tb(cause.__traceback__)[-1].name != "parse":
            return "memory", _line_of(cause), message
        cause = cause.__context__
    if len(message) > LONGEST:
        return "message too long", _line_of(error), f"{len(message)} characters: {message}"
    if not any(Path(name).name in message for name in names):
        return "message without a file", _line_of(error), message
    return "refused", "", ""


def _line_of(error: BaseException) -> str:
    return _innermost(traceback.extract_tb(error.__traceback__))


def _innermost(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return the project's innermost line; the frames come from the outermost on."""
    lines = [frame for frame in frames if frame.filename.startswith(PROJECT)]
    return f"{Path(lines[-1].filename).relative_to(ROOT)}:{lines[-1].lineno} {lines[-1].name}" if lines else NO_LINE


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Limit the processor time and address space that a case may add."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for limit in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Redirect what is printed, also by libraries of other languages, into a file."""
    saved = [(number, os.dup(number)) for number in (1, 2)]
    with path.open("wb") as file:
        for number, _ in saved:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)


def _write(folder: Path, files: Files) -> None:
    """Write files, all with the same time of change."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(CHANGED, CHANGED))
