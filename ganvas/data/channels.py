"""The number of channels of a dataset's images, for training runs whose options do not set it."""

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

MAX_SAMPLED = 16  # images of a domain, spread evenly; our choice, about as many as the first steps read


@dataclass(frozen=True)
class Channels:
    """The channels of one domain's images.

    Attributes:
        count: Channels to train with, without alpha.
        notes: What is done with images that have alpha or other channels, one sentence each.
    """

    count: int
    notes: tuple[str, ...] = ()


def find_channels(files: Callable[[int], Sequence[Path | Member]], length: int, domain: str, option: str) -> Channels:
    """Read a sample of a domain's images and return how many channels to train with.

    Images that cannot be read are ignored: the training reports them. Gray images among color ones count as color,
    since they are repeated.

    Args:
        files: Returns the file of an index, or the files that are stacked.
        length: Number of indices.
        domain: For messages: "source", "domain a".
        option: The option that sets its channels.

    Raises:
        UserError: No image can be read, or they have different numbers of channels.
    """
    examples: dict[int, list[str]] = defaultdict(list)  # names by channels
    with_alpha: list[str] = []
    errors: list[UserError] = []
    for index in sorted({round(i) for i in np.linspace(0, length - 1, min(MAX_SAMPLED, length))}):
        paths = files(index)
        try:
            images = [read_file(path, keep_alpha=True) for path in paths]
        except WriteError:
            raise
        except UserError as error:
            errors.append(error)
            continue
        alphas = [image.alpha != "none" for image in images]
        examples[sum(image.array.shape[2] for image in images) - sum(alphas)].append(str(paths[0]))
        if any(alphas):
            with_alpha.append(str(paths[0]))
    if not examples:
        others = f" No other of {len(errors)} {domain} images looked at can be read." if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{others}")
    total, count = sum(map(len, examples.values())), max(examples)
    notes = []
    if len(examples) > 1 and set(examples) != {1, 3}:
        kinds = [f"{len(names)} have {channels} ({names[0]})" for channels, names in sorted(examples.items())]
        raise UserError(
            f"The {domain} images have different numbers of channels: of {total} looked at, {join_first(kinds)}. "
            f"Convert them to one, or give {option}."
        )
    if len(examples) > 1:
        gray = examples[1]
        notes.append(f"{len(gray)} of {total} {domain} images looked at are gray, and are repeated ({gray[0]}).")
    if with_alpha:
        keep = f" {option}={count + 1} keeps it." if len(with_alpha) == total and count in (1, 3) else ""
        notes.append(
            f"{len(with_alpha)} of {total} {domain} images looked at have alpha, and are composed over white "
            f"({with_alpha[0]}).{keep}"
        )
    return Channels(count, tuple(notes))


@contextlib.contextmanager
def add_option_to_errors(option: str) -> Iterator[None]:
    """Name the option that sets the channels in a `ChannelsError` raised within the block.

    Raises:
        UserError: In place of a `ChannelsError`, with the option in the message.
    """
    try:
        yield
    except ChannelsError as error:
        raise UserError(
            f"{error.path}: has {error.found} channels, {error.expected} are expected. Convert the file, or train with "
            f"{option}={error.found}."
        ) from None
