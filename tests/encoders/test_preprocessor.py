import json

import numpy as np
import pytest
import torch

from retrieval.encoders import Mixup, RetrievalDataPreprocessor
from retrieval.encoders.preprocessor import parts_of_one_size
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample


def samples(labels):
    return [RetrievalDataSample(metainfo=dict(sample_idx=row, img_path=f'{row}.png'))
            .set_gt_label(label) for row, label in enumerate(labels)]


def test_by_default_images_are_stacked_to_float32_and_nothing_else():
    images = [torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8) for _ in range(3)]
    given = samples([2, 0, 1])
    out = RetrievalDataPreprocessor()(dict(inputs=images, data_samples=given))
    assert sorted(out) == ['data_samples', 'inputs']
    assert out['inputs'].shape == (3, 3, 4, 5) and out['inputs'].dtype == torch.float32
    for image, row in zip(images, out['inputs'], strict=True):
        assert np.array_equal(row.numpy(), image.numpy().astype('float32'))
    assert all(a is b for a, b in zip(out['data_samples'], given, strict=True))
    assert [int(s.gt_label) for s in given] == [2, 0, 1]
    assert not any('gt_score' in s for s in given)


def test_a_batch_tensor_gives_what_the_list_gives():
    images = torch.rand(4, 3, 6, 7)
    for options in ({}, dict(mean=[0.1, 0.2, 0.3], std=[1, 2, 3], to_rgb=True, pad_size_divisor=4)):
        preprocessor = RetrievalDataPreprocessor(**options)
        batch = preprocessor(dict(inputs=images))
        listed = preprocessor(dict(inputs=list(images)))
        assert torch.equal(batch['inputs'], listed['inputs'])
        assert batch['data_samples'] is None


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.float16, torch.float64])
def test_every_real_dtype_becomes_float32(dtype):
    images = [torch.ones(1, 2, 2, dtype=dtype)] * 2
    assert RetrievalDataPreprocessor()(dict(inputs=images))['inputs'].dtype == torch.float32


def test_reversed_channels_are_normalised_in_the_new_order():
    image = torch.randint(0, 256, (3, 2, 2), dtype=torch.uint8)
    preprocessor = RetrievalDataPreprocessor(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
    out = preprocessor(dict(inputs=[image]))['inputs'][0]
    for channel, (mean, std) in enumerate(zip((123.675, 116.28, 103.53),
                                              (58.395, 57.12, 57.375), strict=True)):
        expected = (image[2 - channel].float() - mean) / std
        torch.testing.assert_close(out[channel], expected)


def test_one_number_normalises_every_channel():
    out = RetrievalDataPreprocessor(mean=2, std=[4])(dict(inputs=[torch.full((3, 1, 1), 10.0)]))
    assert out['inputs'].flatten().tolist() == [2.0, 2.0, 2.0]


def test_unequal_images_are_padded_at_the_bottom_and_the_right():
    images = [torch.full((1, 3, 5), 7.0), torch.full((1, 4, 2), 9.0)]
    out = RetrievalDataPreprocessor(pad_value=-1)(dict(inputs=images))['inputs']
    expected = torch.full((2, 1, 4, 5), -1.0)
    expected[0, 0, :3, :5] = 7
    expected[1, 0, :4, :2] = 9
    assert torch.equal(out, expected)

    out = RetrievalDataPreprocessor(pad_value=-1, pad_size_divisor=4)(dict(inputs=images))
    assert out['inputs'].shape == (2, 1, 4, 8)
    assert torch.equal(out['inputs'][..., :5], expected) and (out['inputs'][..., 5:] == -1).all()


def test_parts_of_one_size():
    batch = dict(inputs=[torch.zeros(3, 4, 4), torch.zeros(3, 4, 5), torch.ones(3, 4, 4)],
                 data_samples=samples([0, 1, 2]))
    (first, one), (second, two) = parts_of_one_size(batch)
    assert (first, second) == ([0, 2], [1])
    assert [image.shape for image in one['inputs']] == [(3, 4, 4)] * 2
    assert two['data_samples'] == batch['data_samples'][1:2]
    for whole in (dict(inputs=torch.zeros(2, 3, 4, 4)), dict(inputs=batch['inputs'][:1]),
                  dict(inputs=[batch['inputs'], batch['inputs']]),  # views
                  {**batch, 'data_samples': batch['data_samples'][:2]}):  # refused further on
        assert next(iter(parts_of_one_size(whole)))[1] is whole


def test_views_become_a_list_of_batches():
    first, second = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 5, 5)
    for inputs in ([list(first), list(second)], (tuple(first), tuple(second)), [first, second]):
        out = RetrievalDataPreprocessor(mean=[1], std=[2])(
            dict(inputs=inputs, data_samples=samples([0, 1])))['inputs']
        assert isinstance(out, list) and len(out) == 2
        torch.testing.assert_close(out[0], (first - 1) / 2)
        torch.testing.assert_close(out[1], (second - 1) / 2)


