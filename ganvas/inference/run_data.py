"""The dataset that a run learned from: images to try its model on, and to compare an export on."""

from pathlib import Path

import numpy as np

from ganvas.data.decode import read_image
from ganvas.data.paired import PairedDataset
from ganvas.data.unpaired import find_domains
from ganvas.files import read_json
from ganvas.models.folder import CONFIG, ModelConfig, find_model
from ganvas.models.hub import hub_name


def data_of_run(model: Path) -> Path | None:
    """Give the dataset that a run's config names; None of a model that lies in no run.

    Args:
        model: A run, a checkpoint or a model folder; or hub:OWNER/NAME.

    Raises:
        UserError: There is no model, or the run's config cannot be read.
    """
    if hub_name(model) is not None:
        return None
    file = find_model(model).absolute().parent / CONFIG
    data = read_json(file, "a run's config").get("data") if file.is_file() else None
    name = data.get("data") if isinstance(data, dict) else None
    return Path(name) if isinstance(name, str) and name else None


def some_sources(config: ModelConfig, way: str, data: Path, split: str, count: int) -> list[np.ndarray]:
    """Read sources of a direction, [H, W, C] each: at most ``count``, evenly over a split of a dataset.

    Raises:
        UserError: The dataset is not what the model was trained on, or a image cannot be read.
    """
    how = config.preprocessing_of(way)
    if config.kind == "cyclegan":
        files = find_domains(data, split)[way == "b2a"]
        return [read_image(files[index], how.source_channels) for index in _evenly(len(files), count)]
    pairs = PairedDataset(
        data,
        split,
        augmentation=None,
        direction="b2a" if way == "b2a" else "a2b",
        source_channels=how.source_channels,
        target_channels=how.target_channels,
        source_range=how.source_range,
        target_range=how.target_range,
        sources=how.source_folders,
        target=how.target_folder,
    )
    return [pairs.pair(index)[0] for index in _evenly(len(pairs), count)]


def _evenly(there: int, wanted: int) -> range:
    return range(0, there, max(1, -(-there // wanted)))
