"""How this process was started: what a launcher says in the environment, before any MPI is asked."""

from __future__ import annotations

import os
from typing import NamedTuple


class Launcher(NamedTuple):
    """A launcher, and the variables in which it says how many processes there are and which of them this is."""

    name: str
    size: str
    rank: str


# In this order: a launcher may have been started by another. (Slurm's are those of a step, which `srun` makes; a batch
# script has SLURM_NTASKS too, and is one process.)
LAUNCHERS = (
    Launcher("mpiexec of Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    Launcher("mpiexec", "PMI_SIZE", "PMI_RANK"),
    Launcher("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def found() -> Launcher | None:
    """The launcher of this process, None where there is none."""
    return next((one for one in LAUNCHERS if os.environ.get(one.size, "").isdigit()), None)


_left: list[bool] = []


def left() -> None:
    """From now on this process is on its own: what it does the others do not share."""
    _left.append(True)


def size() -> int:
    """How many processes were started together."""
    launcher = None if _left else found()
    return int(os.environ[launcher.size]) if launcher else 1


def rank() -> int:
    """Which of them this is, from 0."""
    launcher = found()
    said = os.environ.get(launcher.rank, "") if launcher else ""
    return int(said) if said.isdigit() else 0
