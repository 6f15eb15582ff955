"""Arguments that several commands take, and how an error reaches the user."""
from __future__ import annotations

import argparse
import atexit
import functools
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from ..config.options import ReadOptions

# Threads of OpenMP that wait for each other sleep instead of spinning, which beside another busy
# process takes the time from those that work: a step of 1.2 s took 5 s. Read when torch is loaded.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

TRACEBACK = 'RETRIEVAL_TRACEBACK'
INTERRUPTED = 130  # as shells count what Ctrl-C ended


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


class Command(Protocol):
    """A command: its arguments, or those of the process."""

    def __call__(self, argv: Sequence[str] | None = None) -> None: ...


def reports_errors(command: Command) -> Command:
    """Turn an error of the user's input into one message and exit status 2.

    So is, on several processes, the end of another one.

    Ctrl-C is one line and status 130; a command that knows what it has reached says so as the
    interruption's message.

    With the environment variable RETRIEVAL_TRACEBACK set the traceback is shown. A process group
    that the command joined is left at its end, and a process that has nothing left to do but to
    end ends without the destructors of C++: with torch 2.13 they abort one process in some twenty
    that took part in a gloo group, after its work is done, and the launcher calls that a failure.
    """
    @functools.wraps(command)
    def wrapped(argv: Sequence[str] | None = None) -> None:
        _print_any_name()
        joined_before = _in_group()
        try:
            arguments = list(map(with_home, sys.argv[1:] if argv is None else argv))
            refuse_special_files(arguments)
            command(arguments)
            if not joined_before and _in_group():  # who leaves first may cut off who still reads
                sys.modules['torch.distributed'].barrier()
                if argv is None:  # it is the process's own command, not a call from Python
                    atexit.register(_end_at_once)
        except KeyboardInterrupt as interruption:
            print(' '.join(filter(None, ['Interrupted.', str(interruption)])), file=sys.stderr)
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
