"""How hypervisors divide memory, against taking one page after the other."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from pagedup.host.hypervisors.demands import Demand, assigned, shrunk
from pagedup.host.hypervisors.entitlements import entitlements, price
from pagedup.host.hypervisors.spread import spread


class Claim(NamedTuple):
    shares: int
    lower: int
    upper: int
    active: float


@st.composite
def claims(draw: st.DrawFn, most: int = 60) -> Claim:
    upper = draw(st.integers(0, most))
    lower = draw(st.integers(0, upper))
    active = draw(st.sampled_from([0.0, upper / 2, float(upper)]) | st.floats(0, most))
    return Claim(draw(st.integers(1, 50)), lower, upper, active)


MANY = st.lists(claims(), max_size=5)
TAXES = st.sampled_from([0.0, 0.5, 0.75, 0.95])


def divide(guests: list[Claim], total: int, tax: float) -> list[int]:
    return entitlements(
        [guest.shares for guest in guests],
        [guest.lower for guest in guests],
        [guest.upper for guest in guests],
        total,
        active=[guest.active for guest in guests],
        tax=tax,
    )


def one_by_one(guests: list[Claim], total: int, tax: float) -> list[int]:
    """Min-funding revocation: each page is taken from who pays least for those it has."""

    def paid(number: int) -> float:
        pages, guest = held[number], guests[number]
        return price(guest.shares, pages, min(1.0, guest.active / pages), tax)

    held = [guest.upper for guest in guests]
    while sum(held) > total:
        richer = [i for i, guest in enumerate(guests) if held[i] > guest.lower]
        if not richer:
            break
        held[min(richer, key=paid)] -= 1
    return held


@settings(max_examples=500)
@given(MANY, st.integers(0, 300), TAXES)
def test_as_if_taken_one_by_one(guests: list[Claim], total: int, tax: float) -> None:
    for fast, slow in zip(divide(guests, total, tax), one_by_one(guests, total, tax), strict=True):
        assert abs(fast - slow) <= 2  # parts of pages: taken one by one, from each in turn


@given(st.lists(claims(most=1 << 34), max_size=60), st.integers(0, 1 << 41), TAXES)
def test_it_adds_up_within_bounds(guests: list[Claim], total: int, tax: float) -> None:
    pages = divide(guests, total, tax)
    lower, upper = sum(guest.lower for guest in guests), sum(guest.upper for guest in guests)
    assert sum(pages) == min(max(total, lower), upper)
    assert all(guest.lower <= n <= guest.upper for n, guest in zip(pages, guests, strict=True))


@given(st.lists(claims(most=10_000), min_size=1, max_size=8), st.integers(0, 50_000), TAXES, st.data())
def test_who_has_more_shares_gets_no_less(guests: list[Claim], total: int, tax: float, data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(guests) - 1))
    more = guests.copy()
    more[which] = guests[which]._replace(shares=guests[which].shares * data.draw(st.integers(1, 9)))
    assert divide(more, total, tax)[which] >= divide(guests, total, tax)[which] - 1  # a page of rounding


@given(st.lists(claims(most=10_000), min_size=1, max_size=8), st.lists(st.integers(0, 50_000), min_size=2), TAXES)
def test_more_memory_is_less_for_nobody(guests: list[Claim], totals: list[int], tax: float) -> None:
    for less, more in pairwise(divide(guests, total, tax) for total in sorted(totals)):
        assert all(before <= after + 1 for before, after in zip(less, more, strict=True))


@given(st.integers(-5, 1 << 45), st.lists(st.integers(0, 1 << 40), max_size=30))
def test_spread(pages: int, most: list[int]) -> None:
    parts = spread(pages, most)
    assert sum(parts) == max(0, min(pages, sum(most)))
    for part, limit in zip(parts, most, strict=True):
        assert 0 <= part <= limit
        assert abs(part * sum(most) - min(max(pages, 0), sum(most)) * limit) < sum(most) or not limit


# --- Hyper-V ---------------------------------------------------------------------------------------------------------


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    minimum = draw(st.integers(1, 500))
    maximum = draw(st.integers(minimum, 2000))
    return Demand(
        held=draw(st.integers(minimum, maximum)),
        committed=draw(st.integers(0, 2500)),
        minimum=minimum,
        maximum=maximum,
        buffer=draw(st.sampled_from([0.05, 0.2, 1.0])),
        weight=draw(st.sampled_from([0, 5000, 5000, 10_000])),
        can_shrink=draw(st.booleans()),
    )


@given(st.lists(demands(), max_size=6), st.integers(0, 3000))
def test_hyper_v_never_assigns_more_than_there_is(guests: list[Demand], unassigned: int) -> None:
    capacity = sum(guest.held for guest in guests) + unassigned
    pages = assigned(guests, capacity)
    assert sum(pages) <= capacity
    for now, guest in zip(pages, guests, strict=True):
        assert guest.least <= now <= max(guest.held, guest.wanted)
        assert now <= guest.maximum
        if guest.can_shrink:
            assert now >= min(guest.held, guest.committed)
        else:
            assert now >= guest.held


@given(st.lists(demands(), max_size=6), st.integers(0, 3000))
def test_hyper_v_serves_by_weight_and_demand_first(guests: list[Demand], unassigned: int) -> None:
    capacity = sum(guest.held for guest in guests) + unassigned
    pages = assigned(guests, capacity)
    unmet = [guest.weight for now, guest in zip(pages, guests, strict=True) if now < guest.needed]
    for now, guest in zip(pages, guests, strict=True):
        if unmet and guest.needed > guest.held:
            assert now == guest.held or guest.weight >= max(unmet)
        if unmet:  # somebody has less than it has committed: nobody who could give has a buffer
            assert now <= max(guest.needed, guest.least)
    if sum(max(guest.held, guest.wanted) for guest in guests) <= capacity:
        assert pages == [max(guest.held, guest.wanted) for guest in guests]
    if not unmet and sum(pages) < capacity:  # what is left nobody wants
        assert all(now >= guest.wanted for now, guest in zip(pages, guests, strict=True))


@given(st.lists(demands(), max_size=6), st.integers(0, 3000), st.booleans())
def test_hyper_v_takes_from_the_lowest_pressure(guests: list[Demand], wanted: int, buffers: bool) -> None:
    pages = shrunk(guests, wanted, buffers=buffers)
    floors = [guest.least if buffers else max(guest.least, min(guest.held, guest.wanted)) for guest in guests]
    can = sum(guest.held - floor for guest, floor in zip(guests, floors, strict=True))
    assert sum(guest.held for guest in guests) - sum(pages) == min(wanted, can)
    for gave, one in zip(pages, guests, strict=True):
        for has, other, floor in zip(pages, guests, floors, strict=True):
            if gave < one.held and has > floor and one.committed:  # who could give, too, is not under less pressure
                assert max(other.committed, 1) / (has - 1 or 0.5) >= one.committed / (gave + 1) * (1 - 1e-9)
