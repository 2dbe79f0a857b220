"""The batch script for Slurm, run by bash with `scontrol` and `srun` as small programs of ours, on a real training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import ran
from running import ENVIRONMENT, ROOT, write
from test_run import contents, wait_for_iteration

from gpubp.run_folder import find_checkpoint

SCRIPT = ROOT / "scripts" / "slurm_train.sh"
LINE = ["gpubp", "train", "d.h5", "--out", "run", "--hidden", "8", "--optimizer", "gd", "--resume", "auto"]
# A step: notes its options and its line, starts as many ranks as the job has, hands signals on to all of them, and
# leaves with the highest of their codes.
SRUN = """
options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done
printf '%s\\n' "${options[*]}" "$*" > "$TOLD.srun"
ranks=()
trap 'kill -s USR1 "${ranks[@]}"' USR1
trap 'kill -s TERM "${ranks[@]}"' TERM
tasks=${SLURM_NTASKS:-$((${SLURM_JOB_NUM_NODES:-1} * ${SLURM_NTASKS_PER_NODE:-1}))}
for ((rank = 0; rank < tasks; rank++)); do SLURM_PROCID=$rank "$@" & ranks+=($!); done
highest=0
for rank in "${ranks[@]}"; do
    while wait "$rank"; code=$?; kill -0 "$rank" 2>/dev/null; do :; done
    [ "$code" -le "$highest" ] || highest=$code
done
exit "$highest"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the cluster's commands and gpubp; `scontrol` notes what it is told."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6))
    write(tmp_path / "d.h5", X=X, y=(X[:, 0] > X[:, 1] * X[:, 2]).astype(int))
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "gpubp": f'exec {sys.executable} -m gpubp "$@"',
        "scontrol": 'echo "$@" >> "$TOLD"; exit "${REFUSED:-0}"',
        "srun": SRUN,
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    path = f"{commands}:{os.environ['PATH']}"
    outside = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("SLURM_")}
    return outside | {"PATH": path, "SLURM_JOB_ID": "4711", "TOLD": str(tmp_path / "told")}


