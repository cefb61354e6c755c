"""Exit codes, help, and how quickly it comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.command import accord_command

from accord.cli.main import app, invoke

pytestmark = pytest.mark.process

COMMANDS = (
    ("up",), ("run",), ("annotate",), ("sample",), ("report",), ("gc",), ("conformance",),
    ("runs", "list"), ("runs", "get"), ("runs", "watch"), ("runs", "cancel"), ("runs", "pause"), ("runs", "resume"),
    ("runs", "swap-engine"),
    ("runs", "edit"),
    ("preferences", "import"), ("preferences", "export"), ("preferences", "stats"),
    ("preferences", "quality"),
    ("annotators", "list"), ("annotators", "exclude"), ("annotators", "reinstate"), ("annotators", "withdraw"),
    ("trace", "model"), ("trace", "answer"), ("trace", "annotator"), ("trace", "prompt"), ("trace", "snapshot"),
    ("models", "list"), ("models", "export"), ("models", "promote"), ("models", "rollback"),
    ("console", "invite"), ("console", "revoke"), ("console", "invites"),
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with the state folder where it is by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCORD_STATE_DIR", raising=False)
    return tmp_path


def test_help_imports_neither_torch_nor_grpc_nor_matplotlib() -> None:
    heavy = "torch", "grpc", "matplotlib", "google.protobuf", "transformers", "psutil"
    code = f"import sys, accord.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_is_there() -> None:
    single = {command.name for command in app.registered_commands}
    grouped = {
        (group.name, command.name)
        for group in app.registered_groups
        if group.typer_instance is not None
        for command in group.typer_instance.registered_commands
    }
    assert {(name,) for name in single} | grouped == set(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("run", "missing.yaml"),
        ("run", "--resume", "--set", "a=b"),
        ("report",),
        ("runs", "list", "--format", "xml"),
        ("sample", "base", " "),
        ("up", "nonsense"),
        ("preferences", "export", "-", "--snapshot", "x", "--source", "y"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_starts_nothing(here: Path, arguments: tuple[str, ...]) -> None:
    assert invoke(arguments) == 2
    assert not list(here.iterdir())


def test_a_wrong_run_file_is_told_before_anything_is_started(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.yaml").write_text(
        "apiVersion: accord.dev/v1\nkind: Run\nmetadata: {name: x}\nspec: {model: m, policy: {stepz: 3}}\n"
    )
    assert invoke(["run", "run.yaml"]) == 1
    said = capsys.readouterr().err
    assert "stepz" in said
    assert len(said.strip().splitlines()) == 1
    assert not (here / ".accord").exists()


async def test_errors_are_one_line_and_tracebacks_come_only_where_asked_for(tmp_path: Path) -> None:
    arguments = ("preferences", "import", "missing.jsonl")
    plain = await accord_command(tmp_path, *arguments)
    assert (plain.code, plain.err) == (1, "accord: no file at missing.jsonl [NO_FILE]\n")
    assert "Traceback" in (await accord_command(tmp_path, "--debug", *arguments)).err


async def test_a_controller_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_CONTROLLER_LAUNCHER", "nonsense")
    ran = await accord_command(tmp_path, "runs", "list")
    assert ran.code == 1
    assert "launcher" in ran.err
    assert ran.err.strip().endswith("[CONTROLLER_NOT_STARTED]")
    assert len(ran.err.strip().splitlines()) == 1


def test_without_its_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from accord.cli.script import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "accord: the command line is not installed. Install it with: pip install 'accord-rlhf[cli]'\n"
