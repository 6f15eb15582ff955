import numpy as np
import pytest
import torch

from retrieval.datasets.torchvision_bridge import NAMES
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


def test_bad_names_and_arguments():
    with pytest.raises(UnknownTypeError, match="'torchvision/RandomResizedCrop'"):
        build('RandomResizeCrop', size=3)
    with pytest.raises(ValueError, match="Did you mean 'bicubic'"):
        build('Resize', size=3, interpolation='cubic')
    with pytest.raises(ValueError, match='torchvision transform'):
        build('Compose', transforms=[{'type': 'Flip'}])
    with pytest.raises(TypeError, match='torchvision/Resize: .*siez'):
        build('Resize', siez=3)
