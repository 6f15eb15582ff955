"""One Milvus for all tests of the session: the embedded one, or the server that
RETRIEVAL_TEST_MILVUS names; each index has a collection of its own.
"""
import importlib.util
import itertools
import os
import uuid
from tempfile import TemporaryDirectory

import faiss
import pytest

SESSION, NUMBERS = f'test_{uuid.uuid4().hex[:8]}', itertools.count()


@pytest.fixture(scope='session')
def milvus_uri():
    # Looked for and not imported: the import of pymilvus closes the log files that are open.
    if not all(map(importlib.util.find_spec, ('pymilvus', 'milvus_lite'))):
        pytest.skip('needs pymilvus and milvus-lite')
    if uri := os.environ.get('RETRIEVAL_TEST_MILVUS'):
        yield uri
        return
    from retrieval.index import MilvusIndex
    with TemporaryDirectory(prefix='retrieval-test-milvus-') as folder:
        keeper = MilvusIndex(f'{folder}/tests.db', 'keeper')  # the server stays while it is open
        yield f'{folder}/tests.db'
        keeper.close()


@pytest.fixture
def new_milvus(milvus_uri):
    """Builds an index over a new collection, or one of that name of this session."""
    from retrieval.index import MilvusIndex
    built = []

    def new(*, collection=None, **options):
        built.append(MilvusIndex(milvus_uri, f'{SESSION}_{collection or next(NUMBERS)}', **options))
        return built[-1]

    yield new
    for index in built:
        index.close()


def pytest_collection_modifyitems(items):
    """What the oldest faiss lacks is left out there, and said so."""
    if hasattr(faiss, 'IndexRaBitQ'):
        return
    for item in items:
        if 'RaBitQ' in item.nodeid or 'BitsRefined' in item.nodeid:
            item.add_marker(pytest.mark.skip(reason='RaBitQ wants faiss 1.11'))
