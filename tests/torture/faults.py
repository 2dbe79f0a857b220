"""Each call by which a training touches its folder fails, with each errno; then the disk is full, or dead, from it on.

A loss is: a checkpoint that was there is not found afterwards or is not what it was; a run that failed says so by no
exit code, by no line or by more than one, without the system's reason, or by a traceback; a temporary file is left
where it could have been removed; or, the disk mended, `resume` does not reach the bits of the undisturbed run.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import shutil
import subprocess
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from child import Ended, in_child
from disk import Call, Disk, Fault, dead_from, failing, full_from
from in_process import ran
from tinyrun import command, data_in, difference, newest

from gpubp.checkpoint import Checkpoint
from gpubp.run_folder import find_checkpoint

WHAT = "a fault at each call that touches the run's folder"
SHORT = 10
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)

_DEAD = ".tmp.1"  # what the temporary file of a dead trainer ends with

# Where a failure is no reason to end a run: what happens instead.
_NO_ERROR: dict[str, Callable[[Call], bool]] = {
    "an old checkpoint that stays is in nobody's way": lambda call: (
        call.what == "unlink" and "checkpoint-" in call.path and ".tmp." not in call.path
    ),
    "a dead trainer's temporary file is swept by the next one": lambda call: (
        call.what == "unlink" and call.path.endswith(_DEAD)
    ),
    "the folder is there already": lambda call: call.what == "mkdir" and not call.made,
    "a checkpoint that cannot be read is passed over with a warning": lambda call: call.reads,
}


# Where either is right, with all the rest that is asked of a run that fails or of one that is whole: what was closed
# was synced before, but a network's file system may say of a full quota there; and some file systems have no locks.
_EITHER = ("close", "flock")


class Plan:
    """A training on the command line, and the folder it begins with.

    Args:
        kind: "train", "resume", or "overwrite".
    """

    def __init__(self, kind: str, place: Path, data: Path) -> None:
        self.kind, self.place, self.data = kind, place, data
        self.broken: Any = nullcontext  # of saver.py
        self.run = place / "run"
        self._first = place / "first"
        self._arguments = command(data, self.run, keep=2, iterations=2)
        if kind == "overwrite":
            done = run_here(command(data, self._first, "--lambda", "2", iterations=2))
            self._arguments.append("--overwrite")
        elif kind == "resume":
            done = run_here(command(data, self._first, iterations=1))
            self._arguments = ["-v", "resume", str(self.run), "--iterations", "2"]
        else:
            self._first.mkdir(parents=True)
            done = Ended(0, "", "")
        assert done.code == 0, done.errors
        (self._first / f".checkpoint-00000009.h5{_DEAD}").write_bytes(b"of a dead trainer")
        self.earlier = newest(self._first) if kind != "train" else None
        self.laid()
        with Disk(self.run) as disk:
            done = run_here(self._arguments)
        assert done.code == 0 and not done.error, done.errors
        assert reported(done) and reported(done)[-1] == "checkpoint-00000002.h5", "nobody would see a loss of those"
        self.calls, self.end = disk.calls, newest(self.run)

    def laid(self) -> None:
        """The folder as it is before the run."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self._first, self.run)

    def again(self, fault: Fault | None, most: int | None = None) -> tuple[Ended, Disk]:
        """The run on such a disk."""
        self.laid()
        with Disk(self.run, fault=fault, most=most) as disk, self.broken():
            done = run_here(self._arguments)
        return done, disk

    def mended(self) -> str:
        """What differs from the undisturbed run after it has been gone on with on a sound disk; "" if nothing."""
        holds = any(path.suffix == ".h5" for path in self.run.iterdir())
        end = self.end
        if holds and find_checkpoint(self.run).checkpoint.lambda_ != end.lambda_:
            assert self.earlier is not None
            end = self.earlier
        again = ["resume", str(self.run), "--iterations", str(end.iteration)] if holds else self._arguments
        done = run_here(again)
        if done.code or done.error or done.traceback:
            return f"{again[0]} on the mended disk: exit {done.code}: {done.errors}"
        if left := temporaries(self.run):
            return f"{left[0]} is left by {again[0]}"
        return difference(newest(self.run), end)


