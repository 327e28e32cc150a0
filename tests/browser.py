"""A headless Chromium, driven over a pipe by its DevTools protocol: what tests of the page need, and no more.

Debian's package `chromium` has it (`make browser`); PAGEWALK_CHROMIUM names another one.
"""

import base64
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-dev-shm-usage"
PATIENCE = 60  # seconds that one answer may take on a busy host


class Unavailable(Exception):
    """There is no browser here; the message says how to get one."""


class PageError(Exception):
    """What the page's own script said it failed with."""


def chromium():
    """Path of the browser. Raises Unavailable."""
    for name in (os.environ.get("PAGEWALK_CHROMIUM"), *NAMES):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise Unavailable("no Chromium here: make browser installs Debian's, or set PAGEWALK_CHROMIUM")


class Browser:
    """One browser with one page. `errors` are the messages of its console that say something went wrong."""

    def __init__(self, width=1280, height=800):
        self._profile = tempfile.mkdtemp(prefix="pagewalk-chromium-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        words = [chromium(), *FLAGS.split(), "--remote-debugging-pipe", f"--user-data-dir={self._profile}"]
        command = f"exec {shlex.join([*words, f'--window-size={width},{height}'])} 3<&{theirs_in} 4>&{theirs_out}"
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out, self._buffer = ours_in, ours_out, b""
        self._numbers = itertools.count(1)
        self._session = None
        self.errors = []
        self.requests = []
        try:
            target = self.command("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.command(f"{domain}.enable")
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _message(self):
        """The next message of the browser; they are parted by NUL."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message):
        """An event: keep what tests ask for."""
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str([argument.get("value") for argument in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def command(self, method, **params):
        """Send a command, wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def open(self, path, fragment="", ready="window.pagewalk && window.pagewalk.loadedAfter"):
        """Load a file and wait until `ready` is true (or the page said that it failed)."""
        self.errors.clear()
        self.requests.clear()
        self.command("Page.navigate", url="about:blank")
        self.command("Page.navigate", url=f"file://{path}{fragment}")
        end = time.monotonic() + PATIENCE
        while not self.run(f"document.readyState === 'complete' && Boolean(({ready}) || failure.textContent)"):
            if time.monotonic() > end:
                raise TimeoutError(f"{path} is not ready; its console says {self.errors}")
            select.select([self._in], [], [], 0.02)

    def run(self, expression):
        """The value of a JavaScript expression in the page; a promise is waited for."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    def resize(self, width, height):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def prefer(self, scheme):
        """The system's theme: "light" or "dark"."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def key(self, key, shift=False):
        """Press and release a key, by its name in KeyboardEvent.key."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0,
                windowsVirtualKeyCode=KEY_CODES.get(key, ord(key[0].upper())), **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path):
        data = self.command("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))


KEY_CODES = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "PageUp": 33,
    "PageDown": 34, "Enter": 13, "Escape": 27, "Tab": 9, "/": 191, "?": 191, "+": 187, "-": 189, "[": 219, "]": 221,
}  # fmt: skip
