"""Exactness of --resume: kill one run at random instants, resume it each time, compare it with a run never killed.

    python -m benchmarks.kill_and_resume --data datasets/earth128 --kills 20
    python -m benchmarks.kill_and_resume --model dcgan --data mnist5k --kills 20

Real processes, SIGKILL, a small network. Ends with 0 when model.safetensors has the same bytes, else with 1.
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


@dataclass(frozen=True)
class Options:
    """Kill and resume a run."""

    data: str
    """The data, as the model's command takes it."""
    model: Literal["pix2pix", "dcgan"] = "pix2pix"
    """Which model."""
    kills: int = 20
    """How often the run is killed."""
    steps: int = 600
    """Length of the run."""
    seed: int = 0
    """Seed of the instants."""


NETWORKS = {
    "pix2pix": "--image-size 64 --base-channels 8 --discriminator-channels 8 --patch-layers 2 --batch-size 2 --ema 0.9",
    "dcgan": "--base-channels 8 --batch-size 32 --conditional",
}


def command(options: Options, run: Path, *, resume: bool) -> list[str]:
    """Give the command line of the training."""
    train = [sys.executable, "-m", options.model, "train", "--out", str(run)]
    if resume:
        return [*train, "--resume"]
    often = "--threads 1 --save-every-steps 10 --log-every-steps 5 --sample-every-steps 50"
    return [
        *train,
        "--data",
        options.data,
        "--steps",
        str(options.steps),
        *NETWORKS[options.model].split(),
        *often.split(),
    ]


def has_checkpoint(run: Path) -> bool:
    """Tell whether there is something to resume."""
    return any((run / "checkpoints").glob("step-*"))


def steps_done(run: Path) -> int:
    """Give the newest checkpoint's step."""
    return max((int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*")), default=0)


def digest(run: Path) -> str:
    """Give the digest of a run's model."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def main() -> int:
    """Run the check; give the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.kill_and_resume")
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, killed = Path(folder) / "unbroken", Path(folder) / "killed"
        began = time.monotonic()
        subprocess.run(command(options, unbroken, resume=False), check=True, capture_output=True)
        whole = time.monotonic() - began
        print(f"unbroken: {options.steps} steps in {whole:.0f} s, {digest(unbroken)[:16]}")

        kills = 0
        while kills < options.kills and steps_done(killed) < options.steps:
            process = subprocess.Popen(
                command(options, killed, resume=has_checkpoint(killed)), stderr=subprocess.PIPE, text=True
            )
            # Wait until it trains (imports take seconds and nothing can be lost in them), then a random while.
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("step "):
                    break
            time.sleep(chance.uniform(0, 2 * whole / options.kills))
            process.kill()
            process.communicate()
            kills += 1
            print(f"kill {kills}: at least {steps_done(killed)} steps saved", flush=True)
        while steps_done(killed) < options.steps:
            subprocess.run(command(options, killed, resume=has_checkpoint(killed)), check=True, capture_output=True)
        same = digest(killed) == digest(unbroken)
        print(f"killed {kills} times: {digest(killed)[:16]}, {'the same bytes' if same else 'DIFFERENT BYTES'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
