"""Where to cut without labels, on scores whose distribution is known, and by counting."""
import math

import numpy as np
import pytest
import torch

from retrieval.evaluation import MatchCalibration, calibrate_without_labels
from retrieval.evaluation.without_labels import _conformal, _exponential

TAIL = dict(method='tail', slope=20., offset=-8.)


def ranking(rng, count=400, scale=0.05):
    """Falling scores with an exponential tail: no match among them."""
    return np.sort(rng.exponential(scale, count))[::-1] + 0.2


def test_the_evidence_of_an_exponential_tail():
    """Of n scores that are exponential with mean b, n exp(-s / b) are expected above s."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.exponential(0.05, (2000, 400)), 1)[:, ::-1]
    slope, offset = _exponential(scores, (5, 30))
    assert 1 / slope == pytest.approx(0.05, rel=0.05)
    tail = MatchCalibration(0., method='tail', slope=slope, offset=offset)
    evidence = tail.evidence(scores, np.full(2000, 0.05 * math.log(400)))
    assert np.median(evidence) == pytest.approx(0, abs=0.1), 'where one is expected'


def test_evidence_counts_non_matches():
    """Where one non-match is expected, one is found on average; at a tenth of that, 0.1."""
    rng = np.random.default_rng(1)
    rows = torch.nn.functional.normalize(torch.randn(
        1500, 32, generator=torch.Generator().manual_seed(1)))
    tail = calibrate_without_labels(rows)
    fresh = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(1500, 32))).float())
    lists = -np.sort(-(fresh @ rows.T).double().numpy(), 1)
    for expected in (1., 0.1):
        found = [(one >= (-math.log(expected) - own.offset - 2) / own.slope).sum()
                 for one in lists for own in [tail.of_query(one)]]
        assert np.mean(found) == pytest.approx(expected, rel=0.35)


def test_half_of_the_tail_is_taken_from_the_scores():
    """By hand: 20 (0.9 - 0.5 / 2) - 8 = 5, and the probability is of 2 less."""
    scores = np.array([.9, *[.5] * 39])
    own = MatchCalibration(4., **TAIL).of_query(scores)
    assert own.probability(.9) == pytest.approx(1 / (1 + math.exp(-3)))
    assert own.threshold == pytest.approx((4 + 8) / 20 + .25)
    moved = MatchCalibration(4., **TAIL).of_query([.9, *[.6] * 39])
    assert moved.threshold == pytest.approx(own.threshold + .05)
    deeper = scores.copy()
    deeper[1:5] = .89  # the first five may all match
    deeper[30:] = .1
    assert MatchCalibration(4., **TAIL).of_query(deeper).threshold == own.threshold


def test_beside_a_sure_match_a_poor_one_is_none():
    tail = MatchCalibration(0., **TAIL)
    alone = tail.of_query([.66, .66, *[.5] * 38])
    beside = tail.of_query([.9, .66, *[.5] * 38])
    assert alone.is_match(.66) and beside.is_match(.9) and not beside.is_match(.66)
    assert beside.threshold == pytest.approx((0.4 * 5 + 8) / 20 + .25), 'two fifths of 5'
    low = MatchCalibration(-3., **TAIL).of_query([.6, *[.5] * 39])  # whose evidence is -1
    assert low.is_match(.6) and low.is_match(.55) and not low.is_match(.49)


def test_flat_calibrations_are_for_every_query():
    flat = MatchCalibration(0.5)
    assert flat.of_query([0.1]) is flat and flat.depth == flat.fewest == 0


def test_a_tail_is_of_a_ranking(tmp_path):
    tail = MatchCalibration(0., **TAIL, ranks=(3, 20))
    for ask in (tail.probability, tail.is_match):
        with pytest.raises(ValueError, match='of_query'):
            ask(0.5)
    with pytest.raises(ValueError, match='takes 9 at least'):
        tail.of_query([0.9] * 8)
    with pytest.raises(ValueError, match='ranks must be'):
        MatchCalibration(0., **TAIL, ranks=(10, 20))
    with pytest.raises(ValueError, match='slope above 0'):
        MatchCalibration(0., method='tail')
    tail.save(tmp_path / 'tail.json')
    assert MatchCalibration.load(tmp_path / 'tail.json') == tail


def test_what_earlier_releases_wrote_and_read(tmp_path):
    MatchCalibration(0.5).save(tmp_path / 'flat.json')
    text = (tmp_path / 'flat.json').read_text()
    assert '"version": 1' in text.replace('":1', '": 1') and 'ranks' not in text


def test_equal_scores_are_no_match():
    made = calibrate_without_labels(torch.ones(40, 8))
    own = made.of_query([1.] * 39)
    assert not own.is_match(0.99) and math.isfinite(own.threshold)


@pytest.fixture(scope='module')
def planted():
    """1,000 rows, 300 of them twice with noise, 300 strangers, and 300 noisy copies."""
    generator = torch.Generator().manual_seed(3)
    rows, strangers = (torch.randn(count, 24, generator=generator) for count in (1000, 300))

    def noisy(count):
        return rows[:count] + 0.35 * torch.randn(count, 24, generator=generator)
    return torch.cat([rows, noisy(300)]), strangers, noisy(300), generator


def found(calibration, queries, gallery):
    """The share of queries that get a result."""
    scores = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2)
    top = scores.sort(1, descending=True).values[:, :40].numpy()
    return np.mean([calibration.of_query(one).is_match(one[0]) for one in top])


@pytest.mark.parametrize('target', [0.05, 0.2])
def test_the_rate_of_queries_without_a_match(planted, target):
    gallery, strangers, copies, generator = planted
    fresh = torch.randn(500, 24, generator=generator)
    guessed = calibrate_without_labels(gallery, 'no_match', target)
    assert target / 20 < found(guessed, fresh, gallery) <= target
    proved = calibrate_without_labels(gallery, 'no_match', target, strangers=strangers)
    assert found(proved, fresh, gallery) == pytest.approx(target, abs=0.06)
    assert found(proved, strangers, gallery) <= target
    assert found(proved, copies, gallery) > 0.9


def test_the_coverage_of_altered_pictures(planted):
    gallery, _, copies, _ = planted
    made = calibrate_without_labels(gallery, 'coverage', 0.8, altered=(copies[:150], range(150)))
    scores = torch.nn.functional.cosine_similarity(copies[150:, None], gallery[None], dim=2)
    covered = covers(made, scores.numpy(), np.arange(150, 300))
    assert covered.mean() == pytest.approx(0.8, abs=0.08)
    assert made.measured['coverage'] == pytest.approx(0.8, abs=0.01)


def covers(calibration, scores, originals):
    """Whether each query finds its original in its whole ranking ``(Q, N)``."""
    return np.array([calibration.of_query(np.sort(one)[::-1]).is_match(float(one[original]))
                     for one, original in zip(scores, originals, strict=True)])


def test_a_far_nearer_picture_hides_an_original():
    """Of 100 altered pictures 10 lie by another row: their originals are no match beside it."""
    generator = torch.Generator().manual_seed(4)
    gallery = torch.randn(400, 64, generator=generator)
    altered = gallery[:100] + 0.5 * torch.randn(100, 64, generator=generator)
    altered[:10] = gallery[200:210] + 0.2 * gallery[:10]
    made = calibrate_without_labels(gallery, 'coverage', 0.85, altered=(altered, range(100)))
    scores = torch.nn.functional.cosine_similarity(altered[:, None], gallery[None], dim=2)
    found = covers(made, scores.numpy() + 1e-6 * np.eye(100, 400), np.arange(100))
    assert not found[:10].any(), 'at no threshold'
    assert found.sum() == 86, 'ceil(101 * 0.85), of those that calibrate'
    assert made.measured['coverage'] == 0.86
    with pytest.raises(ValueError, match=r'for 10\.0% another picture'):
        calibrate_without_labels(gallery, 'coverage', 0.95, altered=(altered, range(100)))


@pytest.mark.parametrize(('count', 'share', 'place'),
                         [(19, 0.8, 16), (34, 0.9, 32), (67, 0.95, 65)])
def test_a_bound_is_kept_as_often_as_it_says(count, share, place):
    """2,000 draws: of ``count + 1`` exchangeable values the next is below the one at ``place``
    with a probability of ``place / (count + 1)``, exactly: the first at or above ``share``.
    """
    assert (place - 1) / (count + 1) < share <= place / (count + 1)
    draws = np.random.default_rng(6).exponential(size=(2000, count + 1))
    kept = np.mean([one[-1] <= _conformal(one[:-1], share, 'values') for one in draws])
    exact = place / (count + 1)
    assert kept == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 2000))


def test_where_nothing_matches_the_gallery_itself_says_how_near_strangers_are():
    """Rows that keep their distance have a bounded tail, which Gumbel's distribution has not."""
    generator, rows = torch.Generator().manual_seed(5), torch.empty(0, 6)
    for row in torch.nn.functional.normalize(torch.randn(4000, 6, generator=generator)):
        if (rows @ row < 0.9).all():
            rows = torch.cat([rows, row[None]])
    rates, bars = [], []
    for _ in range(6):
        drawn = rows[torch.randperm(len(rows), generator=generator)]
        gallery, fresh = drawn[:400], drawn[400:]
        made = calibrate_without_labels(gallery, 'no_match', 0.2)
        rates.append(found(made, fresh, gallery))
        alone = gallery @ gallery.T
        alone.fill_diagonal_(-2)
        nearest = alone.sort(1, descending=True).values[:, :40].double().numpy()
        assert made.measured['queries'] == 400
        bars.append(np.mean([made.of_query(one).is_match(one[0]) for one in nearest]))
    assert np.mean(rates) == pytest.approx(0.2, abs=0.05)
    # above the 321st of 400, ceil(401 * 0.8); which is itself one where it is rounded
    assert bars == pytest.approx([79 / 400] * 6, abs=1.01 / 400)


