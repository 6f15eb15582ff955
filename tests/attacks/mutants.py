"""A mutation check: small changes of the code, of which the tests must notice most.

    make coverage                                                     # which tests run which lines
    python -m tests.attacks.mutants --count 200 --seed 0 --out mutants.jsonl
    python -m tests.attacks.mutants --again --out mutants.jsonl       # what was not noticed, again

A change is drawn over the modules of evaluation, ranking, index and gallery, and the tests that run
the changed line (`.coverage`, `.coverage.xml`) are run on it, those of the module first, in a fork
of one process that has loaded everything but this package. What stays unnoticed is listed, but for
what `equivalent.py` gives a reason for. Not changed: what needs a GPU or a Milvus, messages,
annotations and docstrings.
"""
from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from coverage import CoverageData

from .attack import ended, forked, wait
from .equivalent import EQUIVALENT

ROOT = Path(__file__).parents[2]
PACKAGES = ('evaluation', 'ranking', 'index', 'gallery')
LEFT_OUT = ('gpu.py', 'milvus', '__init__.py')
MOST = 12.0  # seconds that the tests of a stage take on the code as it is
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
        elif isinstance(node, ast.Return) and not (
                node.value is None or getattr(node.value, 'value', 0) is None):
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


def changed(source: str, number: int) -> tuple[ast.Module, str]:
    """The tree of a source with its n-th change, and which it is."""
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
    return tree, f'{ast.unparse(before)}  →  {ast.unparse(node)}'


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


def lines_of(tree: ast.Module, line: int) -> range:
    """The lines that are run where a line is: those of its statement, or, where that is run when
    the module is loaded (a default, a constant), those of the function, the class or the module.
    """
    around = [node for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.ExceptHandler))
              and node.lineno <= line <= (node.end_lineno or 0)]  # from outside to inside
    for node in reversed(around):
        body = getattr(node, 'body', [])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and line >= body[0].lineno:
            inner = around[-1]
            body = getattr(inner, 'body', [])
            return range(inner.lineno, body[0].lineno if body and line < body[0].lineno
                         else (inner.end_lineno or 0) + 1)
    for node in reversed(around):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            return range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    return range(1, 10 ** 6)


class Tests:
    """The tests by the lines that they run, with the seconds that each takes."""

    def __init__(self, data: Path, times: Path) -> None:
        self.data = CoverageData(str(data))
        self.data.read()
        self.files = {Path(name).as_posix().rpartition('/retrieval/')[2]: name
                      for name in self.data.measured_files()}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        for case in ElementTree.parse(times).iter('testcase'):
            name = f'{case.get("classname", "").replace(".", "/")}.py::{case.get("name")}'
            self.seconds[name] = float(case.get('time', 0))
            if len(case):  # failed or skipped
                self.failed.add(name)
        self.contexts: dict[str, dict[int, list[str]]] = {}

    def of(self, case: dict[str, Any]) -> list[list[str]]:
        """The tests that run a case's line: the module's own, those of its package, the others;
        each the quickest first, and no more than take some seconds.
        """
        inside = case['file'].removeprefix('retrieval/')
        if inside not in self.contexts:
            self.contexts[inside] = self.data.contexts_by_lineno(self.files.get(inside, ''))
        lines = lines_of(ast.parse((ROOT / case['file']).read_text()), case['line'])
        found = {context.rpartition('|')[0] for line, contexts in self.contexts[inside].items()
                 if line in lines for context in contexts if context} - self.failed
        own = str(Path('tests', inside).with_name(f'test_{Path(inside).name}'))
        package = f'tests/{inside.partition("/")[0]}/'
        stages: list[list[str]] = [[], [], []]
        spent = [0.0, 0.0, 0.0]
        for name in sorted(found, key=lambda name: (self.seconds.get(name, 0.1), name)):
            stage = 0 if name.startswith(own) else 1 if name.startswith(package) else 2
            spent[stage] += self.seconds.get(name, 0.1)
            if spent[stage] < MOST or not stages[stage]:
                stages[stage].append(name)
        return stages


