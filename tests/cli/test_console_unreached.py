"""A console that does not answer as expected is told in words, not as a traceback."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from accord import discovery
from accord.cli.commands.console import _call
from accord.errors import Unavailable


def test_a_console_that_hangs_up_on_plain_http_is_named_with_a_way_out(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        # As a TLS server does where it is spoken to in plain HTTP.
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        discovery.write(tmp_path, "console", address, token="operator")
        with pytest.raises(Unavailable, match="Use its People page") as caught:
            _call(tmp_path, "/people")
    assert address in caught.value.message
