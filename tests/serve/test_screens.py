"""The browser that takes the screens' pictures."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tidewatch import screens
from tidewatch.settings import load

pytest.importorskip("playwright", reason="the tools environment has it")

FORM = "<form action='/welcome'><input id=username><input type=password><button type=submit>Sign in</button></form>"


class LogIn(BaseHTTPRequestHandler):
    """A page that forgets the first click, as one that draws its form anew, and a server that forgets the first login."""

    asked = logins = 0

    def do_GET(self) -> None:
        kind = type(self)
        kind.asked += self.path.startswith("/login")
        kind.logins += self.path.startswith("/welcome?")
        gone = self.path.startswith("/login") and self.logins > 1
        self.send_response(302 if gone else 200)
        if gone:
            self.send_header("Location", "/welcome")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if not gone:
            self.wfile.write((FORM if self.asked > 1 else FORM.replace("<form", "<form onsubmit='this.reset(); return false'")).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.ui
def test_a_login_that_was_forgotten_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "_LOGIN", 1000)
    with HTTPServer(("127.0.0.1", 0), LogIn) as server, screens.browser() as running:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = load(state_dir=tmp_path, external={"superset": f"http://127.0.0.1:{server.server_port}"})
        page = screens.page_of(running)
        screens.log_in(page, settings, "superset", "viewer")
        assert page.url.endswith("/welcome") and (LogIn.asked, LogIn.logins) == (4, 2), "the page forgot one, the server another; then it is led away"
        page.context.close()
        server.shutdown()
