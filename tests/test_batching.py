"""One engine for many streams: order, batches, waiting, faults."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine import Engine, EngineError, ModelSpec, Restored
from engine.batching import FORGIVEN_AFTER, SharedEngine


class Marking(Engine):
    """Returns each crop's own corner pixel all over; keeps the sizes of its batches; may be slow or fail."""

    made = 0

    def __init__(self, slow_s=0.0, fail_at=(), not_finite_at=(), fault=None):
        type(self).made += 1
        self.spec, self.about = ModelSpec("marking", kernels=True, known=True), {"engine": "marking"}
        self.slow_s, self.fail_at, self.not_finite_at = slow_s, fail_at, not_finite_at
        self.fault = fault or EngineError("the device is on fire")
        self.batches = []
        self.closed = False

    def run(self, crops, known=None):
        self.batches.append(len(crops))
        time.sleep(self.slow_s)
        if len(self.batches) in self.fail_at:
            raise self.fault
        kernels = np.full((len(crops), 33, 33), 1 / 1089, np.float32) if known is None else known.copy()
        if len(self.batches) in self.not_finite_at:
            kernels[0, 0, 0] = np.nan
        return Restored(np.broadcast_to(crops[:, :1, :1], crops.shape).copy(), kernels)

    def close(self):
        self.closed = True


def crops(*marks):
    return np.stack([np.full((112, 96, 3), mark, np.uint8) for mark in marks])


def corners(restored):
    return restored.crops[:, 5, 5, 0].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_every_stream_gets_its_own_crops_back_in_its_own_order(seed):
    engine = Marking(slow_s=0.002)
    with SharedEngine(lambda: engine, batch=8, patience_s=0.01) as shared:

        def stream(number):
            rng = np.random.default_rng([seed, number])
            seat = shared.seat()
            for _ in range(20):
                marks = rng.integers(0, 256, rng.integers(1, 12)).tolist()
                assert corners(seat.run(crops(*marks))) == marks
                time.sleep(rng.uniform(0, 0.003))
            seat.close()

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(stream, range(5)))
    assert engine.closed
    assert max(engine.batches) > 11, "crops of several streams went together"


def test_a_known_motion_stays_with_its_crop():
    engine = Marking(slow_s=0.05)
    with SharedEngine(lambda: engine, batch=8, patience_s=1.0) as shared, ThreadPoolExecutor(3) as pool:
        seats = [shared.seat() for _ in range(3)]
        known = [None, np.full((2, 33, 33), 5, np.float32), np.full((1, 33, 33), 7, np.float32)]
        given = [crops(1), crops(2, 3), crops(4)]
        done = list(pool.map(lambda seat, mine, theirs: seat.run(mine, theirs), seats, given, known))
    assert engine.batches == [4], "all went together"
    assert [corners(each) for each in done] == [[1], [2, 3], [4]]
    assert [each.kernels.max() for each in done] == [0, 5, 7]


def test_a_lone_stream_never_waits():
    with SharedEngine(Marking, batch=32, patience_s=5.0) as shared:
        seat = shared.seat()
        began = time.monotonic()
        assert corners(seat.run(crops(7))) == [7]
        assert time.monotonic() - began < 2


def test_a_batch_waits_for_the_other_stream_but_not_for_ever():
    engine = Marking()
    with SharedEngine(lambda: engine, batch=2, patience_s=3.0) as shared:
        one, two = shared.seat(), shared.seat()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(one.run, crops(1))
            time.sleep(0.2)
            assert corners(two.run(crops(2))) == [2] and corners(first.result()) == [1]
        assert engine.batches == [2]
        two.close()
    with SharedEngine(lambda: engine, batch=2, patience_s=0.05) as shared:
        seat, _ = shared.seat(), shared.seat()
        assert corners(seat.run(crops(3))) == [3], "the other stream has no face now"


def test_a_fault_costs_its_batch_and_the_engine_is_made_anew_once():
    Marking.made = 0
    with SharedEngine(lambda: Marking(fail_at=(2,)), batch=4) as shared:
        seat = shared.seat()
        assert corners(seat.run(crops(1))) == [1]
        with pytest.raises(EngineError, match="on fire"):
            seat.run(crops(2))
        assert corners(seat.run(crops(3))) == [3] and Marking.made == 2
        with pytest.raises(EngineError, match="on fire"):
            seat.run(crops(4))
        for mark in (5, 6):
            with pytest.raises(EngineError, match="failed again after it was made anew"):
                seat.run(crops(mark))
        assert Marking.made == 2


