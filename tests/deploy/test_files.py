"""What is in docs/deploy, as the tools read it that it is for."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
import yaml
from compose_spec import PyCompose

from hub.cli.serve import longest_end
from hub.settings import Settings
from tests.proxy import program
from tests.snippets import DOCS, snippet
from tests.test_packaging import built, project

__all__ = ["project"]

DEPLOY = DOCS / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SECRET = "a secret of the tests, which has more than 32 bytes"


def output(*command: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run *command*, which must succeed; return what it writes."""
    ran = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
        env=environ and {"PATH": os.environ["PATH"], **environ},
        cwd=cwd,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Return the settings of a hub with *environ*; what the hub would refuse fails the test."""
    return Settings.load(environ={"HUB_JWT_SECRET": SECRET, **environ})


# ---- the image ----


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with what follows it."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def image_environ() -> dict[str, str]:
    """Return the variables that the image sets."""
    return dict(pair.split("=", 1) for word, rest in instructions() if word == "ENV" for pair in rest.split())


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    assert output(str(linter), "--failure-threshold", "style", "--disable-ignore-pragma", str(DOCKERFILE)) == ""


def test_the_image_runs_as_a_user_that_is_not_root_with_settings_that_the_hub_takes() -> None:
    said = dict(instructions())
    assert said["USER"] == "10001:10001"
    assert said["HEALTHCHECK"].endswith('CMD ["hub", "health"]')
    assert (said["ENTRYPOINT"], said["CMD"]) == ('["hub"]', '["serve"]')
    assert settings_of(image_environ()).port == int(said["EXPOSE"])


def context() -> set[str]:
    """Return the names at the top of what the image is built of, by .dockerignore."""
    lines = (DOCS.parent / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


@pytest.mark.slow
def test_what_the_image_is_built_of_installs_and_is_healthy(project: Path, tmp_path: Path) -> None:
    """The wheel of the build stage, in an environment of its own; what it needs is that of the tests."""
    for path in project.iterdir():
        if path.name not in context():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(project / "hub" / "web" / "client")
    wheel = built(project, "build_wheel").filename
    place = tmp_path / "opt"
    output(sys.executable, "-m", "venv", "--without-pip", str(place))
    output(sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--no-deps", str(wheel))
    (packages,) = place.glob("lib/python*/site-packages")
    needed = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "needed.pth").write_text(f"{needed}\n")  # behind its own, so that this hub is the one that was built
    hub, here = str(place / "bin" / "hub"), tmp_path / "srv"
    here.mkdir()
    environ = {**image_environ(), "PATH": os.environ["PATH"], "HUB_HOST": "127.0.0.1", "HUB_PORT": "0"}
    environ["HUB_LOG"] = f"sqlite:///{tmp_path}/hub.db"
    where = output(str(place / "bin" / "python"), "-c", "import hub; print(hub.__file__)", environ=environ, cwd=here)
    assert where.strip() == str(packages / "hub" / "__init__.py")
    with subprocess.Popen([hub, "serve"], env=environ, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            port = run.stdout.readline().decode().strip().rpartition(":")[2]
            assert output(hub, "health", environ={**environ, "HUB_PORT": port}, cwd=here) == "ready\n"
        finally:
            run.kill()
            run.communicate()


# ---- compose ----


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """Return *text* with the variables that `docker compose` puts in from *environ*."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if name in environ:
            return environ[name]
        assert operator == ":-", f"{name} has to be set: {rest}"
        return rest

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)


@pytest.fixture
def compose() -> dict[str, Any]:
    text = interpolated((DEPLOY / "compose" / "compose.yaml").read_text(), {"HUB_JWT_SECRET": SECRET})
    parsed = PyCompose.from_yaml(text)
    parsed.validate()
    assert set(parsed.service_names()) == {"nginx", "hub", "redis"}
    said: dict[str, Any] = yaml.safe_load(text)
    return said


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_compose_starts_what_the_hub_takes_and_gives_it_time_to_end(compose: dict[str, Any]) -> None:
    services = compose["services"]
    hub = services["hub"]
    settings = settings_of(image_environ() | {name: str(value) for name, value in hub["environment"].items()})
    assert settings.workers == 2
    assert seconds(hub["stop_grace_period"]) >= longest_end(settings)
    here = DEPLOY / "compose"
    root = here / hub["build"]["context"]
    assert (root / hub["build"]["dockerfile"]).samefile(DOCKERFILE)
    assert (root / ".dockerignore").exists()
    conf = services["nginx"]["volumes"][0].partition(":")[0]
    assert (here / conf).exists()
    address = hub["networks"]["inside"]["ipv4_address"]
    assert f"server {address}:{settings.port};" in (here / conf).read_text()
    assert settings.trusted_proxies == (compose["networks"]["inside"]["ipam"]["config"][0]["subnet"],)


