"""Host certificates: a host key that an authority of a known_hosts file has signed.

Source: PROTOCOL.certkeys of OpenSSH. `cryptography` parses them and checks the signature; what is signed is checked
here: that it is for a host, for this one, for now, and demands nothing that we do not know.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Collection

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from symcache.text import excerpt

__all__ = ["CERTIFICATE_SUFFIX", "certificate_problem"]

CERTIFICATE_SUFFIX = "-cert-v01@openssh.com"
"""Ends the names of key types that are certificates."""


def certificate_problem(blob: bytes, host: str, authorities: Collection[str], revoked: Collection[str]) -> str:
    """Return why a certificate does not prove that a key is that of `host` (without port), or an empty string.

    `authorities` and `revoked` are public keys in base64, as known_hosts files have them.
    """
    try:
        kind = blob[4 : 4 + int.from_bytes(blob[:4])]
        certificate = load_ssh_public_identity(kind + b" " + base64.b64encode(blob))
        if not isinstance(certificate, SSHCertificate):
            return "it is no certificate"
        authority = certificate.signature_key()
        signer = authority.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
        certificate.verify_cert_signature()
    except InvalidSignature:
        return "its signature is wrong"
    except (ValueError, TypeError, AssertionError, UnsupportedAlgorithm) as error:
        return f"it cannot be read: {excerpt(str(error))}"
    if isinstance(authority, RSAPublicKey) and _ends_with_sha1(blob, (authority.key_size + 7) // 8):
        return "it is signed by SHA-1"
    if signer in revoked:
        return "its authority is revoked"
    if signer not in authorities:
        return "it is of another authority"
    if certificate.type is not SSHCertificateType.HOST:
        return "it is for a user, not for a host"
    names = [name.decode("utf-8", "replace").lower() for name in certificate.valid_principals]
    if names and host.lower() not in names:  # OpenSSH takes them literally, too; none at all are all
        return f"it is for {excerpt(', '.join(names))}"
    now = time.time()
    if not certificate.valid_after <= now < certificate.valid_before:
        return "it is not yet valid" if now < certificate.valid_after else "it has expired"
    if certificate.critical_options:
        return f"it demands {excerpt(b', '.join(certificate.critical_options))}"
    return ""


def _ends_with_sha1(blob: bytes, size: int) -> bool:
    """Return whether the signature, the last field, is an RSA one of that size by SHA-1, which OpenSSH refuses."""
    return blob[-size - 15 : -size - 4] == b"\x00\x00\x00\x07ssh-rsa"