def test_of_few_rows_the_fit_alone_says_it():
    made = calibrate_without_labels(torch.randn(30, 16, generator=torch.Generator().manual_seed(7)),
                                    'no_match', 0.01)
    assert made.threshold == pytest.approx(-math.log(-math.log1p(-0.01)))


def test_a_calibration_of_an_earlier_release_is_read(tmp_path):
    (tmp_path / 'kept.json').write_text(
        '{"format": "retrieval.MatchCalibration", "version": 3, "threshold": 2.97, '
        '"class_thresholds": {}, "method": "tail", "slope": 20.0, "offset": -8.0, "knots": [], '
        '"similarity": "cosine_similarity", "measured": {"criterion": "no_match", "target": 0.05, '
        '"queries": 400, "strangers": false}, "ranks": [5, 30]}')
    own = MatchCalibration.load(tmp_path / 'kept.json').of_query([.9, *[.5] * 39])
    assert own.threshold == pytest.approx((2.97 + 8) / 20 + .25)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(criterion='f1'), 'Unknown criterion without labels'),
    (dict(criterion='coverage'), 'needs altered'),
    (dict(target=-1), 'target'),
    (dict(criterion='no_match', target=1.5), 'target'),
    (dict(criterion='no_match', target=0.01, strangers=torch.ones(20, 24)), '99 at least'),
])
def test_what_is_refused(planted, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate_without_labels(planted[0][:200], **options)


def test_too_few_rows():
    with pytest.raises(ValueError, match='takes 15 at least'):
        calibrate_without_labels(torch.eye(10))
