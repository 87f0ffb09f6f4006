"""The data of a CycleGAN training: channels that the options leave open, splits, and held-out images."""

from dataclasses import replace

from torch import Tensor

from cyclegan.config import CycleGanConfig, channels, channels_remedy, data_folder, mixes_domains, ranges
from ganvas.data.augment import Augmentation, build_augmentation
from ganvas.data.channels import Channels, find_channels
from ganvas.data.dataset_info import dataset_info
from ganvas.data.decode_cache import DecodeCache
from ganvas.data.listing import Files
from ganvas.data.skip import SkipCounter
from ganvas.data.unpaired import OPTIONS, UnpairedDataset, find_domains
from ganvas.training.held_out import HeldOut

# Images of each domain.
SAMPLE_IMAGES = 3
MONITOR_IMAGES = 4
VALIDATION_IMAGES = 100  # the cycles of both directions take four passes for each


def with_channels(config: CycleGanConfig) -> tuple[CycleGanConfig, list[str]]:
    """Read the channels that the options leave open from the data; return notes for the log, too.

    A gray domain gets three channels next to a color one if the objective needs equal ones.

    Raises:
        UserError: There are no two domains, no image of one can be read, or they have different numbers of channels.
    """
    data = config.data
    given = (data.channels_a, data.channels_b)
    if all(given):
        return config, []
    domains = zip("ab", given, find_domains(data_folder(data), "train"), strict=True)
    found = [Channels(count) if count else _domain_channels(name, files) for name, count, files in domains]
    counts = [each.count for each in found]
    notes = [note for each in found for note in each.notes]
    if mixes_domains(config.model) and sorted(counts) == [1, 3] and not given[counts.index(1)]:
        gray = "ab"[counts.index(1)]
        counts = [3, 3]
        notes.append(
            f"Domain {gray} is gray; its images are repeated to 3 channels, which the "
            f"{'identity loss' if config.model.objective == 'cycle' else 'objective'} needs "
            f"({channels_remedy(config.model)} does not)."
        )
    if counts != [3, 3]:
        notes.insert(0, f"Channels, as in the data: {counts[0]} of domain a, {counts[1]} of domain b.")
    return replace(config, data=replace(data, channels_a=counts[0], channels_b=counts[1])), notes


def _domain_channels(domain: str, files: Files) -> Channels:
    return find_channels(lambda index: (files[index],), len(files), f"domain {domain}", OPTIONS[domain])


def open_split(config: CycleGanConfig, split: str, cache: DecodeCache | None, *, augment: bool) -> UnpairedDataset:
    """Open a split: augmented for training, else scaled as the network expects full images."""
    data, root = config.data, data_folder(config.data)
    augmentation = build_augmentation(
        data.augment, data.image_size, load_size=data.load_size, flip=data.flip, info=dataset_info(root)
    )
    range_a, range_b = ranges(data)
    channels_a, channels_b = channels(data)
    scale = None if data.load_size == 0 else data.image_size
    unscaled = Augmentation(scale, data.image_size, flip=False, palette=augmentation.palette)
    return UnpairedDataset(
        root,
        split,
        augmentation=augmentation if augment else unscaled,
        channels_a=channels_a,
        channels_b=channels_b,
        range_a=range_a,
        range_b=range_b,
        seed=config.seed,
        cache=cache,
    )


def read_held_out(dataset: UnpairedDataset, split: str, skips: SkipCounter | None) -> dict[str, HeldOut[Tensor]]:
    """Return a reader of each domain's held-out images, as the networks take them."""

    def reader(domain: str) -> HeldOut[Tensor]:
        return HeldOut(split, lambda index: dataset.tensor(domain, index), len(dataset.files[domain]), skips)

    readers = {domain: reader(domain) for domain in "ab"}
    for images in readers.values():  # report unreadable images before step 1
        for count in (SAMPLE_IMAGES, MONITOR_IMAGES, *([VALIDATION_IMAGES] if split == "val" else [])):
            images.read(count)
    return readers
