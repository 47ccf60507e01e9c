"""A page in headless Chromium, driven over its DevTools protocol on loopback."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import tempfile
from pathlib import Path

import aiohttp  # of Ray

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--remote-debugging-port=0"]  # fmt: skip


class Page:
    """What a test does with a page; `errors` gathers exceptions and console errors."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.number, self.errors = socket, 0, []

    async def send(self, method: str, **parameters) -> dict:
        """A command's result; events that come meanwhile are noted."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            told = await self.socket.receive_json(timeout=60)
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _note(self, told: dict) -> None:
        given = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"])
        if told.get("method") == "Runtime.consoleAPICalled" and given["type"] == "error":
            self.errors.append(given["args"])
        if told.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(given["entry"])

    async def open(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Show a file at a size of window."""
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        await self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await self.send("Page.navigate", url=path.resolve().as_uri())
        await self.until("document.readyState === 'complete'")

    async def ask(self, script: str):
        """The value of an expression in the page."""
        told = await self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, *, seconds: float = 20) -> None:
        """Wait for an expression to hold."""
        for _ in range(int(seconds / 0.05)):
            if await self.ask(script):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {script}")

    async def mouse(self, selector: str, *, click: bool) -> None:
        """Move the pointer onto the middle of an element, and perhaps click there."""
        find = f"document.querySelector({selector!r})"
        await self.ask(f"{find}.scrollIntoView({{block: 'center'}})")
        box = await self.ask(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])({find}.getBoundingClientRect())"
        )
        where = {"x": box[0], "y": box[1]}
        await self.send("Input.dispatchMouseEvent", type="mouseMoved", **where)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            await self.send(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where
            )

    async def key(self, name: str, code: int) -> None:
        """Press and release a key."""
        press = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        for kind in ("keyDown", "keyUp"):
            typed = {"text": "\r"} if (name, kind) == ("Enter", "keyDown") else {}
            await self.send("Input.dispatchKeyEvent", type=kind, **press, **typed)

    async def picture(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        told = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))


def visit(steps, path: Path, **window):
    """Run `await steps(page)` on a page that shows `path`; returns what it returns."""

    async def all_of_it():
        # Its processes may still write when it has been closed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            process = subprocess.Popen(
                [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                port = await _port(Path(profile) / "DevToolsActivePort")
                async with aiohttp.ClientSession() as session:
                    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        targets = await answer.json()
                    target = next(one for one in targets if one["type"] == "page")
                    async with session.ws_connect(
                        target["webSocketDebuggerUrl"], max_msg_size=0
                    ) as socket:
                        page = Page(socket)
                        await page.open(path, **window)
                        return await steps(page)
            finally:
                process.terminate()
                process.wait(20)

    return asyncio.run(all_of_it())


async def _port(file: Path) -> int:
    for _ in range(600):
        if file.exists() and file.read_text().strip():
            return int(file.read_text().splitlines()[0])
        await asyncio.sleep(0.05)
    raise AssertionError("Chromium did not open its port within 30 s")
