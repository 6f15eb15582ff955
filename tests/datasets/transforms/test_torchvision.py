import numpy as np
import pytest
import torch

from retrieval.datasets.transforms.torchvision import NAMES
from retrieval.registry import TRANSFORMS, UnknownTypeError

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def build(name, **arguments):
    return TRANSFORMS.build({'type': f'torchvision/{name}', **arguments})


def test_the_same_as_torchvision():
    from torchvision.transforms import InterpolationMode, v2
    as_tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)
    torch.manual_seed(3)
    want = v2.RandomResizedCrop(16, interpolation=InterpolationMode.BICUBIC)(as_tensor)
    torch.manual_seed(3)
    results = build('RandomResizedCrop', size=16, interpolation='bicubic')({'img': IMAGE})
    np.testing.assert_array_equal(results['img'], want.permute(1, 2, 0).numpy())
    assert results['img_shape'] == (16, 16) and results['img'].dtype == np.uint8


def test_gray_float_and_read_only_images():
    assert build('Resize', size=(4, 5))({'img': IMAGE[..., 0]})['img'].shape == (4, 5, 1)
    frozen = IMAGE.copy()
    frozen.flags.writeable = False
    build('RandomErasing', p=1.)({'img': frozen})
    np.testing.assert_array_equal(frozen, IMAGE)
    scaled = build('ToDtype', dtype='float32', scale=True)({'img': IMAGE})['img']
    np.testing.assert_allclose(scaled, IMAGE / 255, rtol=1e-6)


def test_nested_transforms():
    flip = {'type': 'torchvision/RandomHorizontalFlip', 'p': 1.}
    both = build('Compose', transforms=[flip, {'type': 'RandomVerticalFlip', 'p': 1.}])
    np.testing.assert_array_equal(both({'img': IMAGE})['img'], IMAGE[::-1, ::-1])
    assert build('AutoAugment', policy='cifar10')({'img': IMAGE})['img'].shape == IMAGE.shape


def test_every_name_exists_or_says_so():
    from torchvision.transforms import v2
    assert {name for name in NAMES if hasattr(v2, name)} >= set(NAMES) - {'GaussianNoise', 'JPEG'}
    assert all(f'torchvision/{name}' in TRANSFORMS for name in NAMES)


ARGUMENTS = {
    'CenterCrop': {'size': 8}, 'ElasticTransform': {'sigma': 1.},
    'Grayscale': {'num_output_channels': 3}, 'GaussianBlur': {'kernel_size': 3},
    'Pad': {'padding': 2},
    'RandomAffine': {'degrees': 5}, 'RandomAdjustSharpness': {'sharpness_factor': 2},
    'RandomCrop': {'size': 8}, 'RandomPosterize': {'bits': 3},
    'RandomResize': {'min_size': 8, 'max_size': 12}, 'RandomResizedCrop': {'size': 8},
    'RandomRotation': {'degrees': 9}, 'RandomShortestSize': {'min_size': 8},
    'RandomSolarize': {'threshold': 100}, 'Resize': {'size': 9},
    'ScaleJitter': {'target_size': (20, 20)},
    **{name: {'transforms': [{'type': 'RandomHorizontalFlip'}]} for name in (
        'Compose', 'RandomApply', 'RandomChoice', 'RandomOrder')},
}
OWN_CASES = ('ToDtype', 'Normalize', 'GaussianNoise', 'JPEG')  # floats; needs compiled code


@pytest.mark.parametrize('name', [name for name in NAMES if name not in OWN_CASES])
def test_every_name_takes_and_gives_pixels(name):
    for image in (IMAGE, IMAGE[:, ::-1], IMAGE[..., :1]):
        results = build(name, **ARGUMENTS.get(name, {}))({'img': image})
        out = results['img']
        assert out.dtype == np.uint8 and out.ndim == 3 and out.flags.c_contiguous
        assert out.shape[2] == (3 if name == 'Grayscale' else image.shape[2])
        assert results['img_shape'] == out.shape[:2]


def test_to_floats_and_normalised():
    steps = [build('ToDtype', dtype='float32', scale=True),
             build('Normalize', mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])]
    results = {'img': IMAGE}
    for step in steps:
        results = step(results)
    np.testing.assert_allclose(results['img'], (IMAGE / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4],
                               atol=1e-5)


def test_bad_names_and_arguments():
    with pytest.raises(UnknownTypeError, match="'torchvision/RandomResizedCrop'"):
        build('RandomResizeCrop', size=3)
    with pytest.raises(ValueError, match="Did you mean 'bicubic'"):
        build('Resize', size=3, interpolation='cubic')
    with pytest.raises(ValueError, match='torchvision transform'):
        build('Compose', transforms=[{'type': 'Flip'}])
    with pytest.raises(TypeError, match='torchvision/Resize: .*siez'):
        build('Resize', siez=3)


def test_a_strip_stays_small():
    strip = np.broadcast_to(np.arange(10 ** 6, dtype=np.uint8), (1, 10 ** 6))
    resize = TRANSFORMS.build({'type': 'torchvision/Resize', 'size': 16})
    assert resize({'img': strip})['img_shape'] == (16, 32 * 16)
    whole = TRANSFORMS.build({'type': 'torchvision/Resize', 'size': [4, 8]})
    assert whole({'img': strip[:, :100]})['img_shape'] == (4, 8)
