"""The policy Esx beside its model: the same pages in the same order, the same counters after every call."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from pagedup.sharing import Esx, FramePool
from tests.esx_model import EsxModel, Pace, Page, scan_rates
from tests.simulated_guests import MASK, WEYL, mix, random

TURN, TURNS = 4.0, 256  # seconds of a guest's turn, and how many there are in one call at the most


def pages_of_pass(seed: int, vm: int, n_pages: int, number: int) -> Iterator[Page]:
    """The order of the pages of a guest in a pass: of so many bits' numbers those that are pages."""
    bits = max(1, (n_pages - 1).bit_length())
    mask, shift = 2**bits - 1, (bits + 1) // 2
    key = (mix((mix(seed) + vm + WEYL) & MASK) + number) & MASK
    for i in range(n_pages):
        while True:
            for turn in range(3):
                i = (i + random(key, 2 * turn)) * (random(key, 2 * turn + 1) | 1) & mask
                i ^= i >> shift
            if i < n_pages:
                break
        yield vm, i


def pages(seed: int, vm: int, n_pages: int) -> Iterator[Page]:
    """Pass after pass."""
    number = 0
    while True:
        yield from pages_of_pass(seed, vm, n_pages, number)
        number += 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 63, 64, 65, 1000])
def test_each_page_once_a_pass(n: int) -> None:
    first, second = ([page for _, page in pages_of_pass(7, 3, n, number)] for number in (0, 1))
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second or n < 4


class Scanner:
    """Lets the model do what pool.scan does."""

    def __init__(self, model: EsxModel, policy: Esx, sizes: list[int]) -> None:
        self.model, self.policy, self.sizes = model, policy, sizes
        self.pages = [pages(policy.seed, vm, n) for vm, n in enumerate(sizes)]
        self.taken = [0] * len(sizes)
        self.pace = Pace()

    def scan(self, seconds: float) -> None:
        if seconds == math.inf:
            for vm, n in enumerate(self.sizes):
                self.look(vm, n - self.taken[vm] % n)
            return
        policy = self.policy
        rates = scan_rates(
            self.sizes,
            cpu_ghz=policy.cpu_ghz,
            share_scan_time=int(policy.share_scan_time),
            share_scan_ghz=int(policy.share_scan_ghz),
            share_rate_max=int(policy.share_rate_max),
        )
        turns = max(1, min(TURNS, math.ceil(seconds / TURN)))
        for _ in range(turns):
            for vm, due in enumerate(self.pace.due(rates, seconds / turns)):
                self.look(vm, due)

    def look(self, vm: int, n: int) -> None:
        self.taken[vm] += n
        self.model.scan(next(self.pages[vm]) for _ in range(n))


