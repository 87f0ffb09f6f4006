"""Layers that compute the same function faster on a CPU, and `optimize_for_cpu`, which installs them in a network."""

from torch import nn

from ganvas.nn.cpu_kernels.instance_norm import CpuInstanceNorm2d
from ganvas.nn.cpu_kernels.matrix_form import MatrixConv2d, MatrixConvTranspose2d
from ganvas.nn.cpu_kernels.output_conv import FourPositionConv2d
from ganvas.nn.cpu_kernels.resize_conv import TransposedResizeConv2d
from ganvas.nn.layers import ResizeConv2d, UpBlock
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetDown

__all__ = ["optimize_for_cpu"]


def optimize_for_cpu(network: nn.Module) -> None:
    """Make a network faster on a CPU, in place; on other devices it computes as before.

    Replaced are instance norms, the inner convolutions of U-Nets, resize convolutions and the output convolution of
    ResNets. Each module stays the same object, with the same parameters and ``state_dict``; only its class becomes a
    subclass.

    Training with channels-last memory on a CPU requires it for instance norm, whose gradient in torch 2.15 is wrong
    there (see `ganvas.nn.cpu_kernels.instance_norm`).
    """
    for module in network.modules():
        if type(module) is nn.InstanceNorm2d and not module.affine and not module.track_running_stats:
            module.__class__ = CpuInstanceNorm2d
        elif isinstance(module, UNetDown):
            module[1].__class__ = MatrixConv2d
        elif isinstance(module, UpBlock) and isinstance(module[1], nn.ConvTranspose2d):
            module[1].__class__ = MatrixConvTranspose2d
        elif isinstance(module, ResizeConv2d):
            module.__class__ = TransposedResizeConv2d
        elif isinstance(module, ResNetGenerator):
            module.layers[-2].__class__ = FourPositionConv2d
