"""What a release is made with: the workflows, the bill of materials, the list of licences, the changelog."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import tomllib
from collections import Counter
from datetime import date
from types import ModuleType
from typing import Any

import pytest
from running import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
LOCKED = {(package["name"], package["version"]): package for package in LOCK if package["name"] != "gpubp"}
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


# --- the workflows --------------------------------------------------------------------------------------------------


def workflow(name: str) -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())


def starts(found: dict[Any, Any]) -> set[str]:
    """What starts a workflow; YAML 1.1 reads the key `on` as true."""
    return set(found[True])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_may_no_more_than_it_must_and_its_actions_are_pinned(path):
    found = workflow(path.name)
    assert found["permissions"] == {"contents": "read"}
    allowed = {("release.yml", "publish"): {"id-token": "write"}}
    for name, job in found["jobs"].items():
        assert job.get("permissions") == allowed.get((path.name, name))
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"]), f"{step['uses']} is not pinned"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            # what a stranger can choose, a branch's name for example, never becomes part of a command
            assert "${{" not in step.get("run", "")
    # a pin without the name of its release tells nobody what it is
    uses = re.findall(r"uses: \S+(.*)", path.read_text())
    assert uses and all(re.fullmatch(r" # v\d+\.\d+\.\d+", rest) for rest in uses)
    assert "secrets." not in path.read_text() and "pull_request_target" not in path.read_text()


def test_the_check_on_github_is_the_check_everywhere():
    found = workflow("ci.yml")
    job = found["jobs"]["check"]
    assert starts(found) == {"push", "pull_request", "workflow_dispatch"} and found["concurrency"]["cancel-in-progress"]
    assert job["steps"][-1] == {"run": "bash .ci/run"} and job["timeout-minutes"] == 60
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == pythons


def test_a_release_does_not_begin_by_itself():
    found = workflow("release.yml")
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    assert starts(found) == {"workflow_dispatch"}, "no push and no tag begins one"
    assert build["if"] == publish["if"] == "github.ref_type == 'tag'"
    assert publish["needs"] == "build" and publish["environment"] == "pypi"
    commands = [step.get("run", "") for step in build["steps"]]
    before = {step.get("run") for step in workflow("ci.yml")["jobs"]["check"]["steps"]} - {None}
    assert before <= set(commands), "a release is checked with all that a change is checked with"
    checked = next(i for i, line in enumerate(commands) if "gpubp.__version__" in line)
    assert checked < commands.index("bash .ci/run") < next(i for i, c in enumerate(commands) if "hatchling build" in c)


# --- the bill of materials and the licences -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """scripts/make_sbom."""
    loader = importlib.machinery.SourceFileLoader("make_sbom", str(ROOT / "scripts" / "make_sbom"))
    spec = importlib.util.spec_from_loader("make_sbom", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bill(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sbom") / "gpubp.cdx.json"
    assert maker.main(["-o", str(path)]) == 0
    again = path.with_suffix(".again")
    assert maker.main(["-o", str(again)]) == 0 and again.read_bytes() == path.read_bytes()
    return json.loads(path.read_text())


# bom-1.6.schema.json of CycloneDX (Ecma-424): what it requires of the objects used here, and which keys they may have
REQUIRED = {
    "bom": {"bomFormat", "specVersion"},
    "component": {"type", "name"},
    "reference": {"url", "type"},
    "hash": {"alg", "content"},
    "dependency": {"ref"},
}
KNOWN = {
    "bom": {"$schema", "bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"},
    "component": {"type", "bom-ref", "name", "version", "description", "scope", "licenses", "purl",
                  "externalReferences", "properties"},
    "reference": {"url", "type", "hashes", "comment"},
    "hash": {"alg", "content"},
    "dependency": {"ref", "dependsOn"},
}  # fmt: skip


def fits(kind: str, found: dict[str, Any]) -> bool:
    return REQUIRED[kind] <= set(found) <= KNOWN[kind]


def test_the_bill_is_cyclonedx(bill: dict[str, Any]):
    assert fits("bom", bill) and (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    uuid = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, bill["serialNumber"])
    components = [bill["metadata"]["component"], *bill["components"]]
    for one in components:
        assert fits("component", one) and one["type"] in ("application", "library")
        assert one["bom-ref"] == one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"
        assert one.get("scope", "required") in ("required", "optional", "excluded")
        for licence in one.get("licenses", ()):
            assert len(licence) == 1 and (licence.get("expression") or licence["license"]["name"])
        for reference in one.get("externalReferences", ()):
            assert fits("reference", reference) and reference["type"] == "distribution"
            assert all(fits("hash", h) and re.fullmatch("[0-9a-f]{64}", h["content"]) for h in reference["hashes"])
    refs = Counter(one["bom-ref"] for one in components)
    assert max(refs.values()) == 1, "a bom-ref is unique"
    assert all(fits("dependency", one) for one in bill["dependencies"])
    assert [one["ref"] for one in bill["dependencies"]] == list(refs)
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} <= set(refs)


def test_the_bill_has_every_package_and_file_of_the_lock(bill: dict[str, Any]):
    found = {(one["name"], one["version"]): one for one in bill["components"]}
    assert set(found) == set(LOCKED) and len(found) > 100
    for key, package in LOCKED.items():
        files = [*([package["sdist"]] if "sdist" in package else []), *package["wheels"]]
        hashes = {ref["url"]: f"sha256:{ref['hashes'][0]['content']}" for ref in found[key]["externalReferences"]}
        assert hashes == {file["url"]: file["hash"] for file in files}


def test_the_bill_tells_what_is_always_there_from_what_is_asked_for_and_from_tools(bill: dict[str, Any]):
    scopes: dict[str, set[str]] = {}
    for one in bill["components"]:
        scopes.setdefault(one["scope"], set()).add(one["name"])
    # colorama is Click's on Windows, which the lock covers too
    assert scopes["required"] == {"numpy", "click", "h5py"} | (scopes["required"] & {"colorama"})
    assert {"matplotlib", "numba", "mkl", "cupy-cuda13x", "nvidia-cublas", "llvmlite"} <= scopes["optional"]
    assert {"pytest", "ruff", "mkdocs", "playwright"} <= scopes["excluded"]
    depends = {one["ref"].partition("@")[0]: one["dependsOn"] for one in bill["dependencies"]}
    assert any("llvmlite@" in ref for ref in depends["pkg:pypi/numba"])


def test_the_list_of_licences_is_that_of_the_lock(maker: ModuleType):
    """Stale? scripts/make_sbom --licences."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \| (.+?) \|$", maker.PAGE.read_text(), re.M)
    assert {(name, version) for name, version, _, _ in rows[1:]} == set(LOCKED)
    uses = maker.used_by(LOCK)
    assert maker.PAGE.read_text() == maker.page(uses, maker.listed(maker.PAGE)), "and what each is for"
    licences = {name: licence for name, _, licence, _ in rows}
    assert licences["h5py"] == licences["click"] == "BSD-3-Clause"


