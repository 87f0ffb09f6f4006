"""Receptive fields: which input pixels an output unit of a network depends on.

Three methods, tested against each other:

- `receptive_field` of a list of `Layer`: the closed form (`geometry`).
- `receptive_field` of a module: its ``forward`` is traced, and each torch function that it calls is one layer
  (`tracing`). Skips and sums are unions over their paths.
- `measured_receptive_field` of a module: where the gradient of one output unit is not zero (`gradients`).

Pixels are numbered from 0. Padding of any kind counts as pixels outside of the image: the first logit of the 70x70
PatchGAN sees pixels -23 to 46. Norms are treated as frozen: their statistics may depend on the entire image (with
instance norm, the gradient of that logit fills any image), but they only scale and shift.

Reference: Isola et al. 2017, Sec. 6.1.2 (the PatchGANs); Araujo et al. 2019, "Computing Receptive Fields of
Convolutional Neural Networks" (size, jump and center).
"""

from ganvas.nn.receptive_field.design import MAX_LAYERS, find_num_layers, patchgan_layers, strided_layers
from ganvas.nn.receptive_field.geometry import Layer, ReceptiveField
from ganvas.nn.receptive_field.gradients import measured_receptive_field
from ganvas.nn.receptive_field.tracing import Axis, TracedLayer, receptive_field, trace

__all__ = [
    "MAX_LAYERS",
    "Axis",
    "Layer",
    "ReceptiveField",
    "TracedLayer",
    "find_num_layers",
    "measured_receptive_field",
    "patchgan_layers",
    "receptive_field",
    "strided_layers",
    "trace",
]
