"""CONTRIBUTING.md: the skeletons run, the files that it names exist."""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from tests.docs.test_readme import ROOT
from tests.support.stage import stage_context

from accord.channel import open_channel
from accord.errors import InvalidArgument
from accord_runtime.serving.server import serving
from accord_runtime.serving.settings import ServiceSettings

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:services|clients|tests|docs|protos|scripts|examples)/[\w/.-]+)`", PAGE)))


def skeleton(name: str) -> str:
    """A code block of the page, by the comment before it."""
    found = re.search(rf"<!-- skeleton: {name} -->\n +```\w+\n(.*?)\n +```", PAGE, re.DOTALL)
    assert found is not None, name
    return textwrap.dedent(found[1])


@pytest.mark.parametrize("path", [path for path in NAMED if "NAME" not in path])
def test_a_file_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.process
async def test_stage_skeleton_does_its_work_once_however_often_it_is_entered(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(skeleton("stage"), "CONTRIBUTING.md", "exec"), names)
    async with stage_context(tmp_path) as (context, _):
        await names["curate"](context, 1)
        await names["curate"](context, 1)
        events = [event async for event in _events(context)]
        assert [event.message for event in events if event.kind == "stage_finished"] == ["curate"]


async def _events(context: Any) -> Any:
    for event in await context.store.events("demo", 0, 100):
        yield event


@pytest.mark.process
async def test_rpc_skeleton_serves_checks_fields_and_says_its_reason(tmp_path: Path) -> None:
    messages, calls = compiled(skeleton("proto"), tmp_path)
    names: dict[str, Any] = {"example_v1": messages, "example_v1_grpc": calls}
    exec(compile(skeleton("handler") + "\n\n" + skeleton("servicer"), "CONTRIBUTING.md", "exec"), names)

    class Example:
        service_names: Sequence[str] = ["accord.example.v1.ExampleService"]

        def register(self, server: grpc.aio.Server) -> None:
            calls.add_ExampleServiceServicer_to_server(names["ExampleServicer"](names["ExampleHandler"]()), server)

        async def close(self) -> None:
            """Nothing to free."""

    async with (
        serving(Example(), ServiceSettings(state_dir=tmp_path)) as address,
        open_channel(address) as channel,
    ):
        stub = calls.ExampleServiceStub(channel)
        assert (await stub.CountWords(messages.CountWordsRequest(text="one two"), timeout=10)).words == 2
        with pytest.raises(InvalidArgument) as empty:
            await stub.CountWords(messages.CountWordsRequest(), timeout=10)
        assert [violation.field for violation in empty.value.violations] == ["text"]
        with pytest.raises(InvalidArgument) as blank:
            await stub.CountWords(messages.CountWordsRequest(text="  "), timeout=10)
        assert blank.value.reason == "NO_WORDS"


def compiled(proto: str, folder: Path) -> tuple[ModuleType, ModuleType]:
    """The modules that protoc makes of a contract."""
    import google.api.field_behavior_pb2
    from grpc_tools import protoc

    (folder / "example.proto").write_text(proto)
    google = Path(google_root(google.api.field_behavior_pb2.__file__))
    code = protoc.main(
        ["protoc", f"-I{folder}", f"-I{google}", f"-I{files('grpc_tools') / '_proto'}", f"--python_out={folder}",
         f"--grpc_python_out={folder}", "example.proto"]
    )  # fmt: skip
    assert code == 0
    return loaded(folder, "example_pb2"), loaded(folder, "example_pb2_grpc")


def google_root(module: str | None) -> Path:
    """The folder that holds google/api, with its protos."""
    assert module is not None
    return Path(module).parents[2]


def loaded(folder: Path, name: str) -> ModuleType:
    """A module from a file, known under its name for those that import it."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
