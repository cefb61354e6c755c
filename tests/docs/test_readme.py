"""Every command and every path in the README exists: subcommands and flags by --help, make targets, files, modules."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SHELL = ("sh", "bash", "shell", "console")
# Commands of other people's tools that an example may use.
FOREIGN = {
    "cd",
    "git",
    "kill",
    "pkill",
    "cat",
    "ls",
    "head",
    "grpcurl",
    "export",
    "source",
    ".",
    "pip",
    "docker",
    "kubectl",
    "kind",
}


@dataclass(frozen=True)
class Command:
    line: int
    text: str

    def words(self) -> list[str]:
        """Without leading VARIABLE=value, and cut at the first pipe, redirection or `&`."""
        found: list[str] = []
        for word in shlex.split(self.text, comments=True):
            if word in ("|", ">", ">>", "<", "&", "&&", ";"):
                break
            if found or not re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", word):
                found.append(word)
        return found


def commands() -> list[Command]:
    """The commands of the README's shell blocks; in `console` blocks only lines that start with `$ `."""
    found: list[Command] = []
    language: str | None = None
    joined = ""
    for number, line in enumerate(README.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"\s*```\s*(\w*)", line)
        if fence:
            language = None if language is not None else fence[1] or "text"
        elif language in SHELL:
            text = joined + line.strip()
            if language == "console" and not joined and not text.startswith("$ "):
                continue
            if text.endswith("\\"):
                joined = text.removesuffix("\\")
                continue
            joined = ""
            text = text.removeprefix("$ ")
            if text and not text.startswith("#"):
                found.append(Command(number, text))
    return found


@cache
def help_of(*command: str) -> str:
    """What `command --help` prints, without colours; fails the test when it does not exist."""
    done = subprocess.run(
        [*command, "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    assert done.returncode == 0, f"`{' '.join(command)} --help` fails: {done.stderr or done.stdout}"
    return done.stdout


def check_flags(words: list[str], text: str) -> None:
    for word in words:
        if word.startswith("--"):
            flag = word.partition("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), f"{flag} is not in the help"


def check_accord(words: list[str]) -> None:
    """`accord preferences import FILE --source x`: follows subcommands as long as the help lists them."""
    command = [str(Path(sys.executable).with_name("accord"))]
    rest = words[1:]
    while rest and not rest[0].startswith("-"):
        text = help_of(*command)
        listed = re.search(r"(?ms)^\W*Commands\W*$(.*)", text) or re.search(r"(?s)Commands(.*)", text)
        if listed is None:
            break
        assert re.search(rf"(?m)^\W*{re.escape(rest[0])}\s", listed[1]), f"{rest[0]} is no subcommand of {command[1:]}"
        command.append(rest.pop(0))
    check_flags(rest, help_of(*command))


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"(?m)^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for word in words[1:]:
        assert "=" in word or word in targets, f"make has no target {word}"


def check_python(words: list[str]) -> None:
    if words[1] == "-m":
        if words[2] not in ("venv", "pip"):
            check_flags(words[3:], help_of(sys.executable, "-m", words[2]))
        return
    script = ROOT / words[1]
    assert script.is_file(), f"{words[1]} does not exist"
    check_flags(words[2:], help_of(sys.executable, str(script)))


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"line {command.line}: {command.text}")
def test_a_command_of_the_readme_exists(command: Command) -> None:
    words = command.words()
    if not words:
        return
    program = Path(words[0]).name or words[0]
    if program == "accord":
        check_accord(words)
    elif program == "make":
        check_make(words)
    elif program.startswith("python"):
        check_python(words)
    else:
        assert program in FOREIGN, f"{program} is not known here: check it, or list it among the foreign tools"


def test_the_readme_says_how_to_start_and_how_to_test() -> None:
    texts = [command.text for command in commands()]
    assert any(text.startswith("make demo") for text in texts)
    assert any(text.startswith("make test") for text in texts)


def test_every_relative_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]+)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in missing if not (ROOT / link).exists()] == []


def test_the_layout_of_the_readme_is_that_of_the_repository() -> None:
    """Every folder and file of the section exists, those in a description below the folder that it describes."""
    (layout,) = re.findall(r"(?s)## Repository layout\n+```\n(.*?)```", README.read_text(encoding="utf-8"))
    folder = ""
    for line in layout.splitlines():
        places, description = line[:31].split(), line[31:]
        if line[30:31].strip():
            places, description = line.split(), ""
        for place in places:
            assert list(ROOT.glob(place)), place
            folder = place
        for name in re.findall(r"[\w{},./]+(?:/|\.py|\})(?![\w{])", description):
            for one in braces(name):
                assert [*ROOT.glob(f"{folder}/{one}"), *ROOT.glob(f"{folder}/{one}.py")], f"{folder}/{one}"


def braces(text: str) -> list[str]:
    """`a/{b,c}.py` -> `a/b.py`, `a/c.py`."""
    found = re.search(r"\{([^{}]*)\}", text)
    if found is None:
        return [text]
    return [one for part in found[1].split(",") for one in braces(text[: found.start()] + part + text[found.end() :])]
