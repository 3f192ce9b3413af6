"""docs/layouts.md says what the code does: each field, the bits of names, the bases of systems, a whole example."""

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.figures import FIGURES
from pagedup.guests import GuestSpec, generate, preset_names, read_spec
from pagedup.guests.aslr import SYSTEMS
from pagedup.memory.layouts import names

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "layouts.md").read_text()


def found(pattern, text):
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None
    return match[1]


def fields_of(struct, prefix=""):
    """The dotted fields of a specification; those of content are told of once."""
    for field in msgspec.structs.fields(struct):
        inner = next(
            (t for t in (field.type, *getattr(field.type, "__args__", ())) if hasattr(t, "__struct_fields__")), None
        )
        path = field.name if field.name == "content" else f"{prefix}{field.name}"
        if inner is None or field.name == "content":
            yield f"{prefix}{field.name}"
        if inner is not None:
            yield from fields_of(inner, f"{path}.")


@pytest.mark.parametrize("field", sorted(set(fields_of(GuestSpec))))
def test_every_field_is_told_of(field):
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    assert any(f"`{field}`" in row.split(" | ")[0] for row in rows)


def test_no_field_is_told_of_that_there_is_not():
    begin, end = TEXT.index("### The guest"), TEXT.index("## Content names")
    told = re.findall(r"`([a-z_.]+)`", "\n".join(
        line.split(" | ")[0] for line in TEXT[begin:end].splitlines() if line.startswith("| `")
    ))  # fmt: skip
    assert sorted(told) == sorted(set(fields_of(GuestSpec)))


def test_the_example_can_be_generated(tmp_path):
    path = tmp_path / "SPEC.toml"
    path.write_text(found(r"```toml\n(.*?)```", TEXT))
    spec = read_spec(str(path))
    guests = generate(spec)
    assert [guest.name for guest in guests] == ["office-1", "office-2", "office-3", "office-4"]
    assert all(guest.present.all() for guest in guests)


def test_names_are_told_of_as_they_are():
    table = found(r"    (kind            bits\n(?:    [^\n]*\n)+)", names.__doc__ or "")
    assert "\n".join(line.strip() for line in table.splitlines()) in TEXT


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_bases_of_each_system_are_told(system):
    bases = SYSTEMS[system].bases
    cells = " | ".join(f"{bases[role]:,}" for role in ("kernel", "driver", "library", "executable"))
    assert f"| `{system}` | {cells} |" in TEXT


def test_every_preset_is_told_of():
    assert [name for name in preset_names() if f"| `{name}` |" not in TEXT] == []


def test_every_figure_is_in_the_table():
    assert [figure.what for figure in FIGURES if f"| {figure.what} | {figure.counts} |" not in TEXT] == []
    assert all(f"- {figure.what}: " in TEXT for figure in FIGURES if figure.disagrees)
