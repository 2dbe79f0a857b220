"""What docker/mpijob.yaml and docs/clusters.md say: against the operator's schema, our images, and the commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from in_process import ran

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "tests" / "mpijob-v2beta1.json").read_text())
IMAGE = (ROOT / "docker" / "mpijob.Dockerfile").read_text()
PAGE = ROOT / "docs" / "clusters.md"
TEXT = PAGE.read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def objects() -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra docs)")
    return list(yaml.safe_load_all((ROOT / "docker" / "mpijob.yaml").read_text()))


@pytest.fixture
def job(objects: list[Any]) -> Any:
    return json.loads(json.dumps(objects[1]))  # its own in every place: YAML's anchors share


# --- the manifest against the schema ----------------------------------------------------------------------------------


def complaints(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """What Kubernetes would refuse by this schema, and unknown fields, which `kubectl` refuses."""
    if "anyOf" in schema:
        fits = any(not complaints(value, one) for one in schema["anyOf"])
        text = isinstance(value, str) and "pattern" in schema
        if not fits or (text and not re.search(schema["pattern"], value)):
            return [f"{at}: {value!r} is no quantity"]
        return []
    kind = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{at}: {value!r} is no {schema['type']}"]
    if kind is int and not abs(value) < 2 ** (31 if schema.get("format") == "int32" else 63):
        return [f"{at}: {value} is too large"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    if kind is list:
        return [one for i, item in enumerate(value) for one in complaints(item, schema["items"], f"{at}[{i}]")]
    if kind is not dict:
        return []
    found = [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
    known, others = schema.get("properties"), schema.get("additionalProperties")
    for name, item in value.items():
        if known is None and others is None:  # metadata: Kubernetes has a schema of its own for it
            continue
        one = (known or {}).get(name, others)
        found += [f"{at}: {name} is unknown"] if one is None else complaints(item, one, f"{at}.{name}")
    return found


def test_the_manifest_is_what_the_operator_takes(objects):
    volume, job = objects
    assert complaints(job, SCHEMA) == []
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    assert set(job["spec"]["mpiReplicaSpecs"]) == {"Launcher", "Worker"}
    # what the schema leaves open and the operator's own validation does not (pkg/apis/kubeflow/validation)
    assert job["spec"]["mpiReplicaSpecs"]["Launcher"]["replicas"] == 1
    assert {one["restartPolicy"] for one in job["spec"]["mpiReplicaSpecs"].values()} <= {"Never", "OnFailure"}
    name = job["metadata"]["name"]  # of a Service, with -worker-N behind it the name of a host
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(f"{name}-worker-9999") <= 63
    assert (volume["apiVersion"], volume["kind"]) == ("v1", "PersistentVolumeClaim")
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


WORKER = ("mpiReplicaSpecs", "Worker")
BROKEN = {
    "a name in another case": ((), "slotsPerworker", 1, "slotsPerworker is unknown"),
    "text for a number": ((), "slotsPerWorker", "1", "slotsPerWorker: '1' is no integer"),
    "a truth for a number": (WORKER, "replicas", True, "replicas: True is no integer"),
    "an MPI that there is not": ((), "mpiImplementation", "mpich", "'mpich' is none of"),
    "a policy outside its place": ((), "cleanPodPolicy", "Running", "cleanPodPolicy is unknown"),
    "a number too large": (("runPolicy",), "backoffLimit", 2**31, "is too large"),
    "no list": ((*WORKER, "template", "spec"), "volumes", {}, "volumes: {} is no array"),
    "no quantity": (
        (*WORKER, "template", "spec", "containers", 0, "resources", "limits"), "memory", "32 GB", "is no quantity",
    ),
    "no user": ((*WORKER, "template", "spec", "securityContext"), "runAsUser", "gpubp", "'gpubp' is no integer"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_manifest_that_is_wrong_is_seen_to_be(job, how):
    path, name, value, words = BROKEN[how]
    place = job["spec"]
    for step in path:
        place = place[step]
    place[name] = value
    found = complaints(job, SCHEMA)
    assert len(found) == 1 and words in found[0], found


def test_what_has_to_be_there_is_missed(job):
    del job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert complaints(job, SCHEMA) == [".spec.mpiReplicaSpecs.Worker.template.spec: containers is missing"]
    del job["spec"]["mpiReplicaSpecs"]
    assert complaints(job, SCHEMA) == [".spec: mpiReplicaSpecs is missing"]


# --- the manifest against our images ----------------------------------------------------------------------------------


def pods(job: Any) -> dict[str, Any]:
    return {role: one["template"]["spec"] for role, one in job["spec"]["mpiReplicaSpecs"].items()}


def test_pods_run_as_the_images_user_with_a_read_only_root_and_no_privileges(job):
    user = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    assert re.findall(r"^USER (\d+):(\d+)$", IMAGE, re.M) == user and len(user) == 1
    for spec in pods(job).values():
        as_user = spec["securityContext"]
        assert as_user["runAsNonRoot"] is True and not spec["automountServiceAccountToken"]
        assert [(str(as_user["runAsUser"]), str(as_user["runAsGroup"]))] == user
        (container,) = spec["containers"]
        limits = container["securityContext"]
        assert limits["readOnlyRootFilesystem"] and limits["allowPrivilegeEscalation"] is False
        assert limits["capabilities"] == {"drop": ["ALL"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert "/tmp" in mounts and set(mounts.values()) == {one["name"] for one in spec["volumes"]}


def test_keys_port_and_volume_have_one_name_each(job, objects):
    home = re.search(r"--home (\S+) gpubp", IMAGE)
    assert home and job["spec"]["sshAuthMountPath"] == f"{home[1]}/.ssh"
    assert f"HostKey {home[1]}/.ssh/id_rsa'" in IMAGE and f'" {home[1]}/.ssh/id_rsa.pub' in IMAGE
    ports = re.findall(r"Port (\d+)'", IMAGE)
    worker = pods(job)["Worker"]
    assert ports == [str(worker["containers"][0]["readinessProbe"]["tcpSocket"]["port"])] * 2 and int(ports[0]) > 1023
    claims = [one["persistentVolumeClaim"]["claimName"] for one in worker["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [objects[0]["metadata"]["name"]]
    assert {one["containers"][0]["image"] for one in pods(job).values()} == {"registry.example/gpubp:mpijob"}
    assert "-t registry.example/gpubp:mpijob" in IMAGE


def test_the_launcher_waits_for_every_name_and_then_starts_the_training(job, tmp_path):
    """Its script, with stand-ins for getent, which knows the second host only when asked again, and for mpiexec."""
    (launcher,) = pods(job)["Launcher"]["containers"]
    assert launcher["command"] == ["sh", "-euc"] and [one["name"] for one in launcher["env"]] == ["POD_IP"]
    (script,) = launcher["args"]
    (tmp_path / "hostfile").write_text("gpubp-worker-0.gpubp.default.svc:1\ngpubp-worker-1.gpubp.default.svc:1\n")
    asked = tmp_path / "asked"
    for name, text in {
        "getent": f'echo "$2" >> {asked}; [ "$2" != gpubp-worker-1.gpubp.default.svc ] || [ -e {asked}.1 ] || '
        f"{{ touch {asked}.1; exit 2; }}",
        "sleep": "",
        "mpiexec": 'printf "%s\\n" "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert "/etc/mpi/hostfile" in script
    done = subprocess.run(
        ["sh", "-euc", script.replace("/etc/mpi/hostfile", str(tmp_path / "hostfile"))],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "POD_IP": "10.1.2.3"},
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    out = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert out[:4] == ["waiting for the name gpubp-worker-1.gpubp.default.svc", "-localhost", "10.1.2.3", "gpubp"]
    assert [host[13] for host in asked.read_text().splitlines()] == ["0", "1", "1"]
    known = set(re.findall(r"--[\w-]+", ran("train", "--help").stdout))
    assert out[4] == "train" and {word for word in out if word.startswith("--")} <= known and "--resume" in out


def test_every_dockerfile_is_linted_and_is_clean():
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docker").glob("*Dockerfile"))
    dev = (ROOT / "scripts" / "dev").read_text()
    assert len(files) == 2 and all(f'"{file}"' in dev for file in files)
    hadolint = Path(sys.prefix) / "bin" / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (extra dev)")
    done = subprocess.run([hadolint, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- the page ---------------------------------------------------------------------------------------------------------


def test_shell_lines_of_the_page_parse_and_name_files_that_are_there():
    done = subprocess.run(["bash", "-n"], input="\n".join(LINES), text=True, capture_output=True)
    assert done.stderr == "" and len(LINES) > 10
    for path in re.findall(r"(?:scripts|docker|benchmarks)/[\w.]+", TEXT):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!https:)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target


def test_trainings_of_the_page_are_lines_that_gpubp_understands():
    trainings = [line.partition(" train ")[2] for line in LINES if " train " in line]
    assert len(trainings) >= 6
    known = set(re.findall(r"--[\w-]+", ran("train", "--help").stdout))
    for line in trainings:
        assert {word for word in shlex.split(line, comments=True) if word.startswith("--")} <= known, line
