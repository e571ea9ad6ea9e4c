"""What can be said of the Dockerfile without an engine: what it copies is there, what it installs fits the project."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, serving

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
_CAPBSET_DROP = 24


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def variables() -> dict[str, str]:
    (line,) = of("ENV")
    return dict(each.split("=", 1) for each in shlex.split(line))


def copied() -> list[str]:
    """The files and folders of the project that go into the image."""
    found = []
    for line in of("COPY"):
        *sources, _ = line.split()
        found += [] if sources[0].startswith("--from") else sources
    return found


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    assert all((ROOT / path).exists() for path in copied())


def test_what_the_build_needs_is_copied() -> None:
    about = project()
    needed = {"pyproject.toml", about["project"]["readme"], about["project"]["license"]["file"]}
    needed |= {about["tool"]["scikit-build"]["cmake"]["source-dir"], "requirements.lock"}
    needed |= {path.split("/")[0] for path in about["tool"]["scikit-build"]["wheel"]["packages"]}
    assert needed == set(copied())


def distributions(text: str) -> set[str]:
    """The names in a requirements file or a list of requirements."""
    return {re.split(r"[\[=<>~]", line)[0].lower() for line in text.splitlines() if re.match(r"\w", line)}


def test_what_is_installed_is_locked() -> None:
    locked = distributions((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    about = project()
    extras = about["project"]["optional-dependencies"]
    (production,) = extras["production"]
    stores = re.fullmatch(r"kato\[(.*)\]", production)
    assert stores is not None
    assert stores[1].split(",") == ["mongo", "postgres", "qdrant", "redis"]
    wanted = [line for each in stores[1].split(",") for line in extras[each]]
    assert distributions("\n".join([*wanted, *about["project"]["dependencies"]])) <= locked
    installs = [line for line in of("RUN") if re.search(r"\bpip .*install\b", line)]
    assert len(installs) == 2
    assert all("--constraint requirements.lock" in line for line in installs)
    tools, kato = installs
    assert set(tools.split("requirements.lock ")[1].split()) >= distributions(
        "\n".join(about["build-system"]["requires"])
    )
    assert kato.endswith('kato-*.whl)[production]"')


def test_bases_are_pinned_and_of_a_python_that_kato_supports() -> None:
    bases = [line.split()[0] for line in of("FROM")]
    assert len(set(bases)) == 1, "what is built for one Python runs on the same"
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-bookworm", bases[0])
    assert version is not None
    least = re.fullmatch(r">=(\d+)\.(\d+)", project()["project"]["requires-python"])
    assert least is not None
    assert (int(version[1]), int(version[2])) >= (int(least[1]), int(least[2]))


def test_the_label_tells_the_version() -> None:
    (labels,) = of("LABEL")
    assert f'image.version="{project()["project"]["version"]}"' in labels


def test_it_does_not_run_as_root() -> None:
    words = [word for word, _ in instructions()]
    assert of("USER") == ["kato"]
    assert words.index("USER") < words.index("CMD")
    (user,) = [line for line in of("RUN") if "useradd" in line]
    assert f"--home-dir {variables()['KATO_DATA']} kato" in user
    assert of("VOLUME") == of("WORKDIR")[-1:] == [variables()["KATO_DATA"]]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, {"HOST": variables()["HOST"]}) as server:
        yield server


def health_check(port: int) -> int:
    """The exit code of the container's health check."""
    (line,) = of("HEALTHCHECK")
    program, *arguments = json.loads(line.partition(" CMD ")[2])
    assert program == "python"
    environment = {**os.environ, "PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, timeout=30, check=False
    ).returncode


def test_it_listens_where_the_container_is_reached(served: Server) -> None:
    assert served.url.startswith("http://0.0.0.0:")
    assert of("EXPOSE") == [variables()["PORT"]]
    assert json.loads(of("CMD")[0]) == ["kato", "serve"]


def test_healthy_is_what_is_ready(served: Server) -> None:
    port = int(served.url.rpartition(":")[2])
    assert health_check(port) == 0
    served.stop()
    assert health_check(port) != 0


def without_rights() -> None:
    """Give up for good everything that root may do and others may not, as `cap_drop: [ALL]` does."""
    libc = ctypes.CDLL(None)
    for right in range(64):
        libc.prctl(_CAPBSET_DROP, right, 0, 0, 0)


def test_it_needs_no_rights_to_run_and_to_stop(tmp_path: Path) -> None:
    with serving(tmp_path, before=without_rights) as server:
        with server.client() as client:
            assert client.get("/health/ready").status_code == 200
        assert server.stop() == 0, server.output
