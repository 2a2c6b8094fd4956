"""The crash handler's side: from a suspended process to a dump file, and how a crashing process requests one."""

from symcache.dump.capture.images import LoadedImage, LoadedImages, read_images
from symcache.dump.capture.mach import MachReceiver, MachTask, send_own_task
from symcache.dump.capture.marshal import WIRE_VERSION, TaskReceiver, marshal, serve
from symcache.dump.capture.task import CrashReport, Region, Task, ThreadCapture
from symcache.dump.capture.write import WrittenDump, write_dump

__all__ = [
    "WIRE_VERSION",
    "CrashReport",
    "LoadedImage",
    "LoadedImages",
    "MachReceiver",
    "MachTask",
    "Region",
    "Task",
    "TaskReceiver",
    "ThreadCapture",
    "WrittenDump",
    "marshal",
    "read_images",
    "send_own_task",
    "serve",
    "write_dump",
]
