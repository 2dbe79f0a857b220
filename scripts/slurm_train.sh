#!/bin/bash
# A training under Slurm that outlives its time limit and being preempted: sbatch scripts/slurm_train.sh
# Change the lines down to "end of what to change".

#SBATCH --job-name=gpubp
#SBATCH --time=04:00:00
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
##SBATCH --gpus=1
# ^ take one # away for a GPU

# USR1 to this shell 120 s before the time limit: longer than a pass over the rows takes, and a checkpoint (Slurm may
# send it up to 60 s early). B: to the batch shell alone; without it Slurm signals the job's steps and not this shell.
#SBATCH --signal=B:USR1@120
# The job may be queued again, by us and by Slurm; its log is then added to and not begun anew.
#SBATCH --requeue
#SBATCH --open-mode=append

# One line that begins the run the first time and goes on with it every other time.
train=(gpubp train data.h5 --out run --hidden 256,128 --iterations 1000 --resume auto)
# end of what to change

# Variants. As a step of its own: train=(srun gpubp train …); srun hands the signals on to gpubp and leaves with its code.
# Without the requeue below: `exec gpubp train …` in place of all that follows. gpubp is then what B:USR1 reaches, the
# job ends with code 75, and the same sbatch, by whomever, goes on with the run.
# A job that is preempted gets TERM, ends with 143, and is queued again by Slurm itself where the cluster is set so.

# Where arguments are given they are the line: sbatch scripts/slurm_train.sh gpubp train other.h5 --out other --resume auto
[ $# -eq 0 ] || train=("$@")

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
