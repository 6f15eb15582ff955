import math

import pytest
import torch
from torch.nn.functional import one_hot

from retrieval.encoders import CutMix, Mixup, RandomBatchAugment, ResizeMix
from retrieval.registry import BATCH_AUGMENTS


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 8, 10, generator=generator)
    scores = one_hot(torch.tensor([0, 1, 2, 3, 1, 0]), 4).float()
    return images, scores


def test_mixup_is_the_same_weighted_mean_of_images_and_labels(batch):
    images, scores = batch
    torch.manual_seed(3)
    mixed, labels = Mixup(alpha=0.8)(images, scores)

    torch.manual_seed(3)
    lam, partner = Mixup(alpha=0.8).draw(len(images))
    assert 0 <= lam <= 1
    for i, j in enumerate(partner.tolist()):
        for channel in range(3):
            expected = [[lam * images[i, channel, y, x].item()
                         + (1 - lam) * images[j, channel, y, x].item() for x in range(10)]
                        for y in range(8)]
            torch.testing.assert_close(mixed[i, channel], torch.tensor(expected))
        torch.testing.assert_close(labels[i], lam * scores[i] + (1 - lam) * scores[j])
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(6))


@pytest.mark.parametrize('augment', [
    Mixup(0.5), CutMix(1.0), CutMix(1.0, cutmix_minmax=(0.3, 0.6)), ResizeMix(1.0)])
def test_inputs_are_left_alone_and_torchs_seed_reproduces(batch, augment):
    images, scores = batch
    before = images.clone(), scores.clone()
    torch.manual_seed(7)
    first = augment(images, scores)
    torch.manual_seed(7)
    second = augment(images, scores)
    assert torch.equal(images, before[0]) and torch.equal(scores, before[1])
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], augment(images, scores)[0])


@pytest.mark.parametrize('minmax', [None, (0.3, 0.6)])
def test_cutmix_replaces_one_box_and_labels_by_its_area(minmax):
    # Every image is one colour, so that where each pixel came from can be read off it.
    colours = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 10)
    scores = torch.eye(6)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, labels = CutMix(alpha=1.0, cutmix_minmax=minmax)(colours, scores)
        for i in range(6):
            replaced = mixed[i, 0] != i
            area = replaced.sum().item()
            torch.testing.assert_close(labels[i].sum(), torch.tensor(1.0))
            if area == 0:
                assert labels[i, i] == 1
                continue
            rows, columns = replaced.any(1).sum().item(), replaced.any(0).sum().item()
            assert rows * columns == area, 'the replaced pixels are no box'
            partner = mixed[i, 0][replaced].unique()
            assert len(partner) == 1
            assert labels[i, int(partner)].item() == pytest.approx(area / 80)
            assert labels[i, i].item() == pytest.approx(1 - area / 80)
            seen.add((rows, columns))
    if minmax is None:
        assert len(seen) > 10
    else:
        assert {rows for rows, _ in seen} <= set(range(2, 5))
        assert {columns for _, columns in seen} <= set(range(3, 7))


def test_cutmix_reaches_every_border():
    image = torch.zeros(2, 1, 6, 6)
    image[1] = 1
    touched = torch.zeros(6, 6, dtype=torch.bool)
    for seed in range(100):
        torch.manual_seed(seed)
        mixed, _ = CutMix(1.0)(image, torch.eye(2))
        touched |= mixed[0, 0] == 1
    assert touched.all()


def test_cutmix_without_correction_labels_with_the_drawn_share(batch):
    images, scores = batch
    torch.manual_seed(1)
    _, labels = CutMix(1.0, correct_lam=False)(images, torch.eye(6))
    torch.manual_seed(1)
    lam, partner = Mixup(1.0).draw(6)
    moved = [i for i, j in enumerate(partner.tolist()) if i != j]
    assert labels[moved[0], moved[0]].item() == pytest.approx(lam)


