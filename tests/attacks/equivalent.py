"""Changes of the mutation check that nothing can notice, each with its reason."""

SPEED = 'it decides how fast something is, not what is found'
ALIKE = 'the two have one length whatever is given: the check is a guard'

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
}
