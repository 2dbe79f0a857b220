"""The counter hash is uniform, and independent by seed and purpose; validation rows are a property of the row."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gpubp.counter_hash import hash_bits, hash_uniform
from gpubp.data import split
from gpubp.errors import UsageError

N = 200_000


def splitmix64(key: int, counter: int) -> int:
    """The hash in Python's integers, from the figure in Steele, Lea and Flood."""
    mask = (1 << 64) - 1
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


def test_splitmix64_of_seed_1234567_gives_the_published_numbers():
    # Rosetta Code, "Pseudo-random numbers/Splitmix64", seed 1234567
    assert [splitmix64(1234567, i) for i in range(3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, -5, 2**70])
def test_the_hash_is_splitmix64_entered_at_the_counter(seed):
    key = int.from_bytes(hashlib.blake2b(f"{seed}:validation".encode(), digest_size=8).digest(), "little")
    counters = [0, 1, 7, 2**63, 2**64 - 1]
    assert hash_bits(seed, "validation", np.array(counters, np.uint64)).tolist() == [
        splitmix64(key, counter) for counter in counters
    ]


def test_shapes_and_one_number_are_kept():
    counters = np.arange(12).reshape(3, 4)
    assert hash_uniform(0, "a", counters).shape == (3, 4)
    assert hash_uniform(0, "a", 5) == hash_uniform(0, "a", counters)[1, 1]
    assert np.array_equal(counters, np.arange(12).reshape(3, 4))


def test_uniform_numbers_are_uniform_bit_by_bit_and_without_memory():
    u = hash_uniform(3, "test", np.arange(N))
    assert u.dtype == np.float64 and u.min() >= 0 and u.max() < 1
    deciles = np.histogram(u, 10, (0, 1))[0]
    chi2 = ((deciles - N / 10) ** 2 / (N / 10)).sum()
    assert chi2 < 27.9  # 0.1 % point for 9 degrees of freedom
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(N)
    bits = hash_bits(3, "test", np.arange(N))
    for bit in range(64):
        share = ((bits >> np.uint64(bit)) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 4.5 * 0.5 / np.sqrt(N), bit


@pytest.mark.parametrize("other", [(4, "test"), (3, "other")])
def test_seeds_and_purposes_are_independent(other):
    a, b = hash_uniform(3, "test", np.arange(N)), hash_uniform(other[0], other[1], np.arange(N))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(N)


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999])
def test_the_share_is_what_was_asked_for(fraction):
    mask = split.validation_mask(N, fraction, 0)
    assert mask is not None and mask.dtype == np.bool_ and mask.shape == (N,)
    assert abs(mask.mean() - fraction) < 4.5 * np.sqrt(fraction * (1 - fraction) / N)


def test_a_row_keeps_its_side_whatever_else_changes(monkeypatch):
    mask = split.validation_mask(10_000, 0.1, 7)
    more = split.validation_mask(20_000, 0.1, 7)
    wider = split.validation_mask(10_000, 0.3, 7)
    other = split.validation_mask(10_000, 0.1, 8)
    assert mask is not None and more is not None and wider is not None and other is not None
    assert np.array_equal(more[:10_000], mask)
    assert (wider | ~mask).all()
    assert not np.array_equal(mask, other)
    monkeypatch.setattr(split, "_CHUNK", 333)
    again = split.validation_mask(10_000, 0.1, 7)
    assert again is not None and np.array_equal(again, mask)


def test_no_share_is_no_mask():
    assert split.validation_mask(10, 0, 0) is None
    assert split.validation_mask(10, 0.0, 0) is None


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(fraction, refuses):
    with refuses(UsageError, "validation share", str(fraction), "less than 1"):
        split.validation_mask(100, fraction, 0)


def test_a_share_that_leaves_one_side_empty_is_refused(refuses):
    with refuses(UsageError, "chooses no row of 3"):
        split.validation_mask(3, 0.001, 0)
    with refuses(UsageError, "chooses every row of 3"):
        split.validation_mask(3, 0.999, 0)
