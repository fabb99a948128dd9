"""Each file of infra/ before the program that knows its format, and what they say of each other.

What is not shown here: no image is built and no cluster started, for want of a container engine.
The programs that images and pods start are run as processes where they can be.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import ipaddress
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from framebank import cli
from framebank.features import machine
from tests import ROOT
from tests.made import built

INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
DOCKERFILES = sorted(INFRA.glob("docker/*.Dockerfile"))
KUBERNETES = "1.32"
_OPERATOR = "flink-kubernetes-operator-api"
_OPERATOR_URL = f"https://repo.maven.apache.org/maven2/org/apache/flink/{_OPERATOR}/1.10.0/{_OPERATOR}-1.10.0.jar"
_CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


def infra_files() -> list[Path]:
    folders = ("docker", "flink", "kubernetes", "systemd", "terraform")
    found = [path for name in folders for path in (INFRA / name).rglob("*") if path.is_file()]
    kept = (path for path in found if ".terraform" not in str(path.relative_to(INFRA)))
    return sorted(path for path in kept if path.suffix != ".py" and "__pycache__" not in path.parts)


def manifests() -> list[Path]:
    return sorted((INFRA / "kubernetes").rglob("*.yaml"))


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def run(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, **more)


@pytest.mark.parametrize("path", [ROOT / ".dockerignore", *infra_files()], ids=lambda p: p.name)
def test_the_head_says_the_command_that_uses_the_file(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]
    assert any(re.match(r"#   [a-z(]", line) for line in head), "no line of a command in the head"
    assert max(map(len, lines)) <= 120


# Images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    found = run(BIN / "hadolint", "--failure-threshold", "style", path)
    assert found.returncode == 0, found.stdout
    assert "hadolint ignore" not in path.read_text()


def test_hadolint_looks(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python\nRUN pip install numpy\n")
    found = run(BIN / "hadolint", path)
    assert found.returncode and "DL3006" in found.stdout and "DL3013" in found.stdout


@functools.lru_cache
def setup_words() -> dict[str, Any]:
    """Return what setup.py gives to `setup`."""
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setuptools.setup", given.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def stage(path: Path, name: str) -> list[str]:
    """Return the lines of a Dockerfile's stage, without comments."""
    text = re.split(r"^FROM ", path.read_text(), flags=re.M)
    found = next(part for part in text if part.splitlines()[0].endswith(f"AS {name}"))
    return [line for line in found.splitlines()[1:] if line and not line.startswith("#")]


