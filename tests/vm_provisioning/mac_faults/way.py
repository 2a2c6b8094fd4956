"""Faults of keys and connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.support.openssh import keygen
from tests.vm_provisioning.mac_faults.scene import Scene, fault

# Keys.


@fault("key", "the host shows another key than the pinned one", "SHA256:")
def _(scene: Scene) -> None:
    scene.pinned = False
    scene.arguments += ["--host-key", "SHA256:" + "A" * 43]


@fault("key", "the host's key has changed", "known_hosts")
def _(scene: Scene) -> None:
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(scene.folder / "other"))
    scene.known("{host} " + " ".join((scene.folder / "other.pub").read_text().split()[:2]))


@fault("key", "nobody knows the host", "--trust-new-host")
def _(scene: Scene) -> None:
    scene.pinned = False


@fault("key", "the host's key is revoked", "revoked")
def _(scene: Scene) -> None:
    scene.known("@revoked {host} " + scene.host_key())


@fault("key", "the password is wrong", "refused zoe", quick=True)
def _(scene: Scene) -> None:
    scene.password = "wrong"


@fault("key", "there is no password", "the environment variable MAC_PASSWORD holds no password")
def _(scene: Scene) -> None:
    scene.password = ""


@fault("key", "the key is not let in", "it did not accept the key")
def _(scene: Scene) -> None:
    scene.key()


@fault("key", "the key has a passphrase", "protected by a passphrase")
def _(scene: Scene) -> None:
    scene.key("-N", "secret")


@fault("key", "the public half is named", "name the private key, not the .pub")
def _(scene: Scene) -> None:
    scene.key()
    scene.arguments[-1] += ".pub"


@fault("key", "the account has expired", "refused zoe")
def _(scene: Scene) -> None:
    shadow = scene.root / "private/etc/shadow"
    shadow.write_text(shadow.read_text().replace(":19000::::::", ":19000:::::1:"))


@fault("key", "the account may not log in", "refused zoe")
def _(scene: Scene) -> None:
    scene.sshd.append("AllowUsers bob tess")


@fault("key", "a key is wanted besides the password", "refused zoe")
def _(scene: Scene) -> None:
    scene.sshd += ["PubkeyAuthentication yes", "AuthenticationMethods publickey,keyboard-interactive"]


# Connections.


@contextmanager
def _listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen; `serve` has each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _relay(port: int, limit: int) -> AbstractContextManager[int]:
    """Pass connections on; each is cut when so many bytes came back."""

    def back(server: socket.socket, client: socket.socket) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while left > 0 and (data := server.recv(min(left, 65536))):
                client.sendall(data)
                left -= len(data)
            client.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
            threading.Thread(target=back, args=(server, client), daemon=True).start()
            while data := client.recv(65536):
                server.sendall(data)

    return _listening(serve)


def _hang(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        while connection.recv(1024):
            pass


def _talk_http(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@fault("connection", "nothing listens", "cannot be reached")
def _(scene: Scene) -> None:
    scene.url = "ssh://zoe@127.0.0.1:9"


@fault("connection", "the host has no address", "no such host")
def _(scene: Scene) -> None:
    scene.url = "ssh://zoe@no-such-host.invalid"


@fault("connection", "something else listens", "did not complete the SSH handshake")
def _(scene: Scene) -> None:
    scene.between = lambda _: _listening(_talk_http)


@fault("connection", "what listens says nothing", "did not complete the SSH handshake")
def _(scene: Scene) -> None:
    scene.between = lambda _: _listening(_hang)


@fault("connection", "the connection is cut at log-in, each time", "it closed the connection")
def _(scene: Scene) -> None:
    scene.between = lambda port: _relay(port, 1200)


@fault("connection", "the connection is cut while it reads, each time", "broke off")
def _(scene: Scene) -> None:
    scene.between = lambda port: _relay(port, 9000)


@fault("connection", "there is no SFTP", "offers no SFTP")
def _(scene: Scene) -> None:
    scene.sftp = ""


@fault("connection", "the SFTP server does not start", "its server ended at once with 127", quick=True)
def _(scene: Scene) -> None:
    scene.sftp = "/usr/libexec/none"


@fault("connection", "the server opens no session", "opens no channel")
def _(scene: Scene) -> None:
    scene.sshd.append("MaxSessions 0")


@fault("connection", "the shell prints something at log-in", "~/.zshenv")
def _(scene: Scene) -> None:
    (scene.root / "Users/zoe/.zshenv").write_text("echo Welcome\n")


@fault("connection", "the account has no shell", "offers SFTP, but its server ended at once with 1")
def _(scene: Scene) -> None:
    passwd = scene.root / "private/etc/passwd"
    passwd.write_text(passwd.read_text().replace("/bin/zsh", "/usr/bin/false"))


@fault("connection", "the account may transfer files only", "/usr/bin/sw_vers ended with 1")
def _(scene: Scene) -> None:
    scene.sshd.append("ForceCommand internal-sftp")


@fault("connection", "there is no sw_vers", "/usr/bin/sw_vers ended with 127")
def _(scene: Scene) -> None:
    (scene.root / "usr/bin/sw_vers").unlink()


@fault("connection", "sw_vers contradicts itself", "sw_vers names ProductName twice")
def _(scene: Scene) -> None:
    program = (scene.root / "usr/bin/sw_vers").read_text()
    scene.program("usr/bin/sw_vers", f"{program}\n{program}")
