"""Adam, fused, for parameters in any memory layout."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ganvas.training.config import OptimizerConfig


class Adam:
    """Kingma and Ba 2015, in torch's fused form, on the parameters' own memory.

    Adam works element by element, so the order of the elements is free; but the fused CPU kernel copies every gradient
    and moment that is not contiguous, twice a step for weights in channels-last memory (65 of the 500 ms of a pix2pix
    step at 256 pixels). This class hands it the same memory seen in the order in which it lies. Saved moments have the
    parameters' shapes, whatever the layout.

    Create it after the network is on its device: moving a network gives its parameters new memory.

    Args:
        parameters: Names and parameters, as ``network.named_parameters()`` returns them.
        lr: Learning rate.
        betas: Decay of the moments' running means. The papers take beta1 = 0.5 (Radford et al. 2016, Sec. 4).
        eps: Added to the root of the second moment.

    Attributes:
        lr: Learning rate of the next step.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._parameters = dict(parameters)
        self._orders = {name: _storage_order(parameter) for name, parameter in self._parameters.items()}
        self._views = {name: each.detach().permute(self._orders[name]) for name, each in self._parameters.items()}
        self._adam = torch.optim.Adam(list(self._views.values()), lr=lr, betas=betas, eps=eps, fused=True)

    @property
    def lr(self) -> float:  # noqa: D102
        return float(self._adam.param_groups[0]["lr"])

    @lr.setter
    def lr(self, lr: float) -> None:
        self._adam.param_groups[0]["lr"] = lr

    def step(self) -> None:
        """Update the parameters from their gradients."""
        for name, view in self._views.items():
            # A gradient of another layout must be copied: the fused kernel reads memory in order and gets it wrong.
            gradient = self._parameters[name].grad
            view.grad = None if gradient is None else gradient.permute(self._orders[name]).contiguous()
        self._adam.step()
        for view in self._views.values():  # else the gradients' memory could not be used again for the next step's
            view.grad = None

    def zero_grad(self) -> None:
        """Remove the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return step counts and both moments by parameter name, moments in the parameter's shape."""
        moments = {}
        for name, view in self._views.items():
            order = self._orders[name]
            inverse = [order.index(dim) for dim in range(len(order))]
            for key, value in self._adam.state[view].items():
                moments[f"{name}.{key}"] = value if key == "step" else value.permute(inverse)
        return moments

    def load_state_dict(self, moments: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned. A parameter without moments starts without them.

        Raises:
            ValueError: A moment has another shape than its parameter, or belongs to no parameter.
        """
        unknown = {key.rpartition(".")[0] for key in moments} - set(self._parameters)
        if unknown:
            raise ValueError(f"moments of parameters that the network does not have: {sorted(unknown)[:3]}")
        for name, view in self._views.items():
            if f"{name}.step" not in moments:
                continue
            shape = self._parameters[name].shape
            # The fused kernel reads the step count where the parameter lies.
            state = {"step": moments[f"{name}.step"].to(view.device, copy=True)}
            for key in ("exp_avg", "exp_avg_sq"):
                moment = moments[f"{name}.{key}"]
                if moment.shape != shape:
                    raise ValueError(f"{key} of {name} is {tuple(moment.shape)}, the parameter {tuple(shape)}")
                # Into the view's own layout: other strides end in wrong weights without an error.
                state[key] = torch.empty_like(view).copy_(moment.permute(self._orders[name]))
            self._adam.state[view] = state


def make_adam(network: nn.Module, options: OptimizerConfig, *, is_discriminator: bool = False) -> Adam:
    """Build the optimizer of a network that is on its device and in its layout."""
    lr = options.lr_discriminator if is_discriminator and options.lr_discriminator is not None else options.lr
    return Adam(network.named_parameters(), lr, (options.beta1, options.beta2), options.eps)


def _storage_order(tensor: Tensor) -> list[int]:
    """Return the dimensions from the slowest to the fastest in memory."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda dim: (-strides[dim], dim))