class Chosen:
    """A plugin that keeps the tests of a list, in its order."""

    def __init__(self, names: Collection[str]) -> None:
        self.place = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep and order them."""
        items[:] = sorted((one for one in items if one.nodeid in self.place),
                          key=lambda one: self.place[one.nodeid])


def run_tests(names: list[str], limit: float, file: Path | None = None,
              tree: ast.Module | None = None) -> str | None:
    """What notices a change in a file: a test, or its end; None where the tests pass.

    Args:
        limit: seconds of the processor.
    """
    with tempfile.NamedTemporaryFile('r', prefix='retrieval-mutants-') as log:
        def act() -> None:
            os.chdir(ROOT)
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1,) * 2)
            plain = SourceFileLoader.get_code

            def get_code(self: SourceFileLoader, name: str) -> Any:
                if tree is not None and self.path == str(file):
                    return compile(tree, self.path, 'exec')
                return plain(self, name)
            SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
            out = os.open(log.name, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(out, stream)
            code = pytest.main(
                ['-x', '-q', '--tb=line', '-p', 'no:cacheprovider', '-p', 'no:xdist',
                 '-p', 'no:cov', '-p', 'no:faulthandler', '-W', 'ignore',
                 *dict.fromkeys(name.partition('::')[0] for name in names)], [Chosen(names)])
            os._exit(int(code))
        code = wait(forked(act, 2 ** 33), 3 * limit)  # of the clock: others use the processor too
        said = log.read()
    if code in (0, 5):
        return None
    failed = [line for line in said.splitlines() if line.startswith(('FAILED', 'ERROR'))]
    return failed[0][:200] if failed else 'endless' if code is None else f'ended with {code}'


def load_all(files: Collection[str]) -> None:
    """Load what test files load, but for what is to come anew into each fork."""
    out, into = os.pipe()

    def act() -> None:
        os.chdir(ROOT)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '-p', 'no:cov', *files])
        names = [name for name, module in sys.modules.items() if not ours(module)]
        with open(into, 'w') as pipe:
            pipe.write('\n'.join(names))
    child = forked(act)
    os.close(into)
    with open(out) as pipe:
        names = pipe.read().splitlines()
    if ended(child):
        raise SystemExit('the tests cannot be collected')
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def ours(module: Any) -> bool:
    """A module of this tree."""
    file = str(getattr(module, '__file__', None) or '')
    return file.startswith(f'{ROOT}/') and 'site-packages' not in file or \
        module.__name__.partition('.')[0] in ('retrieval', 'tests', 'conftest', '__main__')


def work(cases: list[dict[str, Any]], wanted: list[list[list[str]]], seconds: dict[str, float],
         out: Path) -> None:
    """Try changes one after another, each with its tests, whose seconds are known; a line of JSON
    each.
    """
    load_all({name.partition('::')[0] for stages in wanted for names in stages for name in names})
    loaded = [name for name, module in sys.modules.items() if ours(module) and name != '__main__']
    for name in loaded:
        del sys.modules[name]
    for number, case in enumerate(cases):
        path, begin = ROOT / case['file'], time.monotonic()
        source = path.read_text()
        tree, case['change'] = changed(source, case['number'])
        case['text'] = source.splitlines()[case['line'] - 1].strip()
        case.update(noticed=None, tests=0)
        for names in wanted[number]:
            if names and not case['noticed']:
                usual = sum(seconds.get(name, 0.1) for name in names)
                case['noticed'] = run_tests(names, 10 + 4 * usual, path, tree)
                case['tests'] += len(names)
        case['seconds'] = round(time.monotonic() - begin, 1)
        with out.open('a') as lines:
            lines.write(json.dumps(case) + '\n')


def reason(case: dict[str, Any]) -> str | None:
    """Why nothing can notice a change."""
    return EQUIVALENT.get((case['file'], case['text'], case['change']))


def main() -> None:
    """Draw, try, and say what was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--coverage', type=Path, default=ROOT / '.coverage')
    parser.add_argument('--times', type=Path, default=ROOT / '.coverage.xml')
    parser.add_argument('--out', type=Path, default=Path('mutants.jsonl'))
    parser.add_argument('--again', action='store_true', help='try what was not noticed once more')
    given = parser.parse_args()
    cases, before = draw(given.count, given.seed), []
    if given.again:
        before = [json.loads(line) for line in given.out.read_text().splitlines()]
        cases = [case for case in before if not case['noticed'] and not reason(case)]
        before = [case for case in before if case not in cases]
    given.out.write_text(''.join(json.dumps(case) + '\n' for case in before))
    tests = Tests(given.coverage, given.times)
    wanted = [tests.of(case) for case in cases]  # here: in a fork, the data would be erased
    if not any(names for stages in wanted for names in stages):
        raise SystemExit(f'{given.coverage} knows of no tests: run `make coverage`.')
    children = [forked(lambda part=slice(number, None, given.workers): work(
        cases[part], wanted[part], tests.seconds, given.out)) for number in range(given.workers)]
    failed = [ended(child) for child in children]
    found = [json.loads(line) for line in given.out.read_text().splitlines()]
    same = [case for case in found if not case['noticed'] and reason(case)]
    missed = [case for case in found if not case['noticed'] and not reason(case)]
    for case in missed:
        print(f'{case["file"]}:{case["line"]}: {case["text"]}\n    {case["change"]}'
              f'    ({case["tests"]} tests)')
    count = len(found) - len(same)
    print(f'{count - len(missed)} of {count} changes are noticed '
          f'({100 * (1 - len(missed) / max(1, count)):.1f} %), {len(same)} more change nothing; '
          f'seed {given.seed}')
    sys.exit(1 if any(failed) or len(missed) > 0.1 * count else 0)


if __name__ == '__main__':
    main()
