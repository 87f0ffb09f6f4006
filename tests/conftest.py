import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# One thread a process, children included: the networks of the tests are too small for more, and pytest-xdist runs one
# process per core. A test that needs more threads sets them itself.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

from ganvas.files import write_error

torch.set_num_threads(1)

# A property's first example pays for imports and for other work on the machine: time limits would only be noise.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=15)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Chromium looks for updates and more on its own; none of that concerns a page.
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def published_data():
    """The folder of published datasets; tests that need it are skipped where it is not."""
    folder = os.environ.get("GANVAS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GANVAS_DATA names no folder of published datasets")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright; what needs it is skipped where one of them is not."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def same_threads():
    """Undo what ``--threads`` of a command run in this process has set: sums are rounded otherwise after it."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def in_process(capsys):
    """Make of a module's main a function that gives exit code, standard output and standard error."""

    def command_line(main):
        def run(*arguments):
            capsys.readouterr()
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as end:  # the parser's own
                code = end.code
            out, err = capsys.readouterr()
            return code, out, err

        return run

    return command_line


@pytest.fixture
def full_disk(monkeypatch):
    """Make a function of a module that writes files fail, as on a full disk."""

    def fill(function):
        def refuse(path, *_, **__):
            raise write_error(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

        monkeypatch.setattr(function, refuse)

    return fill


@pytest.fixture
def start_process():
    """Start a module's command line as a process of its own, to be killed and signalled."""

    def start(module, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def killed_and_resumed(start_process):
    """Kill a training at random instants, resume it each time, and let it end; give the exit code and messages."""

    def train(module, arguments, run, *, kills, longest):
        def continued():
            begun = (run / "config.json").is_file()
            return ["train", "--out", run, "--resume"] if begun else [*arguments, "--out", run]

        chance, killed = random.Random(7), 0
        for _ in range(kills):
            victim = start_process(module, *continued())
            wait_for_step(victim)
            time.sleep(chance.uniform(0, longest))
            victim.kill()
            victim.communicate()
            killed += victim.returncode == -signal.SIGKILL
        assert killed >= 1
        last = start_process(module, *continued())
        _, err = last.communicate(timeout=300)
        return last.returncode, err

    return train


def wait_for_step(process):
    """Wait until a process trains; what comes before are imports."""
    for line in process.stderr:
        if line.startswith("step "):
            return
    raise AssertionError("the training ended before its first step")
