"""A module imports only from lower floors and its own package; no imports run in a circle; each
has its test file.
"""
import ast
from pathlib import Path

import pytest

import retrieval

ROOT, TESTS = Path(retrieval.__file__).parent, Path(__file__).parent
FLOORS = [
    {'registry', 'compat', 'arguments', 'checks', 'distributed', 'files', 'foreign_files',
     'labels', 'mapped_file', 'string_column'},
    {'structures', 'similarity', 'tensor_file', 'progress', 'image_files', 'exported_encoder'},
    {'gallery', 'ranking', 'image_io', 'encoded_folder', 'registration',
     'picture_facts'},
    {'datasets', 'encoders', 'losses', 'index', 'rerank', 'evaluation', 'visualization'},
    {'heads', 'config', 'answers'},
    {'retrievers'},
    {'hooks', 'search', 'inference'},
    {'runs'},
    {'server', 'report', 'export', 'doctor'},
    {'commands'},
    {'__main__'},
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
SAME_FLOOR = {('mapped_file', 'foreign_files'),  # a pipe or device is not mapped
              ('registry', 'compat'),  # the mends stand before anything is registered
              ('registry', 'checks')}  # the message for an unknown name, which needs no engine


def imported_names(path, package):
    """The dotted names that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            names = (node.module or '').split('.') if node.module else []
            full = [*base, *names] if node.level else names
            yield from ((*full, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.split('.')) for alias in node.names)


def imported_parts(path, package):
    """The parts of the package that a module imports."""
    return [name[1] for name in imported_names(path, package)
            if name[0] == 'retrieval' and len(name) > 1 and name[1] in FLOOR]


def violations(path):
    relative = path.relative_to(ROOT)
    part = relative.parts[0].removesuffix('.py')
    package = ['retrieval', *relative.parts[:-1]]
    return [(part, other) for other in imported_parts(path, package)
            if other != part and (part, other) not in SAME_FLOOR
            and FLOOR[other] >= FLOOR[part]]


def circles(root):
    """Modules below a folder that import each other, each set sorted.

    A name that a package's ``__init__`` hands on counts as an import of the module that defines
    it, so the packages themselves stand in no circle.
    """
    def dotted(path):
        parts = path.relative_to(root.parent).with_suffix('').parts
        return parts[:-1] if parts[-1] == '__init__' else parts

    paths = {dotted(path): path for path in root.rglob('*.py')}

    def package_of(name):
        return list(name if paths[name].stem == '__init__' else name[:-1])

    handed_on = {}
    for name, path in paths.items():
        if path.stem == '__init__':
            for imported in imported_names(path, package_of(name)):
                handed_on[(*name, imported[-1])] = imported[:-1]
    edges = {}
    for name, path in paths.items():
        found = set()
        for imported in imported_names(path, package_of(name)):
            if imported in paths:
                found.add(imported)
            else:
                found.add(handed_on.get(imported, imported[:-1]))
        edges[name] = {other for other in found if other in paths and other != name}
    reached = {}
    for name in edges:
        if paths[name].stem == '__init__':
            continue
        seen, todo = set(), [name]
        while todo:
            for other in edges[todo.pop()] - seen:
                seen.add(other)
                if paths[other].stem != '__init__':
                    todo.append(other)
        reached[name] = seen
    together = {tuple(sorted('.'.join(other) for other in reached[name]
                             if name in reached.get(other, ())))
                for name in reached if name in reached[name]}
    return sorted(together)


@pytest.mark.parametrize('path', sorted(ROOT.rglob('*.py')), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_lower_floors(path):
    if path != ROOT / '__init__.py':  # the public names: loaded when they are first used
        assert violations(path) == []


def test_every_part_has_a_floor():
    parts = {p.name.removesuffix('.py') for p in ROOT.iterdir()
             if p.suffix == '.py' or (p / '__init__.py').is_file()}
    assert parts - {'__init__'} == set(FLOOR)


def test_no_circle_of_imports():
    assert circles(ROOT) == []


@pytest.mark.parametrize('path', sorted(ROOT.rglob('*.py')), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_has_its_test_file(path):
    """``retrieval/a/b.py`` is tested by ``tests/a/test_b.py``."""
    if path.stem in ('__init__', '__main__'):  # names alone, in test_public_names.py; a call of
        return                                 # commands/main.py, in its test
    mirrored = TESTS / path.relative_to(ROOT).with_name(f'test_{path.name}')
    assert mirrored.is_file() and 'def test_' in mirrored.read_text(), (
        f'{path.relative_to(ROOT.parent)} wants tests in {mirrored.relative_to(TESTS.parent)}.')


def test_the_rule_sees_a_violation(tmp_path):
    """The reader of imports finds relative, absolute and local imports."""
    module = tmp_path / 'index.py'
    module.write_text('from ..retrievers import x\nimport retrieval.hooks\n'
                      'def f():\n    from retrieval import commands\n')
    assert imported_parts(module, ['retrieval', 'index']) == ['retrievers', 'hooks', 'commands']


def test_the_rule_sees_a_circle(tmp_path):
    """Also one through a package's names, and one that is closed inside a function."""
    package = tmp_path / 'toy'
    package.mkdir()
    (package / '__init__.py').write_text('from .one import first\n')
    (package / 'one.py').write_text('from . import two\nfirst = two\n')
    (package / 'two.py').write_text('def late():\n    from . import first\n')
    (package / 'three.py').write_text('from .one import first\n')
    assert circles(package) == [('toy.one', 'toy.two')]
