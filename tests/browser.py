# SPDX-License-Identifier: MIT
"""A headless Chromium for tests, driven through a pipe (--remote-debugging-pipe): JSON messages that end with NUL."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Browser:
    """One page. `errors` has what the page wrote to the console as a warning or an error, and its exceptions."""

    def __init__(self, seconds=60):
        self.errors, self._next, self._seconds, self._rest = [], 0, seconds, b""
        self.profile = tempfile.mkdtemp(prefix="steady-browser-")
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def descriptors():
            os.dup2(to_read, 3)
            os.dup2(to_write, 4)

        low, high = os.dup(to_read), os.dup(to_write)  # 3 and 4 may be taken, so that dup2 would close them
        os.set_inheritable(low, False)
        os.set_inheritable(high, False)
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
                   "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, pass_fds=(3, 4), preexec_fn=descriptors)
        for descriptor in (to_read, to_write, low, high):
            os.close(descriptor)
        target = next(one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = None
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _message(self):
        while b"\0" not in self._rest:
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _call(self, method, **params):
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))

    def look(self, width, height=900, scheme="light"):
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self._call("Page.navigate", url=url)

    def run(self, expression):
        """The value of an expression in the page; a promise is awaited."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression):
        end = time.monotonic() + self._seconds
        while not (value := self.run(expression)):
            assert time.monotonic() < end, f"never true: {expression}\n{self.errors}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def key(self, name, text=""):
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type="rawKeyDown" if kind == "keyDown" and not text else kind, key=name, code=name, text=text if kind == "keyDown" else "",
                       windowsVirtualKeyCode={"Enter": 13, "Tab": 9, "Escape": 27}.get(name, 0))

    def screenshot(self, path, whole=True):
        picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))

    def close(self):
        try:
            self._session = None
            self._call("Browser.close")
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        shutil.rmtree(self.profile, ignore_errors=True)
