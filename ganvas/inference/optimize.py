"""A faster equivalent of a trained network, for inference.

Batch norm with running statistics is an affine map of each channel, so it is folded into the convolution before it. In
bfloat16 the weights are cast once. The original network is not changed.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ganvas.nn.cpu_kernels.instance_norm import instance_norm
from ganvas.nn.cpu_kernels.matrix_form import MatrixConv2d, MatrixConvTranspose2d
from ganvas.nn.layers import BatchNorm2d

Convolution = nn.Conv2d | nn.ConvTranspose2d


def optimized_for_inference(network: nn.Module, *, bf16: bool = False) -> nn.Module:
    """Return a faster network that computes the same function of [N, C, H, W].

    Args:
        network: A network in eval mode, except for dropout that is to stay active. Unchanged tensors are shared.
        bf16: Convolve in bfloat16. The input is bfloat16 then; the output is still float32, since the last
            convolution's output is widened.
    """
    tensors = [*network.parameters(), *network.buffers()]
    network = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})  # copies modules, shares tensors
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
        for name, child in list(module.named_children()):
            if isinstance(child, BatchNorm2d) and child.statistics == "picture":
                setattr(module, name, _PerImageNorm(child))
    if bf16:
        _cast_convolutions(network)
    return network


class _Shift(nn.Module):
    """The shift of a folded batch norm, for layers whose matrix form takes no bias."""

    shift: Tensor  # [C, 1, 1]

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Shift the channels of [N, C, H, W] in place."""
        return x.add_(self.shift)


class _PerImageNorm(nn.Module):
    """Batch norm by each image's own statistics, on a CPU with the kernel of instance norm."""

    def __init__(self, norm: BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [N, C, H, W]."""
        norm = self.norm
        if x.device.type != "cpu":
            return norm(x)
        scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]  # [C, 1, 1]
        return torch.addcmul(shift, instance_norm(x, norm.eps), scale).to(x.dtype)


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    """Fold each batch norm of running statistics into the convolution before it."""
    for index, (before, norm) in enumerate(pairwise(list(sequence)), start=1):
        layer = _last_layer(before)
        if not (isinstance(norm, BatchNorm2d) and norm.statistics == "running" and isinstance(layer, Convolution)):
            continue
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            layer.weight,
            layer.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(layer, nn.ConvTranspose2d),
        )
        layer.weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))
        if isinstance(layer, MatrixConv2d | MatrixConvTranspose2d) and layer.bias is None:
            sequence[index] = _Shift(bias.detach()[:, None, None])
        else:
            layer.bias = bias
            sequence[index] = nn.Identity()


def _last_layer(module: nn.Module) -> nn.Module:
    while isinstance(module, nn.Sequential):
        module = module[-1]
    return module


def _cast_convolutions(network: nn.Module) -> None:
    """Cast convolutions and the shifts after them to bfloat16; norms stay in float32."""
    layers = [module for module in network.modules() if isinstance(module, Convolution)]
    for layer in layers:
        layer.weight = nn.Parameter(layer.weight.detach().bfloat16())
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach().bfloat16())
    for module in network.modules():
        if isinstance(module, _Shift):
            module.shift = module.shift.bfloat16()
    if layers:
        layers[-1].register_forward_hook(lambda layer, inputs, output: output.float())
