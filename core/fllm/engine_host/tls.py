"""TLS between engines and their server, whose certificate an engine knows by its fingerprint."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from fllm.errors import ConfigError

LIFETIME = datetime.timedelta(days=3650)
"""Of a certificate that lasts as long as the server. Nobody checks it: the fingerprint is what counts."""


class ServerCertificate(Struct, frozen=True):
    """The server's settings of TLS, and what its engines check."""

    context: ssl.SSLContext
    fingerprint: bytes
    """SHA-256 of the certificate in DER format."""


def new_certificate() -> ServerCertificate:
    """Return a new certificate, signed by itself. Its key exists only in memory once this returns."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "furiosa-llm engines")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now - LIFETIME).not_valid_after(now + LIFETIME)
    chain = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    with tempfile.NamedTemporaryFile(prefix="fllm-") as file:  # ssl reads keys only from files; mode 0600
        file.write(chain + secret)
        file.flush()
        return load_certificate(Path(file.name), None)


def load_certificate(certfile: Path, keyfile: Path | None) -> ServerCertificate:
    """Read a certificate chain and its key in PEM format; raise `ConfigError` if they are invalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
        own, _, _ = certfile.read_text("ascii").partition(ssl.PEM_FOOTER)
        certificate = own[own.index(ssl.PEM_HEADER) :] + ssl.PEM_FOOTER
    except (OSError, ValueError) as error:
        names = f"--engine-certfile {certfile}" + (f" --engine-keyfile {keyfile}" if keyfile else "")
        raise ConfigError(f"{names}: {error}") from error
    return ServerCertificate(context, sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest())


def engine_context() -> ssl.SSLContext:
    """Return the settings of an engine, which checks `has_fingerprint` instead of names and authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def has_fingerprint(connection: ssl.SSLObject, fingerprint: bytes) -> bool:
    """Return whether the other end has proved that it has the key of this certificate."""
    certificate = connection.getpeercert(binary_form=True)
    return certificate is not None and sha256(certificate).digest() == fingerprint


def _no_password() -> str:
    raise ValueError("the key has a password; use a key file without one")
