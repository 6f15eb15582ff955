"""The pictures of docs/report.md: a report in headless Chromium.

    pip install playwright && apt-get install chromium
    make demo
    python benchmarks/report_screenshots.py work_dirs/demo    writes docs/images/report_*.jpg
"""
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Report on a work dir, and take the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work_dir', help='of a training')
    parser.add_argument('--out', type=Path,
                        default=Path(__file__).resolve().parents[1] / 'docs' / 'images')
    arguments = parser.parse_args()
    subprocess.run([sys.executable, '-m', 'retrieval', 'report', arguments.work_dir], check=True)
    address = (Path(arguments.work_dir) / 'report.html').resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'),
                                             args=['--no-sandbox'])
        for name, anchor, height in (('metrics', '', 1180), ('worst', '#worst', 760)):
            page = browser.new_page(viewport=dict(width=1120, height=height))
            page.goto(address + anchor)
            page.wait_for_timeout(1500)  # the page scrolls smoothly
            page.screenshot(path=arguments.out / f'report_{name}.jpg', type='jpeg', quality=82)
            page.close()
        browser.close()


if __name__ == '__main__':
    main()
