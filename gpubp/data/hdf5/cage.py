"""What the kernel still lets a process do that works on an untrusted file: compute, use its memory, answer.

Limits of memory, time and descriptors are set in `warden`. This file takes the rest away by a filter of system calls
(seccomp; see prctl(2) and the kernel's Documentation/userspace-api/seccomp_filter.rst): whatever a crafted file makes
of libhdf5, it can start no program, send no signal, look into no other process, change and open no file. Where the
kernel or the machine has no such filter, the limits alone remain.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct

_SET_PARENT_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38  # prctl's
_FILTER = 2  # SECCOMP_MODE_FILTER
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_CALL, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # where struct seccomp_data has them; the low half of the first argument

# Numbers of the calls, those that are always needed and those to open a file: asm/unistd_64.h of x86-64, and
# asm-generic/unistd.h.
_MACHINES = {
    "x86_64": (
        0xC000003E,
        "read=0 write=1 close=3 fstat=5 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12 rt_sigaction=13 "
        "rt_sigprocmask=14 rt_sigreturn=15 pread64=17 readv=19 writev=20 sched_yield=24 mremap=25 madvise=28 "
        "getitimer=36 setitimer=38 getpid=39 sendto=44 recvfrom=45 sendmsg=46 recvmsg=47 exit=60 "
        "gettimeofday=96 getrlimit=97 getrusage=98 times=100 setrlimit=160 gettid=186 time=201 newfstatat=262 "
        "futex=202 restart_syscall=219 clock_gettime=228 exit_group=231 preadv=295 prlimit64=302 "
        "getrandom=318",
        "open=2 stat=4 lstat=6 access=21 ioctl=16 fcntl=72 flock=73 getcwd=79 readlink=89 prctl=157 "
        "openat=257 readlinkat=267 faccessat=269 statx=332 faccessat2=439 fadvise64=221",
    ),
    "aarch64": (
        0xC00000B7,
        "read=63 write=64 close=57 fstat=80 lseek=62 mmap=222 mprotect=226 munmap=215 brk=214 "
        "rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139 pread64=67 readv=65 writev=66 sched_yield=124 "
        "mremap=216 madvise=233 getpid=172 getitimer=102 setitimer=103 sendto=206 recvfrom=207 sendmsg=211 "
        "recvmsg=212 exit=93 gettimeofday=169 getrlimit=163 getrusage=165 times=153 setrlimit=164 gettid=178 "
        "newfstatat=79 futex=98 restart_syscall=128 clock_gettime=113 exit_group=94 preadv=69 prlimit64=261 "
        "getrandom=278",
        "openat=56 prctl=167 faccessat=48 ioctl=29 fcntl=25 flock=32 getcwd=17 readlinkat=78 statx=291 "
        "faccessat2=439 fadvise64=223",
    ),
}


_MACHINE = os.uname().machine  # asked now: a second filter is set where it can no longer be


def end_with_parent() -> None:
    """From now on this process is killed when the one that forked it ends."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))


def no_programs(*, opening: bool) -> bool:
    """From now on: nothing but computing and answering; and with `opening`, files may still be opened and looked at.

    A second call can only take away. False where the machine cannot do it.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    machine = _MACHINES.get(_MACHINE)
    if machine is None or struct.calcsize("P") != 8:
        return False
    architecture, always, while_opening = machine
    numbers = _numbers(always) | (_numbers(while_opening) if opening else {})
    limits = numbers.pop("prlimit64")
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _REFUSE)]
    steps.append((_LOAD, 0, 0, _CALL))
    for number in numbers.values():
        steps += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    # limits: one's own alone, and not those of the process that trains
    steps += [(_JUMP_IF_EQUAL, 0, 3, limits), (_LOAD, 0, 0, _ARGUMENT), (_JUMP_IF_EQUAL, 0, 1, 0)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    return _prctl(_SET_NO_NEW_PRIVILEGES, 1) and _prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(head))


def _numbers(calls: str) -> dict[str, int]:
    return {name: int(number) for name, number in (call.split("=") for call in calls.split())}


def one_file_more() -> None:
    """From now on one descriptor can be had, and one only."""
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))


def no_more_files() -> None:
    """From now on no descriptor can be had: no file, no socket, no pipe, and none that is sent."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _prctl(what: int, *arguments: int) -> bool:
    given = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:4]]
    try:
        return ctypes.CDLL(None).prctl(what, *given) == 0
    except (OSError, AttributeError):  # no such function: not Linux
        return False
