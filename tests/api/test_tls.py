"""Certificates and keys of the server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from support.certificates import certificate

from fllm.errors import ConfigError
from fllm_api.tls import ServerTls, TlsFiles


def test_a_certificate_and_its_key_may_be_in_one_file(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(certfile.read_bytes() + keyfile.read_bytes())
    assert ServerTls(TlsFiles(certfile=both)).context.verify_mode == ssl.CERT_NONE


def test_old_protocols_are_refused(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path)
    context = ServerTls(TlsFiles(certfile=certfile, keyfile=keyfile)).context
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_key_may_be_encrypted(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path, password="secret")
    files = TlsFiles(certfile=certfile, keyfile=keyfile)
    ServerTls(files, "secret")
    with pytest.raises(ConfigError, match="give --ssl-keyfile-password"):
        ServerTls(files)
    with pytest.raises(ConfigError, match="a wrong password") as raised:
        ServerTls(files, "guess")
    assert "guess" not in str(raised.value)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    certfile, _ = certificate(tmp_path)
    _, other = certificate(tmp_path, "other")
    text = tmp_path / "text"
    text.write_text("hi")
    for files in (
        TlsFiles(certfile=certfile, keyfile=other),
        TlsFiles(certfile=text),
        TlsFiles(certfile=certfile),
        TlsFiles(certfile=tmp_path / "none"),
        TlsFiles(certfile=tmp_path),
    ):
        with pytest.raises(ConfigError, match=f"--ssl-certfile {files.certfile}.*: "):
            ServerTls(files)


def test_authorities_of_clients_are_checked(tmp_path: Path) -> None:
    certfile, keyfile = certificate(tmp_path)
    text = tmp_path / "text"
    text.write_text("hi")
    required = {"certfile": certfile, "keyfile": keyfile, "cert_reqs": ssl.CERT_REQUIRED}
    with pytest.raises(ConfigError, match="--ssl-cert-reqs requires --ssl-ca-certs"):
        ServerTls(TlsFiles(**required))
    with pytest.raises(ConfigError, match=f"--ssl-ca-certs {text}: "):
        ServerTls(TlsFiles(**required, ca_certs=text))
    assert ServerTls(TlsFiles(**required, ca_certs=certfile)).context.verify_mode == ssl.CERT_REQUIRED


def test_a_new_certificate_is_read_and_a_bad_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certfile, keyfile = certificate(tmp_path)
    tls = ServerTls(TlsFiles(certfile=certfile, keyfile=keyfile))
    first = tls.context
    certificate(tmp_path)
    tls.reload()
    second = tls.context
    assert second is not first
    keyfile.write_text("hi")
    tls.reload()
    assert tls.context is second
    assert "certificate not reloaded, the present one stays in use" in caplog.text
