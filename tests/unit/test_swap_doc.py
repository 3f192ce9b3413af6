"""The example of docs/swap.md prints what it says."""

import mmap
import re
from pathlib import Path

import pytest

from tests.processes import run_python

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "swap.md").read_text()


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the example is of pages of 4096 bytes")
def test_the_example() -> None:
    ((code, output),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```\n", TEXT, re.DOTALL)
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output
