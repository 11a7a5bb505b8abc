import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from hub.errors import InvalidSettings
from hub.log_url import LogURL
from hub.settings import Settings, SlowPolicy, unknown_variables


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HUB_HEARBEAT", "HUB_HEARTBEAT"),
        ("HUB_HEARTBEATS", "HUB_HEARTBEAT"),
        ("HUB_CORS_ORIGIN", "HUB_CORS_ORIGINS"),
        ("HUB_LISTENER", "HUB_LISTENERS"),
        ("HUB_RETAINAGE", "HUB_RETAIN_AGE"),
        ("HUB_CONFIGS", "HUB_CONFIG"),
    ],
)
def test_a_variable_that_sets_nothing_is_told_with_the_one_that_was_meant(name: str, meant: str):
    sentence = f"{name} is set, but it is no setting of this hub; did you mean {meant}?"
    assert unknown_variables({name: "9", "HUB_PORT": "1", "PATH": "/bin", "HUBRIS": "x"}) == [sentence]


@pytest.mark.parametrize("name", ["HUB_QUANTUM_FOAM", "HUB_THREADS", "HUB_X", "HUB_"])
def test_one_that_is_like_none_is_told_without_a_guess(name: str):
    assert unknown_variables({name: "x"}) == [f"{name} is set, but it is no setting of this hub"]


def test_what_kubernetes_says_about_services_is_no_setting_and_no_typo():
    environ = {
        "HUB_SERVICE_HOST": "10.0.0.1",
        "HUB_SERVICE_PORT": "8080",
        "HUB_SERVICE_PORT_HTTP": "8080",
        "HUB_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "HUB_PORT_8080_TCP_PROTO": "tcp",
        "HUB_PORT_8080_TCP_PORT": "8080",
        "HUB_PORT_8080_TCP_ADDR": "10.0.0.1",
        "HUB_REDIS_SERVICE_HOST": "10.0.0.2",
        "HUB_REDIS_PORT": "tcp://10.0.0.2:6379",
        "HUB_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
    }
    assert unknown_variables(environ) == []
    assert unknown_variables({"HUB_REDIS_PORT": "6379"})
    assert Settings.load(environ=environ) == Settings()


def test_the_port_that_kubernetes_sets_for_a_service_named_hub_is_explained():
    with pytest.raises(InvalidSettings) as caught:
        Settings.load(environ={"HUB_PORT": "tcp://10.0.0.1:8080", "HUB_SERVICE_HOST": "10.0.0.1"})
    (problem,) = caught.value.problems
    assert problem.startswith("port (HUB_PORT): 'tcp://10.0.0.1:8080': is an address, not a port: Kubernetes")
    assert Settings.load({"port": "8080"}, environ={"HUB_PORT": "tcp://10.0.0.1:8080"}).port == 8080


def test_an_address_for_administration_needs_a_port_and_the_same_care():
    assert Settings.load(environ={"HUB_ADMIN_PORT": ""}).admin_port is None
    assert Settings.load(environ={"HUB_ADMIN_PORT": "9090"}).admin_host == "127.0.0.1"
    for environ, why in (
        ({"HUB_ADMIN_HOST": "127.0.0.2"}, r"admin_host \(HUB_ADMIN_HOST\): .* means nothing without admin_port"),
        ({"HUB_ADMIN_HOST": "0.0.0.0", "HUB_ADMIN_PORT": "1"}, "admin_host .* can be reached from other machines"),
        ({"HUB_ADMIN_PORT": "tcp://10.0.0.1:9090"}, "admin_port .* is an address, not a port: Kubernetes"),
    ):
        with pytest.raises(InvalidSettings, match=why):
            Settings.load(environ=environ)
    keys = {
        "HUB_JWT_SECRET": "of this test, random enough, 0f3a7",
        "HUB_ADMIN_PORT": "9090",
        "HUB_ADMIN_HOST": "0.0.0.0",
    }
    assert Settings.load(environ=keys).admin_host == "0.0.0.0"


def test_a_typo_in_the_file_is_told_with_the_setting_that_was_meant(tmp_path: Path):
    file = tmp_path / "hub.toml"
    file.write_text("hearbeat = 9\n")
    with pytest.raises(InvalidSettings, match=r"hearbeat: is not a setting; did you mean heartbeat\?"):
        Settings.load(file=file, environ={})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("log", "data/hub.db", "write memory://, or three slashes and a path: sqlite:///data/hub.db"),
        ("log", "sqlite://data/hub.db", "three slashes and a path: sqlite:///data/hub.db"),
        ("retain_topics", "state/**", "'state/**' has no number; write state/**=1"),
        ("retain_topics", "state/**:1", "has no number"),
    ],
)
def test_a_setting_that_is_nearly_right_is_shown_right(field: str, value: str, said: str):
    with pytest.raises(InvalidSettings) as caught:
        Settings.load(environ={f"HUB_{field.upper()}": value})
    assert said in str(caught.value)


def test_the_level_of_the_log_may_be_written_as_python_does():
    assert Settings.load(environ={"HUB_LOG_LEVEL": "DEBUG"}).log_level == "debug"


