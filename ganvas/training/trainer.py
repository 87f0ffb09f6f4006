"""The one GAN trainer: networks with optimizers and running averages, and the parts that each model brings."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ganvas.device import choose_precision
from ganvas.nn.layers import Statistics, set_norm_statistics
from ganvas.training.batches import Batch
from ganvas.training.config import HardwareConfig, OptimizerConfig
from ganvas.training.ema import Ema
from ganvas.training.fabric import can_compile, set_up
from ganvas.training.figures import weight_norms
from ganvas.training.monitors import HealthReport, Monitor
from ganvas.training.optimizer import Adam, make_adam
from ganvas.training.schedule import START, Progress
from ganvas.training.state import Stateful
from ganvas.training.validation import compare_statistics, default_statistics


class GanNetworks:
    """The networks of a GAN in training.

    Args:
        fabric: Device and processes.
        networks: Networks by name, with initial weights.
        generators: The model's networks, such as {"a2b": "G"}: names in the model folder and here.
        optimizer: Adam's options, and the decay of the running averages.
        hardware: Precision and compilation.
        discriminators: Networks that learn at the discriminators' rate; by default all but the generators.
        batch_norm_images: Images that batch norm sees at once in training, if validation is to choose its mode for
            inference.

    Attributes:
        modules: Modules by name.
        callables: What a step calls: the modules, compiled or wrapped for several processes.
        optimizers: Optimizers by name.
        bf16: Whether steps compute in bfloat16.
        statistics: Mode of batch norm at inference; None if it is not chosen.
    """

    def __init__(
        self,
        fabric: Fabric,
        networks: Mapping[str, nn.Module],
        generators: Mapping[str, str],
        optimizer: OptimizerConfig,
        hardware: HardwareConfig,
        *,
        discriminators: Collection[str] | None = None,
        batch_norm_images: int | None = None,
    ) -> None:
        self._device, self._generators = fabric.device, dict(generators)
        compiled = hardware.compile and can_compile(fabric.device.type)
        self.modules = dict(networks)
        self.callables: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Adam] = {}
        for name, network in networks.items():
            self.callables[name] = set_up(fabric, network, compiled=compiled)
            is_judge = name not in generators.values() if discriminators is None else name in discriminators
            self.optimizers[name] = make_adam(network, optimizer, is_discriminator=is_judge)
        averaged = generators.values() if optimizer.ema else ()
        self._averages = {name: Ema(networks[name], optimizer.ema) for name in averaged}
        self.bf16 = choose_precision(hardware.precision, fabric.device.type) == "bf16"
        self.statistics: Statistics | None = None
        if batch_norm_images is not None:
            self.statistics = default_statistics(self.generators(), batch_norm_images)

    def generator(self, name: str) -> nn.Module:
        """Return one of the model's networks: the running average if one is kept."""
        module = self._generators[name]
        return self._averages[module].network if module in self._averages else self.modules[module]

    def generators(self) -> list[nn.Module]:
        """Return all of the model's networks."""
        return [self.generator(name) for name in self._generators]

    def update_averages(self) -> None:
        """Add the current weights to the running averages."""
        for name, average in self._averages.items():
            average.update(self.modules[name])

    @contextmanager
    def evaluating(self, name: str) -> Iterator[nn.Module]:
        """Yield one of the model's networks in eval mode."""
        network = self.generator(name)
        network.eval()
        try:
            yield network
        finally:
            network.train()

    @torch.no_grad()
    def translate(self, name: str, sources: Sequence[Tensor], mode: Statistics | None = None) -> list[Tensor]:
        """Translate images as the finished model does: one at a time, in eval mode.

        Args:
            name: Name of the generator in the model folder.
            sources: [C, H, W] in [-1, 1] each.
            mode: Mode of batch norm; by default the one that the last validation chose.

        Returns:
            [C', H, W] float32 on the CPU each.
        """
        with self.evaluating(name) as network:
            set_norm_statistics(network, mode or self.statistics or "running")
            layout = torch.channels_last
            inputs = (source[None].to(self._device, memory_format=layout) for source in sources)
            return [network(each).float().cpu()[0] for each in inputs]

    @property
    def stateful(self) -> dict[str, Stateful]:
        """All that a checkpoint holds, by file name."""
        averages = {_average_file(name): average.network for name, average in self._averages.items()}
        moments = {f"{name}.adam": optimizer for name, optimizer in self.optimizers.items()}
        return {**self.modules, **averages, **moments}

    @property
    def model_files(self) -> dict[str, str]:
        """The model's networks and the checkpoint's files with their weights."""
        return {
            name: _average_file(module) if module in self._averages else module
            for name, module in self._generators.items()
        }

    @property
    def average_updates(self) -> int:
        """How often the running averages were updated."""
        return max((average.updates for average in self._averages.values()), default=0)

    @average_updates.setter
    def average_updates(self, updates: int) -> None:
        for average in self._averages.values():
            average.updates = updates

    def millions(self, name: str) -> float:
        """Return how many million parameters a network has."""
        return sum(parameter.numel() for parameter in self.modules[name].parameters()) / 1e6


