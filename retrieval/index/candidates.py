"""Which factories and parameters are worth trying for a number of rows and a width."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .faiss_factory import knobs, plain_factory, trial

_ROWS_A_LIST = 20  # fewer train no centroid well
_MANY_LISTS = 1024  # from here on a graph finds the nearest lists faster than comparing them all
_STEPS = {'nprobe': 1, 'efSearch': 16, 'search_L': 16}
_HIGHEST = {'nprobe': 2 ** 12, 'efSearch': 1024, 'search_L': 1024}
_RESCORED = (4, 16)  # candidates a result


@dataclass(frozen=True)
class Candidate:
    """An index to try: how it is made, and the settings that it is searched with in turn.

    Args:
        options: arguments of ``FaissIndex``.
        factors: how many candidates a result are rescored, in turn, each ``dict(rescore_factor=…)``
            or faiss's ``dict(k_factor_rf=…)``; an empty dict where none are.
        settings: each a dict of search parameters, from fast to thorough.
    """

    options: dict[str, Any]
    factors: tuple[dict[str, Any], ...] = field(default=({},))
    settings: tuple[dict[str, Any], ...] = field(default=({},))

    def name(self, factor: Mapping[str, Any] | None = None) -> str:
        """The factory, and how many candidates are rescored."""
        return self.options['factory'] + ''.join(
            f' rescored x{count}' for count in (factor or {}).values())


def candidates(rows: int, width: int, similarity: str,
               factories: Sequence[str] | None = None) -> list[Candidate]:
    """Candidates for a gallery ``(rows, width)``.

    Args:
        similarity: what they must search by.
        factories: only these; by default graphs, inverted lists and codes that fit the size.

    Raises:
        ValueError: one of the given factories is none.
    """
    if factories:
        return [candidate for factory in factories
                for candidate in _of(plain_factory(factory), rows, similarity, _is_coarse(factory))]
    return [candidate for factory, coarse in _defaults(rows, width)
            if _is_known(factory, similarity)
            for candidate in _of(factory, rows, similarity, coarse)]


def _is_known(factory: str, similarity: str) -> bool:
    """Whether this release of faiss builds it."""
    try:
        trial(factory, similarity)
    except ValueError:
        return False
    return True


def _defaults(rows: int, width: int) -> Iterator[tuple[str, bool]]:
    """Factories, and whether their codes are so coarse that candidates should be rescored."""
    yield 'Flat', False
    yield 'SQ8', False
    for links in (16, 32):
        yield f'HNSW{links}', False
    yield 'HNSW32_SQ8', False
    fast = _divisor(width, width // 2)
    yield f'PQ{fast}x4fs', True
    for lists in _list_counts(rows):
        yield f'IVF{lists},Flat', False
        if lists >= _MANY_LISTS:
            yield f'IVF{lists}_HNSW32,Flat', False
        yield f'IVF{lists},SQfp16', False
        yield f'IVF{lists},SQ8', False
        yield f'IVF{lists},PQ{_divisor(width, width // 4)}', True
        yield f'IVF{lists},PQ{fast}x4fs', True
        yield f'IVF{lists},RaBitQ', True


def _list_counts(rows: int) -> list[int]:
    """Powers of two around 1 and 4 times the root, with enough rows a list to train them."""
    most = rows // _ROWS_A_LIST
    around = {2 ** round(math.log2(max(1, factor * math.sqrt(rows)))) for factor in (1, 4)}
    return sorted(count for count in around if 4 <= count <= most)


def _divisor(width: int, near: int) -> int:
    """The largest divisor of the width up to ``near``, for a product quantizer."""
    return max(part for part in range(1, max(1, near) + 1) if width % part == 0)


def _is_coarse(factory: str) -> bool:
    return any(word in factory for word in ('PQ', 'RaBitQ', 'RQ', 'LSQ', 'LSH')) and \
        'RFlat' not in factory and 'Refine' not in factory


def _of(factory: str, rows: int, similarity: str, coarse: bool) -> Iterator[Candidate]:
    valid = knobs(trial(factory, similarity))
    name = next((name for name in _STEPS if name in valid), None)
    settings: tuple[dict[str, Any], ...] = ({},)
    if name is not None:
        highest = min(_HIGHEST[name], max(1, rows))
        if name == 'nprobe':
            highest = min(highest, valid['nprobe'].owner.nlist)
        settings = tuple({name: value} for value in _doubling(_STEPS[name], highest))
    refined = tuple(dict(k_factor_rf=factor) for factor in _RESCORED)
    if 'LSH' not in factory:
        yield Candidate(dict(factory=factory), refined if 'k_factor_rf' in valid else ({},),
                        settings)
    if coarse:
        yield Candidate(dict(factory=factory, rescore=True),
                        tuple(dict(rescore_factor=factor) for factor in _RESCORED), settings)


def _doubling(first: int, last: int) -> list[int]:
    values = [first]
    while values[-1] * 2 < last:
        values.append(values[-1] * 2)
    return values if values[-1] >= last else [*values, last]
