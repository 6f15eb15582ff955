"""The examples in the docstrings run, and print what they say."""
import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import retrieval

PARTS = [module.name for module in walk_packages(retrieval.__path__, 'retrieval.')]


@pytest.mark.parametrize('name', ['retrieval', *PARTS])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(import_module(name)).failed == 0
