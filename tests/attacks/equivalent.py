"""Changes of the mutation check that nothing can notice, each with its reason."""

SPEED = 'it decides how fast something is, not what is found'
GUARD = 'nothing sets its fields: that they are frozen keeps it so'
ALIKE = 'the two have one length whatever is given: the check is a guard'
WIDTHS = 'every factory that wants this width is built at another that is tried'

EQUIVALENT: dict[tuple[str, str, str], str] = {  # file, line and change: why
    ('retrieval/gallery/store.py',
     'for shard, rows in zip(state.shards, places, strict=True):',
     'True  →  False'):
        ALIKE,
    ('retrieval/ranking/half_precision.py',
     'scores, rows = (torch.cat(part) for part in zip(*found, strict=True))',
     'True  →  False'):
        ALIKE,
    ('retrieval/evaluation/results.py',
     'in zip(first.metrics, observed.tolist(), p_values, strict=True)}',
     'True  →  False'):
        ALIKE,
    ('retrieval/index/base.py',
     '_BLOCK = 2 ** 16  # rows that are digested together',
     '16  →  17'):
        SPEED,
    ('retrieval/index/base.py',
     '_FIRST_RANGE, _GROWTH = 128, 4  # results that a range search asks for first; how they grow',
     '128  →  129'):
        SPEED,
    ('retrieval/index/parts.py',
     '_FIRST, _GROWTH = 4, 4  # times as many parts as results that are searched first; how they g'
     'row',
     '4  →  5'):
        SPEED,
    ('retrieval/ranking/all_pairs.py',
     '_STRIP = 768      # rows of a tile',
     '768  →  769'):
        SPEED,
    ('retrieval/ranking/cpu.py',
     'size = max(1, min(_LARGEST, width // max(_GROUPS * k, 64)))',
     '64  →  65'):
        SPEED,
    ('retrieval/ranking/cpu.py',
     'place = int(expected + 3 * np.sqrt(expected)) + 1',
     '1  →  2'):
        SPEED,
    ('retrieval/ranking/rounded.py',
     'usual = len(query) / len(block) * gallery.width  # so many that the product is just large en'
     'ough',
     'len(query) / len(block) * gallery.width  →  len(query) / len(block) + gallery.width'):
        SPEED,
    ('retrieval/ranking/rounded.py',
     'self._full = max(_ROOM * len(self.queries) * self.k, 2 * self._count)',
     '2  →  3'):
        SPEED,
    ('retrieval/index/faiss/search.py',
     'fetch = min(held, fetch * _MORE)',
     'fetch * _MORE  →  fetch + _MORE'):
        SPEED,
    ('retrieval/index/faiss/search.py',
     'wrong = scores[:, 1:] > scores[:, :-1]',
     'scores[:, 1:] > scores[:, :-1]  →  scores[:, 1:] >= scores[:, :-1]'):
        'equal scores are sorted once more, into the order that they have',
    ('retrieval/index/faiss/engine.py',
     '_BLOCK = 2 ** 16  # rows that are added or reconstructed together',
     '2  →  3'):
        SPEED,
    ('retrieval/ranking/prepared.py',
     'fewest = _WHOLE_ROWS if budget >= TILE_BUDGET else 1',
     '1  →  2'):
        SPEED,
    ('retrieval/ranking/half_precision.py',
     'many = min(len(gallery), 2 * many)',
     '2 * many  →  2 + many'):
        SPEED,
    ('retrieval/evaluation/protocols.py',
     'for lists in zip(*(self._needed(truth, name) for name in fields), strict=True)]',
     'True  →  False'):
        ALIKE,
    ('retrieval/index/faiss/factory.py',
     '_TRIAL_WIDTHS = (64, 128, 96, 100, 256, 512, 2048, 3840)',
     '512  →  513'):
        WIDTHS,
    ('retrieval/evaluation/clustering.py',
     'factorial = gammaln(np.arange(n + 2) + 1.)',
     '2  →  3'):
        'the table is one longer than what is looked up in it',
    ('retrieval/ranking/topk.py',
     "if scores.device.type == 'cpu' and scores.dtype == torch.float32:",
     "scores.device.type == 'cpu'  →  scores.device.type != 'cpu'"):
        'the other way, slower here, finds the same',
    ('retrieval/index/parts.py',
     'return (serials[:, None] * each + np.arange(each)).ravel().tolist()',
     'serials[:, None] * each + np.arange(each)  →  serials[:, None] * each - np.arange(each)'):
        'any numbers do that no two parts share',
    ('retrieval/index/faiss/search.py',
     'return (_filled(values, k, -np.inf), _filled(found, k, -1), lacks, ended)',
     '-np.inf  →  +np.inf'):
        'lists are too short for all queries alike, and what fills them is cut off',
    ('retrieval/index/faiss/engine.py',
     '_BLOCK = 2 ** 16  # rows that are added or reconstructed together',
     '16  →  17'):
        SPEED,
    ('retrieval/evaluation/relevance.py',
     'for side, names in zip(sides, words, strict=True)]',
     'True  →  False'):
        ALIKE,
    ('retrieval/gallery/vectors.py',
     'divisors = np.where(scales > 0, scales, np.float32(1))',
     '1  →  2'):
        'levels of a scale of 0 are set to 0 whatever they were',
    ('retrieval/ranking/relevant_ranks.py',
     'most = 0',
     '0  →  1'):
        'a depth of nothing at all is never asked for',
    ('retrieval/evaluation/results.py',
     'def confidence(self, level: float = 0.95, draws: int = 1000, seed: int = 0,',
     '1000  →  1001'):
        'as many draws do as well',
    ('retrieval/gallery/filters.py',
     'self.mask(lambda _: np.zeros(1, bool) if kind == \'bool\' else np.zeros(1))',
     '1  →  2'):
        'it is called for the error alone',
    ('retrieval/index/faiss/engine.py',
     '_TRAINING_ROWS = 2 ** 16  # at least, where there are so many and no number is given',
     '16  →  17'):
        SPEED,
    ('retrieval/gallery/store.py',
     'def __init__(self, path: str | os.PathLike[str], timeout: float = 10.0) -> None:',
     '10.0  →  11.0'):
        'how long is waited where another writes',
    ('retrieval/ranking/prepared.py',
     'if rows <= _FEW:',
     'rows <= _FEW  →  rows < _FEW'):
        SPEED,
    ('retrieval/gallery/shards.py',
     'for read, rows in zip(readers, kept, strict=True)], name)',
     'True  →  False'):
        ALIKE,
    ('retrieval/ranking/prepared.py',
     'for query, out in zip(queries, scores[:, start:start + step], strict=True):',
     'True  →  False'):
        ALIKE,
    ('retrieval/index/parts.py',
     'rows = torch.full((len(wholes), width), -1)',
     '-1  →  +1'):
        'the score beside it is -inf, and where it is no row is read',
    ('retrieval/index/faiss/factory.py',
     'if 1 < number <= 4096)]',
     '1  →  2'):
        WIDTHS,
    ('retrieval/index/faiss/factory.py',
     '*(times * number for number in sorted(numbers) for times in (1, 2, 4, 8)',
     '8  →  9'):
        WIDTHS,
    ('retrieval/ranking/lists.py',
     'return (rising ^ ((rising >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)',
     '31  →  32'):
        'NumPy shifts by all bits as by all but one: what is left is the sign',
    ('retrieval/ranking/half_precision.py',
     '_MORE = 32            # candidates beside k that are looked at first',
     '32  →  33'):
        SPEED,
    ('retrieval/ranking/half_precision.py',
     'bar = last - 2 * margins - 2 * UNIT[half.rows.dtype] * size',
     '2 * UNIT[half.rows.dtype] * size  →  2 * UNIT[half.rows.dtype] + size'):
        'a lower bar lets more rows through, whose exact scores decide all the same',
    ('retrieval/index/faiss/engine.py',
     'step = max(1, _BLOCK // max(1, slots.shape[1]))',
     '1  →  2'):
        SPEED,
    ('retrieval/evaluation/verification.py',
     'height, width = gallery.tiles(len(chosen), TILE_BUDGET, whole_rows=True)',
     'True  →  False'):
        'it decides how many queries are scored together, not what is found',
    ('retrieval/index/faiss/engine.py',
     'self.shifts = False',
     'False  →  True'):
        'faiss, which cannot remove, is asked again, and refuses again',
    ('retrieval/index/tuning.py',
     'seed: int = 0',
     '0  →  1'):
        'any seed does',
    ('retrieval/index/faiss/search.py',
     'longest: float = 0.0',
     '0.0  →  1.0'):
        'it is always given where it is read',
    ('retrieval/ranking/prepared.py',
     'budget = min(budget, rows * _FEW_COLUMNS)',
     'rows * _FEW_COLUMNS  →  rows + _FEW_COLUMNS'):
        SPEED,
    ('retrieval/ranking/topk.py',
     'bar = (scores[:, k - 1].double() - 2 * margin)[:, None]',
     'k - 1  →  k + 1'):
        'a lower bar lets more rows through, whose exact scores decide all the same',
    ('retrieval/ranking/half_precision.py',
     'many = min(len(gallery), 2 * many)',
     '2  →  3'):
        SPEED,
    ('retrieval/evaluation/evaluate.py',
     'tile_budget: int = TILE_BUDGET, sharded: bool = False,',
     'False  →  True'):
        'on one process there are no other shares',
    ('retrieval/ranking/ranks.py',
     '@dataclass(frozen=True)',
     'True  →  False'):
        GUARD,
    ('retrieval/evaluation/results.py',
     'step = max(1, _DRAWN // len(values))',
     '_DRAWN // len(values)  →  _DRAWN * len(values)'):
        SPEED,
    ('retrieval/ranking/prepared.py',
     '@dataclass(frozen=True)',
     'True  →  False'):
        GUARD,
    ('retrieval/ranking/prepared.py',
     'fewest = _WHOLE_ROWS if budget >= TILE_BUDGET else 1',
     'budget >= TILE_BUDGET  →  budget > TILE_BUDGET'):
        SPEED,
    ('retrieval/gallery/shards.py',
     '@dataclass(frozen=True)',
     'True  →  False'):
        GUARD,
    ('retrieval/ranking/half_precision.py',
     'bar = last - 2 * margins - 2 * UNIT[half.rows.dtype] * size',
     '2 * margins  →  2 + margins'):
        'a lower bar lets more rows through, whose exact scores decide all the same',
    ('retrieval/ranking/row_sets.py',
     "if isinstance(rows, Tensor) or hasattr(rows, '__array__'):",
     "isinstance(rows, Tensor) or hasattr(rows, '__array__')  →  isinstance(rows, Tensor) "
     "and hasattr(rows, '__array__')"):
        'rows of an array are read one by one, to the same sets',
    ('retrieval/ranking/prepared.py',
     '_FEW_COLUMNS = 2 ** 16',
     '2  →  3'):
        SPEED,
    ('retrieval/ranking/rounded.py',
     'low = best - 2 * self.margins[queries] - 2 * UNIT[torch.bfloat16] * size',
     '2 * UNIT[torch.bfloat16] * size  →  2 * UNIT[torch.bfloat16] + size'):
        'a lower bar lets more rows through, whose exact scores decide all the same',
    ('retrieval/ranking/rounded.py',
     'self._count, self._full = 0, _ROOM * len(queries) * k',
     '0  →  1'):
        SPEED,
    ('retrieval/ranking/prepared.py',
     'if len(vectors) >= want:',
     'len(vectors) >= want  →  len(vectors) > want'):
        SPEED,
    ('retrieval/ranking/all_pairs.py',
     'lists = zip(*in_order(work, blocks), strict=True)',
     'True  →  False'):
        ALIKE,
    ('retrieval/ranking/cpu.py',
     "_LARGEST = 64        # a group's size, at the most",
     '64  →  65'):
        SPEED,
    ('retrieval/ranking/all_pairs.py',
     'near = scores_of(keys) > self.bar[queries]',
     'scores_of(keys) > self.bar[queries]  →  scores_of(keys) >= self.bar[queries]'):
        'one more candidate, whose exact score decides',
    ('retrieval/ranking/topk.py',
     'parts = shares(len(tile), None if tile.size > _LARGE else 1)',
     'tile.size > _LARGE  →  tile.size >= _LARGE'):
        SPEED,
    ('retrieval/ranking/topk.py',
     'lists = [tuple(torch.cat(part) for part in zip(*found[number::len(parts)], strict=Tr'
     'ue))',
     'True  →  False'):
        ALIKE,
    ('retrieval/index/faiss/engine.py',
     '_MOST_ON_GPU = 2048  # results, and lists, that a GPU index looks at',
     '2048  →  2049'):
        'of a GPU alone',
}
