"""faiss's factory strings: building, what their parts need, and which parameters they have."""
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ...registry import unknown_name

EXAMPLES = ("'Flat', 'HNSW32', 'IVF1024,Flat', 'IVF4096,PQ32', 'OPQ16,IVF256,PQ16', "
            "'IVF1024,RaBitQ,RFlat', 'SQ8'")
_LARGEST = 2 ** 24  # a number in a factory that is larger is a slip, and could take all the memory
_TRIAL_WIDTHS = (64, 128, 96, 100, 256, 512, 2048, 3840)


def load_faiss() -> Any:
    """The faiss module. Raises ImportError, which says what to install."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError('faiss is not installed: `pip install faiss-cpu`, or a GPU build of '
                          'it.') from error
    return faiss


def reason(error: BaseException) -> str:
    """The reason that faiss gives, without the C++ signature and source line around it."""
    text = ' '.join(str(error).split())
    found = re.search(r'\.(?:cpp|h|cu|cuh):\d+: (?:Error: )?(.*)$', text)
    return (found.group(1) if found else text) or type(error).__name__


def plain_factory(factory: Any) -> str:
    """``factory`` without the ``IDMap`` that the index does not need: it keeps the ids itself.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty, or a number in it is absurd.
    """
    if not isinstance(factory, str):
        raise TypeError(f'factory must be a string such as {EXAMPLES}; got {factory!r}.')
    text = re.sub(r'^(IDMap2?,)+|(,IDMap2?)+$', '', factory.strip())
    if not text or text in ('IDMap', 'IDMap2'):
        raise ValueError(f'The factory {factory!r} is empty. Give one such as {EXAMPLES}.')
    for digits in re.findall(r'\d+', text):
        if int(digits) > _LARGEST:
            raise ValueError(f'The factory {factory!r} has the number {digits}, above {_LARGEST}.')
    for letters, digits in re.findall(r'(IVF|HNSW|NSG|PQ)(\d+)', text):
        if int(digits) == 0:
            raise ValueError(f'The factory {factory!r} has {letters}0: give a number above 0.')
    return text


def build(factory: str, width: int, similarity: str) -> Any:
    """The empty faiss index of a factory string.

    Cosine is an inner product of vectors of length 1, and the L2 metric ranks such vectors the
    same. Inverted lists get the latter: their centroids then stay where the vectors are instead
    of on the sphere, and as many lists hold more of the neighbours. So do factories that know
    nothing else.

    Raises:
        ValueError: faiss knows no such factory, or not for this width or similarity.
    """
    faiss = load_faiss()
    if 'RaBitQ' in factory and not hasattr(faiss, 'IndexRaBitQ'):
        raise ValueError(f'The factory {factory!r} wants faiss 1.11 or later, and '
                         f"{faiss.__version__} is installed: pip install 'faiss-cpu>=1.11', or "
                         "take PQ, as in 'IVF1024,PQ32'.")
    both = (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2)
    metrics = {'cosine_similarity': both[::-1] if 'IVF' in factory else both,
               'inner_product': both[:1], 'euclidean': both[1:]}[similarity]
    why = ''
    for metric in metrics:
        try:
            index = faiss.index_factory(width, factory, metric)
        except Exception as error:  # also std::bad_alloc and std::out_of_range
            why = why or reason(error)
            continue
        if chain(index)[-1].metric_type == metric:
            return index
        why = f'it is searched by another metric than {similarity}'
    raise ValueError(f'faiss cannot build the factory {factory!r} for vectors of width {width} '
                     f'with {similarity}: {why}. Factories are strings such as {EXAMPLES}.')


def trial(factory: str, similarity: str) -> Any:
    """An empty index of the factory at some width, to see what it is before a width is known.

    Raises:
        ValueError: faiss builds it at no width that was tried.
    """
    numbers = {int(digits) for digits in re.findall(r'\d+', factory)}
    widths = [*_TRIAL_WIDTHS,
              *(times * number for number in sorted(numbers) for times in (1, 2, 4, 8)
                if 1 < number <= 4096)]
    first: ValueError | None = None
    for width in widths:
        try:
            return build(factory, width, similarity)
        except ValueError as error:
            first = first or error
    assert first is not None
    message = str(first).replace(f' for vectors of width {widths[0]}', '')
    raise ValueError(message) from first


def chain(index: Any) -> list[Any]:
    """The index and what it wraps, from the outermost to the one that holds the codes.

    They are gone with the index: keep it.
    """
    faiss = load_faiss()
    parts = []
    while True:
        index = faiss.downcast_index(index)
        parts.append(index)
        if isinstance(index, (faiss.IndexPreTransform, faiss.IndexIDMap)):
            index = index.index
        elif isinstance(index, faiss.IndexRefine):
            index = index.base_index
        else:
            return parts


def rows_needed(index: Any) -> int:
    """How many rows the training of an index needs at least: the most centroids of any part."""
    faiss = load_faiss()
    need = 1
    for part in chain(index):
        if isinstance(part, faiss.IndexPreTransform):
            need = max(need, *(_transform_needs(part.chain.at(i))
                               for i in range(part.chain.size())))
        if isinstance(part, faiss.IndexRefine):
            need = max(need, rows_needed(part.refine_index))
        if isinstance(part, faiss.IndexIVF):
            quantizer = faiss.downcast_index(part.quantizer)
            composed = isinstance(quantizer, (faiss.MultiIndexQuantizer,
                                              faiss.ResidualCoarseQuantizer))
            need = max(need, _code_needs(quantizer) if composed else part.nlist)
        storage = getattr(part, 'storage', None)
        need = max(need, _code_needs(part), rows_needed(storage) if storage else 1)
    return need


def _transform_needs(transform: Any) -> int:
    faiss = load_faiss()
    transform = faiss.downcast_VectorTransform(transform)
    if isinstance(transform, faiss.OPQMatrix):
        return 256
    if isinstance(transform, (faiss.PCAMatrix, faiss.ITQTransform)):
        return transform.d_out
    return 1


def _code_needs(part: Any) -> int:
    """The centroids of a part's quantizers."""
    need = 1
    product = getattr(part, 'pq', None)
    if product is not None:
        need = max(need, product.ksub)
    refining = getattr(part, 'refine_pq', None)
    if refining is not None:
        need = max(need, refining.ksub)
    additive = getattr(part, 'rq', None) or getattr(part, 'lsq', None) or getattr(part, 'aq', None)
    if additive is not None and hasattr(additive, 'nbits'):
        bits = [additive.nbits.at(i) for i in range(additive.nbits.size())]
        need = max(need, 2 ** max(bits, default=0))
    return need


