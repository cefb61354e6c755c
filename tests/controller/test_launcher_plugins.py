"""Launchers plug in by entry point, and only the chosen one is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from accord.errors import FailedPrecondition
from accord_controller.launchers.factory import make_launcher
from accord_controller.launchers.kubernetes.launcher import KubernetesLauncher
from accord_controller.launchers.launcher import RolloutSet
from accord_controller.launchers.local.launcher import LocalLauncher
from accord_controller.launchers.static import StaticAddresses
from accord_controller.settings import ControllerSettings

pytestmark = pytest.mark.process

PLUGIN = """
from accord_controller.launchers.static import StaticAddresses
class Slurm(StaticAddresses):
    starts_services = True
    shares_plugins = False
    async def ensure_rollouts(self, wanted, on_restart=None):
        return [f"{wanted.engine}-{number}.slurm:7001" for number in range(wanted.replicas)]
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("local", LocalLauncher), ("kubernetes", KubernetesLauncher), ("none", StaticAddresses)]
)
def test_a_launcher_is_chosen_by_its_name(name: str, kind: type, tmp_path: Path) -> None:
    assert type(make_launcher(ControllerSettings(state_dir=tmp_path, launcher=name))) is kind


def test_an_unknown_launcher_is_refused_with_those_that_are_available(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="unknown launcher 'nomad'; available: kubernetes, local, none"):
        ControllerSettings(state_dir=tmp_path, launcher="nomad")


async def test_a_third_party_launcher_plugs_in_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "slurm-1.0.dist-info").mkdir(parents=True)
    (site / "slurm-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slurm\nVersion: 1.0\n")
    (site / "slurm-1.0.dist-info" / "entry_points.txt").write_text(
        "[accord.launchers]\nslurm = slurm_launcher:Slurm\nbroken = slurm_missing:Missing\n"
    )
    (site / "slurm_launcher.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    launcher = make_launcher(ControllerSettings(state_dir=tmp_path, launcher="slurm"))
    assert await launcher.ensure_rollouts(RolloutSet("vllm", 2)) == ["vllm-0.slurm:7001", "vllm-1.slurm:7001"]
    with pytest.raises(FailedPrecondition, match="slurm_missing") as refused:
        make_launcher(ControllerSettings(state_dir=tmp_path, launcher="broken"))
    assert refused.value.reason == "PLUGIN_BROKEN"


def test_launchers_that_are_not_chosen_are_not_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from accord_controller import service;"
        "from accord_controller.launchers.factory import make_launcher;"
        "from accord_controller.settings import ControllerSettings;"
        "make_launcher(ControllerSettings(launcher='none', state_dir=sys.argv[1]));"
        "print([name for name in sys.modules if name == 'kubernetes' or "
        "name.startswith(('accord_controller.launchers.local', 'accord_controller.launchers.kubernetes'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_a_launcher_says_whether_it_can_start_engines_and_whether_it_has_the_plugins_of_the_controller(
    tmp_path: Path,
) -> None:
    traits = {}
    for name in ("local", "kubernetes", "none"):
        launcher = make_launcher(ControllerSettings(state_dir=tmp_path, launcher=name))
        traits[name] = (launcher.starts_services, launcher.shares_plugins)
    assert traits == {"local": (True, True), "kubernetes": (True, False), "none": (False, True)}
