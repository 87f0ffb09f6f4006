"""The closed form: receptive fields along one side of the image, in integer arithmetic."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]  # the first and the last pixel


@dataclass(frozen=True)
class Layer:
    """Geometry of a convolution, pooling, upsampling, padding or crop along one side of the image.

    Attributes:
        kernel: Taps.
        stride: Input units between neighboring output units; for ``transposed`` vice versa.
        dilation: Units between neighboring taps.
        padding: Units added before and after, or a pair of both; negative ones crop. For ``transposed``, as in torch,
            the units that the output loses.
        transposed: The layer is the adjoint of such a convolution.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int | tuple[int, int] = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation) < 1:
            raise ValueError(f"kernel, stride and dilation must be at least 1, not those of {self!r}")

    @property
    def paddings(self) -> tuple[int, int]:
        """Padding before the first and after the last unit."""
        return self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)

    @property
    def reach(self) -> int:
        """Units from the first tap to the last."""
        return self.dilation * (self.kernel - 1)

    @property
    def is_identity(self) -> bool:
        """Whether each unit reads its own position only."""
        return self.kernel == self.stride == 1 and not any(self.paddings)

    def inputs(self, unit: int) -> list[int]:
        """Return the input units that output ``unit`` reads; none where a transposed stride leaves a gap."""
        before, _ = self.paddings
        taps = range(0, self.reach + 1, self.dilation)
        if self.transposed:
            # Input i reaches the outputs i * stride - before + tap.
            positions = [unit + before - tap for tap in taps]
            return [position // self.stride for position in positions if position % self.stride == 0]
        return [unit * self.stride - before + tap for tap in taps]

    def __str__(self) -> str:
        before, after = self.paddings
        parts = [f"{self.kernel}"]
        parts += [f"stride {self.stride}"] * (self.stride > 1)
        parts += [f"dilation {self.dilation}"] * (self.dilation > 1)
        parts += [f"pad {before}" if before == after else f"pad {before} and {after}"] * any(self.paddings)
        return ", ".join(parts)


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive fields of the units of a layer along one side of the image.

    After convolutions all units have receptive fields of one size, one jump apart. After upsampling, they depend on
    the unit's number modulo ``period``.

    Attributes:
        spans: First and last pixel that the units 0 to ``period`` - 1 see, inside or outside of the image; None for
            a unit that sees nothing (as in a transposed convolution whose stride is larger than its kernel).
        shift: Pixels between the receptive fields of units that are ``period`` apart.

    Example:
        >>> from ganvas.nn.receptive_field import patchgan_layers, receptive_field
        >>> print(receptive_field(patchgan_layers(3)))
        70 pixels, jump 8, first center 11.5
        >>> receptive_field(patchgan_layers(3)).span(0)
        (-23, 46)
    """

    spans: tuple[Span | None, ...]
    shift: int

    @property
    def period(self) -> int:
        """Units after which the spans repeat; 1 without upsampling."""
        return len(self.spans)

    @property
    def size(self) -> int:
        """Pixels from the first to the last that a unit sees, the maximum over all units."""
        return max((last - first + 1 for first, last in filter(None, self.spans)), default=0)

    @property
    def jump(self) -> float:
        """Pixels between neighboring units: the stride of the output grid."""
        return self.shift / self.period

    @property
    def first_center(self) -> float:
        """Center of the receptive field of unit 0, averaged over a period; 0.0 is the center of pixel 0."""
        centers = [sum(span) / 2 - self.jump * unit for unit, span in enumerate(self.spans) if span is not None]
        return sum(centers) / len(centers) if centers else math.nan

    def span(self, unit: int) -> Span | None:
        """Return the first and the last pixel that ``unit`` sees, inside or outside of the image."""
        periods, phase = divmod(unit, self.period)
        span = self.spans[phase]
        return None if span is None else (span[0] + periods * self.shift, span[1] + periods * self.shift)

    def through(self, layer: Layer) -> "ReceptiveField":
        """Return the receptive field after ``layer``."""
        if layer.transposed:
            period, shift = self.period * layer.stride, self.shift
        else:
            period = self.period // math.gcd(self.period, layer.stride)
            shift = self.shift * layer.stride * period // self.period
        return ReceptiveField(tuple(_hull(map(self.span, layer.inputs(unit))) for unit in range(period)), shift)

    def union(self, other: "ReceptiveField") -> "ReceptiveField":
        """Return the receptive field of a sum of units, or of concatenated channels.

        Raises:
            ValueError: The jumps differ, so the units are not on one grid.
        """
        if self.shift * other.period != other.shift * self.period:
            raise ValueError(f"units {self.jump:g} and {other.jump:g} pixels apart cannot be joined")
        period = math.lcm(self.period, other.period)
        spans = (_hull((self.span(unit), other.span(unit))) for unit in range(period))
        return ReceptiveField(tuple(spans), self.shift * period // self.period)

    def __str__(self) -> str:
        return f"{self.size} pixels, jump {self.jump:g}, first center {self.first_center:g}"


PIXEL = ReceptiveField(spans=((0, 0),), shift=1)  # of the input itself


def _hull(spans: Iterable[Span | None]) -> Span | None:
    """Return the smallest span that contains all."""
    known = [span for span in spans if span is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None