def run_here(arguments: list[str]) -> Ended:
    """`gpubp …` in this process."""
    try:
        done = ran(*arguments)
    except BaseException:
        return Ended(1, "", traceback.format_exc())
    return Ended(done.returncode, done.stdout, done.stderr)


def temporaries(run: Path) -> list[str]:
    """Temporary files in the folder."""
    return [name for name in os.listdir(run) if ".tmp." in name]


def reported(done: Ended) -> list[str]:
    """The checkpoints that were reported as saved."""
    return [line.split()[-1] for line in done.errors.splitlines() if line.startswith("saved ")]


def harm(plan: Plan, done: Ended, disk: Disk, codes: set[int], *, ended: bool) -> str:
    """What a fault has done that it may not; "" if nothing. `ended`: whether the run had to end by it."""
    reasons = [os.strerror(code) for code in codes]
    if done.traceback or done.code < 0:
        return f"traceback: {done.errors}"
    if ended and done.code != 3:
        return f"exit {done.code}, wanted 3"
    if not ended and done.code:
        return f"exit {done.code}, wanted 0: {done.errors}"
    if ended and (len(done.error) != 1 or not any(reason in done.error[0] for reason in reasons)):
        return f"wanted one line with {reasons}: {done.error}"
    if not ended and done.error:
        return f"an error where the run is whole: {done.error}"
    kept = _kept(plan, done)
    if kept:
        return kept
    could = not any(call.what == "unlink" for call in disk.failed)
    if could and ended and disk.asked > 3 and (left := [n for n in temporaries(plan.run) if not n.endswith(_DEAD)]):
        return f"{left[0]} is left"
    if not ended and (differs := difference(newest_of(plan.run), plan.end)):
        return f"{differs} is other than the undisturbed run's"
    return plan.mended()


def newest_of(run: Path) -> Checkpoint:
    """The newest checkpoint, whatever is beside it."""
    return find_checkpoint(run).checkpoint


def _kept(plan: Plan, done: Ended) -> str:
    """Whether what was reported, or was there, is still there to the bit."""
    names = reported(done)
    if not names and plan.earlier is None:
        return ""
    found = find_checkpoint(plan.run)
    if found.rejected:
        return f"damaged: {found.rejected}"
    if not names:
        assert plan.earlier is not None
        if found.checkpoint.lambda_ != plan.earlier.lambda_ or found.checkpoint.iteration > plan.earlier.iteration:
            return ""  # renamed, and not reported: as whole as any, and the mended run says whether it is right
        differs = difference(found.checkpoint, plan.earlier)
        return f"{differs} of the earlier checkpoint is not what it was" if differs else ""
    least = int(names[-1].removesuffix(".h5").split("-")[-1])
    late = found.checkpoint.lambda_ == plan.end.lambda_ and found.checkpoint.iteration >= least
    return "" if late else f"{found.path.name} is found, {names[-1]} was reported"


def counted(what: str, lost: str, told: str, times: int = 1) -> Counter[str]:
    """What was tried, unless something was lost, which `told` is there to see again."""
    assert not lost, f"{told}: {lost}"
    return Counter({what: times})


def no_error(call: Call) -> bool:
    """Whether the run may go on where that call fails."""
    return any(one(call) for one in _NO_ERROR.values())


def each_call(plan: Plan, code: int) -> Counter[str]:
    """That errno at each call by itself."""
    all_ = Counter[str]()
    for number in itertools.count():
        done, disk = plan.again(failing(number, code))
        if not disk.failed:
            return all_
        (call,) = disk.failed
        lost = harm(plan, done, disk, {code}, ended=done.code != 0 if call.what in _EITHER else not no_error(call))
        told = f"{plan.kind}, {errno.errorcode[code]} at call {number}, {call}"
        all_ += counted("faults without an error" if no_error(call) else "faults", lost, told)


