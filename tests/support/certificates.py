"""Certificates for tests of TLS, made by the ``openssl`` command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def certificate(directory: Path, name: str = "server", password: str | None = None) -> tuple[Path, Path]:
    """Return the files of a self-signed certificate and its key; skip the test without ``openssl``."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("the command openssl is not installed")
    certfile, keyfile = directory / f"{name}.crt", directory / f"{name}.key"
    protection = ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *protection]
    command = [openssl, "req", "-x509", *kind, "-days", "2", "-subj", f"/CN={name}", "-addext", NAMES]
    subprocess.run([*command, "-out", certfile, "-keyout", keyfile], check=True, capture_output=True)
    return certfile, keyfile


def client_context(trusted: Path, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return the settings of a client that trusts a certificate, and may have its own."""
    context = ssl.create_default_context(cafile=trusted)
    if own is not None:
        context.load_cert_chain(*own)
    return context
