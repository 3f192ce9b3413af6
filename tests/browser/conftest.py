"""The browser that pages are tried in."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import requirements


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Its sandbox works for neither root nor in most containers; all that it gets to see is ours.
        found = playwright.chromium.launch(executable_path=requirements.chromium(), args=["--no-sandbox"])
        yield found
        found.close()
