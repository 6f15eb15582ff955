"""Marks as pairs of embeddings."""
import json

import pytest
import torch

from retrieval.server.marks import (
    Mark,
    MarkedPairs,
    held_out,
    marked_pairs,
    read_marks,
    train_projection,
)
from retrieval.server.pictures import Pictures

from .conftest import COLOURS, picture
from .test_feedback import noisy_classes


def test_the_last_of_each_pair_counts_and_broken_lines_do_not(tmp_path):
    path = tmp_path / 'marks.csv'
    path.write_text('query,result,right,time\n"{""id"": ""a""}",b,1,0\n"{""id"": ""a""}",b,0,1\n'
                    '"{""upload"": ""u""}",b,1,2\nno query,c,1,3\n"{""id"": ""a""}",c')
    assert read_marks(path) == [Mark('{"id": "a"}', 'b', False), Mark('{"upload": "u"}', 'b', True)]


def test_what_holds_no_marks(tmp_path):
    with pytest.raises(FileNotFoundError, match='no marks'):
        read_marks(tmp_path / 'absent.csv')
    (tmp_path / 'other.csv').write_text('path,label\na.png,0\n')
    with pytest.raises(ValueError, match=r'path.*label'):
        read_marks(tmp_path / 'other.csv')


def test_pairs_of_rows_uploads_and_parts(tmp_path):
    """Rows come from the gallery; other queries are encoded, each once; what is gone is counted."""
    (tmp_path / 'marked').mkdir()
    picture(COLOURS['red'], 0).save(tmp_path / 'marked' / 'u', 'PNG')
    picture(COLOURS['blue'], 10).save(tmp_path / 'a.png')
    ids, encoded = [str(tmp_path / name) for name in ('a.png', 'b.png')], []

    def encode(given):
        encoded.append(given if isinstance(given, str) else given.shape)
        if isinstance(given, str):
            open(given).close()
        return torch.tensor([3., 4.])
    box = [0.5, 0, 0.5, 1]
    queries = [dict(id='a.png'), dict(upload='u'), dict(upload='u'), dict(id='a.png', box=box),
               dict(id='gone.png'), dict(upload='gone'), dict(id='b.png', box=box)]
    marks = [Mark(json.dumps(query), 'b.png', number % 2 == 0)
             for number, query in enumerate(queries)] + [Mark('{"id": "a.png"}', 'gone.png', True)]
    pairs = marked_pairs(marks, torch.tensor([[2., 0.], [0., 5.]]), ids, {'a.png': 0, 'b.png': 1},
                         Pictures(tmp_path, [], f'{tmp_path}/'), encode)
    assert encoded[:2] == [str(tmp_path / 'marked' / 'u'), (40, 30, 3)]
    torch.testing.assert_close(pairs.queries, torch.tensor([[1., 0], [.6, .8], [.6, .8], [.6, .8]]))
    assert pairs.results.tolist() == [[0., 1.]] * 4 and pairs.right.tolist() == [1, 0, 1, 0]
    assert pairs.gone == 4
    with pytest.raises(ValueError, match='2 right and 2 wrong .4 more'):
        pairs.check()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('one_thread')
def test_the_gradient_is_that_of_torch():
    """The same loss by autograd and torch's Adam, in float64."""
    from torch.nn.functional import binary_cross_entropy_with_logits, normalize

    queries, results = (normalize(torch.randn(24, 40).double()) for _ in 'qr')
    right = (torch.arange(24) % 3 == 0).double()
    generator = torch.Generator().manual_seed(0)
    down = (torch.randn(40, 32, generator=generator) / 40 ** 0.5).double().requires_grad_()
    up = torch.zeros(32, 40, dtype=torch.float64, requires_grad=True)
    scores = (queries * results).sum(1)
    level = torch.quantile(scores, 0.5).clone().requires_grad_()
    adam = torch.optim.Adam([down, up, level], lr=0.01)
    weight = torch.where(right > 0, 0.5 / right.mean(), 0.5 / (1 - right.mean()))
    for _ in range(150):
        adam.zero_grad()
        scores = (normalize(queries + queries @ down @ up)
                  * normalize(results + results @ down @ up)).sum(1)
        loss = binary_cross_entropy_with_logits(10 * (scores - level), right, weight)
        (loss + 0.05 * (down @ up).square().sum()).backward()
        adam.step()
    wanted = torch.eye(40, dtype=torch.float64) + down.detach() @ up.detach()
    made = train_projection(queries, results, right)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)


def test_held_out_marks_are_not_trained_on():
    """Marks that are noise are not ordered better by what others teach; classes are."""
    vectors, labels = noisy_classes(3, each=16)
    unit = torch.nn.functional.normalize(vectors)
    pairs = [(query, (query + step) % len(labels)) for query in range(40) for step in (4, 8, 1, 2)]
    marks = [Mark(f'{{"id": "{one}"}}', str(other), True) for one, other in pairs]
    ones, others = (unit[list(side)] for side in zip(*pairs, strict=True))
    right = torch.tensor([float(labels[one] == labels[other]) for one, other in pairs])
    taught = held_out(MarkedPairs(marks, ones, others, right))
    assert taught.ordered_after > taught.ordered_before + 0.1
    # of random pairs a training can learn all by heart, and nothing of the others
    queries, results = (torch.nn.functional.normalize(torch.randn(160, 200)) for _ in 'qr')
    chance = (torch.rand(160) < 0.5).float()
    noise = held_out(MarkedPairs(marks, queries, results, chance))
    assert abs(noise.ordered_after - 0.5) < 0.15
