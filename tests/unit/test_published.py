"""Simulated guests against published figures: what judges agrees, or it is said why it does not."""

import statistics

import pytest

from benchmarks import published
from benchmarks.figures import FIGURES
from benchmarks.simulated import simulate

JUDGES = [figure for figure in FIGURES if figure.use == "judges"]


@pytest.fixture(scope="module")
def simulated():
    return simulate(seed=0)


@pytest.mark.parametrize("figure", JUDGES, ids=lambda figure: figure.key)
def test_judges(figure, simulated):
    value = simulated[figure.key]
    if figure.disagrees:
        assert not figure.holds(value), "it agrees now: figures.py says that it does not"
    else:
        assert figure.low <= value <= figure.high


def test_what_tuned_is_met(simulated):
    tuning = [figure for figure in FIGURES if figure.use == "tunes"]
    eight = [figure.key for figure in tuning if figure.key.startswith("eight")]
    runs = [simulate(seed, eight) for seed in published.SEEDS]  # since 16 KiB depend on luck, see the table's note
    medians = {key: statistics.median(run[key] for run in runs) for key in eight}
    assert [figure.key for figure in tuning if not figure.holds((simulated | medians)[figure.key])] == []


def test_most_judges_agree_and_there_are_as_many_as_tune():
    assert len(JUDGES) >= sum(figure.use == "tunes" for figure in FIGURES)
    assert sum(not figure.disagrees for figure in JUDGES) > len(JUDGES) / 2


def test_every_figure_has_a_key_of_its_own():
    keys = [figure.key for figure in FIGURES]
    assert len(set(keys)) == len(keys)


def test_only_what_is_asked_for_is_simulated():
    assert list(simulate(1, ["linux-ten"])) == ["linux-ten"]


def test_the_table(monkeypatch, capsys):
    """An unexplained disagreement is marked and makes the command fail, and so does one that is no longer there."""
    middle = {figure.key: statistics.mean((figure.low, min(figure.high, 100))) for figure in FIGURES}
    wrong = {figure.key: -1.0 for figure in FIGURES if figure.disagrees}
    monkeypatch.setattr(published, "simulate", lambda seed: middle | wrong)
    assert published.main() == 0
    out = capsys.readouterr().out
    assert "ten XP desktops: saved" in out and "!" not in out
    monkeypatch.setattr(published, "simulate", lambda seed: middle | wrong | {"linux-ten": 10.0})
    assert published.main() == 1
    assert "! **disagrees**" in capsys.readouterr().out
    monkeypatch.setattr(published, "simulate", lambda seed: middle)
    assert published.main() == 1
    assert "! agrees" in capsys.readouterr().out
