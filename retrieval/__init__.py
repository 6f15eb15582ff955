"""Image retrieval in the MMEngine style: the public names.

Importing the package imports nothing heavy. A public name, or a part such as
``retrieval.encoders``, is loaded when it is first used, so that a command's ``--help`` does not
wait for torch.

Example:
    >>> import numpy as np
    >>> from retrieval import ExactIndex, evaluate
    >>> vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], dtype='float32')
    >>> index = ExactIndex()
    >>> index.add(vectors, ids=['a', 'b', 'c', 'd'])
    >>> index.search(vectors[:1], k=2).indices.tolist()
    [[0, 1]]
    >>> evaluate(vectors, [0, 0, 1, 1], metrics=['Recall@1'])['Recall@1']
    100.0
"""
from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = '0.1.0'

_MODULE_OF = {
    'ExactIndex': 'index',
    'FaissIndex': 'index',
    'Gallery': 'gallery',
    'GalleryStore': 'gallery',
    'ImageRetrievalInferencer': 'search',
    'ImageToImageRetriever': 'retrievers',
    'InferenceModel': 'inference',
    'MatchCalibration': 'evaluation',
    'MilvusIndex': 'index',
    'Neighbors': 'structures',
    'Recognizer': 'encoders',
    'RetrievalDataSample': 'structures',
    'build_retriever': 'retrievers',
    'calibrate': 'evaluation',
    'cluster': 'search',
    'evaluate': 'evaluation',
    'find_duplicates': 'search',
    'load': 'runs',
}

if TYPE_CHECKING:  # the same for type checkers and editors; a test holds the two together
    from .encoders import Recognizer as Recognizer
    from .evaluation import MatchCalibration as MatchCalibration
    from .evaluation import calibrate as calibrate
    from .evaluation.evaluate import evaluate as evaluate
    from .gallery import Gallery as Gallery
    from .gallery import GalleryStore as GalleryStore
    from .index import ExactIndex as ExactIndex
    from .index import FaissIndex as FaissIndex
    from .index import MilvusIndex as MilvusIndex
    from .inference import InferenceModel as InferenceModel
    from .retrievers import ImageToImageRetriever as ImageToImageRetriever
    from .retrievers import build_retriever as build_retriever
    from .runs import load as load
    from .search import ImageRetrievalInferencer as ImageRetrievalInferencer
    from .search import cluster as cluster
    from .search import find_duplicates as find_duplicates
    from .structures import Neighbors as Neighbors
    from .structures import RetrievalDataSample as RetrievalDataSample
else:
    def __getattr__(name):
        """Load a public name, or a part of the package, when it is first used (PEP 562)."""
        from importlib import import_module
        from importlib.util import find_spec

        if name in _MODULE_OF:
            value = getattr(import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
            globals()[name] = value
            return value
        if not name.startswith('_') and find_spec(f'{__name__}.{name}') is not None:
            return import_module(f'{__name__}.{name}')
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}. Its public names '
                             f'are {", ".join(_MODULE_OF)}.', name=name)


def __dir__() -> list[str]:
    from pkgutil import iter_modules

    parts = (part.name for part in iter_modules(__path__) if not part.name.startswith('_'))
    return sorted({*globals(), *_MODULE_OF, *parts} - {'annotations', 'TYPE_CHECKING'})


__all__ = ['__version__', *_MODULE_OF]
