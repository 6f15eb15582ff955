"""The pictures of docs/report.md: a report in headless Chromium.

    pip install playwright && apt-get install chromium
    make demo && retrieval report work_dirs/demo
    python benchmarks/report_screenshots.py work_dirs/demo/report.html    writes docs/images
"""
from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def main() -> None:
    """Take the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('report', type=Path, help='the file')
    parser.add_argument('--out', type=Path,
                        default=Path(__file__).resolve().parents[1] / 'docs' / 'images')
    arguments = parser.parse_args()
    address = arguments.report.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'),
                                             args=['--no-sandbox'])
        for name, anchor, height in (('metrics', '', 1320), ('worst', '#worst', 760)):
            page = browser.new_page(viewport=dict(width=1120, height=height))
            page.goto(address + anchor)
            page.wait_for_timeout(1500)  # the page scrolls smoothly
            page.screenshot(path=arguments.out / f'report_{name}.jpg', type='jpeg', quality=82)
            page.close()
        browser.close()


if __name__ == '__main__':
    main()
