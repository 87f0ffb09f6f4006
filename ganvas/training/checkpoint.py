"""Checkpoints: folders with everything that a resume needs, complete or absent, verified when they are read.

RUN/checkpoints/step-00000500/checkpoint.json      step, state, versions, digests of the files and of itself
                              NAME.safetensors     tensors: networks, optimizers' moments
"""

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ganvas.errors import UserError
from ganvas.files import new_folder, recover_folder, remove_abandoned, sha256
from ganvas.json_files import read_json, write_json
from ganvas.log import logger
from ganvas.models.tensors import load_tensors, save_tensors
from ganvas.options import FORMAT_VERSION, STRICT, from_json

INFO = "checkpoint.json"
MAX_THREADS = 1024
NAME = re.compile(r"step-([0-9]{8,18})")  # as `checkpoint_folder` writes it


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of a step.

    Attributes:
        step: Steps done.
        tensors: Tensors by file ("generator", "generator.adam") and name.
        state: Everything else, as JSON values.
        environment: Versions and thread count it was made with.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,200}\.safetensors", name):
        raise ValueError("expected the name of a .safetensors file next to it")
    return name


@dataclass(frozen=True)
class _Info:
    """The content of checkpoint.json."""

    __pydantic_config__ = STRICT

    step: Annotated[int, Field(ge=0)]
    state: dict[str, Any]
    environment: dict[str, Any]
    files: dict[Annotated[str, AfterValidator(_file_name)], str]
    digest: str = ""


def environment() -> dict[str, Any]:
    """Return what the bytes of a result depend on besides the run itself."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint after ``step`` steps."""
    return run / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; it appears under its name only when it is complete and on the disk.

    Raises:
        UserError: The disk is full or the place is not writable. Older checkpoints are untouched.
    """
    folder = checkpoint_folder(run, checkpoint.step)
    with new_folder(folder) as aside:
        files = {}
        for name, tensors in checkpoint.tensors.items():
            save_tensors(aside / f"{name}.safetensors", tensors)
            files[f"{name}.safetensors"] = sha256(aside / f"{name}.safetensors")
        info = {
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "state": dict(checkpoint.state),
            "environment": environment(),
            "files": files,
        }
        write_json(aside / INFO, info | {"digest": _digest(info)})
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check all digests.

    Raises:
        UserError: A file is missing or differs from what was written, or a newer ganvas wrote it.
    """
    values = read_json(folder / INFO, "a checkpoint")
    info = from_json(_Info, values, str(folder / INFO))
    if info.digest != _digest({name: value for name, value in values.items() if name != "digest"}):
        raise UserError(f"{folder / INFO}: is damaged (its digest differs). Use another checkpoint.")
    tensors = {}
    for name, digest in info.files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: is missing. Copy the folder again, or use another checkpoint.")
        if sha256(file) != digest:
            raise UserError(f"{file}: is damaged (its digest differs). Copy it again, or use another checkpoint.")
        tensors[file.stem] = load_tensors(file)
    return Checkpoint(info.step, tensors, info.state, info.environment)


def list_checkpoints(run: Path) -> list[Path]:
    """Return the run's checkpoints, oldest first, without unfinished ones and a user's copies."""
    return [folder for _, folder in sorted(_by_step(run).items())]


def _by_step(run: Path) -> dict[int, Path]:
    matches = ((NAME.fullmatch(folder.name), folder) for folder in (run / "checkpoints").glob("step-*"))
    return {int(match[1]): folder for match, folder in matches if match}


def remove_old(run: Path, keep: int, best_step: int | None, step: int) -> None:
    """Remove all checkpoints except the ``keep`` newest and the best, and leftovers of killed processes.

    Those of later steps go first: a resume passed them over because they are damaged.

    Args:
        run: The run's folder.
        keep: How many are kept, at least 1.
        best_step: The best step, if a validation chose one.
        step: The step whose checkpoint was just written, which always stays.
    """
    found = _by_step(run)
    kept = {*sorted(each for each in found if each <= step)[-keep:], step, best_step}
    for each, folder in found.items():
        if each not in kept:
            shutil.rmtree(folder, ignore_errors=True)
        recover_folder(folder)
    remove_abandoned((run / "checkpoints").glob(".step-*"))


def _digest(info: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()


def load_newest_checkpoint(run: Path, *, first_save: int = 0) -> Checkpoint | None:
    """Read the newest checkpoint of a run; if it is damaged, warn and read the one before it.

    Restores the thread count, and warns of other differences of machine and versions that change the result's bytes.

    Args:
        run: The run's folder.
        first_save: Step of the first checkpoint, just before which the first model is saved.

    Returns:
        None if the run was killed before its first checkpoint, so that it starts from its first step.

    Raises:
        UserError: The checkpoints were removed, all are damaged, or a newer ganvas wrote them.
    """
    folders = list_checkpoints(run)
    if not folders:
        if _model_step(run) > first_save:
            raise UserError(
                f"{run}: has a model, but no checkpoint to resume from. Restore its checkpoints, or start a new run "
                "with another --out."
            )
        logger.warning("%s: has no checkpoint yet; training starts from its first step.", run)
        return None
    for folder in reversed(folders[1:]):
        try:
            return _with_environment(load_checkpoint(folder))
        except UserError as error:
            if "newer ganvas" in str(error):
                raise
            logger.warning("%s Continuing from the checkpoint before it.", error)
    return _with_environment(load_checkpoint(folders[0]))


def _model_step(run: Path) -> int:
    """Return the step of the run's model; 0 if there is none that can be read."""
    try:
        training = read_json(run / "model" / "config.json", "a model's config").get("training")
        return int(training["step"])  # type: ignore[index]
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def _with_environment(checkpoint: Checkpoint) -> Checkpoint:
    """Restore the thread count, and warn of what else would change the bytes of the result."""
    threads = checkpoint.environment.get("threads")
    if isinstance(threads, int) and 1 <= threads <= MAX_THREADS and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    now = environment()
    changed = [f"{name} {was} → {now[name]}" for name, was in checkpoint.environment.items() if now.get(name) != was]
    if changed:
        differences = ", ".join(changed)
        logger.warning("The checkpoint was made elsewhere (%s): results are good, but not the same bytes.", differences)
    return checkpoint
