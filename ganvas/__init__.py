"""ganvas: image-to-image translation on PyTorch.

``ganvas.load("runs/earth").translate(image)`` is the short way to a trained model; everything else is imported from
the package where it lives. Importing ganvas alone loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganvas.inference.translator import Translator as Translator
    from ganvas.inference.translator import load as load
    from ganvas.inference.upstream.weights import load_peer as load_peer
    from ganvas.models.push import push_to_hub as push_to_hub

__version__ = "0.1.0"

_HOMES = {
    "Translator": "ganvas.inference.translator",
    "load": "ganvas.inference.translator",
    "load_peer": "ganvas.inference.upstream.weights",
    "push_to_hub": "ganvas.models.push",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ganvas' has no attribute {name!r}")
