"""Specifications: what is wrong in one is told in a line that names the field."""

import os
from pathlib import Path
from typing import Any

import pytest

from pagedup.guests import (
    Content,
    FileCache,
    Free,
    GuestSpec,
    ImageSet,
    Kernel,
    Placement,
    ProcessSet,
    SpecError,
    generate,
    preset,
    preset_names,
    read_spec,
)
from pagedup.guests.spec import checked, pages_of, size_of

BASE = 'system = "linux"\nmemory = "16 MiB"\n'


def read(tmp_path: Path, text: str | bytes) -> GuestSpec:
    path = tmp_path / "guest.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_spec(str(path))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0), (1, 1), (4096, 4096), ("0 B", 0), ("7B", 7), ("64 KiB", 65536), ("1.5 GiB", 3 << 29), ("0.5 KiB", 512),
        ("4MiB", 4 << 20), (1 << 46, 1 << 46), ("65536 GiB", 1 << 46),
    ],
)  # fmt: skip
def test_sizes(size: int | str, expected: int) -> None:
    assert size_of(size, "f") == expected
    assert pages_of(size, "f") == -(-expected // 4096)


BAD_SIZES = [
    "4 GB", "4 G", "4", "", " 4 MiB", "4 MiB ", "4  MiB", "-4 MiB", "+4 MiB", "4 mib", "1e9 B", ".5 GiB", "1. GiB",
    "nan GiB", "inf B", "٤ MiB", "4\u00a0MiB", "4 MiB\n", "65537 GiB", "9" * 400 + " GiB", "0." + "9" * 400 + " GiB",
    -1, (1 << 46) + 1, 1 << 70,
]  # fmt: skip


@pytest.mark.parametrize("size", BAD_SIZES)
def test_what_is_no_size(tmp_path: Path, size: int | str) -> None:
    with pytest.raises(SpecError, match=r"^f: "):
        size_of(size, "f")
    with pytest.raises(SpecError, match=r"^kernel size: "):
        pages_of(size, "kernel size")
    text = f'"{size}"'.replace("\n", "\\n") if isinstance(size, str) else str(size)
    with pytest.raises(SpecError, match=r"guest\.toml: heap: .* - at `\$\.processes\[1\]`$") as caught:
        read(tmp_path, f'{BASE}[[processes]]\nname = "a"\n[[processes]]\nname = "b"\nheap = {text}\n')
    assert "\n" not in str(caught.value)


FIELDS = [
    ("GuestSpec", "", "memory"),
    ("Kernel", "[kernel]\n", "data"),
    ("ImageSet", '[[images]]\nname = "a"\nrole = "kernel"\n', "text"),
    ("ImageSet", '[[images]]\nname = "a"\nrole = "kernel"\n', "rdata"),
    ("ImageSet", '[[images]]\nname = "a"\nrole = "kernel"\n', "data"),
    ("ProcessSet", '[[processes]]\nname = "a"\n', "heap"),
    ("ProcessSet", '[[processes]]\nname = "a"\n', "stack"),
    ("FileCache", "[file_cache]\n", "size"),
    ("FileCache", "[file_cache]\n", "growth"),
    ("FileCache", "[file_cache]\n", "files"),
]


@pytest.mark.parametrize(("part", "table", "field"), FIELDS)
def test_every_size_is_checked(tmp_path: Path, part: str, table: str, field: str) -> None:
    base = BASE if field != "memory" else 'system = "linux"\n'
    with pytest.raises(SpecError, match=f"{field}: -1 bytes; from 0 to 70,368,744,177,664 are possible"):
        read(tmp_path, f"{base}{table}{field} = -1\n")
    kinds: dict[str, Any] = {
        "GuestSpec": lambda **f: GuestSpec(system="linux", **f), "Kernel": Kernel, "FileCache": FileCache,
        "ImageSet": lambda **f: ImageSet(name="a", role="kernel", **f),
        "ProcessSet": lambda **f: ProcessSet(name="a", **f),
    }  # fmt: skip
    with pytest.raises(SpecError, match=f"^{field}: 'x' is no size"):
        kinds[part](**{field: "x"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"{BASE}nonsense = 1", "unknown field `nonsense`"),
        (f"{BASE}[kernel]\nnonsense = 1", "unknown field `nonsense` - at `$.kernel`"),
        (f"{BASE}[kernel.content]\nzeros = 1", "unknown field `zeros` - at `$.kernel.content`"),
        (f'{BASE}[[images]]\nname = "a"\nrole = "kernel"\nsize = 1', "unknown field `size` - at `$.images[0]`"),
        (f"{BASE}[free]\nzero = 1.5", "<= 1.0 - at `$.free.zero`"),
        (f"{BASE}[free]\nzero = -0.1", ">= 0.0 - at `$.free.zero`"),
        (f"{BASE}[free]\nzero = nan", "`$.free.zero`"),
        (f"{BASE}[free]\nzero = inf", "`$.free.zero`"),
        (f"{BASE}[free]\nzero = 0.6\nstale = 0.6", "zero and stale add up to more than 1 - at `$.free`"),
        (
            f"{BASE}[kernel.content]\nzero = 0.5\ncommon = 0.3\nrepeated = 0.3",
            "add up to more than 1 - at `$.kernel.content`",
        ),
        (f"{BASE}[placement]\nfragmentation = 2", "`$.placement.fragmentation`"),
        (f"{BASE}[file_cache]\nhot = -1", "`$.file_cache.hot`"),
        (f"{BASE}churn = nan", "`$.churn`"),
        (f"{BASE}hours = nan", "`$.hours`"),
        (f"{BASE}hours = inf", "`$.hours`"),
        (f"{BASE}hours = -1", "`$.hours`"),
        (f'{BASE}aslr = "yes"', "Expected `bool`, got `str` - at `$.aslr`"),
        (f'{BASE}start = "warm"', "'warm' - at `$.start`"),
        (f"{BASE}guests = 0", "`$.guests`"),
        (f"{BASE}guests = 1.5", "`$.guests`"),
        (f"{BASE}guests = {1 << 70}", "`$.guests`"),
        (f"{BASE}guests = {'9' * 5000}", "4300 digits"),
        ('system = "dos"\nmemory = 4096', "'dos' - at `$.system`"),
        ('system = "linux"', "missing required field `memory`"),
        ("memory = 4096", "missing required field `system`"),
        ("", "missing required field"),
        ('system = "linux"\nmemory = true', "got `bool` - at `$.memory`"),
        ('system = "linux"\nmemory = 1.5', "got `float` - at `$.memory`"),
        ('system = "linux"\nmemory = 0', "memory is 0 bytes; it must be a multiple of 4,096, and not 0"),
        ('system = "linux"\nmemory = 4097', "memory is 4,097 bytes; it must be a multiple of 4,096"),
        ('system = "linux"\nmemory = "16384 GiB"', "memory is 17,592,186,044,416 bytes; it must be less than"),
        (f'{BASE}name = ""', "name is ''; it must be fit for the name of a file"),
        (f'{BASE}name = "../up"', "name is '../up'"),
        (f'{BASE}name = "a\\u0000b"', "name is 'a\\x00b'"),
        (f'{BASE}name = "a\\nb"', "name is 'a\\nb'"),
        (f'{BASE}[[processes]]\nname = ""', "`$.processes[0].name`"),
        (f'{BASE}[[processes]]\nname = "a"\ncount = 0', "`$.processes[0].count`"),
        (f'{BASE}[[processes]]\nname = "a"\nlibraries = -1', "`$.processes[0].libraries`"),
        (f'{BASE}[[processes]]\nname = "a"\n[[processes]]\nname = "a"', "processes: 'a' is there twice"),
        (f'{BASE}[[processes]]\nname = "a"\nexecutable = "b"', "processes: 'a' runs 'b', which is no image set"),
        (f'{BASE}[[images]]\nname = "a"', "missing required field `role` - at `$.images[0]`"),
        (f'{BASE}[[images]]\nname = "a"\nrole = "dll"', "'dll' - at `$.images[0].role`"),
        (
            f'{BASE}[[images]]\nname = "a"\nrole = "kernel"\n[[images]]\nname = "a"\nrole = "kernel"',
            "images: 'a' is there twice",
        ),
        (
            f'{BASE}[[images]]\nname = "a"\nrole = "library"\n[[processes]]\nname = "p"\nexecutable = "a"',
            "'p' runs 'a', which is no image set of the role executable",
        ),
        (f"{BASE}[[images", "end of document"),
        (f"{BASE}memory = 1", "Cannot overwrite a value"),
        (b"\xff\xfe", "utf-8"),
        ("x = " + "[" * 100_000, "brackets are nested too deeply"),
        ("x = " + "{a=" * 100_000, "brackets are nested too deeply"),
    ],
)
def test_bad_specifications(tmp_path: Path, text: str | bytes, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/guest.toml: ")
    assert part in message and "\n" not in message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_spec(str(tmp_path / "missing.toml"))
    with pytest.raises(IsADirectoryError):
        read_spec(str(tmp_path))


def test_every_field_comes_through(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        name = "büro"
        system = "windows-7-x64"
        memory = "2 GiB"
        aslr = false
        start = "snapshot"
        hours = 8
        churn = 0.01
        guests = 50
        kernel = { data = 4096, content = { zero = 0.1, common = 0.2, repeated = 0.3 } }
        free = { zero = 1, stale = 0 }
        placement = { fragmentation = 0.5, same_order = true }
        file_cache = { size = "1 MiB", growth = "2 MiB", files = "3 MiB", hot = 0.25, written = 0.75 }
        sources = { memory = "a measurement" }
        [[images]]
        name = "exe"
        role = "executable"
        [[processes]]
        name = "p"
        count = 3
        executable = "exe"
        content = { zero = 1.0 }
        large_pages = true
        """,
    )
    assert found == GuestSpec(
        name="büro", system="windows-7-x64", memory="2 GiB", aslr=False, start="snapshot", hours=8.0, churn=0.01,
        guests=50,
        kernel=Kernel(data=4096, content=Content(zero=0.1, common=0.2, repeated=0.3)),
        free=Free(zero=1.0), placement=Placement(fragmentation=0.5, same_order=True),
        file_cache=FileCache(size="1 MiB", growth="2 MiB", files="3 MiB", hot=0.25, written=0.75),
        sources={"memory": "a measurement"},
        images=(ImageSet(name="exe", role="executable"),),
        processes=(ProcessSet(name="p", count=3, executable="exe", content=Content(zero=1.0), large_pages=True),),
    )  # fmt: skip
    assert checked(found) == found


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"system": "dos"}, "`$.system`"),
        ({"aslr": "yes"}, "`$.aslr`"),
        ({"churn": 7.0}, "`$.churn`"),
        ({"churn": float("nan")}, "`$.churn`"),
        ({"hours": "long"}, "`$.hours`"),
        ({"guests": -1}, "`$.guests`"),
        ({"free": Free(zero=-1.0)}, "`$.free.zero`"),
        ({"kernel": Kernel(content=Content(zero=-3.0, common=1.0))}, "`$.kernel.content.zero`"),
        ({"placement": Placement(fragmentation=2.0)}, "`$.placement.fragmentation`"),
        ({"processes": (ProcessSet(name="a", count=-1),)}, "`$.processes[0].count`"),
        ({"images": (ImageSet(name="a", role="nothing"),)}, "`$.images[0].role`"),  # type: ignore[arg-type]
        ({"file_cache": 5}, "`$.file_cache`"),
        ({"sources": {"a": object()}}, "object"),
    ],
)
def test_made_in_python_it_is_checked_too(fields: dict[str, Any], part: str) -> None:
    made = GuestSpec(**{"system": "linux", "memory": "1 MiB", **fields})
    with pytest.raises(SpecError) as caught:
        generate(made, 1)
    assert part in str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_presets_can_be_read_and_fit_in_their_memory(name: str) -> None:
    spec = preset(name)
    assert (generate(spec, 1)[0].n_pages) == size_of(spec.memory, "memory") // 4096


def test_a_preset_that_there_is_none_of() -> None:
    assert len(preset_names()) >= 2 and preset_names() == sorted(preset_names())
    for name in ("windows-95", "", "../spec", "debian-server.toml", os.devnull):
        with pytest.raises(SpecError) as caught:
            preset(name)
        assert str(caught.value) == f"there is no preset '{name}'; there are {', '.join(preset_names())}"