def set_seed(index: Any, seed: int) -> None:
    """Seed every clustering of an index that has one."""
    for part in chain(index):
        for owner in (part, getattr(part, 'pq', None)):
            settings = getattr(owner, 'cp', None)
            if settings is not None:
                settings.seed = seed % 2 ** 31


def skip_polysemous(index: Any) -> None:
    """Leave out the part of a product quantizer's training that only ``ht`` needs, and that takes
    by far the longest.
    """
    faiss = load_faiss()
    for part in chain(index):
        storage = getattr(part, 'storage', None)
        for owner in (part, part if storage is None else faiss.downcast_index(storage)):
            if hasattr(owner, 'do_polysemous_training'):
                owner.do_polysemous_training = False


@dataclass(frozen=True)
class Knob:
    """A search-time parameter: where it is kept, and what it may be."""

    owner: Any
    attribute: str
    least: float = 1
    whole: bool = True

    @property
    def value(self) -> Any:
        """The present setting."""
        return getattr(self.owner, self.attribute)


def knobs(index: Any) -> dict[str, Knob]:
    """The parameters of an index by faiss's names for them; they are gone with it."""
    return dict(_knobs(index))


def _knobs(index: Any) -> Iterator[tuple[str, Knob]]:
    faiss = load_faiss()
    for part in chain(index):
        if isinstance(part, faiss.IndexRefine):
            yield 'k_factor_rf', Knob(part, 'k_factor', 1, whole=False)
        if isinstance(part, faiss.IndexIVF):
            yield 'nprobe', Knob(part, 'nprobe')
            yield 'max_codes', Knob(part, 'max_codes', 0)
            for name, knob in _knobs(part.quantizer):
                yield f'quantizer_{name}', knob
        if isinstance(part, faiss.IndexIVFPQR):
            yield 'k_factor', Knob(part, 'k_factor', 1, whole=False)
        if hasattr(part, 'hnsw'):
            yield 'efSearch', Knob(part.hnsw, 'efSearch')
            yield 'efConstruction', Knob(part.hnsw, 'efConstruction')
        if hasattr(part, 'nsg'):
            yield 'search_L', Knob(part.nsg, 'search_L')
        if isinstance(part, (faiss.IndexPQ, faiss.IndexIVFPQ)):
            yield 'ht', Knob(part, 'polysemous_ht', 0)
        if hasattr(part, 'qb'):  # RaBitQ, which older releases of faiss do not have
            yield 'qb', Knob(part, 'qb', 0)


def checked_parameters(values: Mapping[str, Any] | None, valid: Mapping[str, Knob],
                       factory: str) -> dict[str, Any]:
    """Search-time parameters as a dict of numbers.

    Raises:
        TypeError: they are no mapping, or a value is no number.
        ValueError: the factory has no parameter of that name, or the value is out of range.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TypeError('search_parameters must be a dict such as dict(nprobe=32), got '
                        f'{values!r}.')
    checked: dict[str, Any] = {}
    for name, value in values.items():
        knob = valid.get(name)
        if knob is None:
            if not valid:
                raise ValueError(f'Unknown search parameter {name!r}: the factory {factory!r} has '
                                 'none.')
            raise ValueError(unknown_name(f'search parameter of {factory!r}', name, valid))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f'The search parameter {name} must be a number, got {value!r}.')
        if not isfinite(value) or value < knob.least or (knob.whole and value != int(value)):
            kind = 'a whole number' if knob.whole else 'a number'
            raise ValueError(f'The search parameter {name} must be {kind} of at least '
                             f'{knob.least}, got {value!r}.')
        checked[name] = int(value) if knob.whole else float(value)
    return checked
