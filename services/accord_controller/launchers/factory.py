"""Loads the launcher that the settings name, by its entry point. Only the chosen one is imported."""

from __future__ import annotations

from accord import plugins
from accord_controller.launchers.launcher import Launcher, LauncherFactory
from accord_controller.settings import LAUNCHERS, ControllerSettings


def make_launcher(settings: ControllerSettings) -> Launcher:
    """FailedPrecondition, PLUGIN_BROKEN, if its package or extra is missing."""
    factory: LauncherFactory = plugins.load(LAUNCHERS, settings.launcher, field="launcher")
    return factory(settings)