def test_every_image_packages_the_same_whole(tmp_path: Path) -> None:
    first, *others = [stage(path, "package") for path in DOCKERFILES]
    assert all(other == first for other in others)
    copied = [word for line in first if line.startswith("COPY") for word in line.split()[1:-1]]
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    assert set(copied) <= set(allowed)
    given = setup_words()
    folders = given["package_dir"]
    assert set(copied) == set(folders.values()) | {"setup.py", "README.md"}
    for name in copied:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    made = run(sys.executable, "setup.py", "-q", "build", "--build-lib", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for package, folder in folders.items():
        there = tmp_path / "out" / package.replace(".", "/")
        files = [p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file()]
        lost = {str(p) for p in files if p.suffix != ".pyc" and not (there / p).exists()}
        assert not lost, f"in the repository and not in the wheel (package_data?): {lost}"


def requirements(name: str) -> dict[str, Requirement]:
    lines = (INFRA / "docker" / name).read_text().splitlines()
    # In a lock the hash of each stands on a line of its own.
    words = [line.removesuffix(" \\") for line in lines if not line.startswith(("#", " "))]
    return {canonicalize_name(one.name): one for one in map(Requirement, words)}


def test_the_images_have_what_setup_py_asks_for() -> None:
    given = setup_words()
    extras = given["extras_require"]
    words = [*given["install_requires"], *extras["extract"], *extras["gcp"]]
    asked = {canonicalize_name(one.name): one for one in map(Requirement, words)}
    plain = {name: str(one.specifier) for name, one in asked.items()}
    for name in ("worker-cpu.txt", "worker-gpu.txt"):
        found = requirements(name)
        assert {key: str(one.specifier) for key, one in found.items()} == plain
        assert found["apache-beam"].extras == {"gcp"}
    trainer = {name: str(one.specifier) for name, one in requirements("trainer.txt").items()}
    assert trainer == {name: text for name, text in plain.items() if name != "apache-beam"}


def test_the_server_has_each_version_that_it_comes_to() -> None:
    extras = setup_words()["extras_require"]
    wanted = requirements("trainer.txt") | {
        canonicalize_name(one.name): one for one in map(Requirement, extras["browse"])
    }
    asked, pins = requirements("server.txt"), requirements("server.lock")
    specified = {name: str(one.specifier) for name, one in wanted.items()}
    assert {name: str(one.specifier) for name, one in asked.items()} == specified
    for name, one in asked.items():
        assert str(pins[name].specifier)[2:] in one.specifier
    # No package of theirs is missing: --no-deps brings none.
    for pin in pins.values():
        for text in importlib.metadata.requires(pin.name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pins, (pin.name, text)


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu", "trainer", "server"])
def test_the_locks_satisfy_every_requirement_and_name_every_hash(name: str) -> None:
    pins = requirements(f"{name}.lock")
    assert all(str(pin.specifier).startswith("==") for pin in pins.values())
    for key, one in requirements(f"{name}.txt").items():
        assert str(pins[key].specifier)[2:] in one.specifier, one
    text = (INFRA / "docker" / f"{name}.lock").read_text()
    hashed = re.findall(r"^\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", text, flags=re.M)
    assert len(hashed) == len(pins)
    used = [
        path
        for path in DOCKERFILES
        if f"--require-hashes --requirement /requirements/{name}.lock" in path.read_text()
    ]
    assert used


def test_images_of_others_are_named_by_their_digest() -> None:
    text = "".join(path.read_text() for path in infra_files())
    tags = dict(re.findall(r"^ARG ([A-Z]+_(?:TAG|DIGEST))=(\S+)", text, flags=re.M))
    found = set()
    for image in re.findall(
        r"^(?:FROM|\s*-?\s*image:|x-flink-image: &flink-image) (\S+)", text, flags=re.M
    ):
        name = re.sub(r"\$\{([A-Z_]+)\}", lambda tag: tags[tag[1]], image)
        if ":" in name and "framebank" not in name.partition(":")[0] and "REGISTRY" not in name:
            found.add(name)
    unpinned = {name for name in found if not re.search(r":.+@sha256:[0-9a-f]{64}$", name)}
    # No registry that is reached from here tells its digest: infra/flink/compose.yaml says how to.
    assert unpinned == {"flink:1.20.5-java17"} and len(found) == 5


def test_versions_agree_everywhere() -> None:
    texts = {path: path.read_text() for path in infra_files()}
    beam = re.findall(r"BEAM_VERSION=(\S+)", "".join(texts.values()))
    pinned = str(requirements("worker-cpu.lock")["apache-beam"].specifier)[2:]
    assert set(beam) == {built.BEAM, pinned}.union(beam) == {built.BEAM}
    pythons = re.findall(r"^ARG PYTHON_TAG=(\S+)", "\n".join(texts.values()), flags=re.M)
    assert len(pythons) == len(DOCKERFILES) and len(set(pythons)) == 1
    minor = ".".join(pythons[0].split(".")[:2])
    assert f"Python :: {minor}" in str(setup_words()["classifiers"])
    assert set(re.findall(r"base/python(\d+)-template", "".join(texts.values()))) == {
        minor.replace(".", "")
    }
    flinks = set(re.findall(r"\bflink:([\d.]+)-java17", "".join(texts.values())))
    assert len(flinks) == 1 and flinks.pop().startswith("1.20.")
    ours = re.findall(
        r"(?<![\w-])(?:worker-cpu|worker-gpu|trainer|launcher|server):([\d.]+\d)",
        "".join(texts.values()),
    )
    assert set(ours) == {setup_words()["version"]}


# Flink on one machine


def compose() -> dict[str, Any]:
    found = yaml.safe_load((INFRA / "flink" / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_compose_file_follows_the_specification() -> None:
    found = run(
        BIN / "check-jsonschema",
        *("--builtin-schema", "vendor.compose-spec", INFRA / "flink" / "compose.yaml"),
    )
    assert found.returncode == 0, found.stdout


def test_each_task_manager_has_a_pool_of_its_own_beside_it() -> None:
    services = compose()["services"]
    networks: dict[str, list[str]] = {}
    for name, service in services.items():
        if "network_mode" in service:
            networks.setdefault(service["network_mode"], []).append(name.split("-")[0])
    assert len(networks) == 2
    assert all(sorted(names) == ["pool", "taskmanager"] for names in networks.values())
    assert all(mode.removeprefix("service:") in services for mode in networks)
    published = [str(port) for one in services.values() for port in one.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
    assert not any("50000" in port for port in published)
    for service in services.values():
        assert "healthcheck" in service or service.get("entrypoint") in (
            ["sleep", "infinity"],
            ["framebank"],
        )


# Kubernetes


@pytest.mark.parametrize("path", manifests(), ids=lambda p: p.name)
def test_kubernetes_knows_every_field(path: Path) -> None:
    for document in documents(path):
        if isinstance(document, dict) and document["kind"] not in (
            "Kustomization",
            "FlinkDeployment",
        ):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_kubernetes_validate_looks() -> None:
    document = documents(INFRA / "kubernetes" / "jobs" / "extract.yaml")[0]
    document["spec"]["backOffLimit"] = 2
    with pytest.raises(Exception, match="backOffLimit"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def operator_schema() -> dict[str, Any]:
    """Return the schema of a FlinkDeployment from the operator's own jar, made strict."""
    path = built.folder() / _OPERATOR_URL.rsplit("/", 1)[-1]
    if not path.exists():
        part = path.with_suffix(".part")
        try:
            with urllib.request.urlopen(_OPERATOR_URL, timeout=30) as answer:
                part.write_bytes(answer.read())
        except (urllib.error.URLError, OSError) as error:
            pytest.skip(f"the Maven registry does not give the Flink operator's schema ({error})")
        part.replace(path)
    with zipfile.ZipFile(path) as jar:
        crd = yaml.load(jar.read(_CRD), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    close(schema)
    assert isinstance(schema, dict)
    return schema


def close(schema: Any) -> None:
    """Let objects have no property but those that the schema names; Kubernetes would drop it."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            close(part)


def kustomized(name: str) -> list[Any]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize in it, is not installed")
    made = run(kubectl, "kustomize", INFRA / "kubernetes" / name)
    assert made.returncode == 0, made.stderr
    return list(yaml.safe_load_all(made.stdout))


def check_session_cluster(deployment: Any, image: str) -> None:
    pod = deployment["spec"]["taskManager"]["podTemplate"]["spec"]
    pools = [
        one
        for one in pod["containers"]
        if "framebank.pipelines.jobs.worker_pool" in str(one.get("command"))
    ]
    assert [one["image"].split(":")[0] for one in pools] == [image]
    assert "ports" not in pools[0]
    settings = deployment["spec"]["flinkConfiguration"]
    assert settings["restart-strategy.type"] == "fixed-delay"
    # Beside its own container, a whole pod: core Kubernetes checks what the operator passes on.
    containers = [{"image": "flink", **one} for one in pod["containers"]]
    pod = {"spec": pod | {"containers": containers}, "metadata": {"name": "framebank"}}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", **pod}, KUBERNETES, strict=True
    )


def test_session_cluster_is_one_the_operator_knows() -> None:
    (deployment,) = documents(INFRA / "kubernetes" / "cluster" / "session-cluster.yaml")
    check_session_cluster(deployment, "framebank/worker-cpu")
    schema = operator_schema()
    jsonschema.Draft7Validator(schema).validate(deployment)
    deployment["spec"]["taskManager"]["podTemplate"]["spec"]["containers"][1]["imagee"] = "x"
    assert not jsonschema.Draft7Validator(schema).is_valid(deployment)


@pytest.mark.parametrize(("name", "image"), [("cluster", "cpu"), ("gpu", "gpu")])
def test_kustomize_makes_the_cluster(name: str, image: str) -> None:
    made = kustomized(name)
    (deployment,) = [one for one in made if one["kind"] == "FlinkDeployment"]
    check_session_cluster(deployment, f"framebank/worker-{image}")
    jsonschema.Draft7Validator(operator_schema()).validate(deployment)
    assert {one["metadata"]["namespace"] for one in made} == {"framebank"}


def test_no_network_policy_opens_the_pool() -> None:
    policies = documents(INFRA / "kubernetes" / "cluster" / "network-policy.yaml")
    assert any(p["spec"]["podSelector"] == {} and "ingress" not in p["spec"] for p in policies)
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            assert rule["ports"], "a rule without ports opens all of them"
            for port in rule["ports"]:
                low = port["port"]
                assert not low <= 50000 <= port.get("endPort", low)


METADATA = "169.254.169.254"


SERVER = {"framebank.io/role": "serve"}


def policies() -> list[Any]:
    return [one["spec"] for one in documents(INFRA / "kubernetes/cluster/network-policy.yaml")]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a selector of pods means a pod with these labels."""
    return all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    ) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


def reaches(labels: dict[str, str], address: str, port: int) -> bool:
    """Tell whether a pod with these labels may speak to an address."""
    where = ipaddress.ip_address(address)
    for policy in policies():
        if "Egress" in policy["policyTypes"] and selects(policy["podSelector"], labels):
            for rule in policy.get("egress", []):
                for block in (one["ipBlock"] for one in rule["to"] if "ipBlock" in one):
                    there = where in ipaddress.ip_network(block["cidr"]) and not any(
                        where in ipaddress.ip_network(less) for less in block.get("except", [])
                    )
                    if there and any(one["port"] == port for one in rule["ports"]):
                        return True
    return False


def test_only_pods_that_open_buckets_reach_the_metadata_address_and_the_world() -> None:
    """Whoever asks that address gets the pod's credentials."""
    closed = [one for one in policies() if one == {"podSelector": {}, "policyTypes": ["Egress"]}]
    assert len(closed) == 1  # what no rule names is out of reach
    worker = {"app": "framebank", "component": "taskmanager"}
    for labels in (worker, {"framebank.io/role": "submit"}, {"framebank.io/role": "train"}, SERVER):
        assert reaches(labels, METADATA, 80) and reaches(labels, "169.254.169.252", 988)
        assert reaches(labels, "142.250.1.1", 443) and not reaches(labels, "142.250.1.1", 25)
        assert not reaches(labels, METADATA, 443)
    for labels in ({}, {"app": "framebank", "component": "jobmanager"}, {"app": "another"}):
        assert not reaches(labels, METADATA, 80) and not reaches(labels, "142.250.1.1", 443)


def pods() -> Iterator[tuple[str, dict[str, str], Any]]:
    """Yield (file, labels, spec) of every pod that a manifest makes."""
    for path in manifests():
        for document in documents(path):
            for template in [document, *find_key(document, "podTemplate")]:
                spec = template.get("spec") if isinstance(template, dict) else None
                if isinstance(spec, dict) and "containers" in spec:
                    yield path.name, {}, spec
            for template in find_key(document, "template"):
                yield path.name, template.get("metadata", {}).get("labels", {}), template["spec"]


def test_every_container_of_ours_has_limits_and_no_privilege() -> None:
    ours = [
        (name, one)
        for name, _, pod in pods()
        for one in pod["containers"]
        if one.get("image", "").startswith("framebank/")
    ]
    assert {name for name, _ in ours} >= {
        "session-cluster.yaml", "extract.yaml", "extract-nightly.yaml", "retrain.yaml",
        "serve.yaml",
    }  # fmt: skip
    for _, container in ours:
        limits = container["resources"]["limits"]
        assert limits["cpu"] and limits["memory"], container
        held = container["securityContext"]
        assert held["capabilities"] == {"drop": ["ALL"]} and held["readOnlyRootFilesystem"]
        assert held["allowPrivilegeEscalation"] is False


def test_what_runs_in_a_pool_adds_up_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the defaults of `framebank extract`, in the pod and in the compose file."""
    (deployment,) = documents(INFRA / "kubernetes" / "cluster" / "session-cluster.yaml")
    pod = deployment["spec"]["taskManager"]["podTemplate"]["spec"]["containers"][1]["resources"]
    pool = compose()["services"]["pool-1"]
    sizes = {
        (int(pod["limits"]["cpu"]), int(pod["limits"]["memory"].removesuffix("Gi"))),
        (int(pool["cpus"]), int(pool["mem_limit"].removesuffix("g"))),
    }
    assert len(sizes) == 1 and pod["requests"]["memory"] == pod["limits"]["memory"]
    ((cores, gib),) = sizes
    monkeypatch.setattr(machine, "usable_memory_bytes", lambda: gib * 2**30)
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    shares = machine.share_memory()
    assert shares.decoders == cores
    assert shares.total_bytes <= gib * 2**30
    assert shares.decoder_bytes >= 2**30 * 3 // 4


def test_each_job_runs_as_an_account_that_there_is() -> None:
    accounts = {
        one["metadata"]["name"]
        for one in documents(INFRA / "kubernetes/cluster/service-accounts.yaml")
    }
    used = {
        name: pod["serviceAccountName"] for name, _, pod in pods() if "serviceAccountName" in pod
    }
    assert used == {
        "extract.yaml": "framebank-submit",
        "extract-nightly.yaml": "framebank-submit",
        "retrain.yaml": "framebank-train",
        "serve.yaml": "framebank-serve",
    }
    assert accounts == {*used.values(), "flink"}
    text = (INFRA / "terraform/outputs.tf").read_text() + (
        INFRA / "terraform/identity.tf"
    ).read_text()
    assert all(
        len(re.findall(rf"^\s+{name}\s+= google_", text, flags=re.M)) == 2 for name in accounts
    )


def test_the_nightly_job_is_the_job() -> None:
    (job,) = documents(INFRA / "kubernetes" / "jobs" / "extract.yaml")
    (nightly,) = documents(INFRA / "kubernetes" / "jobs" / "extract-nightly.yaml")
    assert nightly["spec"]["jobTemplate"]["spec"]["template"] == job["spec"]["template"]
    assert nightly["spec"]["concurrencyPolicy"] == "Forbid"


# What the files start


def pool_commands() -> Iterator[tuple[list[str], list[str]]]:
    """Yield (command of the pool, command of its probe), as compose and as the pod have them."""
    service = compose()["services"]["pool-1"]
    yield service["entrypoint"], service["healthcheck"]["test"][1:]
    (deployment,) = documents(INFRA / "kubernetes" / "cluster" / "session-cluster.yaml")
    pool = deployment["spec"]["taskManager"]["podTemplate"]["spec"]["containers"][1]
    assert pool["startupProbe"]["exec"] == pool["livenessProbe"]["exec"]
    yield pool["command"], pool["startupProbe"]["exec"]["command"]


def test_the_pool_starts_answers_its_probe_and_ends() -> None:
    """It is run once: compose and the pod have the same commands, which is shown first."""
    first, second = pool_commands()
    assert [word.replace('"', "'") for word in second[1]] == first[1] and second[0] == first[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start, probe = ([word.replace("50000", port) for word in words] for words in first)
    assert start[0] == probe[0] == "python"
    assert run(sys.executable, *probe[1:]).returncode != 0
    pool = subprocess.Popen(
        [sys.executable, *start[1:]],
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as process 1 has it
    )
    try:
        deadline = time.monotonic() + 60
        while run(sys.executable, *probe[1:]).returncode != 0:
            assert pool.poll() is None and time.monotonic() < deadline
        stops = {compose()["services"]["pool-1"]["stop_signal"]} | {
            re.findall(r"^STOPSIGNAL (\S+)", path.read_text(), flags=re.M)[0]
            for path in DOCKERFILES
            if "worker" in path.name
        }
        assert stops == {"SIGINT"}
        pool.send_signal(signal.SIGINT)
        assert pool.wait(timeout=10) == 0
    finally:
        pool.kill()
        pool.wait()


def parse(command: list[str]) -> None:
    """Parse a `framebank` command line as the command does, and run nothing; fails on a mistake."""
    from framebank.pipelines.jobs.beam_options import check_beam_options

    name, *words = command[1:]
    entry = cli.COMMANDS[name]
    module = importlib.import_module(entry.module)
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    module.add_arguments(parser)
    _, rest = parser.parse_known_args(words)
    assert entry.takes_beam_options or not rest, rest
    if rest:
        check_beam_options(rest)


_BEFORE = r"docker compose .* run --rm |(?:[A-Z_]+=\S+ )+"


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the `framebank` commands that stand, indented, in a head or in a runbook."""
    text = re.sub(r" *\\\n(?:#| )+", " ", text)
    for line in text.splitlines():
        if match := re.match(rf"(?:#   |    )(?:{_BEFORE})?(framebank [a-z].*)", line):
            yield shlex.split(match[1], comments=True)


TEXTS = [*infra_files(), *sorted(INFRA.glob("runbooks/*.md"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_every_framebank_command_is_one(path: Path) -> None:
    found = list(commands_of(path.read_text()))
    for command in found:
        if "..." not in command:
            parse(command)
    assert found or path.suffix != ".md", "a runbook without a command"


@pytest.mark.parametrize("name", ["jobs/extract", "jobs/extract-nightly", "serving/serve"])
def test_the_pods_command_is_one(name: str) -> None:
    first = documents(INFRA / "kubernetes" / f"{name}.yaml")[0]
    (container,) = next(iter(find_key(first, "containers")))
    parse([*container["command"], *container["args"]])


def test_the_server_is_probed_where_it_answers_and_has_time_to_drain() -> None:
    deployment, service = documents(INFRA / "kubernetes/serving/serve.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(word[2:].split("=", 1) for word in container["args"][1:])
    assert int(options["drain"]) < pod["terminationGracePeriodSeconds"]
    assert options["port"] == str(container["ports"][0]["containerPort"])
    assert (
        int(options["max-memory"])
        < 8192
        == 1024 * int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
    )
    paths = {container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe")}
    assert paths == {"/healthz", "/readyz"}
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == SERVER
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert options["token-file"].rpartition("/")[0] in mounts and "/tmp" in mounts


def unit() -> dict[str, list[str]]:
    """Return the settings of the unit of systemd."""
    found: dict[str, list[str]] = {}
    for line in (INFRA / "systemd/framebank-serve.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            found.setdefault(line.partition("=")[0], []).append(line.partition("=")[2])
    return found


def settings() -> dict[str, str]:
    lines = (INFRA / "systemd/framebank-serve.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_systemd_starts_the_server_as_its_settings_say() -> None:
    its, given = unit(), settings()
    (start,) = its["ExecStart"]
    for name, value in given.items():
        start = start.replace(f"${{{name}}}", value).replace(f"${name}", value)
    words = shlex.split(start)
    assert Path(words[0]).is_absolute() and "$" not in start
    parse(["framebank", *words[1:]])
    assert its["KillSignal"] == ["SIGTERM"] and int(its["TimeoutStopSec"][0]) > 30
    if shutil.which("systemd-analyze"):
        path = INFRA / "systemd/framebank-serve.service"
        told = run("systemd-analyze", "verify", "--man=no", path).stderr.splitlines()
        assert not [line for line in told if "Unknown" in line or "Failed to parse" in line]


def test_the_start_script_starts_the_same(tmp_path: Path) -> None:
    fake = tmp_path / "framebank"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    script, env = INFRA / "systemd/serve.sh", os.environ | {"FRAMEBANK": str(fake)}
    made = run("sh", script, INFRA / "systemd/framebank-serve.env", env=env)
    words = made.stdout.split()
    assert words[:5] == ["serve", "--model", settings()["MODEL"], "--port", settings()["PORT"]]
    parse(["framebank", *words])
    assert run("sh", script, tmp_path / "none", env=env).returncode == 2


def find_key(document: Any, key: str) -> Iterator[Any]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from find_key(value, key)


def test_trainer_needs_no_beam(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "import framebank\n"
        "for name in ('train', 'ask', 'inspect', 'verify'):\n"
        "    try: framebank.main([name, '--help'])\n"
        "    except SystemExit as end: assert not end.code, (name, end.code)\n"
        "import framebank.train.fit.training, framebank.train.data.batches\n"
        "import framebank.features.cache.reader, framebank.features.extraction.engine\n"
    )
    made = run(sys.executable, "-c", code, cwd=ROOT)
    assert made.returncode == 0, made.stderr


# Terraform


@functools.lru_cache
def terraform_texts() -> dict[str, Any]:
    import hcl2

    return {path.name: hcl2.loads(path.read_text()) for path in INFRA.glob("terraform/*.tf")}


def test_terraform_files_are_hcl() -> None:
    found = terraform_texts()
    kinds = [
        name.strip('"') for one in found.values() for b in one.get("resource", []) for name in b
    ]
    for kind in (
        "google_storage_bucket",
        "google_artifact_registry_repository",
        "google_service_account",
        "google_cloud_scheduler_job",
    ):
        assert kind in kinds
    text = "".join(path.read_text() for path in INFRA.glob("terraform/*.tf"))
    assert not re.search(r"roles/(owner|editor|viewer|storage\.admin)\"", text)


def test_the_account_that_retrains_submits_nothing() -> None:
    (job,) = [
        one for one in documents(INFRA / "kubernetes/jobs/retrain.yaml") if one["kind"] == "CronJob"
    ]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    text = (INFRA / "terraform" / "identity.tf").read_text()
    (account,) = re.findall(rf"{pod['serviceAccountName']}\s*= google_service_account\.(\w+)", text)
    assert account == "train"
    # What it is given is the two grants on buckets that the next test reads, and no more.
    uses = re.findall(r"^.*google_service_account\.train\.(?:member|email)$", text, flags=re.M)
    assert len(uses) == 2 and all(re.search(r"^\s+member = ", line) for line in uses)
    projects = re.findall(
        r'"google_project_iam_member" "(\w+)" \{(.*?)^\}', text, flags=re.M | re.S
    )
    assert projects and not any("google_service_account.train" in body for _, body in projects)


def test_who_extracts_writes_no_models_and_who_trains_no_features() -> None:
    """The workers read strangers' clips; what answers questions is not theirs to write."""
    (found,) = [one for one in terraform_texts()["identity.tf"]["locals"] if "bucket_roles" in one]
    names = r"(?:google_storage_bucket|google_service_account|roles/storage)\.(\w+)"
    grants = {
        tuple(re.findall(names, " ".join(map(str, (one["bucket"], one["member"], one["role"])))))
        for one in found["bucket_roles"].values()
    }
    assert {who for bucket, who, role in grants if bucket == "models" and role == "objectUser"} == {
        "train"
    }
    assert ("models", "worker", "objectViewer") in grants
    assert ("features", "train", "objectViewer") in grants
    assert {who for bucket, who, role in grants if bucket == "clips"} == {"worker", "submit"}
    assert {role for _, _, role in grants} == {"objectUser", "objectViewer"}


def terraform(folder: Path, *words: str, provider: Path | None = None) -> Any:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed")
    config = folder / "terraform.rc"
    override = f'dev_overrides {{ "hashicorp/google" = "{provider.parent}" }}\n' if provider else ""
    config.write_text(f"provider_installation {{\n{override}direct {{}}\n}}\n")
    more = {"TF_CLI_CONFIG_FILE": str(config), "TF_DATA_DIR": str(folder / "data")}
    more["CHECKPOINT_DISABLE"] = "1"
    return run(program, *words, cwd=folder, env=os.environ | more)


@pytest.fixture
def terraform_folder(tmp_path: Path) -> Path:
    for path in INFRA.glob("terraform/*.tf"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_terraform_files_are_formatted(terraform_folder: Path) -> None:
    found = terraform(terraform_folder, "fmt", "-check", "-diff")
    assert found.returncode == 0, found.stdout + found.stderr


def test_terraform_and_googles_provider_accept_every_argument(terraform_folder: Path) -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    provider = built.terraform_provider_google()
    found = terraform(terraform_folder, "validate", "-no-color", provider=provider)
    assert found.returncode == 0, found.stdout + found.stderr
    path = terraform_folder / "storage.tf"
    path.write_text(path.read_text().replace("uniform_bucket_level_access", "uniform_access"))
    found = terraform(terraform_folder, "validate", "-no-color", provider=provider)
    assert found.returncode and "uniform_access" in found.stdout + found.stderr


def test_the_scheduler_gives_parameters_that_the_template_takes() -> None:
    from framebank.pipelines.runners.dataflow.template_command import build_metadata

    text = (INFRA / "terraform" / "scheduler.tf").read_text()
    text = re.sub(r"\$\{[^}]*clips[^}]*\}", "my-clips", text)
    text = re.sub(r"\$\{[^}]*\.url\}", "gs://my-bucket", text).replace("var.sample", '"fps=1"')
    block = re.search(r"parameters = \{(.*?)\}", text, flags=re.S)
    assert block
    given = dict(re.findall(r'^\s+(\w+)\s+= "(.*)"$', block[1], flags=re.M))
    known = {one["name"]: one for one in build_metadata("extract")["parameters"]}
    assert given.keys() >= {name for name, one in known.items() if not one["isOptional"]}
    for name, value in given.items():
        assert all(re.fullmatch(pattern, value) for pattern in known[name]["regexes"]), name