def test_an_old_fault_is_forgiven():
    Marking.made = 0
    with SharedEngine(lambda: Marking(fail_at=(FORGIVEN_AFTER + 2,)), batch=1) as shared:
        seat, one = shared.seat(), crops(1)
        for _ in range(2):
            for _ in range(FORGIVEN_AFTER + 1):
                seat.run(one)
            with pytest.raises(EngineError, match="on fire"):
                seat.run(one)
        assert corners(seat.run(one)) == [1] and Marking.made == 3


def test_numbers_that_are_not_finite_are_a_fault():
    with (
        SharedEngine(lambda: Marking(not_finite_at=(1,)), batch=4) as shared,
        pytest.raises(EngineError, match="finite"),
    ):
        shared.seat().run(crops(1))


def test_an_engine_that_cannot_be_made_says_so_at_once_and_later():
    def broken():
        raise EngineError("no device")

    with pytest.raises(EngineError, match="no device"):
        SharedEngine(broken, batch=4)
    engines = iter([Marking(fail_at=(1,))])

    def once():
        for engine in engines:
            return engine
        raise EngineError("the device is gone")

    with SharedEngine(once, batch=4) as shared:
        with pytest.raises(EngineError, match="on fire"):
            shared.seat().run(crops(1))
        with pytest.raises(EngineError, match="cannot be made anew: the device is gone"):
            shared.seat().run(crops(1))


def test_closing_finishes_what_was_handed_in():
    shared = SharedEngine(lambda: Marking(slow_s=0.05), batch=1)
    seat, found = shared.seat(), []
    threads = [threading.Thread(target=lambda m=m: found.extend(corners(seat.run(crops(m))))) for m in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    shared.close()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]


def test_whatever_a_vendors_library_raises_no_caller_waits_for_ever():
    with SharedEngine(lambda: Marking(fail_at=(1,), fault=TypeError("null pointer")), batch=4) as shared:
        seat = shared.seat()
        with pytest.raises(EngineError, match="TypeError: null pointer"):
            seat.run(crops(1))
        with pytest.raises(EngineError, match="null pointer"):
            seat.run(crops(1))
        with pytest.raises(EngineError, match="failed again"):
            seat.run(crops(1))


def test_a_closed_engine_takes_no_more():
    shared = SharedEngine(Marking, batch=4)
    seat = shared.seat()
    shared.close()
    with pytest.raises(EngineError, match="closed"):
        seat.run(crops(1))
    seat.close()
    seat.close()


def test_live_nobody_waits_for_an_engine_that_hangs_and_who_left_costs_nothing():
    hung, engine = threading.Event(), Marking()
    run, engine.run = engine.run, lambda *given: hung.wait(60) and run(*given)
    with SharedEngine(lambda: engine, batch=1, limit_s=0.1) as shared:
        seat = shared.seat()
        for mark in (1, 2, 3):
            with pytest.raises(EngineError, match=r"did not answer within 0\.1 s"):
                seat.run(crops(mark))
        hung.set()
        while not engine.batches:
            time.sleep(0.01)
        shared._limit_s = 60
        assert corners(seat.run(crops(4))) == [4]
    assert engine.batches == [1, 1], "the first, under way when its caller left, and the last"


def test_live_nobody_waits_while_the_engine_is_made_anew():
    ready = threading.Event()
    ready.set()

    def make():
        assert ready.wait(60)
        ready.clear()
        return Marking(fail_at=(1,) if not Marking.made else ())

    Marking.made = 0
    with SharedEngine(make, batch=1, limit_s=60) as shared:
        seat = shared.seat()
        with pytest.raises(EngineError, match="on fire"):
            seat.run(crops(1))
        while not shared._being_made:
            time.sleep(0.01)
        with pytest.raises(EngineError, match="being made anew"):
            seat.run(crops(2))
        ready.set()
        while shared._being_made:
            time.sleep(0.01)
        assert corners(seat.run(crops(3))) == [3]
