"""Install the package as a user does, beside other versions than the tested ones, and use it.

    python tests/installed/check_install.py newest    # all that is required, as new as can be had
    python tests/installed/check_install.py oldest    # each at the lower end of its range
    python tests/installed/check_install.py matrix    # both, and each other Python that is at hand
                                                      # with the newest; a part of the tests in each

The environment, ``.venv-newest`` or ``.venv-oldest``, is kept for the next time. An open request
for torch may bring a CUDA build of several GB. Where that cannot be had (little room on the disk,
a download that fails or takes too long), or ``RETRIEVAL_SKIP_NEWEST=1`` (``…_OLDEST=1``) asks for
it, one line says that the check is skipped, and the status is 0. Everything else that fails is a
failure. The oldest have no builds for Python 3.12 and later.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIGABYTES = 10  # that must be free for a CUDA build, which takes six, and its files while unpacked
# Seconds that pip may take for torch, and for the others; a search; the tests
DOWNLOAD, REST, SEARCH, MATRIX = 420, 240, 120, 1800
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
# What meets torch, the engine and NumPy; it wants no more than pytest beside them.
TESTS = ('config', 'gallery/test_gallery.py', 'ranking/test_topk.py', 'ranking/test_ranks.py',
         'evaluation/test_evaluate.py', 'evaluation/test_metrics.py', 'index/test_exact.py',
         'index/faiss', 'losses/test_average_precision.py', 'test_distributed.py',
         'heads/test_metric_head.py', 'commands/test_configs.py',
         'commands/test_train_and_test.py')


class Skipped(Exception):
    """The versions cannot be had here; the message says why."""


def requirements(which: str, folder: Path) -> tuple[list[str], list[str]]:
    """What pip is asked for torch and torchvision, and the options of that and the next request."""
    if which == 'newest':
        return ['torch', 'torchvision'], ['--upgrade', '--upgrade-strategy', 'eager']
    oldest = (ROOT / 'requirements' / 'runtime.txt').read_text().replace('>=', '==')
    (folder / 'oldest.txt').write_text(oldest)
    wanted = [line for line in oldest.splitlines() if line.startswith(('torch==', 'torchvision=='))]
    return wanted, ['-c', str(folder / 'oldest.txt')]


def install(which: str, folder: Path, python: str) -> Path:
    """The environment's folder of programs, with the package and its requirements installed."""
    programs, complete = folder / 'bin', folder / '.complete'
    if not complete.exists():
        free = shutil.disk_usage(ROOT).free / 2**30
        if free < GIGABYTES:
            raise Skipped(f'{free:.1f} GB are free in {ROOT}, and a build of torch for CUDA '
                          f'needs {GIGABYTES}.')
        subprocess.run([python, '-m', 'venv', '--clear', folder], check=True)
    pip = [programs / 'python', '-m', 'pip', 'install', '--no-cache-dir', '--quiet']
    wanted, options = requirements(which, folder)
    try:
        subprocess.run([*pip, '--upgrade', 'pip'], check=True, timeout=REST)
        subprocess.run([*pip, *options, *wanted], check=True, timeout=DOWNLOAD)
    except subprocess.SubprocessError as error:
        if not complete.exists():
            shutil.rmtree(folder)
        late = isinstance(error, subprocess.TimeoutExpired)
        raise Skipped(f"pip did not install {' '.join(wanted)}"
                      f"{f' within {DOWNLOAD} seconds' if late else ', for what it says above'}."
                      ) from error
    shutil.rmtree(ROOT / 'build', ignore_errors=True)  # modules that are gone would be installed
    subprocess.run([*pip, *options, f'{ROOT}[weights]'], check=True, timeout=REST)
    subprocess.run([programs / 'python', '-m', 'pip', 'check'], check=True, timeout=REST)
    complete.touch()
    return programs


def picture(path: Path, colour, size: int = 96) -> None:
    """Write a picture whose pixel ``(x, y)`` is ``colour(x, y)``, three numbers from 0 to 255."""
    pixels = bytes(value for y in range(size) for x in range(size) for value in colour(x, y))
    path.write_bytes(b'P6 %d %d 255\n' % (size, size) + pixels)


