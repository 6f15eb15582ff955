import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retrieval.distributed import (
    Meeting,
    all_gather_rows,
    all_gather_with_gradient,
    first_of_each,
    gather_samples,
    rank,
    shard,
    world_size,
)

from .processes import leave_group


def test_shards_cover_everything_once():
    for count in (0, 1, 7, 100):
        for parts in (1, 2, 3, 8):
            shares = [shard(count, part, parts) for part in range(parts)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_first_occurrences_by_rising_number():
    index = torch.tensor([4, 1, 4, 0, 1])
    assert first_of_each(index).tolist() == [3, 1, 0]


def test_one_process_only_sorts():
    index, values, names = gather_samples(
        torch.tensor([2, 0, 1]), torch.tensor([20., 0., 10.]), ['c', 'a', 'b'])
    assert index.tolist() == [0, 1, 2] and values.tolist() == [0, 10, 20]
    assert names == ['a', 'b', 'c'] and world_size() == 1 and rank() == 0
    rows = torch.rand(3, 2, requires_grad=True)
    assert all_gather_with_gradient(rows) is rows
    with pytest.raises(ValueError, match='1 entries for 2'):
        gather_samples(torch.tensor([0, 1]), ['a'])


def process(number, world, path):
    dist.init_process_group('gloo', init_method=f'file://{path}', rank=number, world_size=world)
    # seven samples dealt out in turn, with the padding duplicate that a sampler adds
    mine = [i % 7 for i in range(number, 8 if world == 2 else 9, world)]
    mine = mine if number or world < 3 else []  # one process may hold nothing
    rows = all_gather_rows(torch.arange(number * 2).reshape(number, 2).float())
    assert rows.shape == (sum(range(world)), 2)
    index, vectors, names = gather_samples(
        torch.tensor(mine, dtype=torch.int64),
        torch.tensor([[i, -i] for i in mine]).float().reshape(-1, 2), [f'n{i}' for i in mine])
    wanted = sorted(set(range(7)) if world == 2 else {1, 2, 4, 5, 0, 7 % 7, 8 % 7})
    assert index.tolist() == wanted
    assert vectors.tolist() == [[i, -i] for i in wanted]
    assert names == [f'n{i}' for i in wanted]
    check_gradient(number, world)
    mask = all_gather_rows(torch.tensor([True] * number + [False]))
    assert mask.tolist() == [one for n in range(world) for one in [True] * n + [False]]
    meeting = Meeting()
    meeting.agree(None)
    with pytest.raises(OSError if number == 1 else ValueError, match='disk of 1'):
        meeting.agree(OSError('disk of 1') if number == 1 else None)
    leave_group()


def check_gradient(number, world):
    """Process p holds p rows; its own loss weighs row i of all by (p + 1) · (i + 1)."""
    mine = torch.full((number, 2), float(number)).requires_grad_()
    rows = all_gather_with_gradient(mine)
    assert rows.tolist() == [[p, p] for p in range(world) for _ in range(p)]
    places = torch.arange(1., len(rows) + 1)[:, None]
    ((number + 1) * places * rows).sum().backward()
    start, factor = sum(range(number)), sum(range(1, world + 1))
    assert mine.grad.tolist() == [[factor * (start + i + 1)] * 2 for i in range(number)]


@pytest.mark.parametrize('world', [2, 3])
def test_uneven_shares_are_gathered_once(world, tmp_path):
    mp.spawn(process, args=(world, tmp_path / 'store'), nprocs=world)
