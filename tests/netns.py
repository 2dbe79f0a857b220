"""Three hosts on one machine: network namespaces with real TCP between them, as `mpiexec` sees a small cluster.

    head   mpiexec, and a bridge to which all are wired
    a b c  a rank each, by way of what mpiexec takes for ssh; each with its own host name and its own mounts

All of it lies in namespaces of its own, so that several test processes do not meet. It needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import launched
from mpi import Launch

NAMES = ("a", "b", "c")
BRIDGE = "gpubp"
_numbers = count()
# What mpiexec calls in place of ssh: options, an address, a command line. As with ssh, its end is not that of what it
# began.
SSH = """#!{python}
import subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("-x")]
host = "abc"[int(words[0].rpartition(".")[2]) - 1]
line = f"hostname {{host}}; {before}cd '{folder}'; exec {{' '.join(words[1:])}}"
line = ["ip", "netns", "exec", "{prefix}" + host, "unshare", "--uts", "sh", "-c", line]
sys.exit(subprocess.Popen(line, start_new_session=True).wait())
"""


@cache
def missing() -> str:
    """Why there can be no such hosts here; "" where there can."""
    if not launched.there:
        return "mpi4py and an mpiexec beside it are not installed"
    if not Path("/proc/self/ns/net").exists() or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    gone = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if gone:
        return f"{gone[0]} is not installed (Debian: iproute2, util-linux)"
    try:
        with Hosts(Path(os.devnull)):
            return ""
    except AssertionError as error:
        return f"no network namespaces can be made: {error}"


class Hosts:
    """The hosts, wired; use as a context manager.

    Args:
        folder: where the stand-in for ssh is written; not seen by ranks.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._prefix = folder, f"gpubp-{os.getpid()}-{next(_numbers)}-"

    def __enter__(self) -> Hosts:
        _remove_left()
        try:
            self._ip("netns add", self._prefix + "head")
            self._head("link add", BRIDGE, "type bridge")
            self._head("addr add 10.77.0.254/24 dev", BRIDGE)
            for name in ("lo", BRIDGE):
                self._head("link set", name, "up")
            for number, name in enumerate(NAMES, start=1):
                there = self._prefix + name
                self._ip("netns add", there)
                self._head("link add", f"to-{name}", "type veth peer name eth0 netns", there)
                self._head("link set", f"to-{name}", "master", BRIDGE, "up")
                self._ip("-n", there, f"addr add 10.77.0.{number}/24 dev eth0")
                for one in ("lo", "eth0"):
                    self._ip("-n", there, "link set", one, "up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._head("link set", f"to-{name}", "down")

    def mend(self, name: str) -> None:
        """Put it in again; what failed to reach others meanwhile is tried anew."""
        self._head("link set", f"to-{name}", "up")
        for one in (*NAMES, "head"):
            self._ip("-n", self._prefix + one, "neigh flush all")

    def launch(self, *arguments: object, cwd: Path, without: Path | None = None, **more: Any) -> Launch:
        """`gpubp …` on a rank of each host, which is rank 0 on a, 1 on b, 2 on c.

        Args:
            without: a folder that is empty on c.
        """
        before = f"[ {{host}} != c ] || mount -t tmpfs none '{without}'; " if without else ""
        ssh = self._folder / "ssh"
        ssh.write_text(SSH.format(python=sys.executable, prefix=self._prefix, before=before, folder=cwd))
        ssh.chmod(0o755)
        launcher = ["ip", "netns", "exec", self._prefix + "head", launched.MPIEXEC, "-launcher", "ssh"]
        launcher += ["-launcher-exec", ssh, "-iface", BRIDGE, "-ppn", 1, "-n", len(NAMES)]
        launcher += ["-hosts", ",".join(f"10.77.0.{number + 1}" for number in range(len(NAMES)))]
        env = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}
        return Launch(len(NAMES), *arguments, cwd=cwd, launcher=launcher, env=env, **more)

    def remove(self) -> None:
        """Take it all down."""
        for name in (*NAMES, "head"):
            subprocess.run(["ip", "netns", "del", self._prefix + name], capture_output=True)

    def _head(self, *words: str) -> None:
        self._ip("-n", self._prefix + "head", *words)

    def _ip(self, *words: str) -> None:
        done = subprocess.run(["ip", *" ".join(words).split()], capture_output=True, text=True)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


def _remove_left() -> None:
    """Remove what test processes that were killed have left."""
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for name in (line.split()[0] for line in said.splitlines() if line.startswith("gpubp-")):
        with suppress(ValueError):
            if not Path(f"/proc/{int(name.split('-')[1])}").exists():
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
