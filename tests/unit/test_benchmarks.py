"""The measurements judge as they should: by fixed numbers, and a planted slowdown makes them fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import calibrate, data, guests, native, peers, rows
from benchmarks.measure import Outcome, exit_status, rounds_of
from benchmarks.realram import Composition
from pagedup import Extent, find_duplicates, open_sources


def test_a_planted_slowdown_fails(monkeypatch, capsys, tmp_path):
    def slow(*args, **kwargs):
        for _ in range(19):
            find_duplicates(*args, **kwargs)
        return find_duplicates(*args, **kwargs)

    monkeypatch.setattr(rows, "find_duplicates", slow)
    report = tmp_path / "report.json"
    status = command.main(["--quick", "--only", "unique", "--rounds", "3", "--json", str(report)])
    assert status == 1
    assert "BELOW" in capsys.readouterr().out
    (line,) = json.loads(report.read_text())["rows"]
    assert line["verdict"] == "BELOW" and line["bound"] == 3.5 and len(line["ratios"]) == 3


@pytest.mark.parametrize(
    ("ratios", "bound", "sense", "verdict"),
    [
        ([3.4, 3.5, 9.0], 3.5, "at least", "ok"),
        ([1.0, 3.49, 9.0], 3.5, "at least", "BELOW"),
        ([2.9, 3.0, 9.0], 3.0, "at most", "ok"),
        ([0.1, 3.01, 9.0], 3.0, "at most", "ABOVE"),
        ([1.0], None, "at least", ""),
        ([], 3.0, "at least", "skipped"),
    ],
)
def test_the_median_is_judged(ratios, bound, sense, verdict):
    outcome = Outcome("row", "what", ratios, bound, sense)
    assert outcome.verdict == verdict
    assert outcome.failed == (verdict in ("BELOW", "ABOVE"))


def test_exit_status():
    good, bad = Outcome("row", "good", [2.0], 1.0), Outcome("row", "bad", [0.5], 1.0)
    skipped, told = Outcome("row", "skipped", [], 1.0), Outcome("row", "told", [0.1])
    assert exit_status([good, skipped, told]) == 0
    assert exit_status([good, bad]) == 1
    assert exit_status([skipped]) == 1  # nothing was measured


def test_rounds_take_turns():
    ran: list[str] = []
    results: dict[str, int] = {}

    def side(name: str, result: int) -> int:
        ran.append(name)
        return result

    sides = {"a": lambda: side("a", 6), "b": lambda: side("b", 7)}
    times = rounds_of(sides, 3, check=results.update)
    assert ran == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert results == {"a": 6, "b": 7}
    assert len(times) == 3 and all(set(seconds) == {"a", "b"} for seconds in times)


def test_data_is_what_it_says():
    mixed = Composition.of(find_duplicates(data.mixed(1 << 14)))
    assert 0.45 < mixed.n_zero / mixed.n_frames < 0.55
    assert 0.3 < mixed.n_duplicate / mixed.n_frames < 0.4  # a fifth are copies; their originals count, too
    assert len(Composition.of(find_duplicates(data.unique(1 << 12))).unique) == 1 << 12
    names = data.names(10_000)
    assert len(np.unique(names)) == 4_000
    pairs = find_duplicates(data.adversarial("equal pairs", 1 << 10))
    assert pairs.n_distinct == 1 << 9


def test_peers_find_the_same():
    memory = data.mixed(1 << 12)
    canonical = find_duplicates(memory).canonical
    for peer in peers.FRAME_PEERS.values():
        assert peers.same_classes(canonical, peer(memory)[0])
    assert peers.same_classes(np.array([0, 1, 0], np.uint32), [5, 3, 5])
    assert not peers.same_classes(np.array([0, 1, 0], np.uint32), [5, 3, 3])
    assert not peers.same_classes(np.array([0, 1, 0], np.uint32), [5, 5, 5])


def test_readers_read():
    memory = data.unique(1 << 10)
    for reader in native.readers():
        native.read(memory, reader)
    assert native.fastest_reader(memory) in native.readers()


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--only", "nothing"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err


def test_no_dumps_skips_by_name(tmp_path, capsys):
    assert command.main(["--only", "real", "--dumps", str(tmp_path)]) == 1
    assert "skipped" in capsys.readouterr().out


def test_only_the_very_guest_is_alive(tmp_path):
    """A process number may be used again, and by another QEMU."""
    path = str(tmp_path / "idle1.qmp")
    words = ["qemu-system-x86_64", "-qmp", guests.qmp_option(path)]
    command = [sys.executable, "-c", "print('ready', flush=True); input()", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        guest = guests.Guest(name="idle1", workload="idle", pid=process.pid, qmp=path, memory="256M")
        assert guests.is_alive(guest)
        assert not guests.is_alive({**guest, "qmp": str(tmp_path / "idle.qmp")})
        (tmp_path / "other.json").write_text(json.dumps({**guest, "qmp": "/other/idle1.qmp"}))
        guests.down(tmp_path)
        assert process.poll() is None and not (tmp_path / "other.json").exists()
        process.kill()
    assert not guests.is_alive(guest)


def test_a_state_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("/")
    guests.alive(tmp_path / "none yet")
    monkeypatch.setattr(guests, "run", lambda *command, **options: pytest.fail("something was run"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for state in (tmp_path, tmp_path / "link"):
        for step in (guests.build, guests.alive, guests.down):
            with pytest.raises(guests.GuestError, match="is not ours"):
                step(state)


def test_interval_of_a_mean() -> None:
    """Against a worked example: mean 2, deviation 1, three values; 4.303 / sqrt(3)."""
    assert calibrate.interval([1.0, 2.0, 3.0]) == "2.000 ± 2.484"
    assert calibrate.interval([0.5]) == "0.500"


def test_calibration_table() -> None:
    trials = [
        calibrate.Trial("idle", settings, boot, predicted=1000 + boot, freed=900, counted=800, scanned=2560, volatile=0)
        for settings in ("as shipped", "zero pages")
        for boot in range(2)
    ]
    lines = calibrate.table(trials).splitlines()
    assert len(lines) == 4 and all(line.count("|") == 9 for line in lines)
    assert lines[2].startswith("| idle | as shipped | 2 | 10 | 4 | 4 | 3 | 0.900 ±")


def test_a_core_holds_the_raw_dump(tmp_path: Path) -> None:
    raw, core = tmp_path / "vm.raw", tmp_path / "vm.elf"
    raw.write_bytes(np.random.default_rng(1).bytes(5 * 4096))
    data.write_core(raw, core)
    (source,) = open_sources([str(core)])
    with source:
        (extent,) = source.extents
        assert isinstance(extent, Extent)
        assert (source.kind, extent.address, bytes(extent.buffer)) == ("elf", 0, raw.read_bytes())
