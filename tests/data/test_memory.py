"""Sizes as people write them, and what a machine and its control groups leave."""

from __future__ import annotations

import pytest

from gpubp.data.memory import available_memory, default_budget, parse_size
from gpubp.errors import UsageError

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256_000_000), ("1GB", 10**9), ("2 GiB", 2 << 30), ("1.5KiB", 1536), ("64kB", 64_000),
        ("64KB", 64_000),
        ("4096", 4096), ("4096B", 4096), (" 1 mib ", 1 << 20), (".5MB", 500_000), ("0", 0),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "12XB", "-1MB", "1e9", "1,5GB", "1 000MB", "٣MB", "nan"])
def test_what_is_no_size_is_refused(text, refuses):
    with refuses(UsageError, f"'{text}'", "256MB"):
        parse_size(text)


def files(root, **contents):
    for name, text in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_machine_alone(tmp_path):
    files(tmp_path, proc__meminfo=MEMINFO)
    assert available_memory(tmp_path) == 8_000_000 * 1024


def test_a_group_of_version_2_limits_and_its_idle_page_cache_counts_as_free(tmp_path):
    files(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/job/step\n")
    group = tmp_path / "sys/fs/cgroup/job"
    files(group, **{"memory.max": "1000000\n", "memory.current": "700000\n"})
    files(group, **{"memory.stat": "anon 1\ninactive_file 50000\n"})
    files(group / "step", **{"memory.max": "max\n", "memory.current": "600000\n"})
    assert available_memory(tmp_path) == 350_000


def test_a_group_of_version_1_limits(tmp_path):
    files(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="5:cpu:/job\n4:memory,hugetlb:/job\n")
    group = tmp_path / "sys/fs/cgroup/memory/job"
    files(group, **{"memory.limit_in_bytes": "2000000", "memory.usage_in_bytes": "500000"})
    assert available_memory(tmp_path) == 1_500_000


def test_in_a_container_the_top_is_seen_and_usage_over_the_limit_leaves_nothing(tmp_path):
    files(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/path/of/the/host\n")
    files(tmp_path / "sys/fs/cgroup", **{"memory.max": "1000", "memory.current": "2000"})
    assert available_memory(tmp_path) == 0


def test_here():
    assert 0 < default_budget() <= available_memory()