@pytest.mark.parametrize("salting", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_policy_counts_as_the_model(seed: int, salting: int) -> None:
    dice = np.random.default_rng(seed)
    policy = Esx(cpu_ghz=0.03125, share_scan_time=2, share_rate_max=5, share_force_salting=salting, seed=seed)
    salts = [None, None, "x", "x"]
    sizes = dice.integers(1, 700, len(salts)).tolist()
    model = EsxModel(salting)
    scanner = Scanner(model, policy, sizes)
    with FramePool(sum(sizes), 8, policy=policy) as pool:
        guests = [pool.add_guest(n, domain=salt) for n, salt in zip(sizes, salts, strict=True)]
        for salt in salts:
            model.add_vm(salt)
        for round in range(80):
            for vm, guest in enumerate(guests):
                gpns = np.flatnonzero(dice.random(sizes[vm]) < dice.choice([0, 0.02, 0.5 if round < 10 else 0.1]))
                contents = dice.integers(0, 30 if dice.integers(2) else 3000, len(gpns)).astype(np.uint64)
                guest.write(gpns, contents)
                for gpn, content in zip(gpns.tolist(), contents.tolist(), strict=True):
                    model.write((vm, gpn), content)
                gpns = np.flatnonzero(dice.random(sizes[vm]) < 0.02)
                guest.release(gpns)
                for gpn in gpns.tolist():
                    model.release((vm, gpn))
            seconds = float(dice.choice([0, 0.25, 1, 7.5, 60, 400, math.inf]))
            pool.scan(seconds)
            scanner.scan(seconds)
            compare(pool, model)
        for _ in range(2):  # the rest of a pass, and a whole one
            pool.scan(math.inf)
            scanner.scan(math.inf)
        compare(pool, model, hints=True)
        leave_alone(pool, model, scanner, dice)
        pool.check()
        model.check()
        for vm, guest in enumerate(guests):
            out = np.zeros(sizes[vm], np.uint64)
            guest.read(np.arange(sizes[vm]), out)
            assert out.tolist() == [model.read((vm, gpn)) or 0 for gpn in range(sizes[vm])]


def leave_alone(pool: FramePool, model: EsxModel, scanner: Scanner, dice: np.random.Generator) -> None:
    """Nothing comes of looking at pages, for a time or for passes, until one changes; the counts are as if all were."""
    for round in range(8):
        for _ in range(int(dice.integers(1, 4))):
            seconds = float(dice.choice([0.25, 7.5, 60, 400, math.inf]))
            pool.scan(seconds)
            scanner.scan(seconds)
        if round % 3 == 0:
            compare(pool, model, hints=True)
        vm = int(dice.integers(len(pool.guests)))
        guest, gpn = pool.guests[vm], int(dice.integers(scanner.sizes[vm]))
        if round % 4 == 0:
            guest.touch([gpn], np.ones(1, np.bool_), np.array([round], np.uint64))
            model.write((vm, gpn), round)
        elif round % 4 == 2:
            guest.release([gpn])
            model.release((vm, gpn))
        compare(pool, model)
        pool.check()
        for _ in range(2):
            pool.scan(math.inf)
            scanner.scan(math.inf)


def compare(pool: FramePool, model: EsxModel, *, hints: bool = False) -> None:
    """All but the hints of pages that were written since, which the pool does not count and the model does."""
    found, expected, done = pool.scan_counts(), model.counts(), model.done
    assert (found.shared, found.common, found.zero) == (expected.shared, expected.common, expected.zero)
    assert found.cow_hints == expected.cow_hints if hints else found.cow_hints <= expected.cow_hints
    assert found.pages_scanned == done.pages_scanned
    # Of a few pages at once the pool counts some that are shared before it is their turn.
    assert done.pages_hashed <= found.pages_hashed <= 1.001 * done.pages_hashed + 2
    assert (found.hints_matched, found.hints_stale) == (done.hints_matched, done.hints_stale)
    assert found.collisions == done.collisions == 0
    assert pool.counts().pages_merged == done.pages_merged
    assert pool.counts().cow_breaks == done.cow_breaks
    assert pool.counts().in_use == len(model.private) + len(model.frames)


@pytest.mark.parametrize(
    "policy",
    [
        Esx(cpu_ghz=100, share_scan_time=10),  # pages / time
        Esx(cpu_ghz=100, share_scan_time=10, share_rate_max=300),
        Esx(cpu_ghz=0.5, share_scan_time=10),
        Esx(cpu_ghz=0.5, share_scan_time=10, share_rate_max=300, share_scan_ghz=1),
        Esx(cpu_ghz=2.5),
    ],
)
@pytest.mark.parametrize("sizes", [[], [2**18], [2**20, 2**19, 5, 2**21]])
def test_rates(policy: Esx, sizes: list[int]) -> None:
    expected = scan_rates(
        sizes,
        cpu_ghz=policy.cpu_ghz,
        share_scan_time=int(policy.share_scan_time),
        share_scan_ghz=int(policy.share_scan_ghz),
        share_rate_max=int(policy.share_rate_max),
    )
    assert policy.rates(sizes) == pytest.approx([float(rate) for rate in expected])
