"""The certificate of the server, and which certificates clients need."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from msgspec import Struct

from fllm.errors import ConfigError

log = logging.getLogger("fllm.server")


class TlsFiles(Struct, frozen=True, kw_only=True):
    """The options of TLS, named as in vLLM and uvicorn."""

    certfile: Path
    """Certificate chain in PEM format. It may contain the key."""
    keyfile: Path | None = None
    ca_certs: Path | None = None
    """Certificates of the authorities that sign those of clients."""
    cert_reqs: ssl.VerifyMode = ssl.CERT_NONE
    """Whether clients need a certificate."""


class ServerTls:
    """The settings of TLS for new connections. The files can be read again."""

    def __init__(self, files: TlsFiles, password: str | None = None) -> None:
        """Read the files. Raise `ConfigError` if one is invalid or cannot be read."""
        self._files = files
        self._password = password
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; if that fails, keep the present certificate and log why."""
        try:
            self.context = self._load()
        except ConfigError as error:
            log.error("certificate not reloaded, the present one stays in use: %s", error)
        else:
            log.info("certificate reloaded from %s", self._files.certfile)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        # A client could make the server do most of a handshake again and again.
        context.options |= ssl.OP_NO_RENEGOTIATION
        self._load_certificate(context)
        self._load_authorities(context)
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        files = self._files
        where = f"--ssl-certfile {files.certfile}" + (
            f" --ssl-keyfile {files.keyfile}" if files.keyfile else ""
        )
        try:
            context.load_cert_chain(files.certfile, files.keyfile, self._read_password)
        except ssl.SSLError as error:
            reason = error.reason or "it is not in PEM format"
            raise ConfigError(
                f"{where}: not a certificate with its key, or a wrong password: {reason}"
            ) from error
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror}") from error

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        if self._files.ca_certs is not None:
            try:
                context.load_verify_locations(self._files.ca_certs)
            except OSError as error:  # an ssl.SSLError too
                reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
                raise ConfigError(f"--ssl-ca-certs {self._files.ca_certs}: {reason or error}") from error
        elif self._files.cert_reqs:
            raise ConfigError("--ssl-cert-reqs requires --ssl-ca-certs")
        context.verify_mode = self._files.cert_reqs

    def _read_password(self) -> str:
        """Return the password of the key file, which OpenSSL would otherwise read from the terminal."""
        if self._password is None:
            raise ConfigError("the key file is encrypted: give --ssl-keyfile-password")
        return self._password
