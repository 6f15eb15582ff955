import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import (
    LimitLongEdge,
    LoadImage,
    MultiView,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    ResizeEdge,
    resize,
)
from retrieval.registry import TRANSFORMS

from ..toys import Toy, save

# ruff: noqa: NPY002  (the global generator is what is tested)


SHAPES = [(20, 30), (20, 30, 1), (20, 30, 3)]
RANDOM = [
    {'type': 'RandomCrop', 'crop_size': 12, 'padding': 3},
    {'type': 'RandomResizedCrop', 'scale': 16},
    {'type': 'RandomAffine', 'degrees': 20, 'translate': .1, 'scale': (.8, 1.2), 'shear': 8},
    {'type': 'RandomFlip', 'prob': .5},
    {'type': 'ColorJitter', 'brightness': .5, 'contrast': .5},
    {'type': 'torchvision/RandomResizedCrop', 'size': 16},
    {'type': 'torchvision/RandomErasing', 'p': 1.},
    {'type': 'torchvision/RandAugment'},
    {'type': 'MultiView', 'transforms': [{'type': 'RandomCrop', 'crop_size': 8}]},
]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


class Noise(Toy):
    def load_data_list(self):
        return [{'img': noise((40, 40, 3), row), 'sample_id': str(row)} for row in range(6)]


@pytest.mark.parametrize('config', RANDOM, ids=lambda config: config['type'])
def test_draws_obey_the_seed_of_the_item(config):
    """In any order, whatever was drawn before; and each epoch draws anew."""
    dataset = Noise(pipeline=[dict(config), {'type': 'PackInputs'}])

    def items(rows):
        return {row: [np.asarray(view) for view in np.atleast_1d(dataset[row]['inputs'])]
                if isinstance(dataset[row]['inputs'], list) else
                [dataset[row]['inputs'].numpy()] for row in rows}

    def same(one, other):
        return all(np.array_equal(a, b) for row in one for a, b in zip(one[row], other[row],
                                                                      strict=True))

    dataset.set_seed(1)
    first = items(range(6))
    np.random.seed(99)
    assert same(first, items([5, 3, 1, 0, 2, 4]))
    dataset.set_epoch(1)
    assert not same(first, items(range(6)))


@pytest.mark.parametrize('size', [(15, 10), (41, 23), (90, 80), (60, 20), (3, 1)])
@pytest.mark.parametrize('shape', [(40, 60), (40, 60, 3), (7, 5, 3)])
def test_resize_is_pillows_bilinear(size, shape):
    """Within one grey value: antialiased where the picture shrinks, plain where it grows."""
    image = noise(shape)
    want = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    for given in (image, np.pad(image, [(1, 1), (2, 2)] + [(0, 0)] * (image.ndim - 2))[1:-1, 2:-2],
                  image[::-1, ::-1].copy()[::-1, ::-1]):
        found = resize(given, *size)
        assert found.dtype == np.uint8 and found.shape == want.shape and found.flags.c_contiguous
        assert np.abs(found.astype(int) - want).max() <= 1
    as_float = resize(image.astype(np.float32), *size)
    assert as_float.dtype == np.float32 and np.abs(as_float - want).max() < 1.01


def test_bicubic_resizing_can_be_pillows(size=(31, 17)):
    image = noise((40, 60, 3))
    want = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    assert np.abs(resize(image, *size, 'auto-bicubic').astype(int) - want).max() <= 1
    assert np.abs(resize(image, *size, 'bicubic').astype(int) - want).max() > 20


def test_resize_keeps_what_fits_and_the_channel_axis():
    image = noise((40, 60))
    assert resize(image, 60, 40) is image
    assert resize(image[..., None], 15, 10).shape == (10, 15, 1)
    assert resize(image[..., None], 15, 10, 'area').shape == (10, 15, 1)
    blocks = image.reshape(10, 4, 15, 4).mean((1, 3))
    assert np.abs(resize(image, 15, 10, 'area') - blocks).max() <= 0.5
    image.flags.writeable = False
    assert resize(image, 15, 10).shape == (10, 15)


