"""Exactness of --resume: kill a run at random instants, resume it each time, compare it with one never killed.

    python -m benchmarks.kill_and_resume --data datasets/earth128 --kills 20
    python -m benchmarks.kill_and_resume --model cyclegan --data datasets/earth64-unpaired --kills 20
    python -m benchmarks.kill_and_resume --model dcgan --data mnist5k --kills 20

Real processes, SIGKILL, a small network. Exit code 0 when model.safetensors has the same bytes after all the kills,
else 1.
"""

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.common import has_begun, steps_done
from ganvas.console import run_command


@dataclass(frozen=True)
class Options:
    """Kill and resume a run."""

    data: str
    """Dataset, as for the model's command."""
    model: Literal["pix2pix", "cyclegan", "dcgan"] = "pix2pix"
    """Model."""
    kills: int = 20
    """Number of kills."""
    steps: int = 600
    """Length of the run, steps."""
    seed: int = 0
    """Seed of the instants."""


SMALL = "--image-size 64 --base-channels 8 --discriminator-channels 8 --patch-layers 2 --batch-size 2 --ema 0.9"
NETWORKS = {
    "pix2pix": SMALL,
    "cyclegan": f"{SMALL} --num-blocks 1",
    "dcgan": "--base-channels 8 --batch-size 32 --conditional",
}


def command(options: Options, run: Path, *, resume: bool) -> list[str]:
    """Return the command line of the training."""
    train = [sys.executable, "-m", options.model, "train", "--out", str(run)]
    if resume:
        return [*train, "--resume"]
    often = "--threads 1 --save-every-steps 10 --log-every-steps 5 --sample-every-steps 50"
    length = ["--data", options.data, "--steps", str(options.steps)]
    return [*train, *length, *NETWORKS[options.model].split(), *often.split()]


def digest(run: Path) -> str:
    """Return the digest of a run's model."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def start(options: Options, run: Path) -> subprocess.Popen[str]:
    """Start or resume the training, and wait until it trains: a kill during the imports would prove nothing."""
    line = command(options, run, resume=has_begun(run))
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("step "):
            break
    return process


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a training.

    Raises:
        RuntimeError: It failed.
    """
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the training failed with exit code {process.returncode}:\n{err}")


def kill_at_random(options: Options, run: Path, seconds: float) -> int:
    """Kill and resume a training of so many seconds until it was killed often enough or is done; return the kills."""
    rng = random.Random(options.seed)
    kills = 0
    while kills < options.kills and steps_done(run) < options.steps:
        process = start(options, run)
        # Three quarters of the duration in all, so that the last kill comes before the end.
        time.sleep(rng.uniform(0, 1.5 * seconds / options.kills))
        if process.poll() is not None:
            finish(process)
            continue
        process.kill()
        process.communicate()
        kills += 1
        print(f"kill {kills}: at least {steps_done(run)} steps saved", flush=True)
    return kills


def main(arguments: list[str]) -> int:
    """Run the check; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.kill_and_resume", args=arguments)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, killed = Path(folder) / "unbroken", Path(folder) / "killed"
        process, began = start(options, unbroken), time.monotonic()
        finish(process)
        seconds = time.monotonic() - began
        print(f"unbroken: {options.steps} steps in {seconds:.0f} s, {digest(unbroken)[:16]}")
        kills = kill_at_random(options, killed, seconds)
        if steps_done(killed) < options.steps:
            finish(start(options, killed))
        same = digest(killed) == digest(unbroken)
        print(f"killed {kills} times: {digest(killed)[:16]}, {'the same bytes' if same else 'DIFFERENT BYTES'}")
    if kills < options.kills:
        print(f"The run ended before kill {kills + 1}: use more --steps.")
    return 0 if same and kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.kill_and_resume", main))
