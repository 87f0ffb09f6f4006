"""ganvas: image-to-image translation on PyTorch.

``ganvas.load("runs/earth").translate(picture)`` is the short way to a trained model; everything else is imported from
the package where it lives. Importing ganvas alone loads no torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganvas.inference.peer import load_peer as load_peer
    from ganvas.inference.translator import Translator as Translator
    from ganvas.inference.translator import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("load", "Translator"):
        from ganvas.inference import translator

        return getattr(translator, name)
    if name == "load_peer":
        from ganvas.inference.peer import load_peer

        return load_peer
    raise AttributeError(f"module 'ganvas' has no attribute {name!r}")
