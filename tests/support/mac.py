"""A Mac as odd as a real one: a root of its own, macOS's folders, an OpenSSH that logs in by PAM, BSD's programs.

What runs is Linux's: the whole of its /usr lies in /opt/linux, where no harvest looks. Everything else is where macOS
has it, by `symcache.demo.layouts`: caches, links, modes; users' login shells are zsh, bash and tcsh, and no program
knows an option that macOS's does not.
"""

from __future__ import annotations

import os
import platform
import shlex
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from symcache.demo.layouts import LAYOUTS, Layout, protected_folders
from tests.support.mac_layout import lay_out
from tests.support.openssh import keygen, wait_for_sshd
from tests.support.ports import free_port

__all__ = ["PASSWORD", "SFTP_SERVER", "USERS", "OddMac", "make_mac", "need_a_root", "protect"]

PASSWORD = "correct horse"  # of all users
USERS = {"zoe": "/bin/zsh", "bob": "/bin/bash", "tess": "/bin/tcsh"}
"""With their login shells. The first is who logs in by default."""
SFTP_SERVER = "/usr/libexec/sftp-server"
_STAFF = 20
_PROGRAMS = Path(__file__).with_name("mac_programs")
_PLAIN = {
    "bin": ("cat", "chmod", "cp", "ln", "ls", "mkdir", "mv", "rm", "sleep", "test"),
    "usr/bin": ("id", "true", "false", "head", "stat"),
}
_SHELLS = {"bin": ("bash", "zsh", "tcsh")}
_NEEDED = ("sbin/sshd", "bin/zsh", "bin/tcsh", "bin/bash", "bin/openssl", "bin/unshare", "sbin/chroot")
_ACL = "system.posix_acl_access"
_SSHD = """\
UsePAM yes
PubkeyAuthentication no
PasswordAuthentication no
KbdInteractiveAuthentication yes
AcceptEnv LANG LC_*
SetEnv PATH=/usr/bin:/bin:/usr/sbin:/sbin
HostKey /private/etc/ssh/ssh_host_ed25519_key
PidFile none
PrintMotd no
MaxStartups 100
LogLevel VERBOSE
"""
_PAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n"


def need_a_root() -> None:
    """Skip, with the reason, where no root of its own can be had."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        pytest.skip("a root of its own cannot be made here: that needs Linux, and to be root")
    if missing := [name for name in _NEEDED if not (Path("/usr") / name).exists()]:
        pytest.skip(f"not installed: {' '.join(missing)} (apt-get install openssh-server zsh tcsh openssl)")
    mounted = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a root of its own cannot be made here: {mounted.stderr.strip()}")


def make_mac(root: Path, layout: Layout | str, *, loose: Path | None = None, sub_caches: int = 0) -> Path:
    """Make the root of a Mac with all caches of a layout; see `lay_out`."""
    layout = LAYOUTS[layout] if isinstance(layout, str) else layout
    lay_out(root, layout, loose=loose, sub_caches=sub_caches)
    _programs(root, layout)
    _users(root)
    for name in protected_folders(layout):
        protect(root / name)
    return root


def protect(folder: Path) -> None:
    """Keep everybody but root out of a folder, whose mode goes on to say that others may read it, as macOS does."""
    users = range(501, 501 + len(USERS))
    entries = [(1, 7, -1), *((2, 0, uid) for uid in users), (4, 5, -1), (0x10, 5, -1), (0x20, 5, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(folder, _ACL, struct.pack("<I", 2) + packed)  # struct posix_acl_xattr_header


def _script(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o755)


def _programs(root: Path, layout: Layout) -> None:
    (root / "opt/linux").mkdir(parents=True)
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"opt/linux/{name}")
    for folder, names in _PLAIN.items():
        for name in names:
            _script(root, f"{folder}/{name}", (_PROGRAMS / "plain").read_text())
    for folder, names in _SHELLS.items():
        for name in names:
            (root / folder / name).symlink_to(f"/opt/linux/bin/{name}")
    (root / "bin/sh").symlink_to("/opt/linux/bin/bash")  # macOS's is one
    _script(root, "bin/df", (_PROGRAMS / "df").read_text())
    _script(root, "usr/bin/mktemp", (_PROGRAMS / "mktemp").read_text())
    versions = {"ProductName": layout.product, "ProductVersion": layout.version, "BuildVersion": layout.build}
    lines = [f"printf '{key}:\\t\\t{value}\\n'\n" for key, value in versions.items()]
    _script(root, "usr/bin/sw_vers", "#!/bin/sh\n" + "".join(lines))
    apple = any(cache.arch.startswith("arm64") for cache in layout.caches)
    machine = "arm64" if apple else "x86_64"
    _script(root, "usr/bin/uname", f'#!/bin/sh\n[ "$1" = -m ] && echo {machine} || echo Darwin\n')
    sysctl = f"""#!/bin/sh