def from_each_call(
    plan: Plan, fault: Callable[[int, int], Fault], code: int, begin: int = 0, step: int = 1
) -> Counter[str]:
    """That errno from each call on, or from each `step`-th of them."""
    all_ = Counter[str]()
    for number in itertools.count(begin, step):
        done, disk = plan.again(fault(number, code))
        if not disk.failed:
            return all_
        ended = not all(map(no_error, disk.failed))
        lost = harm(plan, done, disk, {code}, ended=ended)
        told = f"{plan.kind}, {errno.errorcode[code]} from call {number} on, {disk.failed[0]}"
        all_ += counted("lasting faults", lost, told)


def short_writes(plan: Plan, most: int) -> Counter[str]:
    """A disk that takes a little at a time."""
    done, disk = plan.again(None, most)
    lost = harm(plan, done, disk, set(), ended=False)
    writes = sum(call.what in ("write", "pwrite") for call in disk.calls)
    return counted("short writes", lost, f"{plan.kind}, {most} bytes a write", writes)


def limited_files(plan: Plan, dice: random.Random) -> Counter[str]:
    """Files that may be no larger than so many bytes, by the system itself: RLIMIT_FSIZE."""
    all_ = Counter[str]()
    for size in (0, 1, dice.randrange(2, 9000), dice.randrange(9000, 22000)):
        plan.laid()

        def limited(size: int = size) -> Ended:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            return run_here(plan._arguments)

        done = in_child(limited)
        with Disk(plan.run) as disk:
            lost = harm(plan, done, disk, {errno.EFBIG}, ended=done.code != 0)
        all_ += counted("limited files", lost, f"{plan.kind}, files of at most {size} bytes")
    return all_


def full_disk(place: Path, dice: random.Random, sizes: int = 6) -> Counter[str]:
    """A file system of so many kilobytes, full for real; where nobody may mount one that is said."""
    disk = place / "tmpfs"
    disk.mkdir()
    data = data_in(place / "data of tmpfs")
    all_ = Counter[str]()
    for kilobytes in [16, *(dice.randrange(20, 140, 4) for _ in range(sizes - 1))]:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
        try:
            mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            return Counter({"tmpfs: not allowed": 1})
        try:
            run = disk / "run"
            done = in_child(lambda run=run: run_here(command(data, run)))
            names, said = reported(done), f"a disk of {kilobytes} kB: {done.errors}"
            assert not done.traceback and done.code in (0, 3), said
            if done.code:
                assert len(done.error) == 1 and os.strerror(errno.ENOSPC) in done.error[0], said
            if names:
                assert not temporaries(run), said
                assert find_checkpoint(run).path.name >= names[-1], said
            all_["full disks" if done.code else "disks with room"] += 1
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return all_


def rounds(place: Path, dice: random.Random) -> Iterator[Counter[str]]:
    """Each kind of run, with each kind of fault; finite."""
    data = data_in(place / "data")
    codes = list(ERRORS)
    dice.shuffle(codes)
    for number, kind in enumerate(("train", "overwrite", "resume")):
        plan = Plan(kind, place / kind, data)
        yield each_call(plan, codes[number])
        yield short_writes(plan, 2000) + limited_files(plan, dice)
        fault, code = (dead_from, errno.EROFS) if number == 1 else (full_from, errno.ENOSPC)
        yield from_each_call(plan, fault, code, dice.randrange(6), 6)
        shutil.rmtree(place / kind)
    yield full_disk(place, dice)
    for kind in ("train", "overwrite", "resume"):
        plan = Plan(kind, place / f"{kind} again", data)
        for code in codes:
            yield each_call(plan, code)
            yield from_each_call(plan, full_from, code)
            yield from_each_call(plan, dead_from, code)
        for most in (1, 700, 4096):
            yield short_writes(plan, most)
        shutil.rmtree(plan.place)
