"""The manners of every command: its parser, what it answers, and how an error reaches the user."""
from __future__ import annotations

import _thread
import argparse
import atexit
import functools
import json
import math
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from ..config.options import ReadOptions
from ..progress import showing

# Threads of OpenMP that wait for each other sleep instead of spinning, which beside another busy
# process takes the time from those that work: a step of 1.2 s took 5 s. Read when torch is loaded.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

TRACEBACK = 'RETRIEVAL_TRACEBACK'
INTERRUPTED = 130  # as shells count what Ctrl-C ended
#: What a command answers with ``--json``: plain values by name, ``files`` being what it wrote.
Outcome = dict[str, Any]
#: Libraries whose warnings tell a user nothing that could be done about it.
_NO_NEWS_OF = ('mmengine', 'mmcv', 'torch', 'torchvision', 'timm', 'transformers', 'pydantic',
               'faiss', 'pytorch_metric_learning', 'huggingface_hub', 'onnx', 'onnxscript',
               'onnxruntime', 'openvino', 'sklearn', 'matplotlib', 'pymilvus', 'tqdm',
               'tensorboard')
_out: list[TextIO] = []  # where the answer of the running command goes, with --json


class CommandParser(argparse.ArgumentParser):
    """A command's arguments, ``--json`` among them.

    Example:
        >>> CommandParser('count').parse_args(['--json']).json
        True
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_argument('--json', action='store_true', help='answer with one JSON document on '
                          'the standard output; words go to the error output')


class Unmet(SystemExit):
    """Ends a command whose answer is no: status 1, with the answer."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(1)
        self.outcome = outcome


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=ReadOptions, metavar='KEY=VALUE',
        help='override settings of the config: key=value, nested a.b=value, in a list a.0.b=value; '
        'lists key="[a,b]", dicts key="dict(a=1)", text with commas or like a number key="\'007\'"')


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` and ``--trust``, for a bundle in the place of config and checkpoint."""
    parser.add_argument('--data', metavar='FOLDER', help='where CONFIG is a bundle: a folder with '
                        'one sub-folder a class, for its gallery and its test set')
    parser.add_argument('--trust', action='store_true', help="build whatever a bundle's config "
                        'names, and import what it wants imported')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and the local rank that older launchers pass."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how several processes were started (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def reports_errors(command: Callable[[Sequence[str]], Outcome | None]) -> Callable[..., None]:
    """The manners of a command, which returns its outcome.

    - With ``--json`` the outcome is printed as one JSON document, with ``seconds``, and whatever
      else is printed goes to the error output.
    - An error of the user's input is one message and exit status 2. With the environment variable
      RETRIEVAL_TRACEBACK set the traceback is shown. So is, on several processes, the end of
      another one.
    - Ctrl-C is one line and status 130; what knows how far it has come says so as the
      interruption's message.
    - Warnings of the libraries beneath, which a user can do nothing about, are not shown.
    - Work that turns out long has a bar, where somebody watches.

    A process group that the command joined is left at its end, and a process that has nothing left
    to do but to end ends without the destructors of C++: with torch 2.13 they abort one process in
    some twenty that took part in a gloo group, after its work is done, and the launcher calls that
    a failure.
    """
    @functools.wraps(command)
    def wrapped(argv: Sequence[str] | None = None) -> None:
        _print_any_name()
        joined_before = _in_group()
        try:
            arguments = list(map(with_home, sys.argv[1:] if argv is None else argv))
            refuse_special_files(arguments)
            with _interruptible(argv is None), _quiet(), showing(), \
                    _answering(any(map(_is_json, arguments))):
                start, unmet = time.perf_counter(), None
                try:
                    outcome = command(arguments)
                except Unmet as found:
                    unmet, outcome = found, found.outcome
                if outcome is not None:
                    answer({**outcome, 'seconds': round(time.perf_counter() - start, 3)})
            if unmet is not None:
                raise unmet
            if not joined_before and _in_group():  # who leaves first may cut off who still reads
                sys.modules['torch.distributed'].barrier()
                if argv is None:  # it is the process's own command, not a call from Python
                    atexit.register(_end_at_once)
        except KeyboardInterrupt as interruption:
            print(f'Interrupted. {str(interruption) or "There is no result yet."}', file=sys.stderr)
            sys.stdout.flush()
            if argv is None:  # what ends the process is not to be interrupted again
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(INTERRUPTED) from None
        except (ValueError, TypeError, OSError, KeyError, ImportError,
                FloatingPointError, MemoryError) as error:
            if os.environ.get(TRACEBACK):
                raise
            from ..compat import message_of_worker
            print(f'{type(error).__name__}: {message_of_worker(str(error))}\n(Set {TRACEBACK}=1 to '
                  'see where.)', file=sys.stderr)
            sys.stdout.flush()
            raise SystemExit(2) from error
        except RuntimeError as error:
            if os.environ.get(TRACEBACK) or not _lost_process(error):
                raise
            print('ConnectionError: another process of this run has ended, and this one ends with '
                  'it. What that one printed last says why; start all of them again (train with '
                  f'--resume).\n(Set {TRACEBACK}=1 to see where.)', file=sys.stderr)
            sys.stdout.flush()
            raise SystemExit(2) from error
        finally:
            if not joined_before and _in_group():
                sys.modules['torch.distributed'].destroy_process_group()
    return wrapped


def _lost_process(error: RuntimeError) -> bool:
    """True for what gloo, NCCL and the store say where another process of the group has ended."""
    distributed = sys.modules.get('torch.distributed')
    kinds: Any = getattr(distributed, 'DistError', ())
    return isinstance(error, kinds) or 'gloo/transport' in str(error)


def answer(outcome: Outcome) -> None:
    """Print the answer of the running command where ``--json`` was given: for one that answers
    before it ends, such as a server. Of several processes the first answers.
    """
    if _out and not (_in_group() and sys.modules['torch.distributed'].get_rank()):
        print(json.dumps(as_plain(outcome), indent=2), file=_out[-1], flush=True)


def as_plain(value: Any) -> Any:
    """A value as JSON has it: numbers that are not finite as null, what it lacks as text.

    Example:
        >>> as_plain({'least': float('nan'), 'rows': (1, 2)})
        {'least': None, 'rows': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): as_plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(as_plain, value))
    if hasattr(value, 'tolist'):  # of NumPy and torch
        return as_plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _is_json(argument: str) -> bool:
    """True for ``--json``, and for what the parser takes for its abbreviation."""
    return len(argument) > 2 and '--json'.startswith(argument)


@contextmanager
def _answering(as_json: bool) -> Iterator[None]:
    if not as_json:
        yield
        return
    _out.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _out.pop()


@contextmanager
def _interruptible(whole_process: bool) -> Iterator[None]:
    """Inside, in a process that is one command, Ctrl-C interrupts that and not the workers, which
    it ends itself; they would end first, as if something had killed them. An interruption that
    falls where Python ignores exceptions, as in what runs after a fork, comes again; and what was
    interrupted half-built, such as a dataloader, may fail at its end without a word.
    """
    if not whole_process or threading.current_thread() is not threading.main_thread():
        yield
        return
    process, unraisable, uncaught = os.getpid(), sys.unraisablehook, sys.excepthook
    interrupted = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        if os.getpid() == process:
            raise KeyboardInterrupt

    def again(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            if not interrupted.is_set():
                unraisable(ignored)
        elif os.getpid() == process:
            threading.Timer(0.05, _thread.interrupt_main).start()

    def say(kind: Any, error: BaseException, trace: Any) -> None:
        # a worker whose data are no longer fetched
        if os.getpid() == process or not isinstance(error, (ConnectionError, EOFError)):
            uncaught(kind, error, trace)

    before = signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook, sys.excepthook = again, say
    try:
        yield
    finally:
        if not interrupted.is_set():  # else the process ends
            sys.unraisablehook = unraisable
        sys.excepthook = uncaught
        signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, no warning of the libraries beneath is shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', module=rf'({"|".join(_NO_NEWS_OF)})(\.|$)')
        yield


def _print_any_name() -> None:
    """Let the standard output take file names that are no UTF-8, with the bytes that they have."""
    out = sys.stdout
    if getattr(out, 'errors', None) == 'strict' and hasattr(out, 'reconfigure'):
        is_utf8 = str(out.encoding).lower().replace('-', '') == 'utf8'
        out.reconfigure(errors='surrogateescape' if is_utf8 else 'backslashreplace')


def with_home(argument: str) -> str:
    """An argument with a ``~`` at the beginning of its path as the user's folder; a shell leaves
    that of ``--out=~/here`` and ``data_root=~/there`` as it is.

    Example:
        >>> with_home('--out=~/here') == '--out=' + os.path.expanduser('~/here')
        True
    """
    begin, tilde, path = re.sub(r'^([^~/]*=)?~', r'\1\0~', argument).rpartition('\0')
    return begin + os.path.expanduser(path) if tilde else argument


def refuse_special_files(argv: Sequence[str]) -> None:
    """Refuse pipes, devices and sockets among the arguments, which might never end.

    Raises:
        ValueError: it names the first.

    Example:
        >>> refuse_special_files(['--out=results', 'a.png'])
    """
    from ..foreign_files import refuse_special
    for argument in argv:
        for path in (argument, argument.partition('=')[2]):
            if path:
                refuse_special(path)


def _end_at_once() -> None:
    """Run what is registered for the end, and end with status 0."""
    atexit.unregister(_end_at_once)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _in_group() -> bool:
    """True in a process of a process group; torch is not imported to find out."""
    distributed = sys.modules.get('torch.distributed')
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
