"""A module imports only from lower floors, and from its own folder."""
import ast
from pathlib import Path

import pytest

import retrieval

ROOT = Path(retrieval.__file__).parent
FLOORS = [
    {'registry', 'compat', 'distributed', 'version'},
    {'structures', 'similarity'},
    {'gallery', 'ranking'},
    {'datasets', 'encoders', 'heads', 'index', 'rerank', 'evaluation', 'visualization'},
    {'retrievers'},
    {'hooks', 'inference'},
    {'commands'},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# registry.py is mended by compat.py, and the rest of the lowest floor imports nothing of it
SAME_FLOOR = {('registry', 'compat'), ('gallery', 'version')}


def imported_parts(path, package):
    """The parts of the package that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            names = (node.module or '').split('.') if node.module else []
            full = [*base, *names] if node.level else names
            tails = [[*full, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            tails = [alias.name.split('.') for alias in node.names]
        else:
            continue
        for tail in tails:
            if tail[0] == 'retrieval' and len(tail) > 1 and tail[1] in FLOOR:
                yield tail[1]


def violations(path):
    relative = path.relative_to(ROOT)
    part = relative.parts[0].removesuffix('.py')
    package = ['retrieval', *relative.parts[:-1]]
    return [(part, other) for other in imported_parts(path, package)
            if other != part and (part, other) not in SAME_FLOOR
            and FLOOR[other] >= FLOOR[part]]


@pytest.mark.parametrize('path', sorted(ROOT.rglob('*.py')), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_lower_floors(path):
    if path.parent == ROOT and path.stem == '__init__':
        assert list(imported_parts(path, ['retrieval'])) in ([], ['version'])
        return
    assert violations(path) == []


def test_every_part_has_a_floor():
    parts = {p.name.removesuffix('.py') for p in ROOT.iterdir()
             if p.suffix == '.py' or (p / '__init__.py').is_file()}
    assert parts - {'__init__'} == set(FLOOR)


def test_the_rule_sees_a_violation(tmp_path):
    """The reader of imports finds relative, absolute and local imports."""
    module = tmp_path / 'index.py'
    module.write_text('from ..retrievers import x\nimport retrieval.hooks\n'
                      'def f():\n    from retrieval import commands\n')
    found = list(imported_parts(module, ['retrieval', 'index']))
    assert found == ['retrievers', 'hooks', 'commands']


def test_files_and_functions_stay_short():
    long_files, long_functions = [], []
    for path in ROOT.rglob('*.py'):
        text = path.read_text()
        if len(text.splitlines()) > 345:
            long_files.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and node.end_lineno - body[0].lineno > 45:
                    long_functions.append(f'{path.name}:{node.name}')
    assert long_files == [] and long_functions == []
