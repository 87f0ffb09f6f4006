import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import is_dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

# One thread a process, children included: the networks of the tests are too small for more, and pytest-xdist runs one
# process per core. A test that needs more threads sets them itself.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

import cyclegan.config
import dcgan.config
import pix2pix.config
from ganvas.files import write_error
from ganvas.json_files import write_json
from ganvas.options import COMMAND, to_json
from ganvas.training.config import HIDDEN, read_config, with_options

torch.set_num_threads(1)

# No deadlines: an example may pay for an import, or for other work on the machine.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=15)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),  # no look-ups of its own
]


@pytest.fixture(scope="session")
def published_data():
    """The folder of published datasets that GANVAS_DATA names; tests without it are skipped."""
    folder = os.environ.get("GANVAS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GANVAS_DATA names no folder of published datasets")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def browser():
    """Chromium, controlled by Playwright; tests are skipped where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def same_threads():
    """Undo what ``--threads`` of a command in this process has set: the rounding of sums depends on it."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


PRESETS = {"pix2pix": pix2pix.config.preset, "cyclegan": cyclegan.config.preset, "dcgan": dcgan.config.preset}


def hidden_options(config):
    """Names of the options that the command line does not take."""
    groups = [type(value) for value in vars(config).values() if is_dataclass(value)]
    hints = {name: hint for group in groups for name, hint in get_type_hints(group, include_extras=True).items()}
    return {name for name, hint in hints.items() if HIDDEN in getattr(hint, "__metadata__", ())}


def move_hidden_options(program, arguments, folder):
    """Move options of ``train`` that only Python takes into a config file, so that tests can give them like others."""
    if program not in PRESETS or not arguments or arguments[0] != "train" or "--resume" in arguments:
        return arguments
    options, rest, given = dict[str, str](), [], iter(arguments)
    unset = {flag for flag, value in pairwise(arguments) if value == "None"}  # which no flag can say
    preset = PRESETS[program](None)
    hidden = hidden_options(preset)
    for argument in given:
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if argument.startswith("--") and (name in hidden or argument in unset):
            options[name] = value if equals else next(given)
        else:
            rest.append(argument)
    if not options:
        return arguments
    if "--config" in rest:
        place = rest.index("--config")
        base = read_config(Path(rest[place + 1]), program, type(preset))
    else:
        place = rest.index("--preset") if "--preset" in rest else len(rest)
        base = PRESETS[program](rest[place + 1] if place < len(rest) else None)
    config = with_options(base, {name: None if value == "None" else value for name, value in options.items()})
    path = Path(tempfile.mkdtemp(dir=folder)) / "config.json"
    write_json(path, to_json(config) | {COMMAND: program})
    return [*rest[:place], "--config", str(path), *rest[place + 2 :]]


@pytest.fixture(scope="session")
def with_hidden_options(tmp_path_factory):
    """Return `move_hidden_options` with a folder for its files."""
    return partial(move_hidden_options, folder=tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def train_once(tmp_path_factory, with_hidden_options):
    """Train a run that tests only read; return its folder."""

    def train(main, *arguments):
        run = tmp_path_factory.mktemp("runs") / "trained"
        command = ["train", *map(str, arguments), "--out", str(run)]
        assert main(with_hidden_options(main.__module__.partition(".")[0], command)) == 0
        return run

    return train


@pytest.fixture
def in_process(capsys, with_hidden_options):
    """Return a function that calls a main and returns exit code, standard output and standard error."""

    def command_line(main):
        def run(*arguments):
            capsys.readouterr()
            try:
                code = main(with_hidden_options(main.__module__.partition(".")[0], [*map(str, arguments)]))
            except SystemExit as end:  # the parser's own
                code = end.code
            out, err = capsys.readouterr()
            return code, out, err

        return run

    return command_line


@pytest.fixture
def full_disk(monkeypatch):
    """Make a function that writes files fail, as on a full disk."""

    def fill(function):
        def refuse(path, *_, **__):
            raise write_error(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

        monkeypatch.setattr(function, refuse)

    return fill


@pytest.fixture
def start_process(with_hidden_options):
    """Start a module's command line as a process of its own, to be killed and signalled."""

    def start(module, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", module, *with_hidden_options(module, [*map(str, arguments)])],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def killed_and_resumed(start_process):
    """Kill a training at random instants, resume it each time, and let it end; return the exit code and messages.

    GANVAS_KILLS=20 asks for more kills.
    """

    def train(module, arguments, run, *, kills, longest):
        def start():
            resume = (run / "config.json").is_file()
            return start_process(module, *(["train", "--resume"] if resume else arguments), "--out", run)

        rng, killed = random.Random(7), 0
        for _ in range(int(os.environ.get("GANVAS_KILLS", kills))):
            victim = start()
            if not wait_for_step(victim):
                victim.communicate()
                break  # all steps are done
            time.sleep(rng.uniform(0, longest))
            victim.kill()
            victim.communicate()
            killed += victim.returncode == -signal.SIGKILL
        assert killed >= 1
        last = start()
        _, err = last.communicate(timeout=300)
        return last.returncode, err

    return train


def wait_for_step(process):
    """Wait for the first step of a training, which comes after the imports; return whether there is one."""
    return any(line.startswith("step ") for line in process.stderr)


class SmallFeatures(torch.nn.Module):
    """A feature network of a test: [N, 3, H, W] uint8 to [N, 6]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 5, 5, generator=generator) / 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        x = torch.nn.functional.conv2d(images.float() / 255, self.weight, stride=13)
        return x.relu().mean(dim=(2, 3))


class SmallDistance(torch.nn.Module):
    """A distance of two images of a test: [N, 3, H, W] twice to [N, 1, 1, 1], as the lpips package returns it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().amax(dim=(1, 2, 3), keepdim=True)


def save_script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch calls TorchScript deprecated
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="session")
def feature_file(tmp_path_factory):
    """A TorchScript file of a feature network with 6 dimensions."""
    return save_script(SmallFeatures(), tmp_path_factory.mktemp("networks") / "features.pt")


@pytest.fixture(scope="session")
def distance_file(tmp_path_factory):
    """A TorchScript file of a network that returns the largest difference of two images."""
    return save_script(SmallDistance(), tmp_path_factory.mktemp("networks") / "distance.pt")
