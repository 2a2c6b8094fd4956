"""The Mach calls behind `Task`, by ctypes. Thin on purpose: this is what only a Mac can run.

Sources: <mach/task.h>, <mach/thread_act.h>, <mach/mach_vm.h>, <mach/vm_region.h>, <mach/task_info.h>,
<mach/thread_info.h>, <mach/message.h>, <servers/bootstrap.h>. The layouts below are compared with the real headers by
the tests, for both architectures.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from symcache.dump.capture.task import Region, ThreadCapture
from symcache.errors import EnvironmentFailure, UsageError
from symcache.macho import CPU_SUBTYPE_X86_64_ALL, CPU_TYPE

__all__ = ["MachReceiver", "MachTask", "send_own_task"]

_VM_MEMORY_STACK = 30
_TASK_DYLD_INFO, _THREAD_IDENTIFIER_INFO = 17, 4
_SUBMAP_DEPTH = 128
_MSG_TYPE_COPY_SEND, _MSG_TYPE_MAKE_SEND, _MSG_TYPE_MOVE_SEND = 19, 20, 17
_MSGH_COMPLEX, _MSG_SEND, _MSG_RCV, _MSG_TIMEOUT_SEND, _MSG_TIMEOUT_RCV = 0x8000_0000, 1, 2, 0x10, 0x100
_RECEIVE_MILLISECONDS = 30_000
_MAX_READ = 64 << 20

# (flavor, size in 4-byte words, offset of the stack pointer or None), the general registers first.
STATES: dict[int, tuple[tuple[int, int, int | None], ...]] = {
    CPU_TYPE.X86_64: ((4, 42, 7 * 8), (5, 131, None), (6, 4, None)),
    CPU_TYPE.ARM64: ((6, 68, 31 * 8), (17, 132, None), (7, 4, None)),
}
"""x86_THREAD_STATE64, x86_FLOAT_STATE64, x86_EXCEPTION_STATE64; ARM_THREAD_STATE64, ARM_NEON_STATE64,
ARM_EXCEPTION_STATE64."""


class VmRegionSubmapInfo64(ctypes.Structure):
    """struct vm_region_submap_info_64, as far as its first version goes."""

    _pack_ = 4
    _layout_ = "ms"
    _fields_ = (
        ("protection", ctypes.c_int),
        ("max_protection", ctypes.c_int),
        ("inheritance", ctypes.c_uint),
        ("offset", ctypes.c_uint64),
        ("user_tag", ctypes.c_uint),
        ("pages_resident", ctypes.c_uint),
        ("pages_shared_now_private", ctypes.c_uint),
        ("pages_swapped_out", ctypes.c_uint),
        ("pages_dirtied", ctypes.c_uint),
        ("ref_count", ctypes.c_uint),
        ("shadow_depth", ctypes.c_ushort),
        ("external_pager", ctypes.c_ubyte),
        ("share_mode", ctypes.c_ubyte),
        ("is_submap", ctypes.c_uint),
        ("behavior", ctypes.c_int),
        ("object_id", ctypes.c_uint32),
        ("user_wired_count", ctypes.c_ushort),
    )


class TaskDyldInfo(ctypes.Structure):
    """struct task_dyld_info."""

    _pack_ = 4
    _layout_ = "ms"
    _fields_ = (
        ("all_image_info_addr", ctypes.c_uint64),
        ("all_image_info_size", ctypes.c_uint64),
        ("all_image_info_format", ctypes.c_int),
    )


class ThreadIdentifierInfo(ctypes.Structure):
    """struct thread_identifier_info."""

    _fields_ = (
        ("thread_id", ctypes.c_uint64),
        ("thread_handle", ctypes.c_uint64),
        ("dispatch_qaddr", ctypes.c_uint64),
    )


class MachMsgHeader(ctypes.Structure):
    """mach_msg_header_t."""

    _fields_ = (
        ("msgh_bits", ctypes.c_uint),
        ("msgh_size", ctypes.c_uint),
        ("msgh_remote_port", ctypes.c_uint),
        ("msgh_local_port", ctypes.c_uint),
        ("msgh_voucher_port", ctypes.c_uint),
        ("msgh_id", ctypes.c_int),
    )


class TaskMessage(ctypes.Structure):
    """A message that carries one port: header, mach_msg_body_t, mach_msg_port_descriptor_t (its last word holds 16
    bits of padding, disposition and type), and room for the trailer that the receiver gets."""

    _fields_ = (
        ("header", MachMsgHeader),
        ("descriptor_count", ctypes.c_uint),
        ("name", ctypes.c_uint),
        ("pad1", ctypes.c_uint),
        ("disposition_and_type", ctypes.c_uint),
        ("trailer", ctypes.c_ubyte * 128),
    )


_MESSAGE_SIZE = TaskMessage.trailer.offset


@cache
def _system() -> Any:
    if os.uname().sysname != "Darwin":
        raise UsageError("dumps of live processes are written on macOS only", hint="open dumps with `symcache open`")
    library = ctypes.CDLL("/usr/lib/libSystem.B.dylib", use_errno=True)
    library.mach_error_string.restype = ctypes.c_char_p
    return library


def _check(result: int, what: str) -> None:
    if result:
        text = _system().mach_error_string(result).decode("utf-8", "replace")
        raise EnvironmentFailure(f"{what}: {text} ({result})", hint="run as the process's own user, or as root")


def _port(name: str) -> ctypes.c_uint:
    return ctypes.c_uint.in_dll(_system(), name)


class MachTask:
    """A process by its task port; see `Task`."""

    def __init__(self, port: int, cputype: int | None = None) -> None:
        self._port = port
        self.cputype = cputype or (CPU_TYPE.ARM64 if os.uname().machine == "arm64" else CPU_TYPE.X86_64)
        self.cpusubtype = 0 if self.cputype == CPU_TYPE.ARM64 else CPU_SUBTYPE_X86_64_ALL

    @classmethod
    def of_process(cls, pid: int) -> MachTask:
        """Return the task of a process. macOS lets root do this, and signed debuggers; never for its own programs."""
        port = ctypes.c_uint()
        _check(
            _system().task_for_pid(_port("mach_task_self_"), pid, ctypes.byref(port)), f"process {pid}: task_for_pid"
        )
        return cls(port.value)

    def suspend(self) -> None:
        """See `Task`."""
        _check(_system().task_suspend(self._port), "task_suspend")

    def resume(self) -> None:
        """See `Task`."""
        _check(_system().task_resume(self._port), "task_resume")

    def threads(self) -> list[ThreadCapture]:
        """See `Task`."""
        system, own = _system(), _port("mach_task_self_")
        ports, count = ctypes.POINTER(ctypes.c_uint)(), ctypes.c_uint()
        _check(system.task_threads(self._port, ctypes.byref(ports), ctypes.byref(count)), "task_threads")
        try:
            return [self._thread(ports[i]) for i in range(count.value)]
        finally:
            for i in range(count.value):
                system.mach_port_deallocate(own, ports[i])
            address = ctypes.cast(ports, ctypes.c_void_p).value or 0
            system.mach_vm_deallocate(own, ctypes.c_uint64(address), ctypes.c_uint64(count.value * 4))

    def _thread(self, port: int) -> ThreadCapture:
        system = _system()
        info, count = ThreadIdentifierInfo(), ctypes.c_uint(ctypes.sizeof(ThreadIdentifierInfo) // 4)
        result = system.thread_info(port, _THREAD_IDENTIFIER_INFO, ctypes.byref(info), ctypes.byref(count))
        _check(result, "thread_info")
        states, pointer = [], 0
        for flavor, words, pointer_at in STATES[self.cputype]:
            buffer, count = (ctypes.c_uint * words)(), ctypes.c_uint(words)
            result = system.thread_get_state(port, flavor, buffer, ctypes.byref(count))
            if pointer_at is None and result:
                continue  # a thread that never used its floating-point unit may have no such state
            _check(result, "thread_get_state")
            data = bytes(buffer)[: count.value * 4]
            if pointer_at is not None:
                (pointer,) = struct.unpack_from("<Q", data, pointer_at)
            states.append((flavor, data))
        return ThreadCapture(info.thread_id, pointer, tuple(states))

    def regions(self) -> Iterator[Region]:
        """See `Task`."""
        system = _system()
        address, depth = ctypes.c_uint64(0), ctypes.c_uint(_SUBMAP_DEPTH)
        while True:
            size, info = ctypes.c_uint64(), VmRegionSubmapInfo64()
            count = ctypes.c_uint(ctypes.sizeof(VmRegionSubmapInfo64) // 4)
            depth.value = _SUBMAP_DEPTH
            result = system.mach_vm_region_recurse(
                *(self._port, ctypes.byref(address), ctypes.byref(size)),
                *(ctypes.byref(depth), ctypes.byref(info), ctypes.byref(count)),
            )
            if result:
                return  # KERN_INVALID_ADDRESS: nothing lies above
            yield Region(address.value, size.value, info.protection & 7, info.user_tag == _VM_MEMORY_STACK)
            address.value += size.value

    def read(self, address: int, size: int) -> bytes:
        """See `Task`."""
        if not 0 <= size <= _MAX_READ:
            raise EnvironmentFailure(f"{size} bytes at {address:#x} are more than is read at once")
        buffer, done = ctypes.create_string_buffer(size), ctypes.c_uint64()
        result = _system().mach_vm_read_overwrite(
            *(self._port, ctypes.c_uint64(address), ctypes.c_uint64(size)),
            *(ctypes.c_uint64(ctypes.addressof(buffer)), ctypes.byref(done)),
        )
        _check(result, f"{size} bytes at {address:#x}")
        if done.value != size:
            raise EnvironmentFailure(f"{size} bytes at {address:#x}: only {done.value} can be read")
        return buffer.raw

    def dyld_all_image_infos(self) -> int:
        """See `Task`."""
        info, count = TaskDyldInfo(), ctypes.c_uint(ctypes.sizeof(TaskDyldInfo) // 4)
        _check(_system().task_info(self._port, _TASK_DYLD_INFO, ctypes.byref(info), ctypes.byref(count)), "task_info")
        return int(info.all_image_info_addr)

    def os_build(self) -> str:
        """See `Task`."""
        return _sysctl("kern.osversion").partition(b"\0")[0].decode("ascii", "replace")

    def addressable_bits(self) -> int:
        """See `Task`."""
        if self.cputype != CPU_TYPE.ARM64:
            return 0
        value = _sysctl("machdep.virtual_address_size")
        return int.from_bytes(value[:4], "little") if value else 47


def _sysctl(name: str) -> bytes:
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(size.value)
    result = _system().sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
    return b"" if result else buffer.raw[: size.value]


class MachReceiver:
    """A port with a bootstrap name of its own, on which one task port is received."""

    def __init__(self) -> None:
        self.name = f"symcache.dump.{os.getpid()}.{secrets.token_hex(8)}"
        port = ctypes.c_uint()
        result = _system().bootstrap_check_in(_port("bootstrap_port"), self.name.encode(), ctypes.byref(port))
        _check(result, f"bootstrap_check_in {self.name}")
        self._port = port.value

    def receive(self) -> MachTask:
        """Wait for the message, half a minute at most."""
        message = TaskMessage()
        result = _system().mach_msg(
            *(ctypes.byref(message), _MSG_RCV | _MSG_TIMEOUT_RCV, 0, ctypes.sizeof(message)),
            *(self._port, _RECEIVE_MILLISECONDS, 0),
        )
        _check(result, "waiting for the task port")
        if not message.header.msgh_bits & _MSGH_COMPLEX or message.descriptor_count != 1 or not message.name:
            raise EnvironmentFailure("the message that came carries no task port")
        return MachTask(message.name)


def send_own_task(name: str) -> None:
    """Send this process's task port to the port of that name: what a crashing Python process does."""
    system, port = _system(), ctypes.c_uint()
    _check(
        system.bootstrap_look_up(_port("bootstrap_port"), name.encode(), ctypes.byref(port)),
        f"bootstrap_look_up {name}",
    )
    message = TaskMessage()
    message.header.msgh_bits = _MSG_TYPE_COPY_SEND | _MSGH_COMPLEX
    message.header.msgh_size = _MESSAGE_SIZE
    message.header.msgh_remote_port = port.value
    message.descriptor_count = 1
    message.name = _port("mach_task_self_").value
    message.disposition_and_type = _MSG_TYPE_COPY_SEND << 16
    result = system.mach_msg(
        *(ctypes.byref(message), _MSG_SEND | _MSG_TIMEOUT_SEND, _MESSAGE_SIZE, 0, 0, _RECEIVE_MILLISECONDS, 0)
    )
    _check(result, "sending the task port")
