"""A folder of pictures into a training folder."""

import csv

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra is not installed")


def test_faces_are_collected_and_what_is_skipped_is_told_with_its_reason(unsmear, photograph, tmp_path):
    import cv2
    from PIL import Image

    from stream.faces.align import similarity, warp
    from training.data import load_faces, read_landmarks

    raw = tmp_path / "raw"
    (raw / "deeper").mkdir(parents=True)
    Image.fromarray(photograph).save(raw / "face.png")
    Image.fromarray(photograph).save(raw / "deeper" / "again.jpg", quality=98)
    Image.fromarray(photograph[300:, :200]).save(raw / "none.png")
    Image.fromarray(cv2.GaussianBlur(photograph, (0, 0), 4)).save(raw / "soft.png")
    Image.fromarray(photograph[::3, ::3]).save(raw / "small.png")
    (raw / "notes.txt").write_text("not a picture")
    done = unsmear("align", "raw", "-o", "faces")
    assert done.returncode == 0, done.stderr
    assert "2 faces; skipped" in done.stderr
    with (tmp_path / "faces" / "skipped.csv").open(newline="") as file:
        why = {row["picture"]: row["why"] for row in csv.DictReader(file)}
    assert why.pop("small.png") in ("no face", "too small")
    assert why == {"none.png": "no face", "soft.png": "soft", "notes.txt": "unreadable"}
    names, _ = read_landmarks(tmp_path / "faces")
    assert names == ["0000000.png", "0000001.png"]
    with (tmp_path / "faces" / "landmarks.csv").open(newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == ["deeper/again.jpg", "face.png"]
    faces = load_faces(tmp_path / "faces", tmp_path / "cache")
    assert faces.shape == (2, 176, 160, 4) and faces[:, 32:-32, 32:-32, 3].mean() > 250
    original = np.array([[203.2, 101.2], [246.2, 103.2], [222.9, 130.3], [201.6, 138.8], [244.3, 140.2]])
    reference = warp(photograph, similarity(original), 0).astype(int)
    assert np.abs(faces[0, 32:-32, 32:-32, :3] - reference).mean() < 4, "the same face, aligned the same way"
    again = unsmear("align", "raw", "-o", "faces")
    assert again.returncode == 5 and "not empty" in again.stderr
    assert unsmear("align", "nowhere", "-o", "other").returncode == 3
