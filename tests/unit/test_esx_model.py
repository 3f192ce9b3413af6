"""The model of ESX's page sharing, case by case, in a form for any host that shares so.

A host has: `add_vm(salt)`, `write((vm, gpn), content)`, `release((vm, gpn))`, `scan(pages in their order)`,
`read((vm, gpn))`, `counts()` and `done` with the counters of tests/esx_model.py, and `check()`. Each of its
virtual machines has one page: a host that has an order of its own can scan any page by scanning its guest.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest

from tests.esx_model import Counts, EsxModel, Pace, scan_rates
from tests.esx_pool import EsxPool

HOSTS: list[Callable[..., Any]] = [EsxModel, EsxPool]
pytestmark = pytest.mark.usefixtures("seeded")
A, B, C, D = ((vm, 0) for vm in range(4))


@pytest.fixture(params=HOSTS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a host with guests of these salts; without any, four that share with each other."""

    def one(salts: Sequence[str | None] = (None,) * 4, share_force_salting: int = 0, **settings: Any) -> Any:
        host = request.param(share_force_salting, **settings)
        assert [host.add_vm(salt) for salt in salts] == list(range(len(salts)))
        return host

    return one


def counts(host: Any) -> dict[str, int]:
    """Those that are not zero."""
    host.check()
    return {name: n for name, n in {**host.counts()._asdict(), **vars(host.done)}.items() if n}


