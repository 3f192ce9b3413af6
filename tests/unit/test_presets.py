"""Presets: each can be generated, and each value in them has its source."""

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

import benchmarks.fleets
from benchmarks.figures import FIGURES
from pagedup.guests import SpecError, generate, preset, preset_names
from tests.sourced import KINDS, covers, fields_of

FLEETS = {path.stem: path for path in Path(benchmarks.fleets.__path__[0]).glob("*.toml")}
SPECS = [*preset_names(), *FLEETS]


def written(name):
    """What the file of a preset, or of guests that stand for published ones, says."""
    path = FLEETS.get(name) or files("pagedup.guests.presets").joinpath(f"{name}.toml")
    return tomllib.loads(path.read_text())


def sources_and_fields(name):
    table = written(name)
    sources = table.pop("sources")
    return sources, list(fields_of(table))


def test_the_presets_of_the_documentation_are_there():
    assert preset_names() == [
        "debian-desktop", "debian-server", "vdi-50", "windows-10", "windows-7-x64", "windows-7-x86", "windows-server",
        "windows-xp",
    ]  # fmt: skip


@pytest.mark.parametrize("name", SPECS)
def test_every_value_has_a_source(name):
    sources, fields = sources_and_fields(name)
    assert [field for field in fields if not any(covers(source, field) for source in sources)] == []


@pytest.mark.parametrize("name", SPECS)
def test_every_source_is_of_a_value_and_says_of_what_kind_it_is(name):
    sources, fields = sources_and_fields(name)
    assert [source for source in sources if not any(covers(source, field) for field in fields)] == []
    assert [text for text in sources.values() if not text.startswith(KINDS)] == []


@pytest.mark.parametrize("name", SPECS)
def test_a_tuned_value_names_figures_that_may_tune(name):
    tuning = {figure.key for figure in FIGURES if figure.use == "tunes"}
    for text in written(name)["sources"].values():
        if text.startswith("tuned: "):
            assert set(text.removeprefix("tuned: ").split(", ")) <= tuning


def test_a_missing_source_is_noticed():
    assert covers("images.*.text_fixups", "images.drivers.text_fixups")
    assert covers("kernel", "kernel.content.zero")
    assert not covers("kernel.data", "kernel.content.zero")
    assert not covers("images.*.text_fixups", "images.drivers.text")


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "vdi-50"])
def test_one_guest_of_each_can_be_made(name):
    (guest,) = generate(preset(name), 1)
    assert guest.n_pages > 0 and guest.present.any()


def test_vdi_50_is_fifty_of_the_desktops():
    many, one = preset("vdi-50"), preset("windows-7-x86")
    assert many.guests == 50
    for field in ("system", "kernel", "images", "processes", "file_cache", "free", "placement"):
        assert msgspec.to_builtins(getattr(many, field)) == msgspec.to_builtins(getattr(one, field)), field
    assert generate(many, 2)[0].n_pages == 1 << 20


def test_the_server_shares_its_system_with_the_desktop():
    server, desktop = preset("windows-server"), preset("windows-7-x64")
    assert server.images[:4] == desktop.images[:4]
    assert server.system == desktop.system


def test_an_unknown_preset_is_named_with_those_that_there_are():
    with pytest.raises(SpecError, match=r"windows-95.*debian-desktop.*windows-xp"):
        preset("windows-95")
