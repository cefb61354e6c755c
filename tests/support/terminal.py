"""The `accord` command in a pseudo-terminal: reads the screen, presses keys, as a person does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.command import COMMAND, environment

_STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A running command and its screen."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.raw = b""
        self.ended = False
        self._read = 0

    @property
    def text(self) -> str:
        """All that was shown, without styles."""
        return _STYLES.sub("", self.raw.decode(errors="replace")).replace("\r\n", "\n")

    async def expect(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Waits until the pattern shows up after what was expected before."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    text = self.text
                    found = re.compile(pattern, re.DOTALL).search(text, self._read)
                    if found:
                        self._read = found.end()
                        return found
                    if self.ended:
                        raise TimeoutError
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{pattern!r} did not show up in:\n{self.text[self._read :]}") from None

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self.descriptor, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C as the terminal sends it."""
        self.process.send_signal(signal.SIGINT)

    def echoes(self) -> bool:
        """Whether the terminal is in its normal mode (line by line, with echo)."""
        flags = termios.tcgetattr(self.descriptor)[3]
        return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)

    def _more(self) -> None:
        try:
            self.raw += os.read(self.descriptor, 65536)
        except OSError:  # the last process that had the terminal open has ended
            self.ended = True
            asyncio.get_running_loop().remove_reader(self.descriptor)


@asynccontextmanager
async def terminal(state_dir: Path, *arguments: str, cwd: Path | None = None) -> AsyncIterator[Terminal]:
    """`accord ARGUMENTS` in a terminal of 100 columns; killed at the end where it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdin=slave, stdout=slave, stderr=slave, env=environment(state_dir), cwd=cwd or state_dir
    )
    os.close(slave)
    shown = Terminal(process, master)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, shown._more)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        loop.remove_reader(master)
        os.close(master)
