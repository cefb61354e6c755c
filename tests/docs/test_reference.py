"""The generated pages of docs/reference: the catalogue of errors, the fields of a run file, the RPCs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from tests.support.contracts import METHODS, SERVICES

import accord
from accord import plugins
from accord.controller import v1 as controller_v1
from accord.reasons import REASONS
from accord_controller.settings import ControllerSettings
from accord_controller.spec.catalog import SpecCatalog
from accord_controller.spec.defaults import resolve
from accord_controller.spec.validation import check
from reference import errors, reason_sites, rpcs, run_file
from reference.run_file_examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs/reference"
# Options of other programs that a remedy names.
FOREIGN = {"--logprobs-mode", "--max-restarts"}


@pytest.mark.parametrize(("name", "page"), [("errors", errors), ("run-file", run_file), ("rpcs", rpcs)])
def test_a_page_is_fresh(name: str, page: Any) -> None:
    assert (REFERENCE / f"{name}.md").read_text() == page.page(), "run `make generate`"


def test_the_catalogue_has_the_reasons_of_the_code_and_no_others() -> None:
    assert {site.reason for site in reason_sites.sites()} == REASONS.keys()


def test_the_computed_reasons_are_those_that_the_code_can_compute() -> None:
    sources = [path.read_text() for path in (ROOT / "services").rglob("*.py")]
    named = {what.upper() for source in sources for what in re.findall(r'\bnot_found\("(\w+)"', source)}
    assert reason_sites.COMPUTED["f'{what.upper()}_NOT_FOUND'"].keys() == {f"{what}_NOT_FOUND" for what in named}
    groups = re.findall(r'\[project\.entry-points\."accord\.(\w+)s"\]', (ROOT / "pyproject.toml").read_text())
    known = reason_sites.COMPUTED["f'UNKNOWN_{kind.upper()}'"].keys()
    assert known == {f"UNKNOWN_{group.upper()}" for group in groups} - {"UNKNOWN_DIALECT"}


def test_a_reason_that_the_catalogue_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "REASONS", {name: one for name, one in REASONS.items() if name != "RUN_NOT_FOUND"})
    with pytest.raises(SystemExit, match="lacks reasons that the code uses: RUN_NOT_FOUND"):
        errors.page()


def test_a_reason_that_no_code_uses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "REASONS", {**REASONS, "NEVER_USED": REASONS["ABORTED"]})
    with pytest.raises(SystemExit, match="has reasons that no code uses: NEVER_USED"):
        errors.page()


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_says_what_it_means_and_what_to_do(reason: str) -> None:
    assert reason_sites.REASON.fullmatch(reason)
    for text in (REASONS[reason].meaning, REASONS[reason].remedy):
        assert re.fullmatch(r"\S.*\.", text)
        assert len(text) < 250


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_reason_names_only_commands_options_and_calls_that_exist(reason: str) -> None:
    text = f"{REASONS[reason].meaning} {REASONS[reason].remedy}"
    commands = (REFERENCE / "cli.md").read_text()
    named = re.findall(r"`(accord [a-z -]+?)(?: --[a-z]+)?`", text)
    assert [name for name in named if f"\n## {name}\n" not in commands] == []
    known = commands + (REFERENCE / "settings.md").read_text()
    options = set(re.findall(r"--[a-z-]+", text)) - FOREIGN
    assert [option for option in options if not re.search(rf"`{option}[`,]", known)] == []
    calls = {method.name for method in METHODS}
    capitals = re.findall(r"\b[A-Z][a-z]+[A-Z][A-Za-z]+\b", text)
    others = {"ConfigMap", "OpenAI", "SQLite", "PostgreSQL"}
    assert [name for name in capitals if name not in calls | others and not name.startswith("LoRA")] == []
    fields = re.findall(r"`((?:rollout|policy|prompts)\.\w+)`", text)
    assert [field for field in fields if f"`{field}`" not in (REFERENCE / "run-file.md").read_text()] == []


def test_every_call_and_message_has_its_place_on_the_page() -> None:
    text = (REFERENCE / "rpcs.md").read_text()
    for service in SERVICES:
        for method in service.methods:
            assert f"\n### {service.name}.{method.name}\n" in text
    for message in rpcs.shared(SERVICES):
        assert f"\n### {message.full_name.removeprefix('accord.')}\n" in text


def test_deprecated_fields_name_what_replaces_them() -> None:
    text = (REFERENCE / "rpcs.md").read_text()
    assert "*deprecated: use `serving_replicas`*" in text
    assert "*deprecated: use `resident_weights`*" in text


def test_every_field_of_a_run_file_is_on_the_page_with_its_default() -> None:
    text = (REFERENCE / "run-file.md").read_text()
    for section in run_file.sections():
        for field in section.message.fields:
            assert f"`{run_file.written((*section.paths[0], field)).removesuffix('[]')}`<br>" in text
    assert "`policy.samplesPerPrompt`<br>integer | `4`<br>>= 1 | The number of samples for each prompt" in text


@pytest.mark.parametrize("number", range(5))
def test_the_examples_are_valid_run_files(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, in one file for each choice of alternatives: names, limits, options of plug-ins, combinations."""
    documents = [document for document, _ in _messages(controller_v1.RunSpec.DESCRIPTOR)]
    assert len(documents) == 5  # the sources of feedback, judges by url and by policy
    spec = documents[number]
    monkeypatch.chdir(tmp_path)
    for name in ("prompts.jsonl", "preferences.jsonl"):
        shutil.copy(ROOT / "examples" / name, tmp_path / name)
    head = {"apiVersion": "accord.dev/v1", "kind": "Run", "metadata": {"name": EXAMPLES["Run.run_id"]}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**head, "spec": spec}))
    run = accord.load_run(tmp_path / "run.yaml")
    check(run.run_id, resolve(run.spec), SpecCatalog(ControllerSettings(), {"helpful": controller_v1.Model()}))
    for group, name, options in (
        ("accord.algorithms", run.spec.policy.algorithm, run.spec.policy.options),
        ("accord.algorithms", run.spec.reward_model.algorithm, run.spec.reward_model.options),
    ):
        plugins.load(group, name).options_type.model_validate(MessageToDict(options))


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.md")), ids=lambda path: path.stem)
def test_tables_are_whole(path: Path) -> None:
    """Each row has as many cells as its header."""
    width = 0
    for line in path.read_text().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("| ") else 0
        assert not cells or not width or cells == width, line
        width = cells


def _messages(message: Descriptor) -> Iterator[tuple[dict[str, Any], None]]:
    """`message` with the examples of all its fields, once for each choice of alternatives."""
    groups = [group.fields for group in message.oneofs if len(group.fields) > 1]
    free = [[field] for field in message.fields if not any(field in group for group in groups)]
    for chosen in product(*groups, *free):
        for values in product(*(list(_values(field)) for field in chosen)):
            yield {field.json_name: value for field, value in zip(chosen, values, strict=True)}, None


def _values(field: FieldDescriptor) -> Iterator[Any]:
    inner = run_file.section_of(field)
    if inner is None:
        assert field.containing_type is not None
        yield yaml.safe_load(EXAMPLES[f"{field.containing_type.name}.{field.name}"])
        return
    for value, _ in _messages(inner):
        yield [value] if field.is_repeated else value


def test_the_parts_that_compute_reasons_exist() -> None:
    for reasons in reason_sites.COMPUTED.values():
        for part in {part for parts in reasons.values() for part in parts}:
            folder = ROOT / ("services" if part.startswith("accord_") else "clients/python") / part.replace(".", "/")
            assert folder.is_dir() or folder.with_suffix(".py").is_file(), part
