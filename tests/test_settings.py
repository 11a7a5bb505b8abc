from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.errors import InvalidSettings
from hub.outbox import SlowPolicy
from hub.settings import Settings


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path):
    file = tmp_path / "hub.toml"
    file.write_text('port = 1\ndrain = 1\nslow = "conflate"\nlisteners = ["a", "b.c"]\n')
    settings = Settings.load({"port": "3"}, file=file, environ={"HUB_PORT": "2", "HUB_DRAIN": "2", "HUB_OTHER": "x"})
    assert (settings.port, settings.drain, settings.slow) == (3, 2.0, SlowPolicy.CONFLATE)
    assert settings.listeners == ("a", "b.c")


def test_the_environment_can_name_the_file(tmp_path: Path):
    file = tmp_path / "hub.toml"
    file.write_text("port = 1\n")
    assert Settings.load(environ={"HUB_CONFIG": str(file)}).port == 1


def test_lists_and_switches_are_written_as_text():
    environ = {"HUB_LISTENERS": " a, b.c ,", "HUB_CORS_ORIGINS": "http://localhost:5173", "HUB_DEMO": "1"}
    settings = Settings.load(environ=environ)
    assert settings.listeners == ("a", "b.c")
    assert settings.cors_origins == ("http://localhost:5173",)
    assert settings.demo
    assert Settings.load(environ={"HUB_LISTENERS": "", "HUB_RETAIN_AGE": ""}).listeners == ()


def test_one_error_lists_all_that_is_wrong():
    environ = {"HUB_PORT": "70000", "HUB_SLOW": "ignore", "HUB_DRAIN": "soon", "HUB_LOG": "mongodb://u:secret@h"}
    with pytest.raises(InvalidSettings) as caught:
        Settings.load({"buffer_bytes": 1}, environ=environ)
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for name in ("HUB_PORT", "HUB_SLOW", "HUB_DRAIN", "HUB_LOG", "HUB_BUFFER_BYTES", "65535", "65536"):
        assert name in text


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown():
    for key in ("sk-secret\u201d", "sk-secret\n"):
        with pytest.raises(InvalidSettings, match="HUB_AI_API_KEY") as caught:
            Settings.load(environ={"HUB_AI_API_KEY": key})
        assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("port =\n")
    typo = tmp_path / "typo.toml"
    typo.write_text("prot = 1\n")
    for file, why in ((tmp_path / "none.toml", "No such file"), (wrong, "not TOML"), (typo, "prot: is not a setting")):
        with pytest.raises(InvalidSettings, match=why):
            Settings.load(file=file, environ={})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_listening_beyond_loopback_has_to_be_insisted_on(host: str):
    with pytest.raises(InvalidSettings, match="insecure"):
        Settings.load({"host": host}, environ={})
    assert Settings.load({"host": host, "insecure": True}, environ={}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_insisting(host: str):
    assert Settings(host=host).host == host


@pytest.mark.parametrize("origin", ["*", "example.com", "https://a/b", "https://a/", "ftp://a", "null"])
def test_origins_are_exact(origin: str):
    with pytest.raises(ValidationError):
        Settings(cors_origins=(origin,))


def test_settings_never_change():
    with pytest.raises(ValidationError):
        setattr(Settings(), "port", 1)  # noqa: B010 - as text, for the type checker knows that it must not work


def test_each_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())
