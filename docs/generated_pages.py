"""Pages of the site that are not written: the shipped configs, and the reference of the API.

A hook of mkdocs. The pages link to configs as files of the clone; here the links lead to the page
of their method, which shows them.
"""
import ast
import re
from pathlib import Path

from griffe import Extension
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
CONFIGS, PACKAGE = ROOT / 'configs', ROOT / 'retrieval'
MODULES = ('registry', 'structures')  # that are no packages, and that users name


def on_files(files, config):
    """Add the pages."""
    for name, text in {**config_pages(), **reference_pages()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def config_pages():
    """A page for each folder of configs, and one for the bases, each config under its name."""
    pages = {}
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        base = folder.name == '_base_'
        title = 'What configs inherit' if base else folder.name.replace('_', ' ')
        parts = [f'# {title}\n']
        for file in sorted(folder.rglob('*.py')):
            name = file.relative_to(CONFIGS).with_suffix('').as_posix()
            parts.append(f'## {name} {{ #{anchor(name)} }}\n\n```python\n{file.read_text()}```\n')
        pages[f'configs/{"bases" if base else folder.name}.md'] = '\n'.join(parts)
    return pages


def anchor(name):
    """A config's place on its page."""
    return re.sub(r'[^\w-]', '-', name)


def reference_pages():
    """A page for each part of the package that exports names, and one for the public names."""
    text = (PACKAGE / '__init__.py').read_text()
    summary = ast.get_docstring(ast.parse(text)).split('\n\n')[0]
    rows = '\n'.join(f'| [`{name}`][retrieval.{path}] | `retrieval.{part}` |'
                     for name, part in re.findall(r"^    '(\w+)': '(\w+)',$", text, re.M)
                     for path in [f'{part}.{name}'.replace('n.evaluate', 'n.evaluate.evaluate')])
    pages = {'reference/retrieval.md':
             f'# retrieval\n\n{summary}\n\n| name | stands in |\n|---|---|\n{rows}\n'}
    packages = [file.parent.name for file in sorted(PACKAGE.glob('*/__init__.py'))
                if '__all__' in file.read_text()]
    for name in (*packages, *MODULES):
        pages[f'reference/{name}.md'] = f'# retrieval.{name}\n\n::: retrieval.{name}\n'
    # the function has the name of its module, which stands before it
    pages['reference/evaluation.md'] += '\n::: retrieval.evaluation.evaluate\n'
    return pages


def on_page_markdown(markdown, page, **_):
    """Lead links to configs to their pages."""
    up = '../' * page.file.src_uri.count('/')

    def link(found):
        folder, _, rest = found[1].partition('/')
        where = 'bases' if folder == '_base_' else folder
        return f']({up}configs/{where}.md#{anchor(f"{folder}/{rest}")})'
    return re.sub(rf'\]\({re.escape(up)}\.\./configs/([\w/-]+)\.py\)', link, markdown)


class Docstrings(Extension):
    """The docstrings as the reference reads them: `Example:` is a section of code, and names
    stand without their roles."""

    def on_instance(self, *, obj, **_):
        """Change the docstring of an object."""
        if obj.docstring is not None and not obj.is_alias:
            text = re.sub(r'^(\s*)Example:$', r'\1Examples:', obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r':(?:func|class|meth|mod|attr|data|obj):`~?([^`]*)`',
                                         r'`\1`', text)
