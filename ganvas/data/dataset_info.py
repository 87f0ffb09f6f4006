"""The optional description of a dataset, DIR/dataset.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ganvas.json_files import read_json
from ganvas.options import Name, from_json


@dataclass(frozen=True)
class _Fields:
    """The fields that trainings and model cards use, besides the legend."""

    name: Name = ""
    license: str = ""
    domains: dict[str, Name] = field(default_factory=dict)
    flip: bool = True


def dataset_info(root: Path) -> Mapping[str, Any]:
    """Read DIR/dataset.json; empty where there is none.

    Raises:
        UserError: It is not a JSON object, the name, the domains or the license are not text, or ``flip`` is not true
            or false.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    info = read_json(path, "a description of the dataset")
    if "licence" in info:  # as datasets from before 2026-11-29 have it
        info = {"license": info["licence"], **info}
    from_json(_Fields, {name: info[name] for name in _Fields.__dataclass_fields__ if name in info}, str(path))
    return info


def domain_names(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the domains a and b in the result of `dataset_info`."""
    domains = info.get("domains", {})
    return domains.get("a", "A"), domains.get("b", "B")