def test_samples_move_to_the_device_and_stay_the_same_objects():
    preprocessor = RetrievalDataPreprocessor().to('meta')  # a second device that is always there
    given = samples([4, 5])
    given[0].set_gt_score([0.5, 0.5])
    out = preprocessor(dict(inputs=[torch.rand(3, 2, 2)] * 2, data_samples=given))
    assert out['inputs'].device.type == 'meta'
    assert all(a is b for a, b in zip(out['data_samples'], given, strict=True))
    assert given[0].gt_label.device.type == 'meta' and given[0].gt_label.shape == (1,)
    assert given[0].gt_score.device.type == 'meta' and given[0].gt_score.shape == (2,)
    assert given[1].img_path == '1.png'


def test_mixing_gives_copies_a_mixed_score_and_keeps_the_class():
    preprocessor = MODELS.build(dict(
        type='retrieval.RetrievalDataPreprocessor', num_classes=5,
        batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)], probs=[1.0])))
    images = [torch.full((1, 2, 2), float(i)) for i in range(4)]
    given = samples([3, 0, 4, 3])
    torch.manual_seed(5)
    out = preprocessor(dict(inputs=images, data_samples=given), training=True)
    torch.manual_seed(5)
    torch.multinomial(torch.tensor([1.0, 0.0]), 1)
    lam, partner = Mixup(0.8).draw(4)
    for i, (sample, j) in enumerate(zip(out['data_samples'], partner.tolist(), strict=True)):
        expected = torch.zeros(5)
        expected[given[i].gt_label] += lam
        expected[given[j].gt_label] += 1 - lam
        torch.testing.assert_close(sample.gt_score, expected)
        assert sample.gt_score.dtype == torch.float32
        assert torch.equal(sample.gt_label, given[i].gt_label) and sample.img_path == f'{i}.png'
        torch.testing.assert_close(out['inputs'][i],
                                   torch.full((1, 2, 2), lam * i + (1 - lam) * j))
        assert 'gt_score' not in given[i], 'a dataset may hand out the same sample again'


def test_nothing_is_mixed_outside_training():
    preprocessor = RetrievalDataPreprocessor(num_classes=2, batch_augments=Mixup(1.0))
    images = torch.rand(3, 1, 2, 2)
    out = preprocessor(dict(inputs=images, data_samples=samples([0, 1, 1])))
    assert torch.equal(out['inputs'], images)
    assert not any('gt_score' in sample for sample in out['data_samples'])


def test_labels_as_one_hot_scores():
    preprocessor = RetrievalDataPreprocessor(to_onehot=True, num_classes=3)
    given = samples([2, 0])
    out = preprocessor(dict(inputs=[torch.rand(1, 2, 2)] * 2, data_samples=given))
    assert out['data_samples'][0] is given[0]
    assert [s.gt_score.tolist() for s in out['data_samples']] == [[0, 0, 1], [1, 0, 0]]
    unlabelled = preprocessor(dict(inputs=[torch.rand(1, 2, 2)],
                                   data_samples=[RetrievalDataSample()]))
    assert 'gt_score' not in unlabelled['data_samples'][0]


def test_the_number_of_classes_may_come_from_the_augmentation():
    preprocessor = RetrievalDataPreprocessor(
        batch_augments=dict(augments=dict(type='CutMix', alpha=1.0, num_classes=7)))
    assert preprocessor.batch_augments is not None
    out = preprocessor(dict(inputs=torch.rand(2, 1, 4, 4), data_samples=samples([6, 1])), True)
    assert out['data_samples'][0].gt_score.shape == (7,)


