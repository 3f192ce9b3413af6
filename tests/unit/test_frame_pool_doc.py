"""The examples of docs/frame-pool.md print what it says."""

import mmap
import re
from pathlib import Path

import pytest

from tests.processes import run_python

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "frame-pool.md").read_text()
SMALL_PAGES = "import ctypes; assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0\n"  # PR_SET_THP_DISABLE


EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```\n", TEXT, re.DOTALL)


def test_there_are_examples() -> None:
    assert ["DirtyLog" in code for code, _ in EXAMPLES] == [False, False, True]


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the examples are of pages of 4096 bytes")
@pytest.mark.parametrize(
    ("code", "output"),
    [
        pytest.param(code, output, marks=[pytest.mark.userfaultfd] if "DirtyLog" in code else [])
        for code, output in EXAMPLES
    ],
    ids=["policies", "paging", "dirty-log"],
)
def test_an_example(code: str, output: str) -> None:
    done = run_python(SMALL_PAGES + code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output
