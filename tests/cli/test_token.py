"""`hub token`: makes tokens that the hub accepts, explains any, and makes keys."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hub.access.keys import load_keys
from hub.access.tokens import Tokens
from hub.cli.entry import main
from tests.access.jwt import SECRET, claims, jwk, jwk_set, private_pem, public_pem, token
from tests.cli.commands import Run

FAR = 4_000_000_000


class Shell:
    """Runs `hub token` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.err = ""

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(f"HUB_{name.upper()}", value)

    def run(self, *arguments: str, status: int = 0) -> str:
        """Return what is printed; the exit status has to be *status*."""
        try:
            ended: Any = main(["token", *arguments])
        except SystemExit as end:  # argparse
            ended = end.code
        said = self._capsys.readouterr()
        self.err = said.err
        assert ended == status, said
        return said.out.removesuffix("\n")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("JWT_SECRET", "JWT_KEYS", "JWKS_URL", "JWT_AUDIENCE", "JWT_ISSUER", "CONFIG"):
        monkeypatch.delenv(f"HUB_{name}", raising=False)
    return Shell(capsys, monkeypatch)


def hub(secret: str | None = SECRET, file: Path | None = None, **options: Any) -> Tokens:
    keys = load_keys(secret if file is None else None, file)
    assert keys is not None
    return Tokens(keys, **options)


# ---- making tokens ----


def test_a_token_that_is_made_has_what_was_asked_for(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET, jwt_audience="hub", jwt_issuer="me")
    made = shell.run(
        *("--sub", "42", "--subscribe", "orders", "--subscribe", "stock/*", "--publish", "room/**", "--admin"),
        *("--presence", "--info", '{"name": "Ada"}', "--expires-in", "15m"),
    )
    identity = hub(audience="hub", issuer="me").verify(made)
    assert (identity.user, identity.subscribe, identity.publish) == ("42", ("orders", "stock/*"), ("room/**",))
    assert (identity.admin, identity.presence, identity.info) == (True, True, {"name": "Ada"})
    assert identity.issued is not None
    assert identity.expires == identity.issued + 15 * 60
    assert abs(identity.issued - time.time()) < 60
    assert identity.token


