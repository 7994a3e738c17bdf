"""What was said of a face at rest, and for how long that holds."""

from stream.rest import MOST, RESTS, Resting


def test_an_answer_holds_for_a_while_and_while_edges_are_as_sharp():
    resting: Resting[str] = Resting()
    resting.begin(1, "still", 0.5)
    assert [resting.answer(1, 0.5) for _ in range(RESTS + 1)] == ["still"] * RESTS + [None]
    resting.begin(1, "still", 0.5)
    assert resting.answer(1, 0.48) is None and resting.answer(1, 0.5) == "still"
    resting.end(1)
    assert resting.answer(1, 0.5) is None


def test_who_is_not_there_is_forgotten_and_who_was_asked_about_longest_ago_first():
    resting: Resting[str] = Resting()
    for track in [*range(2, MOST + 2), 1]:
        resting.begin(track, "still", 0.5)
    assert resting.answer(1, 0.5) == "still" and resting.answer(2, 0.5) is None
    resting.keep({3})
    assert resting.answer(3, 0.5) == "still" and resting.answer(1, 0.5) is None
