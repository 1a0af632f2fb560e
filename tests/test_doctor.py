"""The checks of `dmpo doctor` on the way to the studio: proxies on both sides, root path, sign-in."""

import pytest

from dmpo_app.cli.doctor import CheckResult, CheckStatus, examine
from dmpo_app.settings import Settings


def check(subject: str) -> CheckResult:
    """One check; those after it, torch's among them, do not run."""
    return next(result for result in examine(Settings.load()) if result.subject == subject)


def test_proxies_root_path_and_what_is_believed_are_told_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy.example.org:3128")
    monkeypatch.setenv("DMPO_ROOT_PATH", "studio/")
    result = check("proxy")
    assert result.status is CheckStatus.OK
    assert "http by http://proxy.example.org:3128" in result.detail
    assert "loopback is not excluded" in result.detail
    assert "served below /studio; believed proxies: none" in result.detail
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    assert "loopback is excluded" in check("proxy").detail


def test_a_public_studio_without_a_named_proxy_or_sign_in_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("access").status is CheckStatus.OK
    monkeypatch.setenv("DMPO_PUBLIC", "true")
    assert (check("proxy").status, check("access").status) == (CheckStatus.WARNING, CheckStatus.WARNING)
    assert "DMPO_IDENTITY__OIDC_ISSUER" in check("access").advice
    monkeypatch.setenv("DMPO_TRUSTED_PROXIES", "127.0.0.1")
    monkeypatch.setenv("DMPO_LABELING__ACCESS", "invite")
    assert (check("proxy").status, check("access").status) == (CheckStatus.OK, CheckStatus.OK)
