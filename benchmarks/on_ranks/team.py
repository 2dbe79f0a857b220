"""The driver's end of a team: start it, tell it what to do, hear its answers."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import Dropped, environment_for

SCRIPT = Path(__file__).parents[1] / "ranks.py"
SILENCE = 300.0  # seconds without a word after which a team is given up


def mpiexec(asked: str | None) -> str | None:
    """The launcher: as asked for, or beside this Python, or the first on the path; None where there is none."""
    beside = Path(sys.executable).with_name("mpiexec")
    return asked or (str(beside) if beside.exists() else shutil.which("mpiexec"))


class Team:
    """So many ranks of one contender.

    Args:
        name: for tables.
        ranks, threads: processes, and threads of each.
        launcher: mpiexec; not needed for one rank.
        torch: a Python that has PyTorch, where the team is PyTorch's.
    """

    def __init__(
        self, name: str, ranks: int, threads: int = 1, *, launcher: str | None = None, torch: str | None = None
    ) -> None:
        self.name, self.ranks, self.threads = name, ranks, threads
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the processes
        environment = environment_for(threads)
        if torch:
            port = str(_free_port())
            commands = [[torch, str(SCRIPT), "--peer"]] * ranks
            told = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environments = [environment | told | {"RANK": str(rank)} for rank in range(ranks)]
        else:
            command = [sys.executable, str(SCRIPT), "--member"]
            if ranks > 1:
                assert launcher
                command = [launcher, "-n", str(ranks), *command]
            commands, environments = [command], [environment]
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True, env=one
            )
            for command, one in zip(commands, environments, strict=True)
        ]

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Tell all ranks to do something; what rank 0 answers.

        Raises:
            Dropped: it ended, or is silent.
        """
        for process in self._processes:
            assert process.stdin
            with suppress(BrokenPipeError):  # then there is no answer either
                process.stdin.write(json.dumps({"do": do, **words}) + "\n")
                process.stdin.flush()
        first = self._processes[0].stdout
        assert first
        ready, _, _ = select.select([first], [], [], SILENCE)
        line = first.readline() if ready else ""
        if not line:
            self._complaints.seek(0)
            last = (self._complaints.read().strip() or "no word of it").splitlines()[-1]
            raise Dropped(f"{self.name} ended without an answer: {last}" if ready else f"silent for {SILENCE:g} s")
        return json.loads(line)

    def close(self) -> None:
        """End the processes: they leave when nobody can ask any more."""
        for process in self._processes:
            with suppress(OSError):
                assert process.stdin
                process.stdin.close()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()
                process.wait()
            assert process.stdout
            process.stdout.close()
        self._complaints.close()


def why_no_ranks(launcher: str | None) -> str:
    """Why several ranks cannot be had here; "" if they can."""
    if launcher is None:
        return "there is no mpiexec"
    try:
        code = "from mpi4py.MPI import COMM_WORLD as all; exit(all.size != 2)"
        done = subprocess.run(
            [launcher, "-n", "2", sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"mpiexec: {error}"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip() or "mpi4py knows of one process; mpiexec is of another MPI").splitlines()[-1]


def refuse_wrong(name: str, answers: dict[str, Any]) -> None:
    """Raise Dropped where an answer to `check` is not right."""
    for way, one in answers.items():
        if not (one["gradient_error"] < 1e-3 and one["J_error"] < 1e-3):
            raise Dropped(f"{name}, {way}: wrong answer, off by {one['gradient_error']:.1e}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