def test_settings_are_what_changes_an_encoding():
    options = dict(mean=[123.675, 116, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True,
                   pad_size_divisor=32, pad_value=114)
    settings = RetrievalDataPreprocessor(**options).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert {name: settings[name] for name in options} == options
    same = RetrievalDataPreprocessor(**options, num_classes=9, batch_augments=Mixup(1.0),
                                     to_onehot=True, non_blocking=True)
    assert same.settings() == settings
    for name, value in dict(mean=[1, 2, 3], std=[1, 2, 3], to_rgb=False, pad_size_divisor=1,
                            pad_value=0).items():
        assert RetrievalDataPreprocessor(**{**options, name: value}).settings() != settings


def test_it_holds_no_state():
    assert not RetrievalDataPreprocessor(mean=[1, 2, 3], std=[1, 1, 1]).state_dict()


@pytest.mark.parametrize('options, error, says', [
    (dict(mean=[1, 2, 3]), ValueError, 'both mean and std'),
    (dict(std=[1, 2, 3]), ValueError, 'both mean and std'),
    (dict(mean=[1, 2, 3], std=[1, 2]), ValueError, 'one length'),
    (dict(mean=[1], std=[0]), ValueError, 'above 0'),
    (dict(mean='123', std=[1]), TypeError, 'numbers'),
    (dict(pad_size_divisor=0), ValueError, 'pad_size_divisor'),
    (dict(num_classes=-1), ValueError, 'num_classes'),
    (dict(batch_augments=dict(augments=[Mixup(1.0)], prob=[1])), ValueError, 'prob'),
    (dict(batch_augments=3), TypeError, 'batch_augments'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        RetrievalDataPreprocessor(**options)


@pytest.mark.parametrize('data, error, says', [
    ([torch.rand(3, 2, 2)], TypeError, 'dict'),
    (dict(images=1), TypeError, 'images'),
    (dict(inputs='a.png'), TypeError, 'str'),
    (dict(inputs=[]), ValueError, 'empty'),
    (dict(inputs=[[], []]), ValueError, 'empty'),
    (dict(inputs=[np.zeros((3, 2, 2))]), TypeError, 'ndarray'),
    (dict(inputs=[torch.rand(2, 2)]), ValueError, r'\(C, H, W\)'),
    (dict(inputs=torch.rand(3, 2, 2)), ValueError, r'\(B, C, H, W\)'),
    (dict(inputs=[torch.zeros(3, 2, 2, dtype=torch.bool)]), TypeError, 'bool'),
    (dict(inputs=[torch.zeros(3, 2, 2), torch.zeros(1, 2, 2)]), ValueError, 'channels'),
    (dict(inputs=[torch.zeros(3, 2, 2)], data_samples=[]), ValueError, '1 images and 0'),
])
def test_bad_batches(data, error, says):
    with pytest.raises(error, match=says):
        RetrievalDataPreprocessor()(data)


def test_channels_must_fit_the_settings():
    with pytest.raises(ValueError, match='3 numbers for images of 1 channels'):
        RetrievalDataPreprocessor(mean=[1, 2, 3], std=[1, 2, 3])(dict(inputs=[torch.rand(1, 2, 2)]))
    with pytest.raises(ValueError, match='to_rgb'):
        RetrievalDataPreprocessor(to_rgb=True)(dict(inputs=[torch.rand(4, 2, 2)]))


@pytest.mark.parametrize('num_classes, data, says', [
    (None, dict(inputs=torch.rand(2, 1, 2, 2), data_samples=samples([0, 1])), 'number of classes'),
    (2, dict(inputs=torch.rand(2, 1, 2, 2)), 'no data_samples'),
    (2, dict(inputs=torch.rand(2, 1, 2, 2), data_samples=samples([0, 2])), "2 of sample '1.png'"),
    (2, dict(inputs=torch.rand(1, 1, 2, 2), data_samples=[RetrievalDataSample()]), 'gt_label'),
    (2, dict(inputs=[torch.rand(1, 1, 2, 2)] * 2, data_samples=samples([0])), 'one view'),
])
def test_what_cannot_be_mixed(num_classes, data, says):
    preprocessor = RetrievalDataPreprocessor(num_classes=num_classes, batch_augments=Mixup(1.0))
    with pytest.raises(ValueError, match=says):
        preprocessor(data, training=True)
