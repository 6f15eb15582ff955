"""What stands in a Milvus collection, and back to what stood there before."""
import importlib.util
import json
from contextlib import closing

import pytest
import torch

from retrieval.gallery import Fingerprint

from .conftest import run

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('pymilvus', 'milvus_lite'))),
    reason='needs pymilvus and milvus-lite')


def test_the_name_is_led_back_and_forth(config, tmp_path):
    from retrieval.index import MilvusIndex
    options = ['--cfg-options', 'model.index.type=MilvusIndex',
               f'model.index.uri={tmp_path}/a.db', 'model.index.collection=shop']
    with closing(MilvusIndex(f'{tmp_path}/a.db', 'shop', keep=True)) as index:
        index.fingerprint = Fingerprint('0123456789abcdef', 'p')
        index.replace(torch.eye(3), list('abc'))
        index.fingerprint = Fingerprint('f' * 64, 'p')
        index.replace(torch.eye(3)[:2], ['x', 'y'])
        status, printed, err = run('collection', config, *options)
        assert status == 0, err
        assert "collection='shop') holds 2 rows of the model ffffffffffff" in printed
        assert 'kept from before: 3 rows of the model 0123456789ab; back: ' in printed
        status, printed, err = run('collection', config, '--undo', *options, '--json')
        found = json.loads(printed)
        assert status == 0 and found.pop('seconds') >= 0, err
        assert found == dict(rows=3, model='0123456789abcdef', kept=2, kept_model='f' * 64)
        index.refresh()
        assert list(index.ids) == list('abc')
        status, printed, err = run('collection', config, '--drop-kept', *options)
        assert status == 0 and 'nothing is kept from before' in printed, err
        status, printed, err = run('collection', config, '--undo', *options)
        assert (status, printed) == (2, '') and "'shop' at" in err and 'keeps no rows' in err


def test_an_index_that_is_in_no_milvus(config):
    status, printed, err = run('collection', config)
    assert (status, printed) == (2, '') and 'in no Milvus: write --cfg-options' in err
