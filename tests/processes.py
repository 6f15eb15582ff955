"""Processes that tests start: one that may be ended by a signal, and the end of one in a group."""
import os
import sys
import traceback

import torch
import torch.distributed as dist


def leave_group():
    """Leave the group when all have come here, and end without the destructors of C++, which abort
    such a process now and then (see ``retrieval.commands.command_line``).
    """
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def in_a_child(check):
    """Call ``check`` in a forked process, which it may end, as a bus error does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # OpenMP's threads are not there in a fork
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert ended == 0, f'ended by signal {ended & 127}, with status {ended >> 8}'