def search(programs: Path, folder: Path) -> str:
    """The name of the first picture that ``retrieval search`` finds for upright stripes."""
    gallery = folder / 'gallery'
    gallery.mkdir()
    picture(gallery / 'upright.ppm', lambda x, y: [255 * (x // 8 % 2)] * 3)
    picture(gallery / 'level.ppm', lambda x, y: [255 * (y // 8 % 2)] * 3)
    picture(gallery / 'disc.ppm', lambda x, y: [220, 30, 30] if (x - 48)**2 + (y - 48)**2 < 900
            else [250, 250, 250])
    picture(gallery / 'slope.ppm', lambda x, y: [2 * x, 2 * y, 90])
    picture(folder / 'query.ppm', lambda x, y: [255 * ((x + 4) // 8 % 2)] * 3)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run([programs / 'retrieval', 'search', gallery, folder / 'query.ppm',
                    '--out', folder / 'out'],
                   cwd=folder, env=environment, check=True, timeout=SEARCH)
    answers = json.loads((folder / 'out' / 'results.json').read_text())
    return Path(answers[0]['results'][0]['path']).name


def run_tests(programs: Path, folder: Path) -> None:
    """Run a part of the tests against what is installed, away from the clone's package."""
    for name in ('tests', 'configs', 'docs'):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / 'setup.cfg', folder)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run([programs / 'python', '-m', 'pip', 'install', '--quiet', 'pytest>=8'],
                   check=True, timeout=REST)
    subprocess.run([programs / 'python', '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
                    '--disable-warnings', *(f'tests/{part}' for part in TESTS)],
                   cwd=folder, env=environment, check=True, timeout=MATRIX)


def check(which: str, python: str, with_tests: bool = False) -> str:
    """Install and search, and run the tests; the versions that it passed with.

    Raises:
        Skipped: these versions cannot be had here.
    """
    if os.environ.get(f'RETRIEVAL_SKIP_{which.upper()}', '') not in ('', '0'):
        raise Skipped(f'RETRIEVAL_SKIP_{which.upper()} is set.')
    own = version_of(python) == version_of(sys.executable)
    programs = install(which, ROOT / f'.venv-{which}{"" if own else f"-{version_of(python)}"}',
                       python)
    with tempfile.TemporaryDirectory() as folder:
        first = search(programs, Path(folder))
        if first != 'upright.ppm':
            raise SystemExit(f'check-{which}: the first result for upright stripes is {first}.')
    if with_tests:
        with tempfile.TemporaryDirectory() as folder:
            run_tests(programs, Path(folder))
    return subprocess.run(
        [programs / 'python', '-c', 'import platform; from importlib.metadata import version; '
         "print('Python', platform.python_version(), "
         "*(f'{name} {version(name)}' for name in ('torch', 'torchvision', 'numpy', 'mmengine')))"],
        check=True, capture_output=True, text=True).stdout.strip()


def version_of(python: str) -> str:
    """The version of a Python as ``3.11``, or nothing where it does not start."""
    done = subprocess.run([python, '-c', "import sys; print('%d.%d' % sys.version_info[:2])"],
                          capture_output=True, text=True)
    return done.stdout.strip()


def main(which: str) -> None:
    cells = [(one, sys.executable) for one in ('oldest', 'newest') if which in (one, 'matrix')]
    if which == 'matrix':
        found = {version_of(path): path for name in PYTHONS
                 if (path := shutil.which(f'python{name}'))}
        cells += [('newest', path) for version, path in found.items()
                  if version and version != version_of(sys.executable)]
    failed = False
    for one, python in cells:
        try:
            print(f'check-{one} passed with {check(one, python, which == "matrix")}', flush=True)
        except Skipped as reason:
            print(f'check-{one} skipped for Python {version_of(python)}: {reason}', flush=True)
        except subprocess.SubprocessError as error:  # the others are tried all the same
            print(f'check-{one} failed for Python {version_of(python)}: {error}', flush=True)
            failed = True
    raise SystemExit(failed)


if __name__ == '__main__':
    if sys.argv[1:] not in (['newest'], ['oldest'], ['matrix']):
        raise SystemExit(__doc__)
    main(sys.argv[1])
