"""The studio behind a real nginx with the configuration of docs/deploy.md: TLS, HTTP/2, buffering, a path or none.

One nginx listens on a port for each place; in front of each studio one takes its path off, the other does not.
"""

import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Page, expect, sync_playwright
from starlette.types import Scope

from dmpo_app.settings import PROJECT_ROOT, IdentitySettings
from dmpo_app.ui import build_ui, launch
from dmpo_app.web import Services
from dmpo_app.web.gateway import TrustedProxies
from tests.browser.conftest import ARGUMENTS, chromium_path
from tests.browser.page_studio import READY, open_tab
from tests.oidc_provider import running_provider
from tests.patience import PATIENCE, wait_until
from tests.studio_process import free_port
from tests.web.test_served_page import services

__all__ = ["services"]
TRUSTING = ("", "/studio", "/api")
MISTRUSTING = "/a/b"
"""Root paths of studios that believe nginx, and of one that does not."""
VISITOR = "127.0.0.2"
"""The visitors' address, which is not the proxy's."""


@dataclass(frozen=True)
class Place:
    """A studio as a visitor sees it."""

    root: str
    is_stripped: bool
    origin: str

    @property
    def url(self) -> str:
        return f"{self.origin}{self.root}/"

    def client(self, certificate: Path) -> httpx.Client:
        transport = httpx.HTTPTransport(
            verify=ssl.create_default_context(cafile=certificate), local_address=VISITOR, trust_env=False
        )
        return httpx.Client(base_url=self.url, transport=transport, timeout=PATIENCE)


def nginx_path() -> str:
    found = subprocess.run([PROJECT_ROOT / "scripts" / "nginx.sh"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, signed by itself; its key lies beside it."""
    folder = tmp_path_factory.mktemp("tls")
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "studio.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "studio.key").write_bytes(key.private_bytes(*form))
    return folder / "studio.pem"


def documented_servers() -> tuple[str, str]:
    """The servers of docs/deploy.md: of a studio with a host of its own, and of one below a path."""
    text = (PROJECT_ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    whole, below = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    return whole, below


def configuration(folder: Path, certificate: Path, servers: list[str]) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root; " if os.getuid() == 0 else ""  # whom the folder of the test belongs to
    text = "".join(servers).replace("/etc/ssl/studio", str(certificate.with_suffix("")))
    return (
        f"{user}daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{text}}}"
    )


@pytest.fixture(scope="module")
def places(services: Services, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Place]]:
    whole, below = documented_servers()
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    places, servers = [], []
    with ExitStack() as stack:
        identity = IdentitySettings(**stack.enter_context(running_provider()).settings)
        for root in (*TRUSTING, MISTRUSTING):
            proxies = "" if root == MISTRUSTING else "127.0.0.1"
            changes = {"root_path": root, "trusted_proxies": proxies, "identity": identity}
            settings = services.settings.model_copy(update=changes)
            studio = replace(services, settings=settings)
            running = launch(build_ui(studio), studio)
            stack.callback(running.close)
            for is_stripped in (True, False) if root else (False,):
                port = free_port()
                text = (below if root else whole).replace("443", str(port)).replace(":7860", f":{running.port}")
                text = text.replace("/studio/ {", f"{root}/ {{")
                servers.append(text if is_stripped else text.replace(f":{running.port}/;", f":{running.port};"))
                places.append(Place(root, is_stripped, f"https://localhost:{port}"))
        (folder / "nginx.conf").write_text(configuration(folder, certificate, servers))
        nginx = subprocess.Popen([nginx_path(), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
        stack.callback(nginx.wait)
        stack.callback(nginx.terminate)
        with places[0].client(certificate) as client:
            wait_until(lambda: nginx.poll() is None and is_up(client), f"nginx is up: see {folder}/error.log")
        yield places


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("api/v1/status").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False


def test_page_api_and_documentation_answer_below_every_path(places: list[Place], certificate: Path) -> None:
    assert len(places) == 7
    for place in places:
        with place.client(certificate) as client:
            page = client.get("").raise_for_status().text
            addresses = set(re.findall(r"\./((?:studio|assets|static)/[\w./-]+)", page))
            assert len(addresses) > 10
            for address in (*addresses, "theme.css", "api/v1/status"):
                assert client.get(address).status_code == 200, (place, address)
            [link] = re.findall(r'href="([^"]*openapi\.json)"', client.get("docs").text)
            described = client.get(httpx.URL(place.url).join("docs").join(link)).json()
            assert described.get("servers") == ([{"url": place.root}] if place.root else None)
            assert client.get("gradio_api/info").status_code == 404


def test_only_a_trusted_proxy_is_believed_about_client_and_address(
    places: list[Place], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[str] = []
    apply = TrustedProxies.apply

    def recording(proxies: TrustedProxies, scope: Scope) -> None:
        apply(proxies, scope)
        clients.append(scope["client"][0])

    monkeypatch.setattr(TrustedProxies, "apply", recording)
    forged = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    for place in places:
        with place.client(certificate) as client:
            url = client.post("api/v1/login", headers=forged).raise_for_status().json()["url"]
        [callback] = parse_qs(urlsplit(url).query)["redirect_uri"]
        if place.root == MISTRUSTING:
            assert (clients[-1], callback) == ("127.0.0.1", f"http://localhost{place.root}/login/callback")
        else:
            assert (clients[-1], callback) == (VISITOR, f"{place.url}login/callback")


def visit(page: Page, place: Place) -> list[str]:
    """Vote, render and read the documentation; returns what went wrong on the way."""
    faults: list[str] = []
    page.on("console", lambda line: faults.append(f"{line.text} {line.location}") if line.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda answer: faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.goto(place.url.removesuffix("/") if place.root and not place.is_stripped else place.url)
    page.wait_for_selector(READY)
    with page.expect_response("**/api/v1/votes") as voted:
        page.keyboard.press("1")
    assert (voted.value.status, voted.value.url) == (201, f"{place.url}api/v1/votes")
    open_tab(page, "Before / after")
    page.locator("#ba-render").click()
    expect(page.locator(".dc-side figcaption").first).to_contain_text("Base model before any vote")
    faults_of_the_page = faults.copy()  # of the documentation the browser asks the host for an icon, which is not ours
    page.goto(f"{place.url}docs")
    page.get_by_role("link", name="openapi.json").click()
    expect(page.locator("body")).to_contain_text("DMPO Studio")
    return faults_of_the_page


@pytest.mark.browser
def test_people_vote_and_compare_in_a_browser(places: list[Place]) -> None:
    """Without a path, below one that nginx takes off, and below one of two parts that it does not."""
    in_a_browser = [places[0], places[1], places[-1]]
    assert [(place.root, place.is_stripped) for place in in_a_browser] == [
        ("", False), ("/studio", True), (MISTRUSTING, False),
    ]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        for place in in_a_browser:
            context = browser.new_context(ignore_https_errors=True)
            context.set_default_timeout(1000 * PATIENCE)
            expect.set_options(timeout=1000 * PATIENCE)
            assert visit(context.new_page(), place) == [], place
            context.close()
        browser.close()
