"""An attack, what it has counted, and children that may crash or hang."""
from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

STEP = 0.5  # of a clock that stands still while the process is stopped, seconds


@dataclass
class Tally:
    """What an attack has done so far, and how far it is to go.

    Args:
        least: how many it is to do.
        seconds: how long it may take.
        seed: all that is drawn follows from it.
    """

    least: int
    seconds: float
    seed: int
    done: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin = time.monotonic()
        self.rng = random.Random(self.seed)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.begin)

    def goes_on(self) -> bool:
        """There is more to do, and time for it."""
        return self.done < self.least and self.left > 0 and len(self.failures) < 5

    def count(self, failure: str | None = None, cases: int = 1) -> None:
        """Some cases are done; the last of them went wrong where that is said."""
        self.done += cases
        if failure:
            self.failures.append(failure)
            print(f'FAILED: {failure}'[:1200], file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Attack:
    """An attack by its name: how many it is to do, and its share of the time."""

    name: str
    least: int
    share: float
    run: Callable[[Tally], None]
    what: str = ''  # is counted


ATTACKS: dict[str, Attack] = {}


def attack(name: str, least: int, share: float, what: str) -> Callable[[Callable[[Tally], None]],
                                                                      Callable[[Tally], None]]:
    """Register the decorated function."""
    def register(run: Callable[[Tally], None]) -> Callable[[Tally], None]:
        ATTACKS[name] = Attack(name, least, share, run, what)
        return run
    return register


def clean_error(error: BaseException) -> bool:
    """An error as the package words them: of the kind that it promises, with a message, and raised
    by it, not by a library underneath.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    ours = frame is not None and f'{os.sep}retrieval{os.sep}' in frame.tb_frame.f_code.co_filename
    return ours and isinstance(error, (ValueError, TypeError, OSError)) and len(str(error)) > 10


# Children ------------------------------------------------------------------------------------

def forked(action: Callable[[], Any], memory: int | None = None) -> int:
    """Start an action in a child in its own process group; the child's number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            torch.set_num_threads(1)  # OpenMP's threads are not there in a fork
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if memory is not None:
                pages = int(Path('/proc/self/statm').read_text().split()[0])
                used = pages * os.sysconf('SC_PAGESIZE')
                resource.setrlimit(resource.RLIMIT_AS, (used + memory,) * 2)
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """The exit code of a child; negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def end(child: int) -> int:
    """End a child that :func:`forked` made, and what it started, by SIGKILL; its exit code."""
    for kill in (os.killpg, os.kill):  # its group may not be there yet
        with contextlib.suppress(ProcessLookupError):
            kill(child, signal.SIGKILL)
    return ended(child)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None where it has not ended by then, and then it is ended.

    Time in which this process is stopped does not count.
    """
    while seconds > 0:
        before = time.monotonic()
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
        seconds -= min(STEP, time.monotonic() - before)
    end(child)
    return None


def run_cases(tally: Tally, check: Callable[[Any], str | None], cases: Sequence[Any],
              seconds: float = 20, memory: int = 2 ** 31) -> None:
    """Check cases in children; what crashes or hangs fails, and the next child goes on behind it.

    Args:
        check: says what is wrong with a case, or None.
        seconds: that one case may take.
        memory: bytes that a child may take beside what it starts with.
    """
    done = 0
    while done < len(cases) and tally.left > 0:
        out, into = os.pipe()

        def work(first: int = done, into: int = into) -> None:
            for case in cases[first:]:
                try:
                    said = check(case)
                except BaseException as error:
                    said = f'{type(error).__name__}: {error}'
                os.write(into, json.dumps(said).encode()[:4000].replace(b'\n', b' ') + b'\n')
        child = forked(work, memory)
        os.close(into)
        buffer, patience = b'', seconds
        while done < len(cases):
            before = time.monotonic()
            ready, _, _ = select.select([out], [], [], STEP / 2)
            if ready:
                more = os.read(out, 2 ** 16)
                if not more:
                    break
                patience, buffer = seconds, buffer + more
                *lines, buffer = buffer.split(b'\n')
                for line in lines:
                    said = json.loads(line) if line.startswith((b'n', b'"')) and \
                        line.endswith((b'l', b'"')) else line.decode(errors='replace')
                    tally.count(said and f'{cases[done]!r:.200}: {said}')
                    done += 1
                continue
            patience -= min(STEP, time.monotonic() - before)
            if patience <= 0:
                break
        os.close(out)
        code = end(child) if patience <= 0 else ended(child)
        if done < len(cases):
            how = f'hung for {seconds:g} s' if patience <= 0 else f'ended with {code}'
            tally.count(f'{cases[done]!r:.200}: {how}')
            done += 1