SECRET = "Vn3oE9Zq-0Tj7uPxk2LhYcWd5RbMfGsA81iQyKtC4wU"
WRONG_SECRETS = [
    SECRET[:31],
    SECRET + "\n",
    " " + SECRET,
    "-----BEGIN PUBLIC KEY-----\n" + SECRET,
    '{"kty":"oct","k":"' + SECRET + '"}',
    "ssh-ed25519 AAAA" + SECRET,
    "\ud800" + SECRET,
]


@pytest.mark.parametrize("secret", WRONG_SECRETS)
def test_a_secret_that_is_weak_or_none_is_refused_and_not_shown(secret: str):
    with pytest.raises(InvalidSettings, match=r"^the settings are wrong:\n  jwt_secret \(HUB_JWT_SECRET\): ") as caught:
        Settings.load(environ={"HUB_JWT_SECRET": secret})
    with pytest.raises(ValidationError) as direct:
        Settings(jwt_secret=SecretStr(secret))
    for error in (caught.value, direct.value):
        assert "x" * 9 not in str(error)
        assert SECRET[:9] not in str(error) + repr(error)


@pytest.mark.parametrize(
    "wrong", [{"jwt_secret": 12345}, {"jwt_secret": [SECRET]}, {"unknown": SECRET}, {"port": SECRET}]
)
def test_errors_of_pydantic_itself_show_no_input(wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as caught:
        Settings(**{"jwt_secret": SECRET, **wrong})
    assert SECRET not in str(caught.value)


def test_a_secret_is_shown_nowhere():
    settings = Settings.load(environ={"HUB_JWT_SECRET": SECRET})
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert Settings.load(environ={"HUB_JWT_SECRET": ""}).jwt_secret is None


@pytest.mark.parametrize("url", ["redis://me:p4ss@h/1", "redis+sentinel://h/main?sentinel_password=p4ss&db=1"])
def test_a_password_in_an_address_is_not_shown(url: str):
    settings = Settings.load(environ={"HUB_LOG": url})
    assert "p4ss" not in f"{settings!r} {settings} {LogURL.parse(settings.log)!r}"
    assert settings.log == url
    wrong = url.replace("p4ss", "p4ss/word") + "/2/3/4&db=x"
    with pytest.raises(InvalidSettings) as caught:
        Settings.load(environ={"HUB_LOG": wrong})
    assert "p4ss" not in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/jwks",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "ftp://login.example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///jwks",
        "https://user:pw@login.example.com/",
        "https://user@login.example.com/",
        "https://login.example.com:99999/",
        "https://[::1/",
        "https://a b/",
        "https://login.example.com/\n",
        "jwks.json",
    ],
)
def test_keys_come_from_where_nobody_can_replace_them(url: str):
    with pytest.raises(InvalidSettings, match=r"jwks_url \(HUB_JWKS_URL\)"):
        Settings.load(environ={"HUB_JWKS_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com/.well-known/jwks.json",
        "https://login.example.com:8443/keys?appid=1",
        "http://127.0.0.1:8000/jwks",
        "http://localhost/jwks",
        "http://[::1]:80/",
    ],
)
def test_keys_may_come_over_tls_or_from_this_machine(url: str):
    assert Settings.load(environ={"HUB_JWKS_URL": url}).jwks_url == url


def test_the_keys_of_tokens_have_one_source():
    sources = {"HUB_JWT_SECRET": SECRET, "HUB_JWT_KEYS": "keys.json", "HUB_JWKS_URL": "https://login.example.com/jwks"}
    for first, second in itertools.combinations(sources, 2):
        with pytest.raises(InvalidSettings, match=rf"{second}\): .*can't be used beside {first[4:].lower()}"):
            Settings.load(environ={first: sources[first], second: sources[second]})


@pytest.mark.parametrize("name", ["HUB_JWT_AUDIENCE", "HUB_JWT_ISSUER"])
def test_who_restricts_tokens_and_has_no_keys_is_told(name: str):
    with pytest.raises(InvalidSettings, match=f"{name}.*means nothing without keys"):
        Settings.load(environ={name: "x"})
    assert Settings.load(environ={name: "x", "HUB_JWT_SECRET": SECRET})


@pytest.mark.parametrize("name", ["anonymous_subscribe", "anonymous_publish"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("news, sto*", "'sto*' has a '*' inside a segment"),
        ("news//a", "'news//a' has an empty segment"),
        ("x" * 257, "is longer than 256 bytes"),
        ('["news"]', "is written as JSON"),
        ("[]", "is written as JSON"),
    ],
)
def test_what_anybody_may_use_has_to_be_topics_and_patterns(name: str, value: str, why: str):
    with pytest.raises(InvalidSettings, match=f"HUB_{name.upper()}") as caught:
        Settings.load(environ={f"HUB_{name.upper()}": value})
    assert why in str(caught.value)


LISTS = sorted(name for name, field in Settings.model_fields.items() if field.default in ((), {}))


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_any_kind_is_not_written_as_json(name: str):
    assert len(LISTS) == 7
    with pytest.raises(InvalidSettings, match=f"HUB_{name.upper()}.*is written as JSON"):
        Settings.load(environ={f"HUB_{name.upper()}": '["a", "b"]'})
    with pytest.raises(InvalidSettings, match=f"HUB_{name.upper()}"):
        Settings.load(environ={f"HUB_{name.upper()}": "a b*"})


def test_an_address_in_brackets_is_not_json():
    assert Settings.load(environ={"HUB_ALLOWED_HOSTS": "[::1]"}).allowed_hosts == ("[::1]",)
