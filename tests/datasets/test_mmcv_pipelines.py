"""MMCV's own transforms between our datasets and our packing."""
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.datasets import CSVDataset, ImageFolder, LoadImage, UnreadableImageError
from retrieval.encoders import RetrievalDataPreprocessor
from retrieval.registry import TRANSFORMS

from .photos import photo

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # of RGB
IMAGES = [photo(60, 40, seed) for seed in range(4)]


@pytest.fixture
def folder(tmp_path):
    """Two classes of two PNG files, and a table with boxes."""
    lines = ['path,label,split,x_1,x_2,y_1,y_2']
    for number, image in enumerate(IMAGES):
        name = f'{"ab"[number % 2]}/{number}.png'
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
        lines.append(f'{name},{number % 2},train,{10 + number},{50 + number},5,35')
    (tmp_path / 'table.csv').write_text('\n'.join(lines) + '\n')
    return tmp_path


def image_of(item):
    """The picture's number, from its path."""
    return IMAGES[int(item['data_samples'].img_path.rsplit('/', 1)[-1][0])]


def normalised(image):
    return (image.astype(np.float32) - MEAN) / STD


def test_reading_resizing_cropping_and_bgr(folder):
    dataset = ImageFolder(str(folder), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(30, 20)),
        dict(type='CenterCrop', crop_size=(16, 12)), dict(type='PackInputs')])
    for item in (dataset[row] for row in range(4)):
        sample, image = item['data_samples'], image_of(item)
        small = cv2.resize(image, (30, 20), interpolation=cv2.INTER_LINEAR)[4:16, 7:23]
        rgb = item['inputs'].flip(0).permute(1, 2, 0).numpy()  # it reads BGR
        np.testing.assert_array_equal(rgb, small)
        assert sample.ori_shape == (40, 60) and sample.img_shape == (12, 16)
        assert 'scale_factor' not in sample.metainfo_keys()
        # so the preprocessor has to turn the channels, with mean and std of RGB …
        batch = RetrievalDataPreprocessor(MEAN, STD, to_rgb=True)({'inputs': [item['inputs']]})
        np.testing.assert_allclose(batch['inputs'][0].permute(1, 2, 0).numpy(), normalised(small),
                                   atol=1e-5)


def test_normalising_in_the_pipeline(folder):
    """… or MMCV's Normalize does, and the preprocessor nothing."""
    dataset = ImageFolder(str(folder), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Normalize', mean=MEAN, std=STD, to_rgb=True),
        dict(type='PackInputs')])
    item = dataset[1]
    assert item['inputs'].dtype == torch.float32
    batch = RetrievalDataPreprocessor()({'inputs': [item['inputs']]})
    np.testing.assert_allclose(batch['inputs'][0].permute(1, 2, 0).numpy(),
                               normalised(image_of(item)), atol=1e-5)


def test_our_loader_before_mmcvs_transforms_is_rgb(folder):
    steps = [dict(type='Normalize', mean=MEAN, std=STD, to_rgb=False), dict(type='PackInputs')]
    ours = ImageFolder(str(folder), pipeline=[dict(type='LoadImage'), *steps])[2]
    np.testing.assert_allclose(ours['inputs'].permute(1, 2, 0).numpy(), normalised(image_of(ours)),
                               atol=1e-5)
    as_bgr = ImageFolder(str(folder), pipeline=[dict(type='LoadImage', color='bgr'),
                                                dict(type='PackInputs')])[2]
    theirs = ImageFolder(str(folder), pipeline=[dict(type='LoadImageFromFile'),
                                                dict(type='PackInputs')])[2]
    assert torch.equal(as_bgr['inputs'], theirs['inputs'])


@pytest.mark.parametrize('direction, turn', [('horizontal', np.s_[:, ::-1]),
                                             ('vertical', np.s_[::-1])])
def test_flips(folder, direction, turn):
    item = ImageFolder(str(folder), pipeline=[
        dict(type='LoadImage'), dict(type='RandomFlip', prob=1., direction=direction),
        dict(type='PackInputs')])[0]
    np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0).numpy(), image_of(item)[turn])


def test_others_and_their_randomness(folder):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResize', scale=(60, 60), ratio_range=(0.5, 1.), keep_ratio=True),
        dict(type='Pad', size=(64, 64)),
        dict(type='RandomGrayscale', prob=0.5, keep_channels=True),
        dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    dataset = ImageFolder(str(folder), pipeline=pipeline)
    dataset.set_seed(4)
    first = [dataset[row]['inputs'] for row in range(4)]
    again = [dataset[row]['inputs'] for row in (3, 1, 0, 2)]
    assert all(torch.equal(first[row], other)
               for row, other in zip((3, 1, 0, 2), again, strict=True))
    assert first[0].shape == (3, 64, 64) and first[0].dtype == torch.uint8
    dataset.set_epoch(1)
    assert not all(torch.equal(first[row], dataset[row]['inputs']) for row in range(4))


def test_tensors_and_floats(folder):
    item = ImageFolder(str(folder), pipeline=[
        dict(type='LoadImageFromFile', to_float32=True), dict(type='ImageToTensor', keys=['img']),
        dict(type='PackInputs')])[0]
    assert item['inputs'].dtype == torch.float32
    np.testing.assert_array_equal(item['inputs'].flip(0).permute(1, 2, 0).numpy(), image_of(item))


def test_a_box_is_cut_out_right_after_mmcvs_loader(folder):
    steps = [dict(type='Resize', scale=(20, 15)), dict(type='PackInputs')]
    theirs = CSVDataset(str(folder / 'table.csv'), data_root=str(folder), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='CropBox'), *steps])
    ours = CSVDataset(str(folder / 'table.csv'), data_root=str(folder), pipeline=[
        dict(type='LoadImage'), *steps])
    for row in range(4):
        cut = image_of(theirs[row])[5:35, 10 + row:50 + row]
        small = cv2.resize(cut, (20, 15), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(ours[row]['inputs'].permute(1, 2, 0).numpy(), small)
        assert torch.equal(theirs[row]['inputs'].flip(0), ours[row]['inputs'])
        assert theirs[row]['data_samples'].box == (10 + row, 5, 50 + row, 35)
        assert theirs[row]['data_samples'].ori_shape == (40, 60)


def test_a_box_after_resizing_is_refused(folder):
    late = CSVDataset(str(folder / 'table.csv'), data_root=str(folder), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(30, 20)), dict(type='CropBox'),
        dict(type='PackInputs')])
    with pytest.raises(ValueError, match=r'whole picture \(40, 60\).*\(20, 30\).*right after'):
        late[0]


def test_damaged_and_missing_files(folder, tmp_path):
    path = folder / 'a' / '0.png'
    dataset = ImageFolder(str(folder), on_unreadable='skip', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    path.write_bytes(b'text')
    assert 'a/0.png' in dataset[0]['data_samples'].unreadable
    path.unlink()
    assert 'a/0.png' in dataset[0]['data_samples'].unreadable
    load = TRANSFORMS.build(dict(type='LoadImageFromFile'))
    path.write_bytes(b'text')
    with pytest.raises(UnreadableImageError, match='a/0.png'):
        load({'img_path': str(path)})
    assert TRANSFORMS.build(dict(type='LoadImageFromFile', ignore_empty=True))(
        {'img_path': str(tmp_path / 'absent.png')}) is None
    np.testing.assert_array_equal(
        load({'img_path': str(folder / 'b' / '1.png')})['img'],
        LoadImage('bgr')({'img_path': str(folder / 'b' / '1.png')})['img'])