def test_resizemix_pastes_the_whole_other_image_made_smaller():
    images = torch.rand(2, 3, 8, 12)
    seen = 0
    for seed in range(60):
        torch.manual_seed(seed)
        mixed, labels = ResizeMix(1.0, lam_min=0.1, lam_max=0.8)(images, torch.eye(2))
        changed = (mixed[0] != images[0]).any(0)
        if labels[0, 0] == 1:  # the image's partner was itself
            continue
        seen += 1
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        small = torch.nn.functional.interpolate(images[1:], (bottom - top, right - left),
                                                mode='bilinear')[0]
        torch.testing.assert_close(mixed[0, :, top:bottom, left:right], small)
        share = (bottom - top) * (right - left) / 96
        torch.testing.assert_close(labels[0], torch.tensor([1 - share, share]))
        assert share <= 0.9  # an image keeps lam_min at least
    assert seen > 20


def test_resizemix_mixes_a_share_of_the_batches(batch):
    augment = ResizeMix(1.0, prob=0.3)
    torch.manual_seed(0)
    kept = sum(augment(*batch)[0] is batch[0] for _ in range(400))
    assert abs(kept / 400 - 0.7) < 4 * math.sqrt(0.3 * 0.7 / 400)


def test_one_augmentation_is_drawn_by_its_probability(batch):
    images, scores = batch
    marks = [lambda x, y, k=k: (k, y) for k in range(2)]
    augment = RandomBatchAugment(marks, probs=[0.5, 0.2])
    torch.manual_seed(0)
    drawn = [augment(images, scores)[0] for _ in range(600)]
    counts = [sum(d is k or (not torch.is_tensor(d) and d == k) for d in drawn) for k in range(2)]
    nothing = sum(torch.is_tensor(d) for d in drawn)
    for count, share in zip([*counts, nothing], [0.5, 0.2, 0.3], strict=True):
        assert abs(count / 600 - share) < 4 * math.sqrt(share * (1 - share) / 600)

    evenly = RandomBatchAugment(marks)
    drawn = [evenly(images, scores)[0] for _ in range(200)]
    assert {*drawn} == {0, 1}


def test_configs_are_built_and_a_single_one_needs_no_list(batch):
    single = RandomBatchAugment(dict(type='Mixup', alpha=1, num_classes=4), probs=1.0)
    assert isinstance(single.augments[0], Mixup) and single.num_classes == 4
    several = RandomBatchAugment([dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
    assert [type(a) for a in several.augments] == [Mixup, CutMix] and several.num_classes is None
    assert BATCH_AUGMENTS.get('CutMix') is CutMix


@pytest.mark.parametrize('build, says', [
    (lambda: Mixup(0), 'alpha must be above 0'),
    (lambda: Mixup(1.0, num_classes=0), 'num_classes'),
    (lambda: CutMix(1.0, cutmix_minmax=(0.9, 0.1)), 'cutmix_minmax'),
    (lambda: ResizeMix(1.0, lam_min=0.9), 'lam_min and lam_max'),
    (lambda: ResizeMix(1.0, prob=2), 'prob must be'),
    (lambda: ResizeMix(1.0, interpolation='cubic'), 'interpolation must be'),
    (lambda: RandomBatchAugment([]), 'empty'),
    (lambda: RandomBatchAugment([Mixup(1.0)], probs=[0.5, 0.5]), '2 entries for 1'),
    (lambda: RandomBatchAugment([Mixup(1.0)], probs=[1.5]), 'at most 1'),
    (lambda: RandomBatchAugment(dict(type='Mixupp', alpha=1.0)), "'Mixup'"),
    (lambda: RandomBatchAugment([Mixup(1.0, 3), CutMix(1.0, num_classes=4)]).num_classes,
     'disagree'),
])
def test_bad_values(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_an_alpha_that_is_no_number():
    with pytest.raises(TypeError, match="alpha must be a number, got '0.8'"):
        Mixup('0.8')


def test_something_that_is_no_augmentation():
    with pytest.raises(TypeError, match='config such as'):
        RandomBatchAugment('Mixup')
