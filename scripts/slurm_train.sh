#!/bin/bash
# A training under Slurm that outlives its time limit and being preempted: sbatch scripts/slurm_train.sh
# On four nodes, a rank on each:       sbatch --nodes=4 scripts/slurm_train.sh
# On eight, a rank for each of 4 GPUs: sbatch --nodes=8 --ntasks-per-node=4 --gpus-per-node=4 scripts/slurm_train.sh
# Change the lines down to "end of what to change".

#SBATCH --job-name=gpubp
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
# ^ ranks: one a node, or as many as it has GPUs. The next two are cores of each rank and memory of each node.
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
##SBATCH --gpus-per-node=1
# ^ take one # away for GPUs

# USR1 to this shell 120 s before the time limit: longer than a pass over the rows takes, and a checkpoint (Slurm may
# send it up to 60 s early). B: to the batch shell alone; without it Slurm signals the job's steps and not this shell.
#SBATCH --signal=B:USR1@120
# The job may be queued again, by us and by Slurm; its log is then added to and not begun anew.
#SBATCH --requeue
#SBATCH --open-mode=append

# One line that begins the run the first time and goes on with it every other time, on any number of ranks.
train=(gpubp train data.h5 --out run --hidden 256,128 --iterations 1000 --resume auto)
# How ranks find each other: pmi2 for the MPICH of gpubp[mpi], which does not speak pmix; pmix for most Open MPIs.
# `srun --mpi=list` shows what there is. With none every rank would be alone, which gpubp refuses.
mpi=pmi2
# end of what to change

# Variants. One rank as a step of its own: train=(srun gpubp train …); srun hands the signals on to gpubp and leaves
# with its code. No such plugin for MPI: train=(mpiexec gpubp train …), which has srun start what it needs by itself.
# Without the requeue below: `exec gpubp train …` in place of all that follows. gpubp is then what B:USR1 reaches, the
# job ends with code 75, and the same sbatch, by whomever, goes on with the run.
# A job that is preempted gets TERM, ends with 143, and is queued again by Slurm itself where the cluster is set so.

# Where arguments are given they are the line: sbatch scripts/slurm_train.sh gpubp train other.h5 --out other --resume auto
[ $# -eq 0 ] || train=("$@")

# More than one rank is a step of srun's, which hands signals on to every rank and leaves with the highest code.
# --cpus-per-task: from 22.05 on srun takes the job's from nowhere else. Where a rank is killed, Slurm ends the others a
# minute later (--wait). Not --kill-on-bad-exit=1, also where that is the cluster's default: it ends the step at the first
# code that is not 0, and 75 comes from every rank, from one of them first.
ranks=${SLURM_NTASKS:-$((${SLURM_JOB_NUM_NODES:-1} * ${SLURM_NTASKS_PER_NODE:-1}))}
case $ranks:${train[0]} in
1:* | *:srun | *:mpiexec) ;;
*) train=(srun "--mpi=$mpi" "--cpus-per-task=${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=60 "${train[@]}") ;;
esac

asked=""
heard=""
forward() {
    asked=$1
    heard=yes
    [ -z "${child:-}" ] || kill -s "$1" "$child" 2>/dev/null
}
trap 'forward USR1' USR1
trap 'forward TERM' TERM

# In the background: bash answers a signal at once only while it waits.
"${train[@]}" &
child=$!
[ -z "$asked" ] || forward "$asked"

# A signal ends `wait` before the training has ended: wait again, until none came in between.
while :; do
    heard=""
    wait "$child"
    code=$?
    [ -n "$heard" ] || break
done

# 75: stopped by USR1, with a checkpoint. 138 (128 + USR1) is the same before gpubp listened: nothing was lost.
if [ "$code" -eq 75 ] || { [ "$code" -eq 138 ] && [ "$asked" = USR1 ]; }; then
    echo "slurm_train: stopped before the time limit; job ${SLURM_JOB_ID:?not a Slurm job} is queued again"
    # Slurm ends this shell as it requeues the job: nothing may follow but the code for where that was refused.
    scontrol requeue "$SLURM_JOB_ID" || echo "slurm_train: requeue was refused; submit the same line again" >&2
fi
exit "$code"
