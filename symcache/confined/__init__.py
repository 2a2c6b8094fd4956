"""Hostile files are read in a process of its own, with bounds and next to no rights; see `ConfinedProcess`."""

from symcache.confined.conversation import Conversation, NoRequestError, Respond
from symcache.confined.machine import UNCONFINED, machine_memory, unconfined_parts
from symcache.confined.process import Bounds, Cause, ConfinedProcess, ProcessFailure

__all__ = [
    "UNCONFINED",
    "Bounds",
    "Cause",
    "ConfinedProcess",
    "Conversation",
    "NoRequestError",
    "ProcessFailure",
    "Respond",
    "machine_memory",
    "unconfined_parts",
]
