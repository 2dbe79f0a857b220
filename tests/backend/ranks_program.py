"""A training on a device, for one process or several that a launcher has started: rank 0 prints what Θ it ends at."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import test_engine  # noqa: E402
from gpu_on_host import GpuOnHost  # noqa: E402

import gpubp  # noqa: E402
from gpubp import communicator, optimizers  # noqa: E402
from gpubp.backend.ranks import connect, local_device  # noqa: E402
from gpubp.objective import Objective  # noqa: E402
from gpubp.training import fit  # noqa: E402


def main(where: str, folder: str) -> None:
    ranks = communicator.current()
    network = gpubp.Network((5, 6, 3))
    for kernel, precision, plan in [("layered", "fp32", {"leaves": 8, "block_rows": 30}), ("fused", "tf32", {})]:
        backend: Any = GpuOnHost(Path(folder), kernel)
        if where == "gpu":
            from gpubp.backend.cupy import CupyBackend

            backend = CupyBackend(local_device(ranks), kernel)
        else:
            backend.place = "the GPU of the test"  # no NCCL between processes here
        connect(ranks, backend)
        rows = test_engine.rows_of(network, 700, held=True)
        made = Objective(network, rows, 0.3, backend=backend, precision=precision, communicator=ranks, **plan)
        optimizer = optimizers.make("lbfgs", tolerance=0.0)
        _, state = fit(made, optimizer, test_engine.theta(network), iterations=10)
        assert state is not None
        Theta = state.Theta_on_host
        made.close()
        if ranks.rank == 0:
            print(kernel, precision, hashlib.sha256(Theta.tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
