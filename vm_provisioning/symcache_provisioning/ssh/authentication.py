"""Logs in: what is tried, in which order, and the error when the host accepts none of it.

Servers count what they refuse (`MaxAuthTries` of sshd_config(5), 6 unless it says otherwise), then end the connection.
So the host is asked first which methods it takes, which costs no try; what was named comes before what is found in the
agent and in ~/.ssh, and no key is offered twice. An IdentityFile of ssh_config(5) comes before the agent's other keys,
and instead of the keys that are usual in ~/.ssh.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paramiko

from symcache.errors import SymcacheError
from symcache.text import excerpt
from symcache_provisioning.ssh.config import SshHost
from symcache_provisioning.ssh.keys import public_half, user_agent, with_certificate, without_certificate
from symcache_provisioning.ssh.login import Login, UnreachableError, load_key, locked_key_error

__all__ = ["Authentication"]

_KEY, _PASSWORD, _INTERACTIVE = "publickey", "password", "keyboard-interactive"
_KEY_FILES = ("id_rsa", "id_ecdsa", "id_ed25519")
"""In ~/.ssh, as ssh calls them, of the types that paramiko reads."""
_IN_AGENT = "a key of your agent"
_ENDED = "ended the connection"


@dataclass(frozen=True, slots=True)
class _Credential:
    """Something to log in with. `attempt` returns the methods that the host wants besides: none if we are in."""

    name: str
    methods: frozenset[str]
    attempt: Callable[[Any, Collection[str]], Sequence[str]]


class Authentication:
    """Logs in with the credentials of a Login, once: an `auth_strategy` for paramiko's SSHClient.

    Raises UsageError, UnreachableError for credentials that cannot be used, before anything is connected to.
    """

    def __init__(self, target: SshHost, login: Login) -> None:
        self._target, self._login = target, login
        self._named: list[_Credential] = []
        self._tried: list[str] = []
        self._locked: list[Path] = []
        if (key := login.key()) is not None:
            self._named += self._of_key(f"the key {login.identity}", key)
        if (password := login.password()) is not None:
            attempt = partial(_send_password, target.user, password)
            name = f"the password in {login.password_env}"
            self._named.append(_Credential(name, frozenset({_PASSWORD, _INTERACTIVE}), attempt))

    def _of_key(self, name: str, key: Any) -> list[_Credential]:
        """Return a key with each of its certificates, then the key itself."""
        keys = [(f"the certificate {file}", with_certificate(key, file)) for file in self._target.certificates]
        if key.public_blob is not None:
            keys.append((f"{name} with its certificate", key))
        keys.append((name, without_certificate(key)))
        return [
            _Credential(said, frozenset({_KEY}), partial(_send_key, self._target.user, each))
            for said, each in keys
            if each is not None
        ]

    def authenticate(self, transport: Any) -> None:
        """Log in over a connection whose host key is trusted. Raises UnreachableError if that fails."""
        try:
            transport.auth_none(self._target.user)
            return  # the host wants nothing
        except paramiko.BadAuthenticationType as error:
            offered = list(error.allowed_types)
        except paramiko.SSHException as error:
            raise self._refusal((), excerpt(str(error))) from error
        agent = None
        pending, found = list(self._named), False
        try:
            while transport.is_active():
                credential = next((c for c in pending if c.methods & set(offered)), None)
                if credential is None and not found and self._login.searches:
                    agent, found = user_agent(self._target.agent), True
                    pending += self._found(agent)
                    continue
                if credential is None:
                    raise self._refusal(offered)
                pending.remove(credential)
                self._tried.append(credential.name)
                try:
                    offered = list(credential.attempt(transport, offered))
                    if not offered:
                        return
                except paramiko.BadAuthenticationType as error:
                    offered = list(error.allowed_types)
                except (paramiko.SSHException, OSError, EOFError, ValueError):
                    pass  # refused, or the agent does not sign; the loop ends if the host has ended the connection
            raise self._refusal(offered, _ENDED)
        finally:
            if agent is not None:
                agent.close()

    def _found(self, agent: Any) -> list[_Credential]:
        """Return the keys of the agent, and those in files that it has not; those of ssh_config(5) come first."""
        keys = list(agent.get_keys()) if agent is not None else []
        blobs = {key.asbytes() for key in keys}
        files = self._target.identities or tuple(Path("~/.ssh").expanduser() / name for name in _KEY_FILES)
        first: list[_Credential] = []
        wanted = set()
        for file in files:
            public = public_half(file)
            if public in blobs:
                wanted.add(public)
                continue
            try:
                key = load_key(file)
            except UnreachableError:
                self._locked.append(file)
            except SymcacheError:
                pass  # there is none, or ssh would pass it over, too
            else:
                if key.asbytes() in blobs:
                    wanted.add(key.asbytes())
                else:
                    first += self._of_key(f"the key {file}", key)
        named = [c for key in keys if key.asbytes() in wanted for c in self._of_key(_IN_AGENT, key)]
        others = [c for key in keys if key.asbytes() not in wanted for c in self._of_key(_IN_AGENT, key)]
        if self._target.identities_only:
            return named + first
        return named + first + others if self._target.identities else named + others + first

    def _refusal(self, offered: Collection[str], ended: str = "") -> UnreachableError:
        """Return the error for a host that accepts nothing of ours; `offered` are the methods that it takes."""
        target, tried = self._target, _names(self._tried)
        if not tried and not ended and _KEY in offered and self._locked:
            return locked_key_error(str(self._locked[0]))
        said = f"{target.name} refused {target.user}: "
        if len(tried) > 1:
            said += f"it accepted neither {' nor '.join(tried)}"
        elif tried:
            said += f"it did not accept {tried[0]}"
        elif ended:
            said += f"it would not say how to log in: {ended}"
        else:
            said += f"it takes {excerpt(', '.join(offered)) or 'no method'}, and {self._lacking(offered)}"
        hints = [f"try `ssh -p {target.port} {target.user}@{target.name}`, or name a key with --identity"]
        if tried and ended:
            said += f", and {ended}"
            if len(self._tried) > 1:
                hints[:0] = [f"servers end the connection after a few tries, and this one had {len(self._tried)}"]
        if self._locked:
            hints.append(f"{self._locked[0]} was not tried, as a passphrase protects it: unlock it with ssh-add")
        return UnreachableError(said, hint="; ".join(hints))

    def _lacking(self, offered: Collection[str]) -> str:
        if _KEY in offered and self._login.searches:
            return "your agent's keys and those in ~/.ssh would be tried, but there are none"
        return "nothing of that kind was named"


def _names(tried: Sequence[str]) -> list[str]:
    """Return what was tried, with the agent's keys as one."""
    count = tried.count(_IN_AGENT)
    names = dict.fromkeys(tried)
    return [f"{count} keys of your agent" if name == _IN_AGENT and count > 1 else name for name in names]


def _send_key(user: str, key: Any, transport: Any, _offered: Collection[str]) -> Sequence[str]:
    result: Sequence[str] = transport.auth_publickey(user, key)
    return result


def _send_password(user: str, password: str, transport: Any, offered: Collection[str]) -> Sequence[str]:
    """Log in with a password: as such, or where the host asks for it in words, as PAM has it."""
    left = [password]

    def respond(_title: str, _instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        # Once only: whoever asks for more wants a code, or a new password.
        return [left.pop() if left and not echo else "" for _, echo in prompts]

    result: Sequence[str]
    if _PASSWORD in offered:
        result = transport.auth_password(user, password, fallback=False)
    else:
        result = transport.auth_interactive(user, respond)
    return result
