"""The public names of the package, and what they cost."""

import subprocess
import sys

import ganvas
from ganvas.inference.upstream.weights import load_upstream


def test_public_names_are_listed_and_documented():
    assert {"UserError", "StopTraining", "Translator", "load", "load_upstream", "load_peer", "push_to_hub"} <= set(
        dir(ganvas)
    )
    without = {name for name in dir(ganvas) if "Example:" not in (getattr(ganvas, name).__doc__ or "")}
    assert without == {"Translator", "__version__"}  # its methods have examples
    assert ganvas.load_peer is ganvas.load_upstream is load_upstream
    assert not hasattr(ganvas, "other")


def test_importing_ganvas_loads_no_torch():
    code = "import ganvas, sys; dir(ganvas); assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
