"""The similarity transform and warps."""

import numpy as np

from stream.faces import align


def test_the_transform_of_moved_points_is_found_exactly():
    angle, scale = 0.4, 1.7
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (align.TEMPLATE - (30, -12)) @ np.linalg.inv(rotation).T
    matrix = align.similarity(points)
    assert np.allclose(align.apply(matrix, points), align.TEMPLATE)
    assert np.isclose(align.scale_of(matrix), scale)
    assert np.allclose(align.apply(align.inverse(matrix), align.TEMPLATE), points)


def test_the_transform_never_mirrors():
    mirrored = align.TEMPLATE * (-1, 1)
    assert np.linalg.det(align.similarity(mirrored)[:, :2]) > 0


def test_a_crop_with_margin_holds_the_crop_without():
    image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    matrix = np.array([[0.8, 0.1, -30.0], [-0.1, 0.8, -20.0]])
    assert np.array_equal(align.warp(image, matrix, 16)[16:-16, 16:-16], align.warp(image, matrix))


def test_shrinking_a_fine_pattern_gives_its_mean_and_no_moire():
    image = (np.indices((800, 800)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    crop = align.warp(image, np.array([[0.2, 0.0, 0.0], [0.0, 0.2, 0.0]]))
    assert np.abs(crop.astype(int) - 127).max() <= 2
