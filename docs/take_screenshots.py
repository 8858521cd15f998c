"""Takes the screenshots in ``docs/screenshots``: ``python -m docs.take_screenshots [OUT]`` from the project's folder.

Starts the app on ``sample_runs`` and looks at every page in a real Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.running_app import CHROMIUM, FLAGS, running_app

ROOT = Path(__file__).parent.parent
RUN = "run=sample_runs%2Fpydoc-topic-apt"
PAGES = {
    "runs": "",
    "gates": f"gates?{RUN}",
    "compare": f"compare?{RUN}",
    "errors": "errors?run=sample_runs%2Fwnut17-apt",
    "tasks": "tasks",
    "evidence": f"evidence?{RUN}",
    "budget": f"budget?{RUN}",
    "investment": "investment",
    "pilot": "pilot",
    "jobs": "jobs",
    "sweeps": "sweeps",
}
VIEWS = {"": ("light", 1280), "-dark": ("dark", 1280), "-narrow": ("light", 390)}
SETTLED_MS = 3_000
LONGEST_PX = 2_600


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with running_app(ROOT, [Path("sample_runs")]) as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for suffix, (scheme, width) in VIEWS.items():
            page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
            for name, address in PAGES.items():
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(f"{app.address}/{address}")
                page.wait_for_selector("h1", timeout=60_000)
                page.wait_for_timeout(SETTLED_MS)
                if name == "gates":  # the rest of the page comes once its first figure is drawn
                    page.wait_for_selector("[data-testid=stTabs]", timeout=60_000)
                    page.wait_for_timeout(SETTLED_MS)
                height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
                page.set_viewport_size({"width": width, "height": min(max(int(height), 900), LONGEST_PX)})
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=folder / f"{name}{suffix}.png")
                print(folder / f"{name}{suffix}.png")
        browser.close()


if __name__ == "__main__":
    main()