[ "$*" != "-n hw.model" ] || {{ echo {layout.model}; exit; }}
echo "sysctl: unknown oid" >&2
exit 1
"""
    _script(root, "usr/sbin/sysctl", sysctl)
    (root / "usr/libexec").mkdir(exist_ok=True)
    (root / "usr/libexec/sftp-server").symlink_to("/opt/linux/lib/openssh/sftp-server")


def _users(root: Path) -> None:
    etc = root / "private/etc"
    hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True)
    password = hashed.stdout.strip()
    passwd = ["root:x:0:0:System Administrator:/var/root:/bin/sh", "sshd:x:75:75:sshd:/var/empty:/usr/bin/false"]
    shadow = ["root:*:19000::::::", "sshd:*:19000::::::"]
    for uid, (name, shell) in enumerate(USERS.items(), 501):
        passwd.append(f"{name}:x:{uid}:{_STAFF}:{name.title()}:/Users/{name}:{shell}")
        shadow.append(f"{name}:{password}:19000::::::")
        home = root / "Users" / name
        home.mkdir(mode=0o750)
        os.chown(home, uid, _STAFF)
    (etc / "passwd").write_text("\n".join(passwd) + "\n")
    (etc / "group").write_text(f"wheel:x:0:root\nstaff:x:{_STAFF}:root\n_sshd:x:75:\n")
    (etc / "shadow").write_text("\n".join(shadow) + "\n")
    (etc / "shadow").chmod(0o600)
    (etc / "shells").write_text("".join(f"{shell}\n" for shell in ("/bin/sh", *USERS.values())))
    (etc / "pam.d").mkdir()
    (etc / "pam.d/sshd").write_text(_PAM)
    (etc / "ssh").mkdir()
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(etc / "ssh/ssh_host_ed25519_key"))
    for folder in ("dev", "run/sshd", "private/var/empty"):
        (root / folder).mkdir(parents=True)


class OddMac:
    """A context manager: inside of it, the Mac with the root that `make_mac` made is up, on loopback.

    `sshd` are lines that are put before those of its configuration, `mounts` commands that are run in its own
    namespace before it starts, with {root} for its root.
    """

    def __init__(
        self, root: Path, *, sshd: Sequence[str] = (), mounts: Sequence[str] = (), sftp: str = SFTP_SERVER
    ) -> None:
        self.root = root
        self.address, self.port = "127.0.0.1", free_port()
        self.log = root.parent / f"{root.name}.sshd.log"
        self._sshd, self._mounts = ([f"Subsystem sftp {sftp}"] if sftp else []) + [*sshd], mounts
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        lines = [f"ListenAddress {self.address}", f"Port {self.port}", *self._sshd]
        (self.root / "private/etc/ssh/sshd_config").write_text("\n".join(lines) + "\n" + _SSHD)
        root = shlex.quote(str(self.root))
        script = [
            "set -e",
            f"mount --bind /usr {root}/opt/linux",
            f"mount --bind /dev {root}/dev",
            *(mount.format(root=root) for mount in self._mounts),
            f"exec chroot {root} /opt/linux/sbin/sshd -D -e -f /private/etc/ssh/sshd_config",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for_sshd(self._process, self.address, self.port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    @property
    def fingerprint(self) -> str:
        """Of its host key."""
        return keygen("-lf", str(self.root / "private/etc/ssh/ssh_host_ed25519_key.pub")).split()[1]

    def url(self, user: str = next(iter(USERS)), root: str = "", *, port: int | None = None) -> str:
        """Return the URL of a harvest as one of its users."""
        return f"ssh://{user}@{self.address}:{port or self.port}{root}"
