"""Pages in headless Chromium, from a server of the test's own."""

import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
WHY = "no Chromium here: apt-get install chromium"


def seen(files: dict[str, tuple[str, bytes]], page: str, folder: Path, *options: str) -> tuple[str, list[str], str]:
    """What became of a page: its DOM, the paths that were asked for, and what the browser complained of.

    Args:
        files: path -> content type and content; all else is not found.
        page: the path that is opened.
        folder: for the browser's profile.
        options: of the browser.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(unquote(self.path))
            kind, content = files.get(self.path, ("text/plain", b""))
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", *options,
             f"http://127.0.0.1:{server.server_port}{page}"], capture_output=True, text=True, timeout=300)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    return done.stdout, asked, done.stderr
