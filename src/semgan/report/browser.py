"""A browser of this machine without its window: prints pages as PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from semgan.artifacts import temporary_beside

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
QUIET = (
    "--headless",
    "--no-sandbox",  # root and containers have none; the page has no script and asks for nothing
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
PATIENCE_S = 180


def find_browser() -> str:
    """Raises ValueError, and says how to do without, where none is found."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(
            "A PDF is printed by Chromium or Chrome, and none is on the PATH. Leave --pdf out, open report.html in any "
            "browser and print it into a PDF there."
        )
    return found


def run_browser(page: str, *options: str) -> str:
    """Open an address or file without a window; returns what is printed. Raises ValueError where it fails."""
    with tempfile.TemporaryDirectory() as profile:
        command = [find_browser(), *QUIET, f"--user-data-dir={profile}", *options, page]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{command[0]} gave no answer in {PATIENCE_S} s; print the page from a window.") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        raise ValueError(f"{command[0]} failed ({reason}); print the page from a window.")
    return done.stdout


def print_pdf(page: Path, pdf: Path) -> Path:
    """Print a page of this machine; the file appears whole."""
    temporary = temporary_beside(pdf, ".pdf")
    try:
        run_browser(page.resolve().as_uri(), f"--print-to-pdf={temporary.resolve()}", "--no-pdf-header-footer")
        if not temporary.is_file():
            raise ValueError(f"No PDF came of {page}; print the page from a window.")
        os.replace(temporary, pdf)
    finally:
        temporary.unlink(missing_ok=True)
    return pdf
