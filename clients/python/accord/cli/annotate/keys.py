"""Reads keys and lines from a terminal or a pipe without blocking the event loop; restores the terminal."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import stat
import sys
from types import TracebackType
from typing import Any, Self

END = ""
_ESCAPE_SEQUENCES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
_CTRL_D = "\x04"


class Keys:
    """An async context. In a terminal, `key` needs no Enter. `END` means that the input has ended (Ctrl-D)."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.terminal = os.isatty(self._descriptor)
        self._pending = ""
        self._ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._saved: list[Any] | None = None

    async def __aenter__(self) -> Self:
        if self.terminal:
            import termios

            self._saved = termios.tcgetattr(self._descriptor)
            self._single_keys()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole_lines()

    async def key(self) -> str:
        """The next key, lower-case; skips white space and escape sequences such as arrow keys."""
        while True:
            self._pending = self._pending.lstrip()
            if self._pending:
                key, self._pending = self._pending[0], self._pending[1:]
                return END if key == _CTRL_D else key.lower()
            if not await self._more():
                return END

    async def line(self) -> str | None:
        """The next line, stripped; None when the input has ended."""
        self._whole_lines()
        try:
            while "\n" not in self._pending:
                if not await self._more():
                    rest, self._pending = self._pending.strip(), ""
                    return rest or None
            line, self._pending = self._pending.split("\n", 1)
            return line.strip()
        finally:
            self._single_keys()

    async def _more(self) -> bool:
        """Reads what is available; False at the end."""
        if self._ended:
            return False
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            await self._readable()
        data = os.read(self._descriptor, 4096)
        self._ended = not data
        text = self._decoder.decode(data, final=not data)
        self._pending += _ESCAPE_SEQUENCES.sub("", text)
        return bool(data)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _once, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._descriptor)

    def _single_keys(self) -> None:
        if self._saved is not None:
            import tty

            tty.setcbreak(self._descriptor)

    def _whole_lines(self) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)


def _once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
