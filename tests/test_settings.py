from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from dmpo_app.settings import BackupSettings, IdentitySettings, LabelingSettings, Settings


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_variable_beats_the_file_and_the_file_beats_the_default(
    in_an_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_an_empty_folder / "dmpo.toml").write_text("min_votes = 12\n[round]\nbeta = 700.0\nrank = 4\n")
    monkeypatch.setenv("DMPO_ROUND__BETA", "900")
    settings = Settings()
    assert (settings.min_votes, settings.round.beta, settings.round.rank) == (12, 900.0, 4)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DMPO_MIN_VOTES", "1"), ("DMPO_ROUND__ALPHA", "0.6"), ("DMPO_PORT", "70000"), ("DMPO_ROUND__BETA", "much")],
)
def test_nonsense_is_refused_with_the_value_in_the_message(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=value):
        Settings()


def test_target_layers_are_a_preset_or_a_list_of_ones_own(
    in_an_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().round.target_modules == "auto"
    (in_an_empty_folder / "dmpo.toml").write_text('[round]\ntarget_modules = ["to_q", "to_v"]\n')
    assert Settings().round.target_modules == ("to_q", "to_v")
    monkeypatch.setenv("DMPO_ROUND__TARGET_MODULES", "wide")
    assert Settings().round.target_modules == "wide"
    monkeypatch.setenv("DMPO_ROUND__TARGET_MODULES", '["to_k"]')
    assert Settings().round.target_modules == ("to_k",)
    monkeypatch.setenv("DMPO_ROUND__TARGET_MODULES", "everything")
    with pytest.raises(ValidationError, match="everything"):
        Settings()


def test_a_limit_of_rounds_is_a_number_or_none_in_words(
    in_an_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_an_empty_folder / "dmpo.toml").write_text('[round.limits]\ngrad_norm = "none"\nadapter_rms = 0.5\n')
    assert (Settings().round.limits.grad_norm, Settings().round.limits.adapter_rms) == (None, 0.5)
    monkeypatch.setenv("DMPO_ROUND__LIMITS__ADAPTER_RMS", "None")
    assert Settings().round.limits.adapter_rms is None
    monkeypatch.setenv("DMPO_ROUND__LIMITS__MIN_DIVERSITY", "7")
    with pytest.raises(ValidationError, match="7"):
        Settings()


def test_an_unknown_name_in_the_file_is_refused(in_an_empty_folder: Path) -> None:
    (in_an_empty_folder / "dmpo.toml").write_text("[round]\nbetta = 700.0\n")
    with pytest.raises(ValidationError, match="betta"):
        Settings()


def test_a_space_is_public_and_a_laptop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert not Settings().public
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert Settings().public


def test_every_setting_is_explained_and_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_ADMIN_TOKEN", "very-secret")
    fields = Settings().fields()
    assert [field.variable for field in fields if not field.meaning] == []
    assert "DMPO_ROUND__BETA" in {field.variable for field in fields}
    assert "very-secret" not in str(fields)
    assert "very-secret" not in repr(Settings())


def test_the_cap_on_an_annotator_is_on_in_public_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(*, public: bool) -> float | None:
        return Settings().labeling.annotator_share(public=public)

    assert (share(public=True), share(public=False)) == (0.05, None)
    monkeypatch.setenv("DMPO_LABELING__MAX_ANNOTATOR_SHARE", "0.2")
    assert (share(public=True), share(public=False)) == (0.2, 0.2)
    monkeypatch.setenv("DMPO_LABELING__MAX_ANNOTATOR_SHARE", "None")
    assert (share(public=True), share(public=False)) == (None, None)
    monkeypatch.setenv("DMPO_LABELING__MAX_ANNOTATOR_SHARE", "5")
    with pytest.raises(ValidationError, match="5"):
        Settings()


SPACE = {
    "SPACE_ID": "ada/studio", "SPACE_HOST": "ada-studio.hf.space", "SPACE_AUTHOR_NAME": "ada",
    "OAUTH_CLIENT_ID": "an-id", "OAUTH_CLIENT_SECRET": "hidden", "OPENID_PROVIDER_URL": "https://huggingface.co",
    "OAUTH_SCOPES": "openid profile email write-repos",
}  # fmt: skip


def test_a_space_knows_how_to_sign_people_in_and_who_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SPACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DMPO_IDENTITY__ADMINS", '["eve"]')
    identity = Settings().identity
    assert (identity.oidc_issuer, identity.client_id) == ("https://huggingface.co", "an-id")
    assert identity.client_secret is not None
    assert identity.client_secret.get_secret_value() == "hidden"
    assert (identity.public_url, identity.label) == ("https://ada-studio.hf.space", "Hugging Face")
    assert (identity.admins, identity.scopes) == (("eve",), ("openid", "profile"))
    monkeypatch.delenv("DMPO_IDENTITY__ADMINS")
    assert Settings().identity.admins == ("ada",)
    monkeypatch.delenv("SPACE_ID")  # then these are anybody's variables
    assert Settings().identity.oidc_issuer is None
    assert Settings().identity.admins == ()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"OIDC_ISSUER": "http://login.example.org", "CLIENT_ID": "x"}, "https"),
        ({"OIDC_ISSUER": "https://login.example.org"}, "client_id"),
        ({"PUBLIC_URL": "https://a@studio.example.org"}, "user"),
        ({"SCOPES": '["profile"]'}, "openid"),
    ],
)
def test_a_provider_that_cannot_be_relied_on_is_refused(
    values: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"DMPO_IDENTITY__{name}", value)
    with pytest.raises(ValidationError, match=why):
        Settings()


def test_a_backup_of_a_home_on_postgresql_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="Set one of the two"):
        Settings(database_url=SecretStr("postgresql://host/studio"), backup=BackupSettings(url=str(tmp_path)))


def test_in_public_mode_people_sign_in_where_there_is_somebody_to_sign_in_with() -> None:
    provider = IdentitySettings(oidc_issuer="https://login.example.org", client_id="studio")
    assert Settings(public=True, identity=provider).access == "login"
    assert Settings(public=False, identity=provider).access == "open"
    assert Settings(public=True, identity=IdentitySettings()).access == "open"
    invited = LabelingSettings(access="invite")
    assert Settings(public=True, identity=provider, labeling=invited).access == "invite"


@pytest.mark.parametrize("how", ["variable", "file", "option"])
def test_the_users_folder_in_a_home_is_the_same_for_all_who_use_it(
    how: str, in_an_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(in_an_empty_folder))
    monkeypatch.setenv("USERPROFILE", str(in_an_empty_folder))
    if how == "variable":
        monkeypatch.setenv("DMPO_HOME", "~/studio")
    elif how == "file":
        (in_an_empty_folder / "dmpo.toml").write_text('home = "~/studio"\n')
    settings = Settings.load({"home": "~/studio"} if how == "option" else None)
    assert settings.home == in_an_empty_folder / "studio"
