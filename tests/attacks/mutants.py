"""A mutation check: small changes of the code, of which the tests of its package must notice most.

    python -m tests.attacks.mutants --count 200 --seed 0 --workers 2 --out mutants.json

A change is drawn over the modules of evaluation, ranking, index and gallery; the tests that mirror
the module run first, then, where they pass, those of its folder. What stays unnoticed is listed.
Not changed: what needs a GPU or a Milvus, messages, annotations and docstrings.
"""
from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ('evaluation', 'ranking', 'index', 'gallery')
LEFT_OUT = ('gpu.py', 'milvus', '__init__.py')
LIMIT = 150  # seconds of the processor for a run of tests: an endless one is noticed
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.And: ast.Or, ast.Or: ast.And}


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The nodes that can be changed, and how."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)):
            continue
        if isinstance(node, ast.Constant):
            if isinstance(node.value, (bool, int, float)) and node.value is not None:
                yield node, 'constant'
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield node, 'comparison'
        elif isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
            yield node, 'operator'
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            yield node, 'sign'
        elif isinstance(node, ast.Return) and node.value is not None:
            yield node, 'return'
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in [*node.args.defaults, *(one for one in node.args.kw_defaults if one),
                         *node.body]:
                yield from places(ast.Module([ast.Expr(part)] if isinstance(part, ast.expr)
                                             else [part], []))
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from places(ast.Module([ast.Expr(node.value)], []))
        else:
            yield from places(node)


def changed(source: str, number: int) -> tuple[str, str]:
    """The source with its n-th change, and which it is."""
    tree = ast.parse(source)
    node, kind = list(places(tree))[number]
    before = copy.deepcopy(node)
    if kind == 'constant':
        assert isinstance(node, ast.Constant)
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1  # type: ignore
    elif kind == 'comparison':
        assert isinstance(node, ast.Compare)
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif kind == 'operator':
        assert isinstance(node, (ast.BinOp, ast.BoolOp))
        node.op = SWAPS[type(node.op)]()
    elif kind == 'sign':
        assert isinstance(node, ast.UnaryOp)
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(before, ast.UnaryOp) and isinstance(before.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    else:
        assert isinstance(node, ast.Return)
        node.value = ast.Constant(None)
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), f'{ast.unparse(before)}  →  {ast.unparse(node)}'


def draw(count: int, seed: int) -> list[dict[str, Any]]:
    """Changes, drawn over all places alike."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / 'retrieval' / package).rglob('*.py')):
            if not any(one in path.parts or path.name == one for one in LEFT_OUT):
                nodes = list(places(ast.parse(path.read_text())))
                found += [dict(file=str(path.relative_to(ROOT)), number=number,
                               line=getattr(node, 'lineno', 0))
                          for number, (node, _) in enumerate(nodes)]
    return random.Random(seed).sample(found, min(count, len(found)))


def tests_of(file: str) -> list[list[str]]:
    """The tests of a module, quickest first: those that mirror it, and those of its folder."""
    path = Path(file)
    own = Path('tests', *path.parts[1:-1], f'test_{path.name}')
    folder = Path('tests', path.parts[1])
    first = [[str(own)]] if (ROOT / own).exists() else []
    more = ['tests/index/test_contract.py'] if path.parts[1] == 'index' else []
    return [*first, [str(folder), *more]]


def run_tests(root: Path, tests: list[str]) -> bool:
    """True where they pass, run in a fork of this process, which has loaded what they need."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            os.chdir(root)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            sys.path.insert(0, str(root))
            for name in list(sys.modules):  # these are to come from the copy
                if name.partition('.')[0] in ('tests', 'retrieval'):
                    del sys.modules[name]
            os.environ['PYTHONPATH'] = str(root)
            null = os.open(os.environ.get('MUTANTS_LOG', os.devnull), os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(null, stream)
            import pytest
            status = int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist',
                                      '--deselect', 'tests/index/milvus', '-k', 'not Milvus',
                                      *tests]))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 5)


def work(cases: list[dict[str, Any]], out: Path) -> None:
    """Try the changes one after another on a copy of the tree; a line of JSON each."""
    import faiss  # noqa: F401  (what takes long to load, before the forks)
    import mmengine.runner  # noqa: F401
    import pytest  # noqa: F401
    import pytorch_metric_learning.losses  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='retrieval-mutants-') as folder:
        root = Path(folder)
        for name in ('retrieval', 'tests', 'docs', 'configs', 'benchmarks', 'tools'):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(ROOT / 'setup.cfg', root)
        for tests in sorted({tuple(tests_of(case['file'])[0]) for case in cases}):
            if not run_tests(root, list(tests)):
                raise SystemExit(f'{tests} fail on the code as it is')
        for case in cases:
            path = root / case['file']
            source = path.read_text()
            text, case['change'] = changed(source, case['number'])
            path.write_text(text)
            begin = time.monotonic()
            case['noticed'] = not all(run_tests(root, tests) for tests in tests_of(case['file']))
            case['seconds'] = round(time.monotonic() - begin, 1)
            path.write_text(source)
            with out.open('a') as lines:
                lines.write(json.dumps(case) + '\n')


def main() -> None:
    """Draw, try, and say what was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('mutants.jsonl'))
    given = parser.parse_args()
    cases = draw(given.count, given.seed)
    given.out.unlink(missing_ok=True)
    children = []
    for number in range(given.workers):
        child = os.fork()
        if child == 0:
            work(cases[number::given.workers], given.out)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = [json.loads(line) for line in given.out.read_text().splitlines()]
    noticed = sum(case['noticed'] for case in found)
    for case in found:
        if not case['noticed']:
            print(f'{case["file"]}:{case["line"]}: {case["change"]}')
    print(f'{noticed} of {len(found)} changes are noticed, seed {given.seed}')


if __name__ == '__main__':
    main()
