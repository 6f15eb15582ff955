"""The load checker for some seconds; and that it sees what is wrong."""
import importlib.util
from collections import Counter
from pathlib import Path
from threading import Event

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / 'benchmarks' / 'serving_load.py'


@pytest.fixture(scope='module')
def serving_load():
    spec = importlib.util.spec_from_file_location('serving_load', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_nothing_wrong_and_nothing_lost(serving_load):
    assert serving_load.load(1 / 3, clients=3, kill_every=9) == []


class Lying:
    """A server that answers each search with the same row, at the wrong score."""

    def ask(self, method, path, body=None, kind=''):
        return 200, (b'{"results": [' + b', '.join(
            [b'{"id": "c0-1", "score": 0.5}'] * 10) + b'], "embedding": [1, 0]}')


def test_the_checker_sees_what_is_wrong(serving_load):
    wrong = []
    client = serving_load.Client(Lying(), 0, Event(), Counter(), wrong)
    rows = np.eye(serving_load.WIDTH)
    client.held = {'c0-0': rows[0]}
    client.gone = ['c0-1']
    client.search()
    assert any('not found' in said for said in wrong)
    assert any('was removed, and found' in said for said in wrong)
    client.held['c0-1'] = rows[1]
    client.search()
    assert any('has the score' in said for said in wrong)
    wrong.clear()
    client.check_gone()
    assert 'answered with 200' in wrong[0]
