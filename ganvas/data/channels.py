"""How many channels the images of a dataset have, for trainings whose options do not say."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganvas.data.decode import ChannelsError
from ganvas.data.shards import Member, read_file
from ganvas.errors import UserError, WriteError
from ganvas.messages import join_first

LOOKED_AT = 16  # images of a side, evenly over all of them: our choice, about as many as the first steps read


@dataclass(frozen=True)
class Channels:
    """What was found in the images of one side.

    Attributes:
        count: Channels to train with; alpha is not one of them.
        notes: What becomes of images that have alpha or other channels, in a sentence each.
    """

    count: int
    notes: tuple[str, ...] = ()


def find_channels(files: Callable[[int], Sequence[Path | Member]], length: int, side: str, option: str) -> Channels:
    """Read some images of a side, evenly over all of them, and return how many channels to train with.

    Images that cannot be read are passed over: the training itself names them. Gray images among color ones count as
    color, since they are repeated.

    Args:
        files: Returns the file of an index, or the files that are stacked.
        length: How many there are.
        side: Which images they are, for messages: "source", "domain a".
        option: The option that sets their channels.

    Raises:
        UserError: None can be read, or they have different numbers of channels.
    """
    found: dict[int, list[str]] = defaultdict(list)  # names by channels
    with_alpha: list[str] = []
    errors: list[UserError] = []
    for index in sorted({round(i) for i in np.linspace(0, length - 1, min(LOOKED_AT, length))}):
        paths = files(index)
        try:
            images = [read_file(path, keep_alpha=True) for path in paths]
        except WriteError:
            raise
        except UserError as error:
            errors.append(error)
            continue
        alphas = [image.alpha != "none" for image in images]
        found[sum(image.array.shape[2] for image in images) - sum(alphas)].append(str(paths[0]))
        if any(alphas):
            with_alpha.append(str(paths[0]))
    if not found:
        others = f" No other of {len(errors)} {side} images looked at can be read." if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{others}")
    seen, count = sum(map(len, found.values())), max(found)
    notes = []
    if len(found) > 1 and set(found) != {1, 3}:
        kinds = [f"{len(names)} have {channels} ({names[0]})" for channels, names in sorted(found.items())]
        raise UserError(
            f"The {side} images have different numbers of channels: of {seen} looked at, {join_first(kinds)}. Convert "
            f"them to one, or give {option}."
        )
    if len(found) > 1:
        notes.append(f"{len(found[1])} of {seen} {side} images looked at are gray, and are repeated ({found[1][0]}).")
    if with_alpha:
        keep = f" {option} {count + 1} keeps it." if len(with_alpha) == seen and count in (1, 3) else ""
        notes.append(
            f"{len(with_alpha)} of {seen} {side} images looked at have alpha, and are composed over white "
            f"({with_alpha[0]}).{keep}"
        )
    return Channels(count, tuple(notes))


@contextlib.contextmanager
def add_option_to_errors(option: str) -> Iterator[None]:
    """Name the option that sets the channels in errors about an image of other channels.

    Raises:
        UserError: In place of a `ChannelsError` that was raised within.
    """
    try:
        yield
    except ChannelsError as error:
        raise UserError(
            f"{error.path}: has {error.found} channels, {error.expected} are expected. Convert the file, or train with "
            f"{option} {error.found}."
        ) from None
