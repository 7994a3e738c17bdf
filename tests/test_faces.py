"""Finding, following and smoothing faces, on real pictures."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from engine import EngineError, open_engine
from engine.echo import EchoEngine
from stream.config import load_settings
from stream.errors import UsageError
from stream.faces import align
from stream.faces.finder import open_finder, tiles
from stream.faces.flow import follow
from stream.faces.second_look import CLEAR, SecondLook
from stream.faces.smooth import OneEuro
from stream.faces.tracker import Tracker, overlap
from stream.find import FaceFinding
from stream.frame import Face, Found, Frame
from stream.media.source import FileSource
from stream.region import View
from stream.stats import Stats
from zoo import Clip, make_clip, scene

YUNET = Path(__file__).parents[2] / "shared" / "data" / "yunet" / "face_detection_yunet_2026may.onnx"


@pytest.fixture(scope="module", params=["mediapipe", "yunet"])
def finder(request):
    if request.param == "yunet" and not YUNET.is_file():
        pytest.skip("YuNet's model is not here")
    opened = open_finder(request.param, str(YUNET))
    yield opened
    opened.close()


def find_all(path, finder, margin=0, **changes):
    stats = Stats()
    settings = load_settings(None, {"faces": changes}).faces
    with FileSource(path) as source:
        return [f for f in FaceFinding(finder, settings, margin, stats).run(source) if isinstance(f, Found)], stats


def face_at(x, y, size=50.0):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * size + (x, y)
    return Face(np.array([x, y, x + size, y + size]), points, 0.9)


def test_a_face_is_followed_through_a_clip_as_one_track(clip, finder):
    found, stats = find_all(clip("plain.mp4"), finder)
    assert [len(f.crops) for f in found] == [1] * 12
    assert {c.track.id for f in found for c in f.crops} == {1}
    assert stats.tracks == 1
    eyes = np.array([f.crops[0].track.landmarks[:2].mean(0) for f in found])
    assert np.allclose(np.diff(eyes[3:, 0]), 1.0, atol=0.5 if finder.side_px == 256 else 1.2), (
        "the picture moves by 1 px a frame"
    )
    assert np.abs(np.diff(eyes[:, 1])).max() < (0.5 if finder.side_px == 256 else 1.2)


def test_a_rotated_clip_has_its_faces_upright_in_the_crops(clip, finder, photograph):
    upright, _ = find_all(clip("plain.mp4"), finder)
    turned, _ = find_all(clip("turned.mp4", width=240, height=320, rotation=90), finder)
    assert turned[0].frame.color.rotation == 90
    a, b = upright[0].crops[0].image.astype(int), turned[0].crops[0].image.astype(int)
    assert np.abs(a - b).mean() < (6 if finder.side_px == 256 else 12), "points of YuNet differ more"


def test_a_crop_with_margin_is_larger_on_every_side(clip, finder):
    plain, _ = find_all(clip("plain.mp4"), finder)
    wide, _ = find_all(clip("plain.mp4"), finder, margin=16)
    assert wide[0].crops[0].image.shape == (144, 128, 3)
    inside = wide[0].crops[0].image[16:-16, 16:-16].astype(int)
    assert np.abs(inside - plain[0].crops[0].image).mean() < 1


def test_two_faces_are_two_tracks(tmp_path, finder, photograph):
    def double(width, height):
        return np.hstack([scene(photograph, width // 2, height), scene(photograph[:, ::-1], width // 2, height)])

    pair = np.ascontiguousarray(double(1000, 480))
    path = make_clip(tmp_path / "two.mp4", pair, Clip(width=960, height=448, pts=(0, 512, 1024), step=0))
    found, _ = find_all(path, finder)
    assert [len(f.crops) for f in found] == [2, 2, 2]


def test_small_and_turned_faces_are_left_alone_and_counted(clip, finder):
    found, _ = find_all(clip("plain.mp4"), finder, min_size_px=200)
    assert not any(f.crops for f in found)
    assert [f.left for f in found] == [("too small",)] * 12
    found, _ = find_all(clip("plain.mp4"), finder, max_yaw_deg=0.0)
    assert sum(f.left == ("turned away",) for f in found) >= 10


@pytest.mark.parametrize("dark", [1, 4])
def test_a_cut_starts_new_tracks_and_nothing_is_carried_over(tmp_path, finder, photograph, dark):
    import av

    path = tmp_path / "cut.mp4"
    shots = (
        [scene(photograph, 480, 448)] * 3
        + [scene(255 - photograph, 480, 448)] * 3
        + [scene(photograph, 480, 448, (60, 30))] * 3
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 480, 448, "yuv420p"
        for shot in shots:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shot // dark), format="rgb24")))
        out.mux(stream.encode(None))
    found, _ = find_all(path, finder)
    ids = [tuple(c.track.id for c in f.crops) for f in found]
    assert len(ids[0]) == 1 and ids[0] == ids[1] == ids[2]
    assert len(ids[6]) == 1 and ids[6] != ids[0]


def test_no_face_is_found_where_none_is(clip, finder):
    found, stats = find_all(clip("grey.mp4", face=False), finder)
    assert len(found) == 12 and stats.tracks == 0


def test_tiles_cover_the_picture_and_overlap():
    grid = tiles(1280, 720, 480)
    covered = np.zeros((720, 1280), int)
    for x0, y0, x1, y1 in grid[1:]:
        assert x1 - x0 == y1 - y0 == 480 and x0 >= 0 and y0 >= 0 and x1 <= 1280 and y1 <= 720
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    assert grid[0] == (0, 0, 1280, 1280)


def test_a_gap_is_bridged_and_a_long_one_ends_the_track():
    tracker = Tracker(max_gap=2)
    tracker.add(face_at(10, 10))
    for lost in (1, 2):
        tracker.seen(1, tracker.tracks[0].face, 0.04, held=False)
        tracker.prune()
        assert [t.lost for t in tracker.tracks] == [lost]
    tracker.seen(1, face_at(12, 10), 0.04)
    assert tracker.tracks[0].lost == 0 and tracker.tracks[0].id == 1
    for _ in range(3):
        tracker.seen(1, tracker.tracks[0].face, 0.04, held=False)
    tracker.prune()
    assert tracker.tracks == []
    tracker.add(face_at(10, 10))
    assert tracker.tracks[0].id == 2, "an id is never used again"


def test_a_face_that_comes_or_goes_within_a_scene_fades():
    tracker = Tracker(max_gap=3)
    tracker.add(face_at(10, 10))
    tracker.add(face_at(100, 10), with_scene=True)
    shown = [[t.shown for t in tracker.tracks]]
    for step in range(6):
        for number, x in ((1, 10), (2, 100)):
            tracker.seen(number, face_at(x, 10), 0.04, held=step < 4)
        shown.append([t.shown for t in tracker.tracks])
    coming, there = zip(*shown, strict=True)
    assert coming == pytest.approx((0.25, 0.5, 0.75, 1, 1, 0.75, 0.5))
    assert there == pytest.approx((1, 1, 1, 1, 1, 0.75, 0.5))


def test_yunet_needs_its_file(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for model, said in (
        ("", "needs its model"),
        ("none.onnx", "does not exist"),
        (str(tmp_path / "bad.onnx"), "cannot load"),
    ):
        with pytest.raises(UsageError, match=said):
            open_finder("yunet", model)


def test_a_face_that_a_track_holds_starts_no_second_one():
    tracker = Tracker(max_gap=2)
    assert tracker.add(face_at(0, 0))
    assert not tracker.add(face_at(5, 5))
    assert overlap(np.array([0, 0, 10, 10.0]), np.array([5, 0, 15, 10.0])) == pytest.approx(1 / 3)


def test_smoothing_stills_a_still_face_and_does_not_lag_a_moving_one():
    rng = np.random.default_rng(0)
    still, moving = OneEuro(1.5, 4.0), OneEuro(1.5, 4.0)
    points = face_at(100, 100).landmarks
    outs, lag = [], 0.0
    for i in range(90):
        noise = rng.normal(0, 0.5, points.shape)
        outs.append(still.step(points + noise, 1 / 30, 20.0))
        at = points + np.array([i * 8.0, 0.0])
        lag = float(np.abs(moving.step(at, 1 / 30, 20.0) - at).max())
    assert np.diff(np.array(outs[30:]), axis=0).std() < 0.5 * np.sqrt(2) * 0.5, "jitter at most half of the raw points'"
    assert lag < 8.0, "less than one frame behind at 12 eye distances a second"


def test_faces_are_found_in_large_frames_under_the_benchmarks_kernels(shared, finder):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import find_in_frames, markdown
    from training.protocol import load_kernels

    known = load_kernels(shared / "kernels" / "levin.npz")
    kernels = {"sharp": None, "c1": known["c1"], "c8": known["c8"]}
    with open_engine("onnxruntime", "fast") as engine:
        rows = find_in_frames(shared / "lfw_pairs", kernels, 4, 80.0, finder, engine)
    assert [row.found for row in rows.values()] == [4, 4, 4]
    assert max(row.false + row.others for row in rows.values()) <= 1
    errors = [float(np.mean(row.point_error)) for row in rows.values()]
    assert errors[0] == 0 < errors[1] < errors[2] < 0.3
    assert "| found | 1.000 | 1.000 | 1.000 |" in markdown(rows, 80)


def test_another_person_in_a_picture_need_not_be_found_and_is_not_false(photograph, tmp_path, finder):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import find_in_frames, markdown

    (tmp_path / "images").mkdir()
    second = cv2.resize(photograph[:300, 80:380], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    both = np.hstack([photograph[:240], second])
    cv2.imwrite(str(tmp_path / "images" / "both.png"), both[..., ::-1])
    names = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
    header = ",".join(["image", *(f"{name}_{axis}" for name in names for axis in "xy")])
    (tmp_path / "landmarks.csv").write_text(f"{header}\nboth.png,196,109,243,108,220,138,203,159,243,158\n")
    row = find_in_frames(tmp_path, {"sharp": None}, 1, 80.0, finder, EchoEngine())["sharp"]
    assert (row.found, row.others, row.false) == (1, 1, 0)
    assert "| other people a frame | 1.000 |" in markdown({"sharp": row}, 80)


@pytest.mark.parametrize("seed", [2, 20])
def test_a_face_that_only_the_search_suspects_is_seen_once_restored_where_it_is_or_ought_to_be(photograph, seed):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import best, faces_in, picture_in_noise, smeared
    from training.kernels import KernelConfig, draw_kernels

    points = np.array([[196.0, 109], [243, 108], [220, 138], [203, 159], [243, 158]])
    sharp, box = picture_in_noise(photograph, points, 50.0, seed)
    long = KernelConfig(side_px=33, valid_min_px=24, valid_max_px=27)
    frame, _ = smeared(sharp, draw_kernels(np.random.default_rng(3), 60, long)[seed], 50 / 81)
    left, top, right, bottom = (np.clip(box + np.array([-150, -150, 150, 150]), 0, None) // 2 * 2).astype(int)
    part, box = np.ascontiguousarray(frame[top:bottom, left:right]), box - (left, top, left, top)
    with closing(open_finder("mediapipe")) as finder, open_engine("onnxruntime", "fast") as engine:
        assert not faces_in(part, finder, EchoEngine())
        assert best(faces_in(part, finder, engine), box) is not None


@pytest.mark.parametrize("smear", [(13, 7), (27, 7)])
def test_what_the_network_makes_a_face_of_is_none_where_no_search_finds_it(smear):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import faces_in

    rocket = cv2.blur(np.ascontiguousarray(data.rocket()[:426]), smear)
    with closing(open_finder("mediapipe")) as finder, open_engine("onnxruntime", "fast") as engine:
        assert not faces_in(rocket, finder, engine)


def test_nothing_out_of_focus_behind_a_face_becomes_one(shared):
    finder = open_finder("mediapipe")
    with (
        closing(finder),
        open_engine("onnxruntime", "fast") as engine,
        FileSource(shared / "video" / "s18.mp4") as clip,
    ):
        stats = Stats()
        finding = FaceFinding.for_engine(finder, load_settings(None, {}).faces, engine, stats)
        seen = {(len(item.crops), item.left) for item in finding.run(clip) if isinstance(item, Found)}
        assert seen == {(1, ())} and stats.tracks == 1


class Counting(EchoEngine):
    """Counts its crops, and may fail."""

    def __init__(self, engine, fails=False):
        self.engine, self.spec, self.fails, self.crops = engine, engine.spec, fails, 0

    def run(self, crops, known=None):
        self.crops += len(crops)
        if self.fails:
            raise EngineError("out of memory")
        return self.engine.run(crops, known)


def test_points_of_a_smeared_face_are_read_better_in_the_restored_one(photograph, finder):
    with open_engine("onnxruntime", "fast") as engine:
        sharp = np.ascontiguousarray(photograph[:256, 97:353])
        smeared = cv2.blur(sharp, (31, 3))
        truth = finder.look(sharp)
        again = SecondLook(finder, Counting(engine))

        def error(face):
            eyes = np.hypot(*(truth.landmarks[1] - truth.landmarks[0]))
            return np.hypot(*(face.landmarks - truth.landmarks).T).mean() / eyes

        assert error(again.look(smeared)) < 0.75 * error(finder.look(smeared))


@pytest.mark.parametrize(("half_px", "counts"), [(5, False), (10, True)])
def test_the_middle_of_a_long_motion_tells_where_the_face_is(photograph, half_px, counts):
    class Telling(EchoEngine):
        def run(self, crops, known=None):
            kernels = np.zeros((len(crops), 33, 33), np.float32)
            kernels[:, 16 + self.off[1], 16 + self.off[0] - half_px : 17 + self.off[0] + half_px] = 1
            return super().run(crops)._replace(kernels=kernels / (2 * half_px + 1))

    smeared, engine, seen = cv2.blur(np.ascontiguousarray(photograph[:256, 97:353]), (21, 3)), Telling(16), []
    with closing(open_finder("mediapipe")) as finder:
        for engine.off in (0, 0), (6, -4):
            face = SecondLook(finder, engine).look(smeared)
            assert face.is_restored
            seen.append(face.landmarks.mean(0))
    moved = (seen[1] - seen[0]) * align.scale_of(align.similarity(face.landmarks))
    assert np.allclose(moved, np.array([6, -4]) * counts, atol=1.5)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_points_go_into_a_view_and_back(clip, rotation):
    with FileSource(clip("plain.mp4")) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    frame = replace(frame, color=replace(frame.color, rotation=rotation))
    view, points = (
        View(frame, (40, 20, 240, 220), 128),
        np.array([[50.0, 30], [200, 31.5], [120, 210], [90, 90], [7, 300]]),
    )
    spot = np.full(frame.planes[0].shape, 16, np.uint8)
    spot[100:104, 150:154] = 235
    grey = replace(frame, planes=(spot, *(np.full_like(plane, 128) for plane in frame.planes[1:])))
    seen = View(grey, (40, 20, 240, 220), 128).image[..., 1].astype(float)
    seen = seen - seen.min()
    middle = np.array([(seen.sum(axis) * np.arange(128)).sum() for axis in (0, 1)]) / seen.sum()
    assert np.allclose(view.from_frame(np.array([[151.5, 101.5]])), middle, atol=0.2)
    assert np.allclose(view.to_frame(view.from_frame(points)), points)
    assert np.allclose(view.from_frame(view.to_frame(points)), points)


@pytest.mark.parametrize(("length_px", "turn_deg", "most"), [(31, 70, 0.1), (41, 45, 0.15)])
def test_a_face_too_smeared_for_the_finder_is_seen_where_it_was_last(photograph, length_px, turn_deg, most):
    finder = open_finder("mediapipe")
    with closing(finder), open_engine("onnxruntime", "fast") as engine:
        sharp, kernel = np.ascontiguousarray(photograph[:256, 97:353]), np.zeros((61, 61), np.float32)
        half = np.array([np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))]) * length_px / 2
        cv2.line(kernel, *(tuple(int(v) for v in 30 + sign * half) for sign in (-1, 1)), 1, 1, cv2.LINE_AA)
        smeared = cv2.filter2D(sharp, -1, kernel / kernel.sum())
        truth, again = finder.look(sharp).landmarks, SecondLook(finder, engine)

        def error(face):
            eyes = np.hypot(*(truth[1] - truth[0]))
            return 9 if face is None else np.hypot(*(face.landmarks - truth).T).mean() / eyes

        assert error(finder.look(smeared)) > 0.5, "nobody finds it there"
        assert error(again.look(smeared, truth + 1.5)) < most
        elsewhere, plain = again.look(smeared, truth + 60), again.look(smeared)
        assert error(elsewhere) == error(plain), "where no face was it is of no use"


@pytest.mark.parametrize(("contrast", "is_seen"), [(1.0, True), (0.3, True), (0.08, False)])
def test_a_face_that_only_its_restoration_shows_is_as_clear_as_a_search_finds_it_there(
    photograph, finder, contrast, is_seen
):
    plain = cv2.blur(np.ascontiguousarray(photograph[:256, 97:353]), (31, 3))
    smeared, there = np.rint(64 + contrast * (plain - 64.0)).astype(np.uint8), finder.look(plain).landmarks

    class Blind:
        side_px, search = finder.side_px, finder.search

        def look(self, image, last=None, track=0):
            return None if image is smeared else finder.look(image)

    with open_engine("onnxruntime", "fast") as engine:
        face = SecondLook(Blind(), engine).look(smeared, there)
    assert (face is not None) == is_seen
    assert face is None or CLEAR < face.score < 1


@pytest.mark.parametrize("seed", [11, 14])
def test_a_small_face_that_is_heavily_smeared_is_found_in_a_large_picture(photograph, seed):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import EYES_IN_CROP, EYES_PER_FACE, best, faces_in, picture_in_noise, smeared

    kernel, px = np.zeros((33, 33), np.float32), 44
    for a, b in (((5, 21), (27, 11)), ((27, 11), (23, 23))):
        cv2.line(kernel, a, b, 1, 1, cv2.LINE_AA)
    picture = np.ascontiguousarray(photograph[:256, 97:353])
    with closing(open_finder("mediapipe")) as finder, open_engine("onnxruntime", "fast") as engine:
        sharp, box = picture_in_noise(picture, finder.look(picture).landmarks, px, seed)
        frame, _ = smeared(sharp, kernel / kernel.sum(), px / EYES_PER_FACE / EYES_IN_CROP)
        assert best(faces_in(frame, finder, engine), box) is not None


def test_an_engine_that_tells_no_motion_is_no_help_to_the_finder(finder, clip):
    class Dumb(EchoEngine):
        def run(self, crops, known=None):
            raise AssertionError("it was asked")

    with FileSource(clip("plain.mp4")) as source:
        frames = [item for item in source if isinstance(item, Frame)][:4]
    smeared = [replace(frame, planes=tuple(cv2.blur(plane, (15, 3)) for plane in frame.planes)) for frame in frames]
    settings = load_settings(None, {}).faces
    finding = FaceFinding.for_engine(finder, settings, Dumb(16), Stats())
    assert settings.second_look and all(found.crops for found in finding.run(smeared))


@pytest.mark.parametrize(
    ("width", "score", "near", "looked"),
    [(30, 0.3, True, False), (50, 0.3, True, True), (50, 0.3, False, False), (30, 0.45, False, True)],
)
def test_a_doubtful_face_is_looked_at_closer_where_it_would_be_restored_and_is_one_from_near(
    photograph, width, score, near, looked
):
    pytest.importorskip("torch", reason="the training extra is not installed")
    from training.finding import as_frame

    class Suspecting:
        side_px, looks = 256, 0

        def search(self, image):
            far = image.shape[0] > 200  # the frame at half its size, not a close-up
            box = [100.0, 100.0, 100.0 + width / 2, 100.0 + width / 2, score]
            return np.array([box] if far or near else np.empty((0, 5)))

        def look(self, image, last=None, track=0):
            self.looks += 1

    finder, settings = Suspecting(), load_settings(None, {"faces": {"min_size_px": 40}}).faces
    with open_engine("onnxruntime", "fast") as engine:
        found = list(FaceFinding.for_engine(finder, settings, engine, Stats()).run([as_frame(photograph[:480, :480])]))
    assert not found[0].crops and (finder.looks > 0) == looked


def test_a_sharp_face_is_looked_at_once_and_nothing_depends_on_the_engine(photograph):
    finder = open_finder("mediapipe")
    with closing(finder), open_engine("onnxruntime", "fast") as engine:
        sharp = np.ascontiguousarray(photograph[:256, 97:353])
        smeared = cv2.blur(sharp, (31, 3))
        counting = Counting(engine)
        assert np.array_equal(SecondLook(finder, counting).look(sharp).landmarks, finder.look(sharp).landmarks)
        assert counting.crops == 0
        failing = SecondLook(finder, Counting(engine, fails=True))
        assert np.array_equal(failing.look(smeared).landmarks, finder.look(smeared).landmarks)
        assert SecondLook(finder, counting).look(np.zeros((256, 256, 3), np.uint8)) is None


def test_about_a_soft_face_that_is_followed_the_engine_is_not_asked_each_time_until_its_edges_weaken(
    photograph, finder
):
    soft = cv2.GaussianBlur(np.ascontiguousarray(photograph[:256, 97:353]), (0, 0), 1.7)
    there = finder.look(soft).landmarks
    with open_engine("onnxruntime", "fast") as engine:
        counting = Counting(engine)
        look = SecondLook(finder, counting).look
        asked = []
        for image, track in [(soft, 1)] * 5 + [(soft, 2), (cv2.blur(soft, (31, 3)), 1), (soft, 1)] + [(soft, 0)] * 2:
            before = counting.crops
            assert look(image, there, track) is not None
            asked.append(counting.crops > before)
    assert asked == [True, False, False, True, False, True, True, True, True, True]


def test_that_the_place_where_a_face_was_is_at_rest_says_nothing_of_where_it_is(photograph, finder):
    sharp = np.ascontiguousarray(photograph[:256, 97:353])
    there = finder.look(sharp).landmarks
    smeared, away = cv2.blur(sharp, (31, 3)), there - 70  # onto the soft background

    class Still(Counting):
        """Finds motion where the face is alone."""

        def run(self, crops, known=None):
            found = super().run(crops, known)
            if self.crops == 1:
                kernels = np.zeros_like(found.kernels)
                kernels[:, 16, 16] = 1
                found = found._replace(kernels=kernels)
            return found

    with open_engine("onnxruntime", "fast") as engine:
        moved = SecondLook(finder, Still(engine)).look(smeared, away, 7)
        assert np.array_equal(moved.landmarks, SecondLook(finder, Still(engine)).look(smeared, away).landmarks)
        assert moved.is_restored


@pytest.mark.parametrize("depth", [8, 10])
def test_flow_takes_a_face_along(clip, finder, depth):
    """Shift, turn and scale that are known; and no answer where nothing can be seen."""
    with FileSource(clip("plain.mp4")) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    points = np.array([[150.0, 100], [190, 100], [170, 120], [155, 140], [185, 140]])
    face = Face(np.array([130.0, 70, 210, 160]), points, 0.9)
    turn = cv2.getRotationMatrix2D((160.0, 120.0), 5.0, 1.06)
    turn[:, 2] += (4.0, -3.0)
    luma = frame.planes[0]
    moved = cv2.warpAffine(luma, turn, luma.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    unit = 2 ** (depth - 8)
    first, then = (
        replace(frame, planes=(plane.astype(np.uint16) * unit,), color=replace(frame.color, depth=depth))
        for plane in (luma, moved)
    )
    found = follow(first, then, face)
    assert np.hypot(*(found.landmarks - align.apply(turn, points)).T).max() < 0.6
    assert np.abs(found.box[:2] - align.apply(turn, face.box[:2][None])[0]).max() < 8
    empty = replace(first, planes=(np.full_like(first.planes[0], 90),))
    assert follow(empty, empty, face) is None


def test_live_no_frame_waits_and_faces_move_with_the_picture(clip, finder):
    """The picture moves by 1 px a frame: also between two looks."""
    asked = []

    def given():
        with FileSource(clip("plain.mp4")) as source:
            for item in source:
                if isinstance(item, Frame):
                    asked.append(item.index)
                    yield item

    settings = load_settings(None, {"faces": {"look_ahead": False, "look_every": 4}}).faces
    eyes = []
    for found in FaceFinding(finder, settings, 0, Stats()).run(given()):
        assert found.frame.index == asked[-1], "handed on before the next one is asked for"
        eyes.append(found.crops[0].track.face.landmarks[:2].mean(0))
    assert len(eyes) == 12
    steps = np.diff(np.array(eyes)[:, 0])
    between_looks = [step for i, step in enumerate(steps) if (i + 1) % 4]
    assert np.allclose(between_looks, 1.0, atol=0.3)


class Blind(SecondLook):
    """A finder that suspects a face in the middle of each picture, and counts its searches."""

    side_px = 256

    def __init__(self):
        self.searches = 0

    def search(self, image):
        self.searches += 1
        return np.array([[120.0, 120, 136, 136, 0.9]])


class Scripted(FaceFinding):
    """Finds its first face at once, a second one from frame `second` on; `seen(frame, track)` is what looks show."""

    def script(self, frame, seen, second=99):
        self.first, self.seen, self.second, self.looks, self.searched = frame, seen, second, [], []
        return self

    def frames(self, count):
        for i in range(count):
            yield replace(self.first, pts=self.first.pts + 512 * i, index=i)

    def _face_in(self, frame, box, score, ought):
        self.searched.append(frame.index)
        known = len(self._tracker.tracks)
        return face_at(10 + 200 * known, 10) if known == 0 or (known == 1 and frame.index >= self.second) else None

    def _again(self, frame, track):
        if frame.index not in self.looks:
            self.looks.append(frame.index)
        return self.seen(frame.index, track)


def seen_as(**changes):
    return lambda at, track: replace(track.face, **({"score": 1.0} | changes))


def missed_in_8(at, track):
    return None if at == 8 and track.id == 1 else replace(track.face, score=1.0)


THIRDS = [3, 6, 9, 12, 15, 18, 21, 23]  # the last frame is looked at whatever it is


@pytest.mark.parametrize(
    ("changes", "script", "looks"),
    [
        ({}, {"seen": seen_as()}, [3, 8, 13, 18, 23]),
        ({}, {"seen": seen_as(is_restored=True)}, THIRDS),
        ({}, {"seen": seen_as(score=0.9)}, THIRDS),
        ({}, {"seen": missed_in_8}, [3, 8, 11, 16, 21, 23]),
        ({}, {"seen": missed_in_8, "second": 1}, [3, 6, 11, 16, 21, 23]),
        ({}, {"seen": seen_as(), "second": 9}, [3, 8, 13, 16, 21, 23]),
        ({"max_gap_frames": 4}, {"seen": seen_as()}, [3, 7, 11, 15, 19, 23]),
        ({"look_every": 1}, {"seen": seen_as()}, [*range(1, 24)]),
        ({"look_ahead": False}, {"seen": seen_as()}, THIRDS[:-1]),
    ],
)
def test_while_all_faces_are_seen_well_they_are_looked_at_less_often(clip, changes, script, looks):
    with FileSource(clip("large.mp4", width=640, height=448)) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    settings = load_settings(None, {"faces": changes}).faces
    finding = Scripted(Blind(), settings, 0, Stats()).script(frame, **script)
    assert len(list(finding.run(finding.frames(24)))) == 24
    assert finding.looks == looks


def test_a_finder_that_does_not_restore_looks_as_often_for_it_cannot_tell_a_smeared_face(clip):
    with FileSource(clip("large.mp4", width=640, height=448)) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    finding = Scripted(Blind(), load_settings(None, {}).faces, 0, Stats()).script(frame, seen_as())
    finding._restores = False
    assert len(list(finding.run(finding.frames(24)))) == 24
    assert finding.looks == THIRDS


@pytest.mark.parametrize(
    ("width", "every", "searched"),
    [(640, 3, [3, 8, 13, 13, 18, 18, 23]), (640, 1, sorted([3, 8, 13, 18, 23] * 2)), (320, 3, [3, 8, 13, 18, 23])],
)
def test_new_faces_are_searched_for_as_often_but_nowhere_twice_in_a_frame(clip, width, every, searched):
    with FileSource(clip(f"wide{width}.mp4", width=width, height=240)) as source:
        frame = next(item for item in source if isinstance(item, Frame))
    finder = Blind()
    settings = load_settings(None, {"faces": {"search_every": every}}).faces
    finding = Scripted(finder, settings, 0, Stats()).script(frame, seen_as())
    found = finding.run(finding.frames(24))
    next(found)
    finding.searched.clear()
    assert len(list(found)) == 23
    assert finding.searched == searched


def test_a_face_that_is_missed_goes_on_with_the_picture(clip, finder, monkeypatch):
    settings = load_settings(None, {"faces": {"look_every": 1, "max_gap_frames": 8}}).faces
    with FileSource(clip("plain.mp4")) as source:
        frames = [item for item in source if isinstance(item, Frame)]
    finding = FaceFinding(finder, settings, 0, Stats())
    tracks = [found.crops[0].track for found in finding.run(frames[:4])]
    monkeypatch.setattr(finder, "look", lambda image, last, track: None)
    tracks += [found.crops[0].track for found in finding.run(frames[4:])]
    assert [track.lost for track in tracks] == [0, 0, 0, 0, *range(1, 9)]
    x = [track.face.landmarks[:2].mean(0)[0] for track in tracks]
    assert np.allclose(np.diff(x[3:]), 1.0, atol=0.3)


def test_the_same_picture_at_half_its_size_is_another_scene(clip, finder):
    """What was known of places holds no more."""
    with FileSource(clip("large.mp4", width=640, height=448)) as source:
        large = [item for item in source if isinstance(item, Frame)]
    small = [
        replace(frame, pts=frame.pts + 10**6, planes=tuple(np.ascontiguousarray(p[::2, ::2]) for p in frame.planes))
        for frame in large
    ]
    finding = FaceFinding(finder, load_settings(None, {"faces": {"look_every": 1}}).faces, 0, Stats())
    tracks = [found.crops[0].track for found in finding.run([*large[:3], *small[3:6]])]
    assert [track.id for track in tracks] == [1, 1, 1, 2, 2, 2]
    assert np.allclose(tracks[2].face.landmarks, 2 * tracks[3].face.landmarks, atol=8)
