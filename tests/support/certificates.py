"""Certificates for tests of TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A fresh self-signed certificate for `name`, and its key: PEM files in `folder`."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    _openssl(f"req -x509 {CURVE} -days 2 -out {cert} -keyout {key}", name, f"subjectAltName=DNS:{name}")
    return cert, key


@dataclass(frozen=True)
class Authority:
    """A certificate authority whose own files are ca.pem and ca-key.pem in `folder`."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Authority:
        """A fresh one; `folder` is made."""
        folder.mkdir(parents=True, exist_ok=True)
        _openssl(f"req -x509 {CURVE} -days 2 -out {folder}/ca.pem -keyout {folder}/ca-key.pem", "test authority")
        return cls(folder)

    @property
    def certificate(self) -> Path:
        """What others trust."""
        return self.folder / "ca.pem"

    def issue(self, name: str, folder: Path) -> tuple[Path, Path]:
        """A certificate for `name`, localhost and 127.0.0.1, for servers and clients, and its key, as Kubernetes names
        them: tls.crt and tls.key in `folder`, which is made; what is there is renewed."""
        folder.mkdir(parents=True, exist_ok=True)
        cert, key, request, extra = (folder / each for each in ("tls.crt", "tls.key", "request.pem", "extra.cnf"))
        _openssl(f"req -new {CURVE} -out {request} -keyout {key}", name)
        extra.write_text(f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1\n")
        ours = f"-CA {self.certificate} -CAkey {self.folder}/ca-key.pem -CAcreateserial"
        _run(f"x509 -req -in {request} {ours} -days 2 -extfile {extra} -out {cert}".split())
        return cert, key


def _openssl(command: str, name: str, *extensions: str) -> None:
    _run([*command.split(), "-subj", f"/CN={name}", *(word for each in extensions for word in ("-addext", each))])


def _run(words: list[str]) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
