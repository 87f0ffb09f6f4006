import importlib.util
import sys

import pytest

from benchmarks import page_load
from benchmarks.page_load import Options, looping_tiff, run


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed (extra web)")
@pytest.mark.slow
def test_good_clients_are_answered_during_an_attack(monkeypatch):
    monkeypatch.setattr(page_load, "HUGE_BYTES", 10**6)
    results = run(Options(good=12, rounds=1))
    assert [(one.answered, one.unanswered) for one in results.values()] == [(12, 0), (12, 0)]
    for one in results.values():
        assert 0 < one.median <= one.p95 == one.largest


def test_the_hostile_tiff_has_an_endless_chain():
    content = looping_tiff()
    place = int.from_bytes(content[4:8], "little")
    places = []
    for _ in range(3):
        places.append(place)
        after = place + 2 + 12 * int.from_bytes(content[place : place + 2], "little")
        place = int.from_bytes(content[after : after + 4], sys.byteorder)
    assert places[0] < places[1] == places[2]
