"""A lock on a run's folder: two trainings would overwrite each other's files."""

import contextlib
import datetime
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from ganvas.errors import UserError
from ganvas.json_files import read_json, write_json
from ganvas.log import logger

LOCK, HOLDER = ".training.lock", ".training.json"


@contextlib.contextmanager
def locked_run(run: Path, fabric: Fabric, *, check: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a run's lock in the first process, for all of them. The system releases it when the process ends.

    Args:
        run: The run's folder, which exists.
        fabric: The processes; all of them call this at the same point.
        check: Called by the first process once it holds the lock; may raise a `UserError`.

    Raises:
        UserError: Another training holds it, or ``check`` raised; in all processes.
    """
    lock, problem = FileLock(run / LOCK), ""
    if fabric.is_global_zero:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            problem = (
                f"{run}: another training writes there{_describe_holder(run)}. Wait until it ends, or give --out "
                "another folder."
            )
        except (NotImplementedError, OSError) as error:  # some network disks
            logger.warning(
                "%s: its disk has no locks (%s); make sure that no second training writes there.", run, error
            )
        if not problem:
            try:
                write_json(run / HOLDER, _describe_this_process())
                check()
            except UserError as error:
                problem = str(error)
    try:
        if problem := fabric.broadcast(problem):
            raise UserError(problem)
        yield
    finally:
        lock.release()


def _describe_this_process() -> dict[str, str | int]:
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    return {"process": os.getpid(), "machine": platform.node(), "since": now}


def _describe_holder(run: Path) -> str:
    try:
        holder = read_json(run / HOLDER, "who trains here")
        return f" (process {holder['process']} on {holder['machine']}, since {holder['since']})"
    except (UserError, KeyError):  # it has only just begun
        return ""