def test_a_licence_is_said_in_a_line(maker: ModuleType):
    said = maker.said
    text = "Copyright (c) 2001\n\nRedistribution and use …"
    assert said("MIT", "other words", []) == "MIT"
    assert said(None, "BSD 3-Clause License", []) == "BSD 3-Clause License"
    assert said(None, text, ["License :: OSI Approved :: BSD License"]) == "BSD License"
    assert said(None, "UNKNOWN", ["License :: OSI Approved"]) == "" and said(None, text, []) == ""
    assert maker.licence_of("Apache-2.0 OR BSD-2-Clause") == {"expression": "Apache-2.0 OR BSD-2-Clause"}
    assert maker.licence_of("BSD License") == {"license": {"name": "BSD License"}}


# --- the changelog --------------------------------------------------------------------------------------------------

CATEGORIES = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # Keep a Changelog 1.1.0, "How?"


def faults(text: str) -> list[str]:
    """What of a changelog is not as Keep a Changelog 1.1.0 has it."""
    found = [] if text.startswith("# Changelog\n") and "keepachangelog.com" in text else ["no title, or no form named"]
    parts = re.split(r"^## ", text, flags=re.M)[1:]
    heads = [part.partition("\n")[0] for part in parts]
    if heads[:1] != ["[Unreleased]"]:
        found.append("the newest part is not [Unreleased]")
    release = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)(?: \[YANKED\])?")
    released = [release.fullmatch(head) for head in heads[1:]]
    found += [f"'## {head}' is no release" for head, match in zip(heads[1:], released, strict=True) if not match]
    order = [(tuple(map(int, m.groups()[:3])), date.fromisoformat(m[4])) for m in released if m]
    if order != sorted(order, reverse=True) or len({version for version, _ in order}) < len(order):
        found.append("releases are not newest first")
    for head, part in zip(heads, parts, strict=True):
        named = re.findall(r"^### (.*)$", part, re.M)
        places = [CATEGORIES.index(name) for name in named if name in CATEGORIES]
        if len(places) < len(named) or places != sorted(set(places)):
            found.append(f"{head} has {', '.join(named)}; wanted some of {', '.join(CATEGORIES)}, in that order, once")
        for name, body in zip(named, re.split(r"^### .*$", part, flags=re.M)[1:], strict=True):
            if not re.match(r"\n+- ", body):
                found.append(f"{head}, {name}: wanted a list")
    return found


def test_the_changelog_has_its_form():
    assert faults(CHANGELOG) == []


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("# Changelog\n", "# Changes\n"),
        ("## [Unreleased]\n", "## [0.2.0] - 2026-01-01\n"),
        ("### Changed\n", "### Improved\n"),
        ("### Changed\n", "### Added\n"),
        ("### Added\n\n- ", "### Added\n\n"),
        ("### Added\n", "### Fixed\n\n- x\n\n### Added\n"),
        ("\n## [Unreleased]\n", "\n## [Unreleased]\n\n## [0.2]\n"),
        ("\n## [Unreleased]\n", "\n## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n## [0.2.0] - 2026-02-01\n"),
    ],
)
def test_a_changelog_of_another_form_is_noticed(was: str, becomes: str):
    assert was in CHANGELOG and faults(CHANGELOG.replace(was, becomes, 1))


def test_a_changelog_with_releases_is_right_too():
    part = "\n## [0.2.0] - 2026-02-01\n\n### Fixed\n\n- x\n\n## [0.1.0] - 2026-01-01\n\n### Added\n\n- y\n"
    assert faults(CHANGELOG + part) == []


def test_the_version_that_is_released_is_the_newest_of_the_changelog():
    """Between releases the version is the last one's, or that of the first to come."""
    import gpubp

    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG, re.M)
    assert gpubp.__version__ == (released[0] if released else "0.1.0")
