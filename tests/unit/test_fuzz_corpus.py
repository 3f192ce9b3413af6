"""The inputs that `make fuzz` found worth keeping, opened again."""

from collections import Counter
from pathlib import Path

from tests.fuzz.image_property import check_image
from tests.fuzz.property import check_input
from tests.processes import ROOT

CORPUS = ROOT / "tests" / "fuzz" / "corpus"


def test_corpus(tmp_path: Path) -> None:
    inputs = sorted(CORPUS.iterdir())
    came = Counter(check_input(path.read_bytes(), str(tmp_path / "input")) for path in inputs)
    assert came.keys() == {"elf", "layout", "lime", "raw", "refused"}
    assert min(came.values()) >= 2


def test_image_corpus(tmp_path: Path) -> None:
    inputs = sorted(CORPUS.with_name("image_corpus").iterdir())
    came = Counter(check_image(path.read_bytes(), str(tmp_path / "input")) for path in inputs)
    assert came.keys() == {"elf", "file", "pe", "refused"}
    assert min(came.values()) >= 2
