"""ganvas: image-to-image translation on PyTorch.

``ganvas.load("runs/earth").translate(image)`` is the short way to a trained model. Everything else is imported from the
package where it lives. Importing ganvas loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganvas.errors import UserError
    from ganvas.inference.translator import Translator, load
    from ganvas.inference.upstream.weights import load_upstream
    from ganvas.inference.upstream.weights import load_upstream as load_peer
    from ganvas.models.push import push_to_hub
    from ganvas.training.callbacks import MLflowLogger, StopTraining, WandbLogger

__version__ = "0.1.0"
__all__ = [
    "MLflowLogger",
    "StopTraining",
    "Translator",
    "UserError",
    "WandbLogger",
    "__version__",
    "load",
    "load_peer",
    "load_upstream",
    "push_to_hub",
]

# Public names and where they are defined: module:name.
_DEFINITIONS = {
    "MLflowLogger": "ganvas.training.callbacks:MLflowLogger",
    "StopTraining": "ganvas.training.callbacks:StopTraining",
    "UserError": "ganvas.errors:UserError",
    "WandbLogger": "ganvas.training.callbacks:WandbLogger",
    "Translator": "ganvas.inference.translator:Translator",
    "load": "ganvas.inference.translator:load",
    "load_upstream": "ganvas.inference.upstream.weights:load_upstream",
    "load_peer": "ganvas.inference.upstream.weights:load_upstream",
    "push_to_hub": "ganvas.models.push:push_to_hub",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINITIONS:
        raise AttributeError(f"module 'ganvas' has no attribute {name!r}")
    module, _, attribute = _DEFINITIONS[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
