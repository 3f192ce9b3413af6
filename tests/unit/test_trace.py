"""Recorded traces: what is written is read, in any parts; whatever is wrong in a file is told in one line."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pagedup.host import trace as module
from pagedup.host.trace import RECORD, Trace, save_trace

PAGES = (100, 5, 1)


def records(*each: tuple[float, int, int, bool]) -> NDArray[np.void]:
    return np.array([*each], RECORD)


def write(path: Path, array: NDArray[Any]) -> str:
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=True)
    return str(path)


def test_what_is_saved_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    save_trace(path, [0, 1.5, 1.5, 2, 9], [0, 1, 0, 0, 2], [99, 4, 7, 7, 0], [False, True, True, False, True])
    trace = Trace(path, PAGES)
    assert len(trace) == 5
    assert trace.take(0) == {}, "the time itself is not before it"
    taken = trace.take(2)
    assert list(taken) == [0, 1]
    assert taken[0][0].tolist() == [99, 7] and taken[0][1].tolist() == [False, True]
    assert taken[1][0].tolist() == [4] and taken[1][1].tolist() == [True]
    assert taken[0][0].dtype == np.uint32 and taken[0][1].dtype == np.bool_
    assert trace.take(2) == {} == trace.take(1)
    assert {guest: gpns.tolist() for guest, (gpns, _) in trace.take(np.inf).items()} == {0: [7], 2: [0]}
    assert trace.take(np.inf) == {}


def test_an_empty_trace(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    save_trace(path, [], np.empty(0, np.int64), np.empty(0, np.int64), [])
    assert len(Trace(path, ())) == 0
    assert Trace(path, PAGES).take(np.inf) == {}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=40),
    st.lists(st.integers(0, 22), max_size=8),
    st.integers(1, 9),
)
def test_in_parts_as_at_once(tmp_path_factory: Any, found: Any, times: list[int], part: int) -> None:
    found = sorted(found, key=lambda one: one[0])
    path = str(tmp_path_factory.getbasetemp() / "parts.npy")
    write(Path(path), np.array(found, RECORD))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", part)
        trace = Trace(path, (4, 4, 4))
        before = -1
        for time in [*sorted(times), 99]:
            expected = {}
            for guest in range(3):
                own = [one for one in found if before <= one[0] < time and one[1] == guest]
                if own:
                    expected[guest] = [(one[2], one[3]) for one in own]
            taken = trace.take(time)
            assert {g: list(zip(*map(list, taken[g]), strict=True)) for g in taken} == expected
            before = time


RIGHT = records((0.5, 0, 99, False), (0.5, 1, 4, True), (7, 2, 0, True))


@pytest.mark.parametrize(
    ("at", "field", "value", "message"),
    [
        (2, "guest", 3, "record 2: guest: 3 is too many; there are 3, from 0 on"),
        (1, "guest", 2**32 - 1, "record 1: guest: 4294967295 is too many"),
        (0, "gpn", 100, "record 0: gpn: 100 is not in guest 0, which has 100 pages"),
        (1, "gpn", 5, "record 1: gpn: 5 is not in guest 1, which has 5 pages"),
        (2, "gpn", 2**32 - 1, "record 2: gpn: 4294967295 is not in guest 2, which has 1 pages"),
        (0, "time", -0.001, "record 0: time: -0.001 is before 0"),
        (1, "time", 0.4, "record 1: time: 0.4 is before that of the record before"),
        (2, "time", np.inf, "record 2: time: inf must be finite"),
        (0, "time", -np.inf, "record 0: time: -inf must be finite"),
        (1, "time", np.nan, "record 1: time: nan must be finite"),
    ],
)
@pytest.mark.parametrize("part", [1, 2, 100])
def test_what_is_wrong_is_named(
    tmp_path: Path, at: int, field: str, value: float, message: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", part)
    array = RIGHT.copy()
    assert len(Trace(write(tmp_path / "right.npy", array), PAGES)) == 3
    array[field][at] = value
    path = write(tmp_path / "a.npy", array)
    with pytest.raises(ValueError) as caught:
        Trace(path, PAGES)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_flag_that_is_none(tmp_path: Path) -> None:
    array = RIGHT.copy()
    array["write"].view(np.uint8)[1] = 2
    with pytest.raises(ValueError, match=r"record 1: write: 2 must be 0 or 1"):
        Trace(write(tmp_path / "a.npy", array), PAGES)


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize(
    "array",
    [
        RIGHT.astype(RECORD.newbyteorder(">")),
        RIGHT.astype(np.dtype([(name, RECORD[name]) for name in ("guest", "time", "gpn", "write")])),
        RIGHT.reshape(3, 1),
        np.array(RIGHT[0]),
        np.zeros(4),
        RIGHT[["time", "guest", "gpn"]],
        np.array([1, Evil()], object),
    ],
    ids=["big-endian", "order", "2-d", "0-d", "numbers", "fields", "pickle"],
)
def test_other_arrays_are_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    path = write(tmp_path / "a.npy", array)
    with pytest.raises(ValueError) as caught:
        Trace(path, PAGES)
    assert str(caught.value).startswith(f"{path}: no trace: ") and "\n" not in str(caught.value)


def whole() -> bytes:
    with io.BytesIO() as file:
        np.lib.format.write_array(file, RIGHT)
        return file.getvalue()


def zipped() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", whole())
        return file.getvalue()


HEADER = len(whole()) - RIGHT.nbytes


@pytest.mark.parametrize("content", [b"", pickle.dumps(Evil()), zipped(), b"time,guest,gpn,write\n", whole()[:-1]])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy: no trace: ."):
        Trace(str(path), PAGES)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Trace(str(tmp_path / "a.npy"), PAGES)
    with pytest.raises(IsADirectoryError):
        Trace(str(tmp_path), PAGES)


@settings(max_examples=400)
@given(
    st.integers(0, len(whole())),
    st.lists(st.tuples(st.integers(0, HEADER + 40), st.integers(0, 255)), max_size=3),
)
@example(len(whole()), [])
def test_broken_files_are_refused_or_read(tmp_path_factory: Any, length: int, changes: list[tuple[int, int]]) -> None:
    content = bytearray(whole())
    for at, value in changes:
        content[at % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "broken.npy"
    path.write_bytes(content[:length])
    try:
        trace = Trace(str(path), PAGES)
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert sum(len(gpns) for gpns, _ in trace.take(np.inf).values()) == len(trace)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npy")
    good: dict[str, Any] = {"time": [0.0, 1.0], "guest": [0, 1], "gpn": [0, 1], "write": [True, False]}
    for field, value, message in [
        ("guest", [0], r"guest has the shape \(1,\); it must be \(2,\)"),
        ("time", [[0.0, 1.0]], r"time has the shape \(1, 2\)"),
        ("gpn", [0, -1], "gpn has values from -1 to 0; 0 to"),
        ("guest", [0, 2**32], "guest has values from 0 to 4294967296"),
        ("time", [1.0, 0.0], "time must be finite, from 0 on, and ascend"),
        ("time", [-1.0, 0.0], "time must be"),
        ("time", [0.0, np.nan], "time must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_trace(path, **{**good, field: value})
    with pytest.raises(TypeError, match="gpn has the dtype float64"):
        save_trace(path, **{**good, "gpn": [0.0, 1.0]})
    assert not Path(path).exists()
    save_trace(path, **good)
    assert len(Trace(path, PAGES)) == 2
