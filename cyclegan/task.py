"""What a CycleGAN training shows and writes: scores, samples, views for the monitor, and the model folder."""

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.config import CycleGanConfig, channels, data_folder, ranges
from cyclegan.data import MONITOR_IMAGES, SAMPLE_IMAGES, VALIDATION_IMAGES
from cyclegan.networks import DOMAINS, Direction
from ganvas.data.arrays import image_dtype
from ganvas.data.augment import preset_palette
from ganvas.data.dataset_info import dataset_info
from ganvas.data.likeness import SourceFigures, measure_sources
from ganvas.data.skip import read_or_next
from ganvas.data.tensors import to_array
from ganvas.data.unpaired import UnpairedDataset
from ganvas.evaluation.metrics import l1
from ganvas.evaluation.sheet import contact_sheet
from ganvas.evaluation.validation import Validation
from ganvas.markdown import escape_markdown
from ganvas.models.card import norm_line, sample_line, settings
from ganvas.models.folder import ModelConfig as ModelFileConfig
from ganvas.models.folder import NetworkSpec, Preprocessing, save_model
from ganvas.nn.layers import Statistics
from ganvas.training.figures import translation_figures
from ganvas.training.held_out import HeldOut
from ganvas.training.trainer import GanNetworks

BOTH = " It translates in both directions."  # of a model card
BACK: dict[Direction, Direction] = {"a2b": "b2a", "b2a": "a2b"}