@pytest.mark.parametrize('edge, size', [('short', (10, 15)), ('long', (7, 10)),
                                        ('width', (7, 10)), ('height', (10, 15))])
@pytest.mark.parametrize('shape', SHAPES)
def test_resize_edge(edge, size, shape):
    results = ResizeEdge(10, edge)({'img': noise(shape)})
    assert results['img'].shape == (*size, *shape[2:]) and results['img_shape'] == size


def test_resize_edge_never_vanishes():
    assert ResizeEdge(4, 'long')({'img': noise((1, 100))})['img'].shape == (1, 4)


@pytest.mark.parametrize('shape', SHAPES)
def test_random_crop_cuts_parts_of_the_image(shape):
    image, corners = noise(shape), set()
    for _ in range(200):
        part = RandomCrop((28, 18))({'img': image})['img']
        found = [(top, left) for top in range(3) for left in range(3)
                 if np.array_equal(image[top:top + 18, left:left + 28], part)]
        assert len(found) == 1
        corners |= set(found)
    assert len(corners) == 9  # every place comes up


def test_random_crop_pads():
    image = np.full((4, 9), 200, np.uint8)
    part = RandomCrop(10, pad_val=7)({'img': image})['img']
    assert part.shape == (10, 10) and (part == 200).sum() == 36 and (part == 7).sum() == 64
    padded = [RandomCrop((9, 4), padding=2)({'img': image})['img'] for _ in range(50)]
    assert {part.shape for part in padded} == {(4, 9)} and any((part == 0).any() for part in padded)


def test_random_resized_crop_covers_its_ranges():
    transform = RandomResizedCrop(8, (0.2, 0.6), (0.5, 2.0))
    parts = np.array([transform._part(200, 300) for _ in range(2000)])
    top, left, height, width = parts.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 200).all() and (left + width <= 300).all()
    share, ratio = height * width / 60000, width / height
    assert 0.19 < share.min() < 0.22 and 0.55 < share.max() < 0.61
    assert 0.49 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.02
    assert abs(np.log(ratio[share < 0.3]).mean()) < 0.08  # on a logarithmic scale, so symmetric


@pytest.mark.parametrize('size, want', [((10, 1000), (0, 494, 10, 13)), ((1000, 10),
                                                                        (494, 0, 13, 10))])
def test_random_resized_crop_falls_back_to_the_centre(size, want):
    top, left, height, width = RandomResizedCrop(8, (1., 1.))._part(*size)
    assert abs(top - want[0]) <= 1 and abs(left - want[1]) <= 1 and (height, width) == want[2:]


@pytest.mark.parametrize('shape', SHAPES)
def test_random_resized_crop_keeps_the_channels(shape):
    results = RandomResizedCrop((7, 5))({'img': noise(shape)})
    assert results['img'].shape == (5, 7, *shape[2:]) and results['img_shape'] == (5, 7)


