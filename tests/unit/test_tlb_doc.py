"""docs/tlb.md says what the code does: its example prints what stands below it."""

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tlb.md").read_text()


def test_the_example_prints_what_is_said(capsys):
    match = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    exec(match[1], {})
    assert capsys.readouterr().out == match[2]
