"""Where a part lies in another picture, against where it was put."""
import numpy as np
import pytest

from retrieval.registration import (
    alike,
    footprint,
    grey,
    laid_over,
    local_features,
    register,
)

from .scenes import pasted, resized, scene

WHOLE = pytest.approx((0, 0, 1, 1), abs=0.02)


def features(picture):
    return local_features(grey(picture))


@pytest.fixture(scope='module')
def pictures():
    return [scene(seed) for seed in range(2)]


def test_a_crop_is_found_where_it_was_cut(pictures):
    crop = pictures[0][60:220, 90:300]
    found = register(features(crop), features(pictures[0]))
    assert found.box == pytest.approx((90 / 360, 60 / 270, 210 / 360, 160 / 270), abs=0.01)
    assert found.own_box == WHOLE and not found.mirrored and found.inliers > 50
    moved = found.transform @ (0.5, 0.5, 1)  # its middle
    np.testing.assert_allclose(moved[:2] / moved[2], ((90 + 105) / 360, (60 + 80) / 270), atol=.01)


def test_the_mirror_image_is_found_as_one(pictures):
    crop = pictures[0][60:220, 90:300]
    mirrored = features(crop[:, ::-1])
    assert register(mirrored, features(pictures[0])) is None
    found = register(features(crop), features(pictures[0]), mirrored=True)
    assert found.mirrored and found.box[0] == pytest.approx(90 / 360, abs=0.01)


@pytest.mark.parametrize('way', ['turned', 'darker', 'smaller'])
def test_an_altered_picture_is_found_whole(pictures, way):
    picture = dict(turned=np.rot90(pictures[0]), darker=pictures[0] // 3,
                   smaller=resized(pictures[0], 120, 90))[way]
    found = register(features(np.ascontiguousarray(picture)), features(pictures[0]))
    assert found.box == WHOLE and found.own_box == WHOLE


def test_a_part_in_another_picture_has_a_box_on_both_sides(pictures):
    part = pictures[0][20:200, 40:280]
    collage = pasted(resized(part, 160, 120), pictures[1], 170, 110)
    found = register(features(collage), features(pictures[0]))
    assert found.box == pytest.approx((40 / 360, 20 / 270, 240 / 360, 180 / 270), abs=0.06)
    assert found.own_box == pytest.approx((170 / 360, 110 / 270, 160 / 360, 120 / 270), abs=0.06)
    back = register(features(pictures[0]), features(collage))
    assert back.box == pytest.approx(found.own_box, abs=0.03)


def test_nothing_is_found_in_other_pictures_and_in_plain_ones(pictures):
    plain = features(np.full((50, 50), 128, np.uint8))
    assert len(plain.descriptors) == 0
    assert register(features(pictures[0]), features(pictures[1]), least_inliers=6) is None
    assert register(plain, features(pictures[0])) is None
    assert register(features(pictures[0]), plain) is None


def test_what_looks_alike_is_seen_through_changes_of_colour(pictures):
    one, other = grey(pictures[0], 192), grey(pictures[1], 192)
    written = one.copy()
    written[:40] = 255
    correlation, seen = alike(one, (written // 2 + 40).astype(np.uint8), np.eye(3))
    assert correlation[60:].mean() > 0.9 and abs(correlation[5:30]).max() < 0.1
    assert seen.mean() > 0.8
    assert (alike(one, other, np.eye(3))[0] > 0.5).mean() < 0.3
    assert not alike(np.zeros_like(one), np.zeros_like(one), np.eye(3))[1].any()


def test_laid_over():
    picture = np.arange(48, dtype=np.uint8).reshape(6, 8)
    moved, inside = laid_over(picture, np.zeros((12, 16), np.uint8), np.eye(3), mirrored=True)
    assert inside.all() and moved.shape == (12, 16)
    np.testing.assert_allclose(moved[::2, ::2] / 2 + moved[1::2, 1::2] / 2, picture[:, ::-1],
                               atol=2.5)
    assert footprint(np.array([[.5, 0, .5], [0, .5, 0], [0, 0, 1.]])) == (.5, 0., .5, .5)