ADDRESSES = {
    "# nginx.conf": "# That of docs/howto/run-behind-a-proxy.md, with the addresses of compose.yaml.",
    "127.0.0.1:8080": "172.30.0.10:8080",
    "/etc/ssl/live.example.com.pem": "/etc/ssl/hub/cert.pem",
    "/etc/ssl/live.example.com.key": "/etc/ssl/hub/key.pem",
}


def test_nginx_takes_its_configuration_which_is_the_one_of_the_guide(tmp_path: Path) -> None:
    text = (DEPLOY / "compose" / "nginx.conf").read_text()
    guide = snippet("howto/run-behind-a-proxy.md", "nginx.conf")
    for old, new in ADDRESSES.items():
        guide = guide.replace(old, new)
    assert text == guide
    certificate = trustme.CA().issue_cert("live.example.com")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid;\n" + text.replace("/etc/ssl/hub", str(tmp_path)))
    said = output(program("nginx"), "-t", "-p", str(tmp_path), "-c", str(file), "-e", str(tmp_path / "error.log"))
    assert "test is successful" in said


# ---- Kubernetes ----


def manifests() -> Iterator[dict[str, Any]]:
    for file in MANIFESTS:
        yield from yaml.safe_load_all(file.read_text())


def found(kind: str, name: str = "hub") -> dict[str, Any]:
    (each,) = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return each


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_every_manifest_is_valid_and_has_no_field_that_is_none(version: str) -> None:
    kinds = []
    for each in manifests():
        kubernetes_validate.validate(each, version, strict=True)
        kinds.append(each["kind"])
    assert len(kinds) == 6


def test_a_pod_has_settings_that_the_hub_takes_and_time_to_end() -> None:
    pod = found("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    settings = settings_of(image_environ() | given)
    (wait,) = [int(word) for word in container["lifecycle"]["preStop"]["exec"]["command"] if word.isdigit()]
    assert pod["terminationGracePeriodSeconds"] >= wait + longest_end(settings)
    unready = container["readinessProbe"]
    assert settings.drain >= unready["periodSeconds"] * unready["failureThreshold"], "it ends before it is taken out"
    assert pod["enableServiceLinks"] is False
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
        "http": settings.port,
        "admin": settings.admin_port,
    }


def test_what_belongs_together_has_the_same_names() -> None:
    pod = found("Deployment")["spec"]["template"]
    ports = {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
    for name in ("hub", "hub-admin"):
        service = found("Service", name)["spec"]
        assert service["selector"].items() <= pod["metadata"]["labels"].items()
        assert {each["targetPort"] for each in service["ports"]} <= ports
    backend = found("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] in {each["name"] for each in found("Service", backend["name"])["spec"]["ports"]}
    target = found("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert found(target["kind"], target["name"])
    assert found("PodDisruptionBudget")["spec"]["selector"] == found("Deployment")["spec"]["selector"]


# ---- systemd ----

UNITS = DEPLOY / "systemd"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The unit as it is on a machine that has the hub where these tests have it."""
    hub = str(Path(sys.executable).parent / "hub")
    text = (UNITS / "hub.service").read_text()
    assert "ExecStart=/opt/hub/bin/hub serve" in text
    service = tmp_path / "hub.service"
    service.write_text(text.replace("/opt/hub/bin/hub", hub))
    shutil.copy(UNITS / "hub.socket", tmp_path)
    return service


def test_systemd_takes_the_units_and_finds_them_well_locked_up(service: Path) -> None:
    systemd = program("systemd-analyze")
    assert output(systemd, "verify", str(service), str(service.with_name("hub.socket"))) == ""
    output(systemd, "security", "--offline=true", "--no-pager", "--threshold=20", str(service))  # of 100, at most


def test_the_unit_gives_the_hub_time_to_end_and_listens_where_a_proxy_looks_for_it() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "hub.service")
    assert float(unit["Service"]["TimeoutStopSec"]) >= longest_end(Settings())
    assert unit["Service"]["Type"] == "notify"
    unit.read(UNITS / "hub.socket")
    assert unit["Socket"]["ListenStream"] == f"{Settings().host}:{Settings().port}"
