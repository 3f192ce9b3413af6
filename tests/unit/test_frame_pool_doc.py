"""The example of docs/frame-pool.md prints what it says."""

import mmap
import re
from pathlib import Path

import pytest

from tests.processes import run_python

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "frame-pool.md").read_text()
SMALL_PAGES = "import ctypes; assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0\n"  # PR_SET_THP_DISABLE


@pytest.mark.userfaultfd
@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the example is of pages of 4096 bytes")
def test_the_example_of_a_dirty_log() -> None:
    match = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```\n", TEXT, re.DOTALL)
    assert match is not None
    done = run_python(SMALL_PAGES + match[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout == match[2]
