"""What every card says: all options, and no place of the machine that it was written on."""

import json
from dataclasses import dataclass, field

import pytest

from ganvas.models.card import sample_line, settings


@dataclass(frozen=True)
class Inner:
    folder: str
    folders: tuple[str, ...] = ("a", "/mnt/b")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: float = 2e-4
    words: dict[str, str] = field(default_factory=dict)


@pytest.mark.parametrize("place", ["/home/someone/data/maps", "C:\\Users\\someone\\maps", "maps"])
def test_all_options_are_listed_and_folders_only_by_name(place):
    text = settings(Outer(Inner(place)))
    listed = json.loads(text.partition("```json\n")[2].partition("\n```")[0])
    assert listed == {
        "format_version": 1,
        "inner": {"folder": "maps", "folders": ["a", "b"]},
        "rate": 2e-4,
        "words": {},
    }
    assert "someone" not in text


def test_the_sample_is_next_to_the_card():
    assert sample_line("What it draws") == "![What it draws](sample.png)"
