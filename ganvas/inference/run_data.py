"""The dataset of a run: example images for the page, and images to compare an export on."""

from pathlib import Path

import numpy as np

from ganvas.data.decode import read_image
from ganvas.data.layout import ANY_LAYOUT, find_layout
from ganvas.data.paired import PairedDataset
from ganvas.data.unpaired import find_domains
from ganvas.json_files import read_json
from ganvas.models.folder import CONFIG, ModelConfig, find_model, local_model
from ganvas.models.hub import hub_name


def data_of_run(model: Path) -> Path | None:
    """Return the dataset that a run's config names, or None if the model is not part of a run.

    Args:
        model: A run, a checkpoint or a model folder, NAME of a model that comes with ganvas, or hub:OWNER/NAME.

    Raises:
        UserError: There is no model, or the run's config is unreadable.
    """
    if hub_name(model) is not None:
        return None
    file = find_model(local_model(model)).absolute().parent / CONFIG
    data = read_json(file, "a run's config").get("data") if file.is_file() else None
    name = data.get("data") if isinstance(data, dict) else None
    if not isinstance(name, str) or not name:
        return None
    try:
        Path(name).is_dir()
    except OSError:  # no file system has such a name
        return None
    return Path(name)


def sample_sources(config: ModelConfig, direction: str, data: Path, split: str, count: int) -> list[np.ndarray]:
    """Read at most ``count`` source images [H, W, C] of a direction, spread evenly over a split.

    Raises:
        UserError: The dataset does not match the model, or an image is unreadable.
    """
    how = config.preprocessing_of(direction)
    are_domains = not how.source_folders and find_layout(data, split, ANY_LAYOUT).kind == "two folders"
    if config.is_bidirectional or are_domains:  # two folders may hold pairs, too; sources are images of one of them
        files = find_domains(data, split)[direction == "b2a"]
        return [read_image(files[index], how.source_channels) for index in _spread(len(files), count)]
    pairs = PairedDataset(
        data,
        split,
        augmentation=None,
        direction="b2a" if direction == "b2a" else "a2b",
        source_channels=how.source_channels,
        target_channels=how.target_channels,
        source_range=how.source_range,
        target_range=how.target_range,
        sources=how.source_folders,
        target=how.target_folder,
    )
    return [pairs.pair(index)[0] for index in _spread(len(pairs), count)]


def _spread(length: int, count: int) -> range:
    return range(0, length, max(1, -(-length // count)))