def _average_file(name: str) -> str:
    return f"{name}_ema"


@dataclass(frozen=True)
class GanParts:
    """What a model brings to the trainer.

    Attributes:
        step: Updates all networks once, given a batch and where it stands in the run; returns the unweighted losses.
        sample: Returns an image of fixed samples, uint8 [H, W, 3].
        save_model: Writes the model folder, given its path, the step and the metrics.
        score: Returns metrics ``val_…`` of held-out images in a mode of batch norm; None without held-out images.
        criteria: The metrics that choose the best model.
        monitor: Checks of the training; see `ganvas.training.monitors`.
        per_process: State that differs from process to process, such as image pools.
    """

    step: Callable[[Batch, Progress], dict[str, Tensor]]
    sample: Callable[[], np.ndarray]
    save_model: Callable[[Path, int, Mapping[str, float]], None]
    score: Callable[[Statistics], dict[str, float]] | None = None
    criteria: Sequence[str] = ()
    monitor: Monitor | None = None
    per_process: Mapping[str, Stateful] = field(default_factory=dict)


class GanTrainer:
    """A GAN as the training loop uses it.

    Args:
        run: The run's folder.
        networks: Networks with their optimizers and averages.
        parts: What the model brings.

    Attributes:
        networks: As given.
        optimizers: By network name. The loop sets their learning rates.
        stateful: All that a checkpoint holds as tensors, by file name.
        per_process: States that differ from process to process.
        criteria: Names of the validation metrics that choose the best model; see `combined_score`.
    """

    def __init__(self, run: Path, networks: GanNetworks, parts: GanParts) -> None:
        self._run, self.networks, self._parts = run, networks, parts
        self.optimizers = networks.optimizers
        self.criteria, self.per_process = parts.criteria, parts.per_process
        self.stateful: dict[str, Stateful] = {**networks.stateful, **parts.per_process}
        self._metrics: dict[str, float] = {}  # of a validation that the monitor has not seen

    def step(self, batch: Batch, progress: Progress = START) -> dict[str, Tensor]:
        """Update all networks, then the running averages."""
        losses = self._parts.step(batch, progress)
        self.networks.update_averages()
        return losses

    def validate(self) -> dict[str, float]:
        """Return metrics of held-out images in the better mode of batch norm, which is kept."""
        networks, score = self.networks, self._parts.score
        if score is None:
            return {}
        if networks.statistics is None:
            self._metrics = score("running")
        else:
            networks.statistics, self._metrics = compare_statistics(networks.generators(), score, self.criteria)
        return self._metrics

    def sample(self) -> np.ndarray:
        """Return an image of fixed samples."""
        return self._parts.sample()

    def check_health(self, step: int, losses: Mapping[str, float], *, with_images: bool) -> HealthReport:
        """Check for failures, given the mean losses since the last check; with figures of fixed images if wanted."""
        monitor = self._parts.monitor
        if monitor is None:
            return HealthReport()
        values, self._metrics = {**losses, **weight_norms(self.networks.modules), **self._metrics}, {}
        return monitor.check(step, values, with_images=with_images)

    def save_model(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write RUN/model."""
        self._parts.save_model(self._run / "model", step, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the rest of the state, besides tensors, as JSON values.

        "networks" maps the model folder's networks to the checkpoint's files, "statistics" is the mode of batch norm:
        `ganvas.models.folder` reads both when a checkpoint is used as a model.
        """
        monitor = self._parts.monitor
        return {
            "networks": self.networks.model_files,
            "statistics": self.networks.statistics,
            "average_updates": self.networks.average_updates,
            "monitor": {} if monitor is None else monitor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.networks.statistics = state["statistics"]
        self.networks.average_updates = state["average_updates"]
        if self._parts.monitor is not None:
            self._parts.monitor.load_state_dict(state["monitor"])
