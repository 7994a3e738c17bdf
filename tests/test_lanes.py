"""Threads and queues: order, faults from every place, early stops, and nothing left alive."""

import threading
import time

import pytest

from stream.lanes import Lanes


def passing(items, fail_at=None):
    for item in items:
        if item == fail_at:
            raise RuntimeError(f"stage failed at {item}")
        yield item


def test_items_keep_their_order_and_none_is_lost():
    with Lanes() as lanes:
        lane = lanes.run("a", range(500))
        for name in "bcd":
            lane = lanes.run(name, passing(lane), depth=2)
        assert list(lane) == list(range(500))


@pytest.mark.parametrize("failing", range(3))
def test_a_fault_in_any_stage_is_raised_where_the_result_is_awaited(failing):
    taken = []
    with pytest.raises(RuntimeError, match="stage failed at 40"), Lanes() as lanes:
        lane = iter(range(10_000))
        for stage in range(3):
            lane = lanes.run(f"s{stage}", passing(lane, 40 if stage == failing else None))
        taken.extend(lane)
    assert taken == list(range(40))


def test_a_fault_of_the_taker_stops_every_thread_soon():
    began = time.monotonic()
    with pytest.raises(KeyError), Lanes() as lanes:
        endless = lanes.run("a", iter(int, 1))
        for _ in lanes.run("b", passing(endless)):
            raise KeyError
    assert time.monotonic() - began < 2
    assert not [t for t in threading.enumerate() if t.name.startswith("lane-")]


def test_a_slow_taker_holds_the_maker_back():
    made = []

    def make():
        for i in range(100):
            made.append(i)
            yield i

    with Lanes() as lanes:
        lane = lanes.run("a", make(), depth=3)
        time.sleep(0.2)
        assert len(made) <= 5
        assert list(lane) == list(range(100))
