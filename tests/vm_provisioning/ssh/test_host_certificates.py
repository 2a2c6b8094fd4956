"""Hosts that an authority vouches for (`@cert-authority`), by certificates that ssh-keygen has signed."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from symcache.errors import HostKeyError
from symcache_provisioning import HostKeyTrust, Login, SshSession, SshTarget
from symcache_provisioning.ssh.host_certificates import certificate_problem
from symcache_provisioning.ssh.known_hosts import host_of, known_keys
from tests.support.openssh import OpenSshServer, keygen, need_openssh
from tests.vm_provisioning.conftest import QUICK


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority and a host key of each type."""
    need_openssh()
    folder = tmp_path_factory.mktemp("keys")
    for kind in ("ed25519", "ecdsa", "rsa"):
        for name in ("ca", "host"):
            keygen("-q", "-t", kind, "-N", "", "-f", str(folder / f"{name}_{kind}"))
    return folder


def sign(keys: Path, kind: str, *options: str, authority: str = "ed25519", host: bool = True) -> bytes:
    """Return the certificate that an authority has signed."""
    how = ["-h"] if host else []
    keygen("-q", "-s", str(keys / f"ca_{authority}"), "-I", "mac", *how, *options, str(keys / f"host_{kind}.pub"))
    return base64.b64decode((keys / f"host_{kind}-cert.pub").read_text().split()[1])


def public(file: Path) -> str:
    return file.with_name(f"{file.name}.pub").read_text().split()[1]


@pytest.mark.parametrize("authority", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("names", ["mac.inside", "MAC.inside,other", ""])
def test_what_an_authority_has_signed_for_a_host_holds(keys: Path, authority: str, names: str) -> None:
    blob = sign(keys, "ed25519", *(["-n", names] if names else []), authority=authority)
    assert certificate_problem(blob, "mac.inside", {public(keys / f"ca_{authority}")}, ()) == ""
    assert certificate_problem(blob, "mac.inside", {public(keys / "host_rsa")}, ()) == "it is of another authority"


@pytest.mark.parametrize(
    ("options", "host", "problem"),
    [
        (["-n", "other.inside"], True, "it is for other.inside"),
        (["-n", "*.inside"], True, "it is for *.inside"),
        (["-n", "mac.inside", "-V", "20200101:20210101"], True, "it has expired"),
        (["-n", "mac.inside", "-V", "20900101:20910101"], True, "it is not yet valid"),
        (["-n", "mac.inside"], False, "it is for a user, not for a host"),
        (["-n", "mac.inside", "-O", "critical:new@example=1"], True, "it demands new@example"),
        (["-n", "mac.inside", "-t", "ssh-rsa"], True, "it is signed by SHA-1"),
    ],
)
def test_what_does_not_hold_is_said(keys: Path, options: list[str], host: bool, problem: str) -> None:
    authority = "rsa" if "ssh-rsa" in options else "ed25519"
    blob = sign(keys, "ed25519", *options, authority=authority, host=host)
    assert certificate_problem(blob, "mac.inside", {public(keys / f"ca_{authority}")}, ()) == problem


def test_what_is_revoked_or_damaged_does_not_hold(keys: Path) -> None:
    blob, authority = sign(keys, "ed25519", "-n", "mac"), public(keys / "ca_ed25519")
    assert certificate_problem(blob, "mac", {authority}, {authority}) == "its authority is revoked"
    for position in range(0, len(blob), 7):
        damaged = blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]
        for wrong in (damaged, blob[:position]):
            assert certificate_problem(wrong, "mac", {authority}, ()), "nothing would be wrong with it"
    unsigned = blob[:-1] + bytes([blob[-1] ^ 1])
    assert certificate_problem(unsigned, "mac", {authority}, ()) == "its signature is wrong"
    plain = base64.b64decode(public(keys / "host_ed25519"))
    assert certificate_problem(plain, "mac", {authority}, ()) == "it is no certificate"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_with_a_certificate_is_believed(keys: Path, kind: str, tmp_path: Path) -> None:
    key, certificate = keys / f"host_{kind}", keys / f"host_{kind}-cert.pub"
    sign(keys, kind, "-n", "127.0.0.1")
    options = [f"HostKey {key}", f"HostCertificate {certificate}"]
    server, known = OpenSshServer(tmp_path / "server", options=options), tmp_path / "known_hosts"
    server.start()
    try:

        def connect(pin: str | None = None) -> None:
            session = SshSession(
                SshTarget.parse(server.url()),
                trust=HostKeyTrust(pin, known_hosts=(known,)),
                login=Login(server.identity),
                timeouts=QUICK,
            )
            with session:
                assert session.run(["/bin/echo", "hello"]).stdout == b"hello\n"

        authority = (keys / "ca_ed25519.pub").read_text()
        for names in ("127.0.0.1", f"[127.0.0.1]:{server.port}", "*.inside,127.*,!127.0.0.2"):
            known.write_text(f"@cert-authority {names} {authority}")
            connect()
        if kind == "ed25519":  # which is asked for first; the server has a key of that type, too
            connect(keygen("-lf", str(key)).split()[1])
        for names in ("127.0.0.2", "127.*,!127.0.0.1"):
            known.write_text(f"@cert-authority {names} {authority}")
            with pytest.raises(HostKeyError, match=r"is not known here: it shows the [a-z0-9-]+ key SHA256:[^,]*$"):
                connect()
        known.write_text(f"@cert-authority * {(keys / 'ca_rsa.pub').read_text()}")
        with pytest.raises(HostKeyError, match="its certificate counts for nothing: it is of another authority"):
            connect()
        # Known by itself, or revoked by itself.
        line = f"[127.0.0.1]:{server.port} {' '.join(Path(f'{key}.pub').read_text().split()[:2])}\n"
        known.write_text(f"@cert-authority * {(keys / 'ca_rsa.pub').read_text()}{line}")
        connect()
        known.write_text(f"@cert-authority * {authority}@revoked {line}")
        with pytest.raises(HostKeyError, match="marks as revoked"):
            connect()
        stranger = server.known_hosts_line()
        known.write_text(f"@cert-authority * {authority}{stranger}")
        connect()  # though another key was known
        if kind != "ed25519":  # of which type the server has another key, without a certificate
            known.write_text(stranger)
            connect()
            known.write_text(line)
            connect(server.fingerprint)
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["mac", "[mac]:2200", "fe80::1", "[fe80::1]:22"])
def test_an_authority_vouches_for_a_host_whatever_its_port(name: str) -> None:
    assert host_of(name) == ("mac" if "mac" in name else "fe80::1")


def test_names_in_known_hosts_are_patterns(keys: Path, tmp_path: Path) -> None:
    file, key = tmp_path / "known_hosts", " ".join((keys / "host_ed25519.pub").read_text().split()[:2])
    for names, name, meant in (
        ("*.inside", "mac.inside", True),
        ("*.inside,!mac.inside", "mac.inside", False),
        ("m?c", "MAC", True),
        ("m?c", "mc", False),
        ("mac.inside", "macXinside", False),
        ("[mac]:22*", "[mac]:2200", True),
        ("mac", "[mac]:2200", False),
        ("mac", "mac.inside", False),
        ("|1|none|none,mac", "mac", True),
    ):
        file.write_text(f"{names} {key}\n")
        assert bool(known_keys(file, name)) == meant, names
