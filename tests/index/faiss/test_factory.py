"""Factory strings, and the parameters of what they build."""
from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest

from retrieval.index.faiss import factory
from retrieval.index.faiss.factory import (
    build,
    checked_parameters,
    knobs,
    plain_factory,
    set_seed,
    skip_polysemous,
    trial,
)


def test_the_least_value_of_each_parameter():
    valid = knobs(build('IVF4,PQ4x4', 8, 'euclidean'))
    assert checked_parameters(dict(max_codes=0, ht=0, nprobe=1), valid, 'x') == dict(
        max_codes=0, ht=0, nprobe=1)
    for name, value in (('nprobe', 0), ('max_codes', -1), ('ht', -1), ('nprobe', 1.5)):
        with pytest.raises(ValueError, match='a whole number of at least [01]'):
            checked_parameters({name: value}, valid, 'x')
    assert knobs(build('PQ4x4,RFlat', 8, 'euclidean'))['k_factor_rf'].least == 1
    with pytest.raises(FrozenInstanceError):
        valid['nprobe'].least = 3


def test_a_number_in_a_factory_has_a_limit():
    assert plain_factory(f'IDMap,IVF{2 ** 24},Flat') == f'IVF{2 ** 24},Flat'
    for text, message in ((f'IVF{2 ** 24 + 1},Flat', 'above 16777216'), ('IDMap2', 'is empty'),
                          ('HNSW0', 'HNSW0: give a number above 0')):
        with pytest.raises(ValueError, match=message):
            plain_factory(text)


def test_the_reason_is_that_of_the_first_metric():
    with pytest.raises(ValueError, match=r'with cosine_similarity: \w+'):
        build('Nothing', 8, 'cosine_similarity')
    with pytest.raises(ValueError, match=r"'PQ7' for vectors of width 16 .*: \w+"):
        build('PQ7', 16, 'euclidean')


@pytest.mark.parametrize('text', ['PQ12x4', 'PQ7', 'OPQ11_44,PQ11', 'PQ13x4fs'])
def test_a_width_is_found_for_an_odd_factory(text):
    assert knobs(trial(text, 'euclidean')).keys() <= {'ht'}


def test_any_whole_number_is_a_seed(monkeypatch):
    part = SimpleNamespace(cp=SimpleNamespace(seed=0))
    monkeypatch.setattr(factory, 'chain', lambda index: [part])
    for seed, kept in ((5, 5), (2 ** 31 + 5, 5), (-1, 2 ** 31 - 1)):
        set_seed(None, seed)
        assert part.cp.seed == kept


def test_polysemous_training_is_left_out():
    index = build('PQ4x4', 8, 'euclidean')
    index.do_polysemous_training = True
    skip_polysemous(index)
    assert not index.do_polysemous_training
