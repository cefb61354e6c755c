"""Find private words that have a standard term, in messages, docstrings, comments, contracts, pages and documents.

    python scripts/house_words.py                 the whole tree; exit code 1 if a word is found
    python scripts/house_words.py PATH ...        only these files and folders
    python scripts/house_words.py --count         one line: the number of words and of files

docs/glossary.md has the term to use instead. Python code is read by token: only texts are checked, not names. A line
that must keep a word (the old name of a published field, a quotation) goes into ALLOWED with its file.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# word -> what to write instead
WORDS: dict[str, str] = {
    r"in force": "active (or: current, effective)",
    r"draws?|drawn|drawing": "sample, generate; serve (for a replica)",
    r"told": "distinguish, report, set, request",
    r"there (?:is|are):": "available:",
    r"whoever": "the caller, a client, anyone who",
    r"go(?:es)? on|went on|going on": "continue",
    r"so many": "the number",
    r"of (?:its|their|his|her) own": "its own X, a separate X",
    r"newcomers?": "candidate",
    r"some ?body|nobody|anybody": "another client, no one, a caller",
    r"cannot be had|to be had": "is not available",
    r"what there is": "what is available",
    r"at work": "active, running",
    r"besides": "also, in addition",
    r"takes? (?:it |them )?up": "resume, continue",
    r"is failed|are failed": "failed",
    r"lies|lie": "is, are stored",
    r"that there is not|which there is not": "that does not exist",
}
PATTERN = re.compile(
    r"\b(?:" + "|".join(f"(?P<w{i}>{word})" for i, word in enumerate(WORDS)) + r")(?![\w])", re.IGNORECASE
)
SUGGESTIONS = list(WORDS.values())

# Texts that people read, without tests and without generated code, which repeats its source.
PLACES = (
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile", "pyproject.toml",
    "docs", "protos", "clients/python", "services", "scripts", "examples", "benchmarks", "k8s",
)  # fmt: skip
SUFFIXES = (".py", ".md", ".proto", ".html", ".js", ".ts", ".j2", ".yaml", ".yml", ".sh", ".toml", ".mako")
LEFT_OUT = re.compile(r"_pb2|/v1/__init__\.py$|sync\.pyi$|^scripts/house_words\.py$|^docs/glossary\.md$")

# (file, text in the line): lines that keep a word, with the reason.
ALLOWED: tuple[tuple[str, str], ...] = (
    # The former name of a class.
    ("CHANGELOG.md", "(was `Drawn`)"),
    # The workload of a benchmark, which must not change.
    ("benchmarks/workload.py", "why anybody would want"),
    # A published field, deprecated.
    ("docs/reference/rpcs.md", "| `drawing` |"),
    # The published name of a check.
    ("docs/engine-contract.md", "an-update-is-told"),
)


def files(chosen: list[str]) -> Iterator[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *(chosen or PLACES)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in sorted(set(listed)):
        if (name.endswith(SUFFIXES) or name == "Makefile") and not LEFT_OUT.search(name) and (ROOT / name).is_file():
            yield name


def texts(name: str) -> Iterator[tuple[int, str]]:
    """(line, text) of all prose in the file and of all text that may be shown."""
    content = (ROOT / name).read_text()
    if name.endswith(".proto"):
        for number, line in enumerate(content.splitlines(), 1):
            if "//" in line:
                yield number, line.split("//", 1)[1]
    elif not name.endswith(".py"):
        yield from enumerate(content.splitlines(), 1)
    else:
        kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type in kinds:
                for offset, line in enumerate(token.string.splitlines()):
                    yield token.start[0] + offset, line


def findings(name: str) -> Iterator[tuple[int, str, str]]:
    """(line, word, what to write instead)."""
    source = (ROOT / name).read_text().splitlines()
    for number, text in texts(name):
        for match in PATTERN.finditer(text):
            if any(name == file and part in source[number - 1] for file, part in ALLOWED):
                continue
            which = next(int(group[1:]) for group, found in match.groupdict().items() if found)
            yield number, match[0], SUGGESTIONS[which]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--count", action="store_true")
    given = parser.parse_args()
    found = [(name, *finding) for name in files(given.paths) for finding in findings(name)]
    if given.count:
        print(f"{len(found)} in {len({name for name, *_ in found})} files")
        return
    for name, line, word, suggestion in found:
        print(f"{name}:{line}: {word!r}: write {suggestion}")
    if found:
        sys.exit(f"{len(found)} private words; docs/glossary.md has the terms")


if __name__ == "__main__":
    main()