class CycleGanTask:
    """Scores, samples, views and the model folder of a training of both directions, or of one.

    Args:
        config: All options.
        networks: The networks in training.
        specs: Architectures of the generators by direction.
        held_out: Readers of both domains' held-out images.
        training_set: The training images.
        validation: Computes the metrics of held-out images; None without a val split.
    """

    def __init__(
        self,
        config: CycleGanConfig,
        networks: GanNetworks,
        specs: Mapping[Direction, NetworkSpec],
        held_out: Mapping[str, HeldOut[Tensor]],
        training_set: UnpairedDataset,
        validation: Validation | None,
    ) -> None:
        self._config, self._networks, self._specs = config, networks, dict(specs)
        self._held_out, self._training_set, self._validation = held_out, training_set, validation
        channels_a, channels_b = channels(config.data)
        # FastCUT never sees images of its target domain in the generator.
        self.has_identity = channels_a == channels_b and config.model.objective != "fastcut"

    def _translate(self, direction: str, source: Tensor, mode: Statistics | None = None) -> Tensor:
        return torch.stack(self._networks.translate(direction, list(source), mode))

    def _real(self, domain: str, count: int) -> Tensor:
        return torch.stack(self._held_out[domain].read(count))

    def score(self, mode: Statistics) -> dict[str, float]:
        """Return the metrics of sets between translations and the domain they go to, and cycle losses."""
        assert self._validation is not None, "there is nothing to validate with"
        real = {domain: self._real(domain, VALIDATION_IMAGES) for domain in "ab"}
        scores = {}
        for direction in self._specs:
            a, b = DOMAINS[direction]
            fake = self._translate(direction, real[a], mode)
            if BACK[direction] in self._specs:
                scores[f"val_cycle_{a}"] = float(l1(self._translate(BACK[direction], fake, mode), real[a]).mean())
            scores |= self._validation.score(list(fake), list(real[b]), direction=direction, are_pairs=False)
        return scores

    def sample(self) -> np.ndarray:
        """Return source and translation of fixed images, and what else the objective has of them.

        Of a cycle these are the cycled image and, with equal channels, the source's identity output; of CUT an image of
        the target domain and its identity output.
        """
        rows, titles = [], []
        columns: dict[str, Tensor] = {}
        for direction, spec in self._specs.items():
            a, b = DOMAINS[direction]
            source = self._real(a, SAMPLE_IMAGES)
            fake = self._translate(direction, source)
            columns = {"source": source, "translated": fake}
            if len(self._specs) > 1:
                columns["cycled back"] = self._translate(BACK[direction], fake)
                if self.has_identity:
                    columns["identity"] = self._translate(BACK[direction], source)
            elif self.has_identity:
                target = self._real(b, SAMPLE_IMAGES)
                target = target[torch.arange(len(source)) % len(target)]  # a small domain repeats
                columns |= {"target domain": target, "identity": self._translate(direction, target)}
            rows += [[to_array(image, np.uint8) for image in row] for row in zip(*columns.values(), strict=True)]
            titles += [spec.source] * len(source)
        return contact_sheet(rows, list(columns), titles)

    def figures(self) -> dict[str, float]:
        """Return figures of fixed images of each direction, for the monitor."""
        real = {domain: self._real(domain, MONITOR_IMAGES) for domain in "ab"}
        found: dict[str, float] = {}
        for direction in self._specs:
            a, b = DOMAINS[direction]
            identity = self._translate(direction, real[b]) if self.has_identity else None
            found |= translation_figures(direction, real[a], self._translate(direction, real[a]), real[b], identity)
        return found

    def save_model(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Write the model folder, with all directions."""
        root = data_folder(self._config.data)
        info = dataset_info(root)
        config = ModelFileConfig(
            kind="cyclegan",
            networks=self._specs,
            preprocessing=self._preprocessing(),
            statistics=self._networks.statistics or "running",
            sources=self._sources,
            training={
                "step": step,
                "metrics": dict(metrics),
                "data": info.get("name", root.resolve().name),
                **{name: info[name] for name in ("legend", "lines") if name in info},  # brushes of the page
            },
        )
        networks: dict[str, nn.Module] = {each: self._networks.generator(each) for each in self._specs}
        save_model(folder, config, networks, _card(self._config, config, info), self.sample())

    @cached_property
    def _sources(self) -> dict[Direction, SourceFigures]:
        images, how = self._training_set, self._preprocessing()
        found: dict[Direction, SourceFigures] = {}
        for direction in self._specs:
            a = DOMAINS[direction][0]
            inputs = how.reversed() if direction == "b2a" and len(self._specs) > 1 else how
            read = partial(_input, images, a, inputs)
            if (sources := measure_sources(read, len(images.files[a]))) is not None:
                found[direction] = sources
        return found

    def _preprocessing(self) -> Preprocessing:
        data = self._config.data
        range_a, range_b = ranges(data)
        dtype_a, dtype_b = (image_dtype(self._first(domain)) for domain in "ab")
        a_to_b = Preprocessing(
            *channels(data),
            data.image_size,
            resized=data.load_size != 0,
            source_range=range_a,
            target_range=range_b,
            source_type=dtype_a,
            target_type=dtype_b,
            legend=preset_palette(data.augment, dataset_info(data_folder(data))),
        )
        # A model of both directions describes a to b; a model of one describes that one.
        return a_to_b if "a2b" in self._specs else a_to_b.reversed()

    def _first(self, domain: str) -> np.ndarray:
        count = len(self._training_set.files[domain])
        return read_or_next(lambda index: self._training_set.image(domain, index), 0, count)[0]


def _input(images: UnpairedDataset, domain: str, how: Preprocessing, index: int) -> Tensor:
    return how.to_input(images.image(domain, index))


def _card(config: CycleGanConfig, model: ModelFileConfig, info: Mapping[str, Any]) -> str:
    """Return the model card in Markdown: model, data and usage."""
    direction, spec = next(iter(model.networks.items()))
    source, target, data, license_ = map(
        escape_markdown, (spec.source, spec.target, model.training["data"], info.get("license", "not stated"))
    )
    if model.is_bidirectional:
        title, name = f"{source} ↔ {target}", "CycleGAN model (Zhu et al. 2017)"
        directions = f"a2b is {source} → {target}, b2a is {target} → {source}"
        sample = "Held-out images of both domains, their translations and reconstructions"
    else:
        name = f"{'CUT' if config.model.objective == 'cut' else 'FastCUT'} model (Park et al. 2020)"
        title, directions = f"{source} → {target}", f"{direction} alone"
        sample = "Held-out images and their translations"
        if config.model.objective == "cut":
            sample += "; held-out images of the target domain and their identity outputs"
    norm = norm_line(config.model.norm, model.statistics)
    return f"""# {title}

A {name}, trained with ganvas on unpaired images.{BOTH if model.is_bidirectional else ""}

- Directions: {directions}
- Data: {data}. License of the data: {license_}
- Training images: {config.data.image_size} pixels
- Training: {model.training["step"]} steps, batch size {config.data.batch_size}, seed {config.seed}
{norm}- License of the weights: not stated. Choose one before you share them (`push --license`)

{sample_line(sample)}

```python
import ganvas
output = ganvas.load("this folder", direction="{direction}").translate(image)
```

{settings(config)}
"""