def test_a_token_has_no_more_rights_than_asked_for_and_an_id_of_its_own(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    first, second = (hub().verify(shell.run("--sub", "42")) for _ in range(2))
    assert (first.subscribe, first.publish, first.admin, first.presence, first.info) == ((), (), False, False, {})
    assert first.token != second.token
    assert hub().verify(shell.run("--sub", "42", "--jti", "mine")).token == "mine"


@pytest.mark.parametrize(
    ("said", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_times_are_written_as_people_say_them(shell: Shell, said: str, seconds: int) -> None:
    shell.set(jwt_secret=SECRET)
    identity = hub().verify(shell.run("--sub", "42", "--expires-in", said))
    assert identity.expires is not None
    assert identity.issued is not None
    assert identity.expires - identity.issued == seconds


@pytest.mark.parametrize("said", ["0", "-1", "1w", "1.5h", "", "soon", "9" * 20])
def test_other_times_are_refused(shell: Shell, said: str) -> None:
    shell.run("--sub", "42", f"--expires-in={said}", status=2)
    assert "is not a time" in shell.err


def test_many_tokens_are_for_as_many_users(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    made = [hub().verify(line) for line in shell.run("--sub", "load", "--count", "3", "--subscribe", "a").splitlines()]
    assert [identity.user for identity in made] == ["load-1", "load-2", "load-3"]
    assert {identity.subscribe for identity in made} == {("a",)}
    assert len({identity.token for identity in made}) == 3
    assert hub().verify(shell.run("--sub", "load", "--count", "1")).user == "load-1"


@pytest.mark.parametrize("count", ["0", "-1", "x", "100001", ""])
def test_a_wrong_count_is_a_usage_error(shell: Shell, count: str) -> None:
    shell.run("--sub", "load", f"--count={count}", status=2)
    assert "is not a whole number" in shell.err


def test_several_tokens_have_no_common_id(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    assert not shell.run("--sub", "load", "--count", "2", "--jti", "one", status=2)
    assert "--count" in shell.err


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_private_keys_sign(shell: Shell, kind: str, tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(private_pem(kind))
    public.write_bytes(public_pem(kind))
    made = shell.run("--sub", "42", "--key", str(private))
    assert hub(file=public).verify(made).user == "42"
    shell.set(jwt_keys=str(private))
    assert hub(file=public).verify(shell.run("--sub", "43")).user == "43"


def test_a_key_of_a_set_is_chosen_by_its_id(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwk_set(jwk("RS256", kid="a"), jwk("ES256", secret=True, kid="b"), jwk("HS256", kid="c")))
    for asked, algorithm, kid in (((), "ES256", "b"), (("--kid", "c"), "HS256", "c")):
        made = shell.run("--sub", "42", "--key", str(file), *asked)
        assert hub(file=file).verify(made).user == "42"
        shown = shell.run("--show", made, "--key", str(file))
        assert json.loads(shown.splitlines()[0].removeprefix("header")) == {"alg": algorithm, "typ": "JWT", "kid": kid}
    shell.run("--sub", "42", "--key", str(file), "--kid", "a", status=1)
    assert "only public keys" in shell.err
    shell.run("--sub", "42", "--key", str(file), "--kid", "z", status=1)
    assert "no key with the kid 'z'" in shell.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "--sub ID"),
        (("--sub", ""), "sub of the token is not a string of 1"),
        (("--sub", "a\nb"), "sub of the token has a control"),
        (("--sub", "42", "--subscribe", "a*"), "hub.subscribe[0] of the token has a '*'"),
        (("--sub", "42", "--publish", "a", "--publish", "b//c"), "hub.publish[1] of the token has an empty"),
        (("--sub", "42", "--info", "7"), "hub.info of the token is not an object"),
        (("--sub", "42", "--info", "{"), "is not JSON"),
        (("--sub", "42", "--info", json.dumps({"a": "x" * 2_000})), "more than 1,024 bytes"),
        (("--sub", "42", "--jti", ""), "jti of the token is not"),
        (("--sub", "\udcff"), "not JSON in UTF-8"),
        (("--make-key", "none"), "invalid choice"),
        (("--make-key", "--public-key"), "not allowed with"),
    ],
)
def test_what_the_hub_would_refuse_is_not_made(shell: Shell, arguments: tuple[str, ...], why: str) -> None:
    shell.set(jwt_secret=SECRET)
    assert not shell.run(*arguments, status=2)
    assert why in shell.err


def test_who_has_no_key_is_told_where_one_is_expected(shell: Shell, tmp_path: Path) -> None:
    shell.run("--sub", "42", status=1)
    assert shell.err == "hub: there is no key here: name a file with --key, or set HUB_JWT_SECRET or HUB_JWT_KEYS\n"
    public = tmp_path / "public.pem"
    public.write_bytes(public_pem("ES256"))
    shell.run("--sub", "42", "--key", str(public), status=1)
    assert "only public keys" in shell.err
    shell.run("--sub", "42", "--key", str(tmp_path / "none"), status=1)
    assert "none: No such file" in shell.err
    shell.set(jwt_secret="short")
    shell.run("--sub", "42", status=2)
    assert "HUB_JWT_SECRET" in shell.err
    assert "short" not in shell.err


# ---- explaining tokens ----


def test_a_good_token_is_explained(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    good = token(claims(exp=FAR, hub={"subscribe": ["orders", "stock/*"], "admin": True}))
    header, said, *lines = shell.run("--show", good).splitlines()
    assert json.loads(header.removeprefix("header")) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(said.removeprefix("claims"))["exp"] == FAR
    assert lines[0].startswith("valid until 2096-10-02 07:06:40 UTC, for ")
    assert lines[1:] == [
        'user      "42"',
        "may read  user/42, orders, stock/*",
        "may send  nothing",
        "also      admin",
    ]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (token(claims(exp=1)), "not valid (token_expired): the token has expired"),
        (token(claims(exp=FAR), key=b"x" * 32), "not valid (token_invalid): the token is signed with a key"),
        (token(claims(exp=FAR, aud="x")), "not valid (token_invalid): the token is for an audience"),
        (token(claims(exp=FAR, hub={"admin": 1})), "not valid (token_invalid): the claim hub.admin"),
        ("hello", "not valid (token_invalid): the token is not a signed JSON Web Token"),
        ("", "not valid (token_invalid)"),
    ],
)
def test_a_bad_token_is_explained_too(shell: Shell, text: str, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.set(jwt_secret=SECRET)
    monkeypatch.setattr("sys.stdin.read", lambda size: text)
    shown = shell.run("--show", status=1)
    assert shown.splitlines()[-1].startswith(verdict)
    assert SECRET not in shown
    assert text.count(".") < 2 or len(shown.splitlines()) == 3


def test_what_a_token_says_can_not_command_a_terminal(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    assert "\x1b" not in shell.run("--show", token(claims(sub="\x1b[2J", exp=FAR)), status=1)
    assert "\u202e" not in shell.run("--show", token(claims(more="\u202e", exp=FAR)))


def test_without_a_key_a_token_is_shown_but_not_believed(shell: Shell, unused_tcp_port: int) -> None:
    shown = shell.run("--show", token(claims(exp=FAR)), status=1).splitlines()
    assert len(shown) == 3
    assert shown[-1].startswith("not checked: no key is set")
    shell.set(jwks_url=f"http://127.0.0.1:{unused_tcp_port}/")
    shown = shell.run("--show", token(claims(exp=FAR)), status=1).splitlines()
    assert shown[-1] == "not checked: the keys of HUB_JWKS_URL can't be fetched"


def test_settings_of_a_file_count(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'jwt_secret = "{SECRET}"\njwt_issuer = "me"\n')
    made = shell.run("--sub", "42", "--config", str(file))
    assert hub(issuer="me").verify(made).user == "42"
    assert "valid until" in shell.run("--show", made, "--config", str(file))


# ---- making keys ----


def test_a_secret_that_is_made_is_random_and_good(shell: Shell) -> None:
    first, second = shell.run("--make-key"), shell.run("--make-key", "HS256")
    assert first != second
    shell.set(jwt_secret=first)
    assert hub(first).verify(shell.run("--sub", "42")).user == "42"


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_private_key_that_is_made_signs_and_its_public_half_verifies(
    shell: Shell, algorithm: str, tmp_path: Path
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_text(shell.run("--make-key", algorithm))
    public.write_text(shell.run("--public-key", "--key", str(private)))
    assert "PRIVATE" not in public.read_text()
    made = shell.run("--sub", "42", "--key", str(private))
    assert hub(file=public).verify(made).user == "42"
    assert f'"alg": "{algorithm}"' in shell.run("--show", made, "--key", str(public))


def test_a_secret_has_no_public_half(shell: Shell) -> None:
    shell.set(jwt_secret=SECRET)
    assert not shell.run("--public-key", status=2)
    assert "no public half" in shell.err


# ---- as a process ----


@pytest.mark.slow
async def test_the_command_of_the_page_works_in_a_shell(run: Run) -> None:
    environ = {"HUB_JWT_SECRET": SECRET}
    made = await run("token", "--sub", "42", "--subscribe", "orders", environ=environ)
    assert await made.end() == 0
    shown = await run("token", "--show", environ=environ, stdin=made.out)
    assert await shown.end() == 0
    assert shown.out.splitlines()[-2:] == ["may read  user/42, orders", "may send  nothing"]
    for process in (made, shown):
        process.check_tidy()


@pytest.mark.slow
def test_other_commands_do_not_load_cryptography() -> None:
    program = "import hub.cli.entry, sys; print({'jwt', 'cryptography'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert said.stdout == "set()\n"
