"""One of several processes is killed: the others end soon, with one clear error."""
from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import retrieval.commands.dump_prototype
import retrieval.commands.test
import retrieval.commands.train
import retrieval.distributed

from ..commands.conftest import CONFIG, draw_classes, run
from .attack import Tally, attack, end, forked, wait
from .training import _port

LIMIT = 90  # seconds within which the others must have ended


def _start(command: list[str], number: int, processes: int, port: int, log: Path) -> int:
    def act() -> None:
        import importlib
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(processes),
                          MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        status = 0
        joined = retrieval.distributed.init_cpu_group

        def join(launcher: str) -> None:
            joined(launcher)
            print('joined', flush=True)
        retrieval.distributed.init_cpu_group = join
        try:
            importlib.import_module(f'retrieval.commands.{command[0]}').main(
                [*command[1:], '--launcher', 'pytorch'])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        finally:
            import sys
            if sys.exc_info()[0] is not None:
                import traceback
                traceback.print_exc()
                status = 1
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    return forked(act)


@attack('one of several processes killed', 24, 0.1, 'kills')
def one_of_several(tally: Tally) -> None:
    """Training, testing and dumping on two and three processes."""
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-') as name:
        root = Path(name)
        draw_classes(root / 'pictures', each=12)
        config = root / 'small.py'
        config.write_text(CONFIG.format(root=str(root / 'pictures')))
        status, _, err = run('train', config, '--work-dir', root / 'work', '--cfg-options',
                             'train_cfg.max_epochs=1')
        assert status == 0, err
        weights = str(root / 'work' / 'epoch_1.pth')
        took: dict[str, float] = {}
        number = 0
        while tally.goes_on():
            kind = ('train', 'test', 'dump_prototype')[number % 3]
            processes = 2 + number // 3 % 2
            number += 1
            folder = root / str(number)
            folder.mkdir()
            command: list[Any] = {
                'train': ['train', config, '--work-dir', folder, '--cfg-options',
                          'train_cfg.max_epochs=9', 'train_dataloader.batch_size=2'],
                'test': ['test', config, weights, '--work-dir', folder],
                'dump_prototype': ['dump_prototype', config, weights, folder / 'g.safetensors'],
            }[kind]
            command, port = list(map(str, command)), _port()
            begin = time.monotonic()
            children = [_start(command, one, processes, port, folder / f'{one}.log')
                        for one in range(processes)]
            if kind not in took:  # the first is not disturbed
                codes = [wait(child, LIMIT * 3) for child in children]
                took[kind] = time.monotonic() - begin
                if any(codes):
                    tally.count(f'{kind} that nothing disturbs: {codes} '
                                + (folder / '0.log').read_text()[-1500:])
                    return
                continue
            victim = tally.rng.randrange(processes)
            logs = [folder / f'{one}.log' for one in range(processes)]
            # until then the others wait for it as long as for one that starts slowly
            while time.monotonic() - begin < LIMIT and not all(
                    log.exists() and 'joined' in log.read_text() for log in logs):
                time.sleep(0.005)
            time.sleep(tally.rng.uniform(0, 0.9) * took[kind])
            if end(children[victim]) != -signal.SIGKILL:
                for one in children[:victim] + children[victim + 1:]:
                    wait(one, LIMIT)
                continue  # it was done
            wrong = []
            for one, child in enumerate(children):
                if one == victim:
                    continue
                code = wait(child, LIMIT)
                said = logs[one].read_text()
                if code is None:
                    wrong.append(f'process {one} hangs')
                elif code not in (0, 2):
                    wrong.append(f'process {one} ends with {code}: {said[-1200:]}')
                elif code and 'Traceback' in said:
                    wrong.append(f'process {one} prints a traceback: {said[-1200:]}')
            tally.count(f'{kind} on {processes}: {"; ".join(wrong)}' if wrong else None)
