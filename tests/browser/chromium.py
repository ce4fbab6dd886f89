"""A real Chromium for the tests, driven through `driver.mjs`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODULES = ROOT / "clients" / "javascript" / "node_modules"
PATIENCE_MS = 20_000


def missing() -> str:
    """Return what these tests lack on this machine, and how to get it; "" where nothing."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (MODULES / "playwright-core").exists():
        return "run `npm ci` in clients/javascript"
    if shutil.which("chromium") is None:
        return "chromium is not installed"
    return ""


class Chromium:
    """One browser; `context()` is a device with storage of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(HERE / "driver.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def ask(self, command: str, **rest: Any) -> Any:
        """Send one command to the driver; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **rest}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer.get("value")

    def context(self, **options: Any) -> Device:
        """Return a new device; `options` are those of playwright's newContext."""
        return Device(self, self.ask("context", options=options))

    def end(self) -> None:
        """Close the browser and wait for it."""
        self._process.communicate(timeout=30)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the browser driver ended; is Chromium whole?"
        answer: dict[str, Any] = json.loads(line)
        return answer


class Device:
    """A tablet: storage and network of its own, and any number of tabs."""

    def __init__(self, browser: Chromium, number: int) -> None:
        self._browser = browser
        self._number = number

    def page(self, url: str) -> Page:
        """Open a tab."""
        page = Page(self._browser, self._browser.ask("page", context=self._number))
        page.goto(url)
        return page

    def demo(self, token: dict[str, str]) -> None:
        """Serve the demo page of the source tree under every origin, with this token."""
        self._browser.ask("demo", context=self._number, token=token)

    def offline(self, offline: bool = True) -> None:
        """Pull the plug, or put it in again."""
        self._browser.ask("offline", context=self._number, offline=offline)

    def clock(self, ms: int) -> None:
        """Set the clock wrong by so many milliseconds, for pages opened from now on."""
        self._browser.ask("clock", context=self._number, ms=ms)

    def end(self) -> None:
        """Throw the device away."""
        self._browser.ask("endContext", context=self._number)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, number: int) -> None:
        self._browser = browser
        self._number = number

    def goto(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._ask("goto", url=url)

    def reload(self) -> None:
        """Load the page anew, as F5 does."""
        self._ask("reload")

    def run(self, script: str, value: Any = None) -> Any:
        """Run statements in the page; `value` is handed in, `return` hands out."""
        return self._ask("evaluate", script=script, value=value)

    def wait(self, expression: str, value: Any = None, ms: int = PATIENCE_MS) -> None:
        """Wait until an expression is true in the page."""
        self._ask("wait", script=expression, value=value, ms=ms)

    def press(self, key: str) -> None:
        """Press a key."""
        self._ask("press", key=key)

    def click(self, selector: str) -> None:
        """Click an element; shadow roots are looked into."""
        self._ask("click", selector=selector)

    def size(self, width: int, height: int) -> None:
        """Give the window another size, in CSS pixels."""
        self._ask("size", width=width, height=height)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the window."""
        self._ask("screenshot", path=str(path))

    def errors(self) -> list[str]:
        """Return what the console reported as errors."""
        found: list[str] = self._ask("errors")
        return found

    def axe(self) -> list[str]:
        """Return what axe finds against accessibility."""
        found: list[str] = self._ask("axe")
        return found

    def close(self) -> None:
        """Close the tab."""
        self._ask("close")

    def _ask(self, command: str, **rest: Any) -> Any:
        return self._browser.ask(command, page=self._number, **rest)
