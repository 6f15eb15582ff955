"""Everything static stands in setup.cfg; here is what one may choose to keep of one's own, and the
configs, which a clone has beside the package and an installation inside it."""
import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


def runtime_requirements() -> list[str]:
    """The requirements, less those named in RETRIEVAL_WITHOUT (comma-separated).

    mmcv replaces mmcv-lite, onedl-mmengine replaces mmengine and faiss-gpu replaces faiss-cpu, each
    under the same import name; pip cannot say "either of them", so whoever has one of these leaves
    the other out.
    """
    without = {name.strip().lower() for name in os.environ.get('RETRIEVAL_WITHOUT', '').split(',')}
    lines = (Path(__file__).parent / 'requirements' / 'runtime.txt').read_text().splitlines()
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    names = {re.split(r'[<>=!~; \[]', line)[0].lower() for line in wanted}
    unknown = without - names - {''}
    if unknown:
        raise SystemExit(f'RETRIEVAL_WITHOUT names {", ".join(sorted(unknown))}, which is no '
                         f'requirement; the requirements are {", ".join(sorted(names))}.')
    return [line for line in wanted if re.split(r'[<>=!~; \[]', line)[0].lower() not in without]


class BuildWithConfigs(build_py):
    """Copies ``configs`` to ``retrieval/configs``; an editable installation reads the clone's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            root = Path(__file__).parent / 'configs'
            for file in root.rglob('*.py'):
                target = Path(self.build_lib, 'retrieval', 'configs', file.relative_to(root))
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(install_requires=runtime_requirements(), cmdclass={'build_py': BuildWithConfigs})
