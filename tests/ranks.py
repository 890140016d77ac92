"""Processes that train together, as torchrun or srun starts them, without the seconds that imports take each.

python tests/ranks.py LAUNCHER WORLD (MODULE | SCRIPT.py) ARGUMENT...

LAUNCHER, "torchrun" or "srun", says which variables name a process. All are forked from this one, which has
imported the package. Their identifiers are the first line of stdout, and the exit status is their largest.
"""

import os
import runpy
import socket
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path

WAIT = 300


def start(launcher, world, program, *arguments, **how):
    """Popen of this file, with the arguments as on the command line and one thread an operation."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **how.pop("environment", {})}
    command = [sys.executable, __file__, launcher, world, program, *arguments]
    return subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **how)  # fmt: skip


def run(launcher, world, program, *arguments):
    """Start, wait, and see that all went well."""
    _, err = (process := start(launcher, world, program, *arguments)).communicate(timeout=WAIT)
    assert process.returncode == 0, err


def variables(launcher, rank, world, port):
    """What a launcher on one machine tells process ``rank``."""
    if launcher == "torchrun":
        return {
            **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world},
            **{"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        }
    return {
        **{"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_NTASKS": world},
        **{"SLURM_NTASKS_PER_NODE": world, "SLURM_NNODES": 1, "SLURM_JOB_ID": 1, "SLURM_STEP_ID": 0},
        **{"SLURM_NODELIST": "localhost", "MASTER_PORT": port},
    }


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def child(program, arguments):
    """The exit status of the program, run in this process."""
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main(launcher, world, program, *arguments):
    import_module("stopgrad.jobs")  # what the children need

    port, children = free_port(), []
    for rank in range(int(world)):
        if not (pid := os.fork()):
            told = variables(launcher, rank, int(world), port)
            os.environ.update({name: str(value) for name, value in told.items()})
            status = child(program, list(arguments))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        children.append(pid)
    print(*children, flush=True)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
