"""Debian's Chromium without a window and without a network, spoken to over two pipes in the DevTools protocol.

    with Chromium() as browser:
        page = browser.page()
        page.open(path.as_uri())
        page.run("document.title")

Messages are JSON, each closed by a zero byte; a request carries a number that its answer repeats. Nothing is
downloaded: without a `chromium` on the PATH (or `MINIFCN_CHROMIUM`) the tests that ask for one skip.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No background traffic, no graphics card, and every address that is neither a file nor on this machine leads nowhere.
OPTIONS = (
    "--headless --remote-debugging-pipe --no-first-run --disable-gpu --disable-extensions --disable-sync --no-sandbox "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage --hide-scrollbars "
    "--allow-file-access-from-files --host-resolver-rules=MAP\t*\t~NOTFOUND,EXCLUDE\t127.0.0.1"
)
SECONDS = 60  # for one answer; a page takes far less


def found() -> str:
    """The browser's program, or ""."""
    chosen = os.environ.get("MINIFCN_CHROMIUM")
    return chosen or next(filter(None, map(shutil.which, NAMES)), "")


class Chromium:
    def __init__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(prefix="minifcn-chromium-", ignore_cleanup_errors=True)
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        options = [option.replace("\t", " ") for option in OPTIONS.split(" ")]
        # The protocol wants its pipes as files 3 and 4; a shell puts them there.
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3</dev/fd/{read_there} 4>/dev/fd/{write_there}', "sh", found()]
            + [*options, f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(read_there, write_there),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.reads, self.writes = read_here, write_here
        self.number = 0
        self.rest = b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ask("Browser.close")
        except (OSError, RuntimeError):
            self.process.kill()  # it no longer answers
        self.process.wait(SECONDS)
        os.close(self.reads)
        os.close(self.writes)
        self.profile.cleanup()

    def message(self, until: float) -> dict[str, Any]:
        """The next message. Raises `RuntimeError` where none comes in time or the browser has gone."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.reads], [], [], max(until - time.monotonic(), 0))
            more = os.read(self.reads, 1 << 20) if ready else b""
            if not more:
                raise RuntimeError(f"Chromium {'closed its pipe' if ready else f'said nothing for {SECONDS} s'}")
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The answer to one request; events that come before it are kept in `events`."""
        self.number += 1
        request: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        os.write(self.writes, json.dumps(request).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while True:
            answer = self.message(until)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"Chromium refuses {method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def page(self, *, width: int = 1100, height: int = 800, dark: bool = False) -> Page:
        page = Page(self, self.ask("Target.createTarget", url="about:blank")["targetId"])
        page.size(width, height, dark=dark)
        return page


class Page:
    """One tab. `complaints` are the exceptions, console errors and failed loads in it; `requests` what it asked for."""

    def __init__(self, browser: Chromium, target: str) -> None:
        self.browser, self.target = browser, target
        self.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.seen: list[dict[str, Any]] = []
        self.waited = 0  # up to which of them `wait_for` has looked
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.connect(False)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        answer = self.browser.ask(method, self.session, **parameters)
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        self.browser.events = [event for event in self.browser.events if event.get("sessionId") != self.session]
        self.seen += mine
        return answer

    def connect(self, connected: bool) -> None:
        """Let the page reach servers on this machine, or, as it does at first, nothing but files."""
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.ask("Network.emulateNetworkConditions", offline=not connected, **speed)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **screen)
        self.ask("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page and wait until it and everything it asks for are there."""
        if "errorText" in (answer := self.ask("Page.navigate", url=address)):
            raise RuntimeError(f"{address}: {answer['errorText']}")
        if "loaderId" in answer:  # else only the part behind # has changed
            self.wait_for("Page.loadEventFired")

    def wait_for(self, method: str) -> None:
        """Wait for the next event of this name."""
        until = time.monotonic() + SECONDS
        while not any(event["method"] == method for event in self.seen[self.waited :]):
            event = self.browser.message(until)
            if event.get("sessionId") == self.session:
                self.seen.append(event)
        names = [event["method"] for event in self.seen]
        self.waited = names.index(method, self.waited) + 1

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise waited for. Raises `RuntimeError` with what it throws."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "it throws"))
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """One key, as a keyboard sends it: `press("Tab", 9)`."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def drag(self, places: list[tuple[float, float]], *, finger: bool = False) -> None:
        """Go down at the first place, over the others, and up at the last, with the mouse or with a finger."""
        for number, (x, y) in enumerate(places):
            if finger:
                kind, points = "touchMove" if number else "touchStart", [{"x": x, "y": y}]
                self.ask("Input.dispatchTouchEvent", type=kind, touchPoints=points)
            else:
                kind = "mouseMoved" if number else "mousePressed"
                self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        if finger:
            self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            end = {"x": places[-1][0], "y": places[-1][1], "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type="mouseReleased", **end)

    def middle(self, expression: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        script = f"""(() => {{ const it = {expression}; it.scrollIntoView({{ block: "nearest" }});
            const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        x, y = self.run(script)
        return x, y

    @property
    def complaints(self) -> list[str]:
        self.ask("Runtime.evaluate", expression="0")  # what was said until now has arrived before this answer
        said = []
        for event in self.seen:
            method, params = event["method"], event.get("params", {})
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                said.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                said.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
            elif method == "Network.loadingFailed" and not params.get("canceled"):
                said.append(f"a load failed: {params['errorText']}")
        return said

    @property
    def requests(self) -> list[str]:
        asked = [event["params"] for event in self.seen if event["method"] == "Network.requestWillBeSent"]
        urls = [params["request"]["url"] for params in asked]
        return [url.split("#")[0] for url in urls if not url.startswith("data:")]

    def screenshot(self, path: pathlib.Path, *, whole: bool = True) -> None:
        picture = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        self.browser.ask("Target.closeTarget", targetId=self.target)
