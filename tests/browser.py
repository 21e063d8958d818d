"""A browser for tests, told by a pipe what to do: Chromium's own protocol, without a library."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


class Tab:
    """One page, and a way to ask it."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read, self.heard, self.count, self.session = write, os.fdopen(read, "rb"), b"", 0, ""

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """What the browser answers; events are dropped."""
        self.count += 1
        said = {"id": self.count, "method": method, "params": words}
        said |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(said).encode() + b"\0")
        while True:
            while b"\0" not in self.heard:
                more = self.read.read1(1 << 16)
                assert more, "the browser has ended"
                self.heard += more
            message, _, self.heard = self.heard.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        """The value of an expression, of a promise what it comes to."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def choose(self, element: str, *files: Path) -> None:
        """Files chosen in an input of the page."""
        node = self.ask("Runtime.evaluate", expression=f"document.querySelector({element!r})")["result"]["objectId"]
        self.ask("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=node)

    def picture(self, file: Path) -> None:
        """The whole page as a PNG file."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def tab(page: Path, width: int = 1280, dark: bool = False) -> Iterator[Tab]:
    """A page of a file in a window of some width, loaded."""
    (from_us, write), (read, to_us) = os.pipe(), os.pipe()
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    shell = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "pass_fds": (from_us, to_us)}
    process = subprocess.Popen(["bash", "-c", shell, "bash", *words], **quiet)  # type: ignore[call-overload]
    os.close(from_us)
    os.close(to_us)
    opened = Tab(write, read)
    try:
        target = opened.ask("Target.createTarget", url="about:blank")["targetId"]
        opened.session = opened.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        opened.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        opened.ask("Emulation.setEmulatedMedia", features=[scheme])
        opened.ask("Page.navigate", url=page.resolve().as_uri())
        opened.run(
            "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )
        yield opened
    finally:
        process.kill()
        process.wait()
        os.close(write)
        opened.read.close()