def test_affine_matrix_by_hand():
    """Half a turn about the centre, then a shift of a tenth of the width to the right."""
    transform = RandomAffine(degrees=180, translate=0.1)
    matrix = transform._matrix(11, 21, np.array([1, 0, 0, 0, 1, 0]))
    np.testing.assert_allclose(matrix @ [0, 0, 1], [20 + 2.1, 10])
    np.testing.assert_allclose(matrix @ [10, 5, 1], [10 + 2.1, 5])
    scaled = RandomAffine(scale=(1, 3))._matrix(11, 21, np.array([0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(scaled @ [11, 5, 1], [12, 5])
    sheared = RandomAffine(shear=45)._matrix(11, 21, np.array([0, 0, 1, 0, 0, 0]))
    np.testing.assert_allclose(sheared @ [10, 6, 1], [11, 6])


@pytest.mark.parametrize('shape', SHAPES)
def test_affine_moves_pixels_as_its_matrix_says(shape):
    image = noise(shape)

    class Shift(RandomAffine):
        def _matrix(self, height, width, draws):
            return np.array([[1., 0, 2], [0, 1, 3]])

    moved = Shift(fill=9)({'img': image})['img']
    np.testing.assert_array_equal(moved[3:, 2:], image[:-3, :-2])
    assert (moved[:3] == 9).all() and (moved[:, :2] == 9).all() and moved.shape == shape


def test_affine_probability_and_identity():
    image = noise((20, 20))
    np.testing.assert_array_equal(RandomAffine()({'img': image})['img'], image)
    assert RandomAffine(degrees=30, prob=0)({'img': image})['img'] is image
    changed = sum(RandomAffine(degrees=30, prob=0.3)({'img': image})['img'] is not image
                  for _ in range(500))
    assert 110 < changed < 190
    edge = RandomAffine(translate=0.4, border='replicate')({'img': np.full((9, 9), 50, np.uint8)})
    assert (edge['img'] == 50).all()


def test_views():
    crop = {'type': 'RandomCrop', 'crop_size': 6}
    views = MultiView([crop], 3)({'img': noise((20, 20)), 'gt_label': 1})
    assert len(views['img']) == 3 and views['gt_label'] == 1
    assert len({view.tobytes() for view in views['img']}) == 3
    mixed = MultiView([[crop], [{'type': 'ResizeEdge', 'scale': 9}]], [2, 1])
    assert [view.shape for view in mixed({'img': noise((20, 20))})['img']] == [
        (6, 6), (6, 6), (9, 9)]


def test_views_do_not_disturb_each_other():
    def brighten(results):
        results['img'][:] += 1
        return results

    image = noise((4, 4)) // 2
    views = MultiView([brighten], 3)({'img': image.copy()})['img']
    assert all(np.array_equal(view, image + 1) for view in views)


@pytest.mark.parametrize('shape', SHAPES)
def test_after_a_flip(shape):
    """NumPy flips by negative strides, which neither torch nor OpenCV may stumble over."""
    flip = {'type': 'RandomFlip', 'prob': 1.}
    for after in ({'type': 'ResizeEdge', 'scale': 10}, {'type': 'RandomAffine'},
                  {'type': 'torchvision/Grayscale'} if shape[2:] == (3,) else
                  {'type': 'torchvision/RandomInvert', 'p': 0}):
        image = TRANSFORMS.build(flip)({'img': noise(shape)})
        assert TRANSFORMS.build(after)(image)['img'].shape[1] in (15, 30)


@pytest.mark.parametrize('cls, arguments, message', [
    (ResizeEdge, {'scale': 0}, 'scale must be an integer of at least 1'),
    (ResizeEdge, {'scale': 8, 'edge': 'shrt'}, "Did you mean 'short'"),
    (ResizeEdge, {'scale': 8, 'interpolation': 'cubic'}, "Did you mean 'bicubic'"),
    (RandomCrop, {'crop_size': (8, 0)}, 'crop_size must be an integer of at least 1'),
    (RandomCrop, {'crop_size': 8, 'padding': -1}, 'padding'),
    (RandomResizedCrop, {'scale': 8, 'crop_ratio_range': (0, 1)}, 'crop_ratio_range'),
    (RandomResizedCrop, {'scale': 8, 'aspect_ratio_range': (2, 1)}, 'aspect_ratio_range'),
    (RandomAffine, {'border': 'mirror'}, 'border'),
    (RandomAffine, {'scale': (0, 1)}, 'scale'),
    (RandomAffine, {'prob': 2}, 'prob'),
    (RandomAffine, {'degrees': -2}, 'degrees'),
    (MultiView, {'transforms': [], 'num_views': 0}, 'num_views'),
    (MultiView, {'transforms': [[], []], 'num_views': [1]}, 'num_views'),
])
def test_bad_arguments(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@pytest.mark.parametrize('size, whole, want', [
    ((100, 50), None, (40, 20)), ((50, 100), None, (20, 40)), ((40, 7), None, (40, 7)),
    ((30, 20), None, (30, 20)),
    ((30, 20), (80, 50), (15, 10)),  # by the factor of the picture that the box was cut from
    ((30, 20), (30, 40), (30, 20)), ((1, 50), (400, 50), (1, 5))])
def test_sizes(size, whole, want):
    results = {'img': np.zeros((*size, 3), np.uint8), 'img_shape': size}
    if whole:
        results.update(ori_shape=whole, box_is_cropped=True)
    step = TRANSFORMS.build({'type': 'LimitLongEdge', 'limit': 40})
    results = step(results)
    assert results['img'].shape == (*want, 3) and results['img_shape'] == want


def test_a_box_that_the_loader_cut_out(tmp_path):
    path = save(tmp_path / 'x.png', size=(80, 50))
    for box, want in (((10, 10, 40, 30), (10, 15)), (None, (25, 40))):
        results = LoadImage()({'img_path': str(path), 'box': box})
        assert LimitLongEdge(40)(results)['img_shape'] == want


def test_a_picture_that_was_read_at_half_its_size():
    results = {'img': np.zeros((50, 40, 3), np.uint8), 'ori_shape': (100, 80)}
    assert LimitLongEdge(50)(results)['img'].shape == (50, 40, 3)


def test_areas_are_averaged():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    found = LimitLongEdge(2, 'area')({'img': image})['img']
    np.testing.assert_allclose(found[..., 0], image.reshape(2, 2, 2, 2).mean(axis=(1, 3)), atol=1)


@pytest.mark.parametrize('arguments', [{'limit': 0}, {'limit': 'x'}, {'limit': True},
                                       {'limit': 9, 'interpolation': 'cubik'}])
def test_long_edge_bad_arguments(arguments):
    with pytest.raises((TypeError, ValueError), match='limit must be|Unknown interpolation'):
        LimitLongEdge(**arguments)


@pytest.mark.parametrize('edge', ['short', 'width', 'height'])
def test_a_strip_keeps_the_middle_of_its_length(edge):
    """What a crop of the middle takes is the same as without the bound."""
    gray = np.random.default_rng(0).integers(0, 255, (2, 400), dtype=np.uint8)
    strip = gray.T if edge == 'width' else gray
    made = ResizeEdge(16, edge)({'img': strip})['img']
    assert sorted(made.shape) == [16, 32 * 16]
    whole = resize(gray, 400 * 8, 16)
    whole = whole.T if edge == 'width' else whole
    middle = tuple(slice((size - 16) // 2, (size + 16) // 2) for size in whole.shape)
    here = tuple(slice((size - 16) // 2, (size + 16) // 2) for size in made.shape)
    assert np.abs(made[here].astype(int) - whole[middle]).max() <= 1
    np.testing.assert_array_equal(ResizeEdge(2)({'img': gray[:, :64]})['img'], gray[:, :64])


def test_random_crop_does_not_pad_what_it_cuts_away():
    """As padding first: the same places, and what lies outside is grey."""
    image = np.arange(1, 101, dtype=np.uint8).reshape(10, 10)
    for padding, size in ((3, 8), (0, (4, 14)), (30, 5), (2, 16)):
        crop = RandomCrop(size, padding, pad_val=200)
        for seed in range(30):
            np.random.seed(seed)
            made = crop({'img': image})['img']
            np.random.seed(seed)
            width, height = crop.crop_size
            pads = [max(padding, -(-(want - 10) // 2)) for want in (height, width)]
            padded = np.pad(image, [(pad, pad) for pad in pads], constant_values=200)
            top, left = (np.random.randint(padded.shape[axis] - want + 1)
                         for axis, want in enumerate((height, width)))
            np.testing.assert_array_equal(made, padded[top:top + height, left:left + width])
    strip = np.broadcast_to(np.uint8(7), (1, 10 ** 12))
    assert RandomCrop(64)({'img': strip})['img'].shape == (64, 64)