def batch(cluster: dict[str, str], cwd: Path, *line: object) -> subprocess.Popen[str]:
    command = ["bash", str(SCRIPT), *map(str, line)]
    return subprocess.Popen(
        command, cwd=cwd, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().splitlines() if (folder / "told").exists() else []


@pytest.mark.parametrize("how", [[], ["srun"]], ids=["gpubp", "srun gpubp"])
def test_before_the_time_limit_it_saves_and_queues_again_and_then_goes_on(cluster, tmp_path, how):
    job = batch(cluster, tmp_path, *how, *LINE, "--iterations", 100_000)
    wait_for_iteration(tmp_path / "run", 5, job)
    job.send_signal(signal.SIGUSR1)  # to the batch shell alone, as --signal=B:USR1 does
    out, error = job.communicate(timeout=60)
    assert job.returncode == 75, error
    assert "stopped by SIGUSR1" in out and "queued again" in out and told(tmp_path) == ["requeue 4711"]
    done = find_checkpoint(tmp_path / "run").checkpoint.iteration
    assert done >= 5
    job = batch(cluster, tmp_path, *how, *LINE, "--iterations", done + 5)
    out, error = job.communicate(timeout=60)
    assert job.returncode == 0 and f"going on from checkpoint-{done:08d}.h5" in error
    job = batch(cluster, tmp_path, *how, *LINE, "--iterations", done + 5)  # once more than needed
    assert job.communicate(timeout=60)[0] == out and job.returncode == 0
    assert told(tmp_path) == ["requeue 4711"]
    whole = [*LINE[:-2], "--iterations", str(done + 5)]
    subprocess.run(["whole" if word == "run" else word for word in whole], cwd=tmp_path, env=cluster, check=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_term_ends_the_job_with_a_checkpoint_and_no_requeue(cluster, tmp_path):
    job = batch(cluster, tmp_path, *LINE, "--iterations", 100_000)
    wait_for_iteration(tmp_path / "run", 5, job)
    job.terminate()
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 143 and "stopped by SIGTERM" in out and told(tmp_path) == []
    assert find_checkpoint(tmp_path / "run").checkpoint.iteration >= 5


def test_usr1_and_then_term_at_the_limit_still_queues_again(cluster, tmp_path):
    job = batch(cluster, tmp_path, *LINE, "--iterations", 100_000)
    wait_for_iteration(tmp_path / "run", 5, job)
    job.send_signal(signal.SIGUSR1)
    assert job.stderr is not None
    while "SIGUSR1: stopping" not in job.stderr.readline():
        pass
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    assert job.returncode == 75 and told(tmp_path) == ["requeue 4711"]


def test_a_signal_before_the_training_listens_queues_again_too(cluster, tmp_path):
    """A program that USR1 kills, as Python is killed by it in its first moments."""
    job = batch(cluster, tmp_path, "sh", "-c", "echo here; exec sleep 600")
    assert job.stdout is not None and job.stdout.readline() == "here\n"
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert job.returncode == 138 and told(tmp_path) == ["requeue 4711"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 138])
def test_every_other_code_comes_through(cluster, tmp_path, code):
    job = batch(cluster, tmp_path, "sh", "-c", f"exit {code}")
    job.communicate(timeout=60)
    assert job.returncode == code and told(tmp_path) == []


def test_a_training_that_is_refused_ends_the_job(cluster, tmp_path):
    job = batch(cluster, tmp_path, "gpubp", "train", "none.h5", "--out", "run", "--resume", "auto")
    _, error = job.communicate(timeout=60)
    assert job.returncode == 3 and "none.h5: No such file" in error and told(tmp_path) == []


def test_a_requeue_that_is_refused_is_said(cluster, tmp_path):
    job = batch(cluster | {"REFUSED": "1"}, tmp_path, "sh", "-c", "exit 75")
    _, error = job.communicate(timeout=60)
    assert job.returncode == 75 and "requeue was refused" in error


def test_its_first_lines_are_what_slurm_must_be_told_and_its_own_line_can_be_typed(cluster, tmp_path):
    text = SCRIPT.read_text()
    for option in ("--signal=B:USR1@120", "--requeue", "--open-mode=append", "--cpus-per-task=8"):
        assert re.search(rf"^#SBATCH {option}$", text, re.M)
    assert text.index("#SBATCH --open-mode") < text.index("\ntrain=(")  # Slurm looks no further than the first command
    line = re.search(r"^train=\((.*)\)$", text, re.M)
    assert line and line[1].split()[:3] == ["gpubp", "train", "data.h5"] and line[1].endswith("--resume auto")
    (tmp_path / "d.h5").rename(tmp_path / "data.h5")
    job = batch(cluster | {"GPUBP_TRAIN_SECONDS": "0.1"}, tmp_path)
    _, error = job.communicate(timeout=60)
    assert job.returncode == 0, error
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


# --- ranks: more than one task in the job -----------------------------------------------------------------------------

RANK = 'trap "exit 75" USR1; trap "exit 143" TERM; echo up; for ((i = 0; i < 200; i++)); do sleep 0.05; done'


def noted(folder: Path) -> tuple[list[str], list[str]]:
    """What the stand-in for srun was told: its own options, and the line it started as every rank."""
    options, line = (folder / "told.srun").read_text().splitlines()
    return options.split(), line.split()


@pytest.mark.parametrize(
    "job",
    [
        {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8"},
        {"SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"},
    ],
    ids=["tasks", "of a node"],
)
def test_a_job_of_several_tasks_is_a_step_of_sruns_and_a_signal_reaches_every_rank(cluster, tmp_path, job):
    run = batch(cluster | job, tmp_path, "bash", "-c", RANK)
    assert run.stdout is not None
    for _ in range(4):
        assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGUSR1)
    run.communicate(timeout=60)
    assert run.returncode == 75 and told(tmp_path) == ["requeue 4711"]
    options, line = noted(tmp_path)
    assert line[:2] == ["bash", "-c"]
    assert options == ["--mpi=pmi2", "--cpus-per-task=8", "--kill-on-bad-exit=0", "--wait=60"]


def test_term_reaches_every_rank_and_queues_nothing(cluster, tmp_path):
    run = batch(cluster | {"SLURM_NTASKS": "3"}, tmp_path, "bash", "-c", RANK)
    assert run.stdout is not None
    for _ in range(3):
        assert run.stdout.readline() == "up\n"
    run.terminate()
    run.communicate(timeout=60)
    assert run.returncode == 143 and told(tmp_path) == []


def test_the_code_of_the_one_rank_that_failed_is_the_jobs(cluster, tmp_path):
    run = batch(cluster | {"SLURM_NTASKS": "3"}, tmp_path, "sh", "-c", 'exit "$((SLURM_PROCID == 1 ? 3 : 0))"')
    run.communicate(timeout=60)
    assert run.returncode == 3 and told(tmp_path) == []


@pytest.mark.parametrize("job", [{}, {"SLURM_NTASKS": "1"}, {"SLURM_JOB_NUM_NODES": "1"}], ids=str)
def test_one_task_is_no_step(cluster, tmp_path, job):
    batch(cluster | job, tmp_path, "sh", "-c", "exit 0").communicate(timeout=60)
    assert not (tmp_path / "told.srun").exists()


@pytest.mark.parametrize("own", ["mpiexec", "srun"])
def test_a_line_with_a_launcher_of_its_own_gets_no_other(cluster, tmp_path, own):
    (tmp_path / "bin" / "mpiexec").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin" / "mpiexec").chmod(0o755)
    run = batch(cluster | {"SLURM_NTASKS": "2"}, tmp_path, own, "sh", "-c", "echo once")
    assert run.communicate(timeout=60)[0].splitlines() == ["once"] * (2 if own == "srun" else 1)
    if own == "srun":
        assert noted(tmp_path)[0] == []
    else:
        assert not (tmp_path / "told.srun").exists()


def test_its_lines_for_several_nodes_change_what_it_says_itself():
    head, _, body = SCRIPT.read_text().partition("\ntrain=(")
    own = set(re.findall(r"^#+SBATCH (--[\w-]+)", head, re.M))
    lines = re.findall(r"(sbatch --.*slurm_train.sh)$", head, re.M)
    assert len(lines) == 2 and "sbatch --nodes=4 scripts/slurm_train.sh" in lines
    assert {option for line in lines for option in re.findall(r" (--[\w-]+)=", line)} <= own
    assert re.search(r"^mpi=pmi2$", body, re.M)


def test_real_ranks_stop_before_the_time_limit_and_go_on_to_the_same_bits(cluster, tmp_path):
    """With `mpiexec` as the step: two ranks, USR1, requeue, three ranks, and the checkpoint of one process."""
    mpiexec = Path(sys.prefix) / "bin" / "mpiexec"
    if not mpiexec.exists() or "--watchdog" not in ran("train", "--help").stdout:
        pytest.skip("there are no ranks: mpi4py and MPICH are not installed (extra mpi)")
    step = f'while [[ $1 == --* ]]; do shift; done; exec {mpiexec} -n "$SLURM_NTASKS" "$@"'
    (tmp_path / "bin" / "srun").write_text(f"#!/bin/bash\n{step}\n")
    job = batch(cluster | {"SLURM_NTASKS": "2"}, tmp_path, *LINE, "--iterations", 100_000)
    wait_for_iteration(tmp_path / "run", 5, job)
    job.send_signal(signal.SIGUSR1)
    _, error = job.communicate(timeout=60)
    assert job.returncode == 75 and told(tmp_path) == ["requeue 4711"], error
    done = find_checkpoint(tmp_path / "run").checkpoint.iteration
    job = batch(cluster | {"SLURM_NTASKS": "3"}, tmp_path, *LINE, "--iterations", done + 5)
    _, error = job.communicate(timeout=60)
    assert job.returncode == 0 and f"going on from checkpoint-{done:08d}.h5" in error, error
    whole = ["whole" if word == "run" else word for word in [*LINE[:-2], "--iterations", str(done + 5)]]
    subprocess.run(whole, cwd=tmp_path, env=cluster, check=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