def test_a_page_without_a_match_becomes_a_hint(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    assert counts(host) == {}
    host.scan([A])
    assert counts(host) == {"cow_hints": 1, "pages_scanned": 1, "pages_hashed": 1}
    host.scan([A])  # its own hint is no match
    assert counts(host) == {"cow_hints": 1, "pages_scanned": 2, "pages_hashed": 2}


def test_a_page_that_is_absent_is_passed_over(make: Callable[..., Any]) -> None:
    host = make()
    host.scan([A, B])
    assert counts(host) == {}


def test_a_hint_is_matched(make: Callable[..., Any]) -> None:
    """Both share one frame."""
    host = make()
    host.write(A, 1)
    host.write(B, 1)
    host.scan([A, B])
    # The hint's page is hashed once more.
    done = {"pages_scanned": 2, "pages_hashed": 3, "hints_matched": 1, "pages_merged": 1}
    assert counts(host) == {"shared": 2, "common": 1, "saving": 1, **done}
    assert host.read(A) == host.read(B) == 1


def test_a_shared_frame_is_matched(make: Callable[..., Any]) -> None:
    host = make()
    for page in (A, B, C):
        host.write(page, 1)
    host.scan([B, C, A])
    done = {"pages_scanned": 3, "pages_hashed": 4, "hints_matched": 1, "pages_merged": 2}
    assert counts(host) == {"shared": 3, "common": 1, "saving": 2, **done}


def test_a_shared_page_is_not_hashed_again(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.write(B, 1)
    host.scan([A, B, A, B, A])
    assert counts(host)["pages_scanned"] == 5
    assert counts(host)["pages_hashed"] == 3


def test_a_write_does_not_touch_the_hint(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.scan([A])
    host.write(A, 2)
    host.write(A, 1)  # as it was: the hint is good
    host.write(B, 1)
    host.scan([B])
    assert counts(host)["saving"] == 1


def test_a_write_is_not_noticed() -> None:
    """COWH counts the page until it is scanned, or its hint is met. (In the pool a write counts at once.)"""
    host = EsxModel()
    host.add_vm()
    host.write(A, 1)
    host.scan([A])
    host.write(A, 2)
    assert counts(host)["cow_hints"] == 1


def test_a_stale_hint_is_removed(make: Callable[..., Any]) -> None:
    """And the page that found it is the next hint of this hash."""
    host = make()
    host.write(A, 1)
    host.scan([A])
    host.write(A, 2)
    host.write(B, 1)
    host.scan([B])
    assert counts(host) == {
        "cow_hints": 1, "pages_scanned": 2, "pages_hashed": 3, "hints_matched": 1, "hints_stale": 1,
    }  # fmt: skip
    host.write(C, 1)
    host.scan([C])
    assert counts(host)["saving"] == 1
    assert counts(host)["hints_stale"] == 1
    host.write(D, 2)
    host.scan([D, A])  # A's hint is gone, but at its next scan A meets D's
    assert counts(host)["saving"] == 2


def test_a_released_page_takes_its_hint_along(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.scan([A])
    host.release(A)
    assert "cow_hints" not in counts(host)
    host.write(A, 1)
    host.write(B, 1)
    host.scan([B])
    assert "hints_matched" not in counts(host)
    host.scan([A])
    assert counts(host)["saving"] == 1


def test_a_page_replaces_its_own_hint(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.scan([A])
    host.write(A, 2)
    host.scan([A])
    assert counts(host)["cow_hints"] == 1
    host.write(B, 1)
    host.scan([B])  # no hint of 1 any more
    assert counts(host)["cow_hints"] == 2
    assert "hints_matched" not in counts(host)
    host.write(C, 2)
    host.scan([C])
    assert counts(host)["saving"] == 1


def test_a_page_that_is_shared_has_no_hint_any_more(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.scan([A])
    host.write(A, 2)
    host.write(B, 2)
    host.scan([B, A])
    assert counts(host)["saving"] == 1
    assert "cow_hints" not in counts(host)
    host.write(C, 1)
    host.scan([C])
    assert "hints_stale" not in counts(host)


def test_a_collision_with_a_hint(make: Callable[..., Any]) -> None:
    """The hashes are equal, the contents are not."""
    host = make(hash_of=lambda content: content % 10)
    host.write(A, 1)
    host.write(B, 11)
    host.scan([A, B])
    assert counts(host) == {
        "cow_hints": 1, "pages_scanned": 2, "pages_hashed": 3, "hints_matched": 1, "collisions": 1,
    }  # fmt: skip
    host.write(C, 11)
    host.scan([C])  # as long as A has the hint, nobody finds B
    assert counts(host)["collisions"] == 2
    host.write(D, 1)
    host.scan([D])
    assert counts(host)["saving"] == 1


def test_a_collision_with_a_shared_frame(make: Callable[..., Any]) -> None:
    host = make(hash_of=lambda content: content % 10)
    for page, content in ((A, 1), (B, 1), (C, 11), (D, 11)):
        host.write(page, content)
    host.scan([A, B, C, D])
    assert counts(host) == {
        "shared": 2, "common": 1, "saving": 1,
        "pages_scanned": 4, "pages_hashed": 5, "hints_matched": 1, "collisions": 2, "pages_merged": 1,
    }  # fmt: skip
    host.write(A, 5)
    host.scan([C])
    assert counts(host)["collisions"] == 3  # the frame is there for B
    host.write(B, 6)
    host.scan([C, D])  # now it is not
    assert counts(host)["collisions"] == 3
    assert counts(host)["saving"] == 1


def test_a_page_that_collided_and_was_written_is_like_any(make: Callable[..., Any]) -> None:
    host = make(hash_of=lambda content: content % 10)
    host.write(A, 1)
    host.write(B, 11)
    host.scan([A, B])
    host.write(B, 1)
    host.scan([B])
    assert counts(host)["saving"] == 1


def test_a_write_to_a_shared_page_is_a_copy(make: Callable[..., Any]) -> None:
    host = make()
    for page in (A, B, C):
        host.write(page, 1)
    host.scan([A, B, C])
    host.write(B, 2)
    assert host.counts() == Counts(zero=0, shared=2, common=1, saving=1, cow_hints=0)
    assert [host.read(page) for page in (A, B, C)] == [1, 2, 1]
    assert counts(host)["cow_breaks"] == 1


def test_a_frame_with_one_sharer_left_stays_write_protected(make: Callable[..., Any]) -> None:
    """It is found again; and its last sharer's write is a copy, too, which ends it."""
    host = make()
    host.write(A, 1)
    host.write(B, 1)
    host.scan([A, B])
    host.write(A, 2)
    assert host.counts() == Counts(zero=0, shared=1, common=1, saving=0, cow_hints=0)
    host.write(C, 1)
    host.scan([B, C])
    assert host.counts() == Counts(zero=0, shared=2, common=1, saving=1, cow_hints=0)
    assert counts(host)["hints_matched"] == 1
    host.write(C, 3)
    host.write(B, 4)
    assert host.counts() == Counts(0, 0, 0, 0, 0)
    assert counts(host)["cow_breaks"] == 3
    host.write(D, 1)
    host.scan([D])
    assert host.counts().cow_hints == 1


def test_a_released_page_leaves_its_frame(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 1)
    host.write(B, 1)
    host.scan([A, B])
    host.release(A)
    host.release(B)
    assert host.counts() == Counts(0, 0, 0, 0, 0)
    assert "cow_breaks" not in counts(host)


def test_zero_pages_are_shared_as_others(make: Callable[..., Any]) -> None:
    host = make()
    host.write(A, 0)
    host.scan([A])
    assert host.counts() == Counts(zero=0, shared=0, common=0, saving=0, cow_hints=1)
    for page, content in ((B, 0), (C, 7), (D, 7)):
        host.write(page, content)
    host.scan([B, C, D])
    assert host.counts() == Counts(zero=2, shared=4, common=2, saving=2, cow_hints=0)


@pytest.mark.parametrize(
    ("force", "saving"),
    [
        (0, 6),  # all seven are equal
        (1, 4),  # two and two of a salt, and three that have none
        (2, 2),  # these are alone
    ],
)
def test_salting(make: Callable[..., Any], force: int, saving: int) -> None:
    salts = [None, "x", "x", "y", "y", None, None]
    host = make(salts, force)
    pages = [(vm, 0) for vm in range(len(salts))]
    for page in pages:
        host.write(page, 1)
    host.scan(pages)
    assert host.counts().saving == saving


def test_within_a_guest_all_is_shared() -> None:
    host = EsxModel(share_force_salting=2)
    pages = [(host.add_vm(), gpn) for gpn in (0, 0)] + [(0, 1), (1, 1)]
    for page in pages:
        host.write(page, 1)
    host.scan(pages)
    assert host.counts() == Counts(zero=0, shared=4, common=2, saving=2, cow_hints=0)


def test_large_pages_are_hashed_but_not_shared() -> None:
    host = EsxModel(pages_of_large=4)
    vm = host.add_vm()
    host.make_large(vm, 0)
    for gpn, content in enumerate([1, 1, 2, 3, 1, 2]):
        host.write((vm, gpn), content)
    host.scan([(vm, gpn) for gpn in range(6)])
    assert host.counts() == Counts(zero=0, shared=0, common=0, saving=0, cow_hints=6)
    assert host.done.hints_matched == 0
    host.write((vm, 2), 9)
    host.break_large(vm, 0)
    # Both 1 with the one outside; 3 and what was written are hints, and so is the other small page.
    assert host.counts() == Counts(zero=0, shared=3, common=1, saving=2, cow_hints=3)
    assert host.done.pages_scanned == 6
    host.check()


def test_what_a_large_page_holds_unscanned_waits_for_the_scanner() -> None:
    host = EsxModel(pages_of_large=4)
    vm = host.add_vm()
    host.make_large(vm, 0)
    for gpn in range(4):
        host.write((vm, gpn), 1)
    host.scan([(vm, 3)])
    host.break_large(vm, 0)
    assert host.counts() == Counts(zero=0, shared=0, common=0, saving=0, cow_hints=1)
    host.scan([(vm, gpn) for gpn in range(4)])
    assert host.counts().saving == 3


@pytest.mark.parametrize("seed", range(20))
def test_one_pass_in_any_order_shares_all_there_is(make: Callable[..., Any], seed: int) -> None:
    """If nobody writes meanwhile, whatever is left of earlier passes. What is read is what was written, always."""
    dice = random.Random(seed)
    salts = [None, "x", "x", None] * 15
    host = make(salts, 1)
    pages = [(vm, 0) for vm in range(len(salts))]
    written: dict[tuple[int, int], int] = {}
    for _ in range(60):
        for page in dice.sample(pages, dice.randrange(12)):
            if dice.randrange(5):
                written[page] = dice.randrange(25)
                host.write(page, written[page])
            else:
                written.pop(page, None)
                host.release(page)
        host.scan(dice.sample(pages, dice.randrange(len(pages))))
        host.check()
        assert {page: host.read(page) for page in pages} == {page: written.get(page) for page in pages}
    host.scan(dice.sample(pages, len(pages)))
    copies = Counter((salts[vm], content) for (vm, _), content in written.items())
    assert host.counts().saving == sum(n - 1 for n in copies.values())
    lonely_frames = host.counts().common - sum(n > 1 for n in copies.values())
    assert host.counts().cow_hints + lonely_frames == sum(n == 1 for n in copies.values())


def test_with_collisions_what_is_shared_is_equal_still(make: Callable[..., Any]) -> None:
    dice = random.Random(1)
    host = make([None] * 30, hash_of=lambda content: content % 3)
    pages = [(vm, 0) for vm in range(30)]
    written = {}
    for _ in range(300):
        page = dice.choice(pages)
        written[page] = dice.randrange(1, 10)
        host.write(page, written[page])
        host.scan(dice.sample(pages, 5))
        host.check()
        assert all(host.read(page) == content for page, content in written.items())
    assert host.done.collisions > 50


GIB = 2**18  # pages


def test_the_rate_by_share_scan_time() -> None:
    """4 GiB in 60 minutes."""
    assert scan_rates([4 * GIB], cpu_ghz=100) == [Fraction(4 * GIB, 3600)]
    rates = scan_rates([2 * GIB, GIB], cpu_ghz=100, share_scan_time=10)
    assert rates == [Fraction(2 * GIB, 600), Fraction(GIB, 600)]


def test_the_rate_by_share_rate_max() -> None:
    """All of more than 1024 * 3600 pages, 14.06 GiB, takes longer than an hour; the others do not mind."""
    most = 1024 * 3600
    assert scan_rates([most, most + 1, 4 * most, GIB], cpu_ghz=100) == [1024, 1024, 1024, Fraction(GIB, 3600)]
    assert scan_rates([GIB], cpu_ghz=100, share_rate_max=10) == [10]


def test_the_rate_by_share_scan_ghz() -> None:
    """4 MB, 1024 pages a second for each GHz, shared in proportion."""
    rates = scan_rates([8 * GIB] * 3 + [4 * GIB], cpu_ghz=1)
    assert sum(rates) == 1024
    assert rates[0] == rates[1] == rates[2] == 2 * rates[3]
    assert scan_rates([8 * GIB], cpu_ghz=1) == [Fraction(8 * GIB, 3600)]  # below it
    assert scan_rates([8 * GIB] * 4, cpu_ghz=0.5, share_scan_ghz=1) == [32] * 4
    assert sum(scan_rates([8 * GIB] * 8, cpu_ghz=2, page_size=2**21)) == 4  # of 2 MiB each


def test_both_limits_of_the_rate_at_once() -> None:
    """First each one's own, then the host's."""
    assert scan_rates([10**9, 1024 * 1800], cpu_ghz=0.75) == [512, 256]


@pytest.mark.parametrize("setting", ["share_scan_time", "share_scan_ghz", "share_rate_max"])
def test_nothing_is_scanned_at_a_setting_of_0(setting: str) -> None:
    assert scan_rates([GIB, 5], cpu_ghz=10, **{setting: 0}) == [0, 0]


def test_no_virtual_machines() -> None:
    assert scan_rates([], cpu_ghz=1) == []


def test_parts_of_pages_add_up() -> None:
    pace = Pace()
    rates = [Fraction(1, 3), Fraction(10, 4)]
    assert [pace.due(rates, 1) for _ in range(6)] == [[0, 2], [0, 3], [1, 2], [0, 3], [0, 2], [1, 3]]
    rates.append(Fraction(7))  # another one comes
    assert pace.due(rates, Fraction(1, 2)) == [0, 1, 3]
    assert pace.due(rates, Fraction(1, 2)) == [0, 1, 4]
