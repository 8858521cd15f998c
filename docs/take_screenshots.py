"""Takes the screenshots in ``docs/screenshots``: ``python docs/take_screenshots.py [OUT]`` from the project's folder.

Starts the app on ``sample_runs`` and looks at every page in a real Chromium.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
RUN = "run=sample_runs%2Fpydoc-topic-apt"
PAGES = {"runs": "", "gates": f"gates?{RUN}", "budget": f"budget?{RUN}", "compare": f"compare?{RUN}"}
VIEWS = {"": ("light", 1280), "-dark": ("dark", 1280), "-narrow": ("light", 390)}
SETTLED_MS = 3_000
LONGEST_PX = 2_600


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.port",
        str(port),
        "--",
        "--runs",
        "sample_runs",
    ]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
            )
            for suffix, (scheme, width) in VIEWS.items():
                page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
                for name, address in PAGES.items():
                    page.set_viewport_size({"width": width, "height": 900})
                    page.goto(f"http://127.0.0.1:{port}/{address}")
                    page.wait_for_selector("h1", timeout=60_000)
                    page.wait_for_timeout(SETTLED_MS)
                    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
                    page.set_viewport_size({"width": width, "height": min(int(height), LONGEST_PX)})
                    page.wait_for_timeout(SETTLED_MS)
                    page.screenshot(path=folder / f"{name}{suffix}.png")
                    print(folder / f"{name}{suffix}.png")
            browser.close()
    finally:
        app.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the app did not start within a minute")


if __name__ == "__main__":
    main()
