"""Pages in a real browser: what it shows of them, to whom, and whether two colours can be told apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

SCHEMES = ["light", "dark"]
PHONE, DESK = 375, 1200
A4 = 672  # px: the width of the paper less its margins, 210 - 2 * 16 mm at 96 px an inch

CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = colour => {
        const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
        const [r, g, b] = rgba(colour).map(x => linear(x / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (rgba(colour)[3]) return colour;
        }
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        if (![...element.childNodes].some(node => node.nodeType == 3 && node.data.trim())) continue;
        const style = getComputedStyle(element);
        const colour = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const [low, high] = [light(colour), light(behind(element))].sort((a, b) => a - b);
        found.push([(high + .05) / (low + .05), element.textContent]);
    }
    return found;
}"""



class Visit:
    """A page that was opened, what the browser complained of, and what it asked for."""

    def __init__(self, browser: Browser, path: Path, width: int = DESK, scheme: Any = "light") -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def colours(self, *names: str) -> list[tuple[int, ...]]:
        """The custom properties of the style sheet."""
        found = self.page.evaluate(
            "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`))",
            names,
        )
        return [tuple(bytes.fromhex(colour.strip().removeprefix("#"))) for colour in found]

    def tree(self) -> list[dict[str, Any]]:
        """What a screen reader is told: nodes with role and name, those that it does not hear left out."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        return [
            {"role": node["role"]["value"], "name": node.get("name", {}).get("value", ""), "node": node}
            for node in nodes
            if not node["ignored"]
        ]


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
