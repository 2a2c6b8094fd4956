"""From a crashed process to a dump file: suspend, collect, write whole or not at all, resume whatever happens."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET  # writes only

from symcache.dump.capture.core_writer import lay_out
from symcache.dump.capture.images import LoadedImages, read_images
from symcache.dump.capture.regions import choose
from symcache.dump.capture.task import CrashReport, Task
from symcache.dump.formats.container import MEMBER
from symcache.errors import DumpError, EnvironmentFailure, StorageError
from symcache.files import atomic_write

__all__ = ["WrittenDump", "header_xml", "write_dump"]

_FORMAT_VERSION = 1
_PAGE = 4096
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class WrittenDump:
    """What was written. `problems` are sentences about what could not be read in the process."""

    path: Path
    threads: int
    modules: int
    kept: int
    """Bytes of memory in the dump, before compression."""
    problems: tuple[str, ...]


def write_dump(task: Task, report: CrashReport, target: Path, *, everything: bool = False) -> WrittenDump:
    """Write a dump of the process to `target`: its threads, modules, regions, and the content of the stacks.

    With `everything`, the content of all readable memory. The process is stopped meanwhile, and goes on afterwards
    even if this fails. Raises DumpError when the process makes no sense, StorageError when the file cannot be written,
    EnvironmentFailure when the system refuses.
    """
    problems: list[str] = []
    with _suspended(task):
        threads = task.threads()
        if not threads:
            raise DumpError(f"{report.executable}: has no thread left to write a dump of")
        ids = [t.thread_id for t in threads]
        crashed = ids.index(report.thread_id) if report.thread_id in ids else 0
        if report.thread_id not in ids:
            problems.append(f"thread {report.thread_id}, which crashed, is gone: the first one is named instead")
        loaded = read_images(task)
        problems += loaded.problems
        regions = choose(task.regions(), threads, everything=everything)
        layout = lay_out(task.cputype, task.cpusubtype, threads, regions, loaded.images, task.addressable_bits())
        xml = header_xml(report, crashed, loaded, task.os_build())
        reader = _Reader(task, problems)
        with _published(target) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            info = zipfile.ZipInfo(MEMBER)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=layout.size > zipfile.ZIP64_LIMIT // 2) as member:
                member.write(xml)
                for chunk in layout.chunks(reader.read):
                    member.write(chunk)
    kept = sum(size for _, _, size in layout.memory)
    return WrittenDump(target, len(threads), len(loaded.images), kept, tuple(problems))


def header_xml(report: CrashReport, crashed: int, loaded: LoadedImages, os_build: str) -> bytes:
    """Return the XML header, up to and with `</root>`, in the form that docs/dump-format.md describes."""
    root = ET.Element("root")
    ET.SubElement(root, "version", val=str(_FORMAT_VERSION))
    body = ET.SubElement(root, "PersistentType")
    ET.SubElement(body, "m_strExecutable").text = _xml_text(report.executable)
    ET.SubElement(body, "m_strBundleVersion").text = _xml_text(report.bundle_version)
    ET.SubElement(body, "m_nThread", val=str(crashed))
    modules = ET.SubElement(body, "m_vecmodule", length=str(len(loaded.images)))
    for image in loaded.images:
        element = ET.SubElement(modules, "elem")
        ET.SubElement(element, "m_pvStartAddress", val=str(image.address))
        if image.path:
            ET.SubElement(element, "m_strPath").text = _xml_text(image.path)
        if image.version is not None:
            ET.SubElement(element, "m_modver", val=str(image.version))
        if image.uuid is not None:
            ET.SubElement(element, "m_uuid", val=image.uuid.hex)
    if os_build:
        ET.SubElement(body, "m_strOSBuild").text = _xml_text(os_build)
    if loaded.cache_uuid:
        ET.SubElement(body, "m_cacheuuid", val=loaded.cache_uuid.hex)
    if loaded.cache_base:
        ET.SubElement(body, "m_pvCacheStart", val=str(loaded.cache_base))
    return bytes(ET.tostring(root, "utf-8", xml_declaration=False, short_empty_elements=False))


def _xml_text(text: str) -> str:
    """Replace what XML 1.0 cannot hold, not even escaped: control characters and lone surrogates."""
    return _NO_XML.sub("\ufffd", text)


class _Reader:
    """Reads memory that may be gone by now: what cannot be had is written as zeros and named once a region."""

    def __init__(self, task: Task, problems: list[str]) -> None:
        self._task, self._problems = task, problems

    def read(self, address: int, size: int) -> bytes:
        try:
            return self._task.read(address, size)
        except EnvironmentFailure:
            pass
        pieces, lost = [], 0
        for start in range(address, address + size, _PAGE):
            length = min(_PAGE, address + size - start)
            try:
                pieces.append(self._task.read(start, length))
            except EnvironmentFailure:
                pieces.append(bytes(length))
                lost += length
        self._problems.append(f"{lost} bytes between {address:#x} and {address + size:#x} could not be read")
        return b"".join(pieces)


@contextlib.contextmanager
def _suspended(task: Task) -> Iterator[None]:
    task.suspend()
    try:
        yield
    finally:
        task.resume()


@contextlib.contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Give a temporary path; what is written there gets its name only when the block ends well."""
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(atomic_write(target, mode=0o600, sync=True))
        except OSError as error:
            raise StorageError(
                f"{target}: {error.strerror or error}", hint="name another folder with --output"
            ) from error
        try:
            yield part
            stack.close()
        except OSError as error:
            raise StorageError(f"{target}: {error.strerror or error}", hint="free some space") from error
