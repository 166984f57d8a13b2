"""A headless Chromium, driven by chromedriver's HTTP interface (W3C WebDriver)."""

from __future__ import annotations

import base64
import shutil
from types import TracebackType
from typing import Any, Self

import httpx

from tests.servers import watcher
from tests.servers.hopgate import Process, eventually
from tests.servers.ports import free_ports

_PROGRAMS = ("chromium", "chromedriver")
_START_S = 120.0
# Off: what visits of many sites need takes a fifth of the time of a page. Tests open their own servers' only.
_PLAIN = (
    "--disable-extensions",
    "--disable-component-update",
    "--disable-site-isolation-trials",
    "--disable-features=IsolateOrigins,site-per-process,BackForwardCache,RenderDocument",
)


def missing() -> str:
    """Return which programs are not installed; empty if all are."""
    return " and ".join(name for name in _PROGRAMS if shutil.which(name) is None)


class Browser:
    """`with Browser() as browser:` opens one window, with a new profile."""

    def __init__(self) -> None:
        port = free_ports(1)[0]
        # Short: Chromium makes sockets below it, whose paths have 107 characters at most.
        self._directory = directory = watcher.make_directory("hopgate-browser-")
        self._driver = Process(
            ["chromedriver", f"--port={port}"],
            {"HOME": str(directory), "TMPDIR": str(directory)},
            directory / "chromedriver.log",
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90)
        self._session = ""

    def open(self, url: str, **headers: str) -> None:
        """Go to *url*, with *headers* on each request of the page."""
        self._devtools("Network.enable")
        self._devtools("Network.setExtraHTTPHeaders", headers=headers)
        self._call("url", url=url)

    def before_each_page(self, script: str) -> None:
        """Run *script* in each page that is opened from now on, before anything of its own."""
        self._devtools("Page.enable")
        self._devtools("Page.addScriptToEvaluateOnNewDocument", source=script)

    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.run("return document.body.innerText"))

    def cookies(self) -> list[dict[str, Any]]:
        """Return the cookies of the page, those that scripts cannot read as well."""
        answer = self._http.get(f"/session/{self._session}/cookie").raise_for_status()
        return list(answer.json()["value"])

    def run(self, script: str) -> Any:
        """Return what *script*, the body of a function, returns in the page."""
        return self._call("execute/sync", script=script, args=[])

    def run_scripts_of_pages(self, *, are_run: bool) -> None:
        """Let pages run scripts from now on, or not; `run` runs its own all the same."""
        self._devtools("Emulation.setScriptExecutionDisabled", value=not are_run)

    def look(self, *, width: int, height: int, dark: bool) -> None:
        """Show the page as on a screen of this size, in CSS pixels, and with this preference of its user."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])

    def hide(self) -> None:
        """Minimise the window: its page is not seen."""
        self._call("window/minimize")

    def show(self) -> None:
        """Have the window seen again."""
        self._call("window/rect", x=0, y=0)

    def screenshot(self) -> bytes:
        """Return the window as a PNG."""
        answer = self._http.get(f"/session/{self._session}/screenshot").raise_for_status()
        return base64.b64decode(answer.json()["value"])

    def _devtools(self, command: str, **parameters: Any) -> None:
        self._call("goog/cdp/execute", cmd=command, params=parameters)

    def _call(self, command: str, **body: Any) -> Any:
        answer = self._http.post(f"/session/{self._session}/{command}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def _is_ready(self) -> bool:
        self._driver.check_alive()
        try:
            return bool(self._http.get("/status").json()["value"]["ready"])
        except httpx.HTTPError:
            return False

    def _opens(self) -> bool:
        # No sandbox: tests may run as root, and open pages of their own servers only.
        profile = f"--user-data-dir={self._directory / 'profile'}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *_PLAIN]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": [*arguments, profile]}}
        answer = self._http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()
        self._session = answer["value"].get("sessionId", "")
        return bool(self._session)

    def __enter__(self) -> Self:
        self._driver.start()
        try:
            eventually(self._is_ready, _START_S, "chromedriver answers")
            # A Chromium that does not get up in time ends; the next one may start.
            eventually(self._opens, _START_S, "Chromium starts", every=1.0)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._http.delete(f"/session/{self._session}")
        finally:
            self._end()

    def _end(self) -> None:
        self._http.close()
        try:
            self._driver.stop()
        finally:
            self._driver.kill()
            watcher.remove_directory(self._directory)
