"""The XML header of a dump: which modules the process had loaded, and which thread crashed.

The format is that of think-cell's minidump library (docs/dump-format.md). Values stand in an attribute `val` or,
for strings, in the element's text; elements that nobody here knows are skipped, so a newer writer may add some.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID
from xml.etree.ElementTree import ParseError  # the exception class only: parsing goes through defusedxml

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from symcache.errors import DumpError, UsageError
from symcache.macho import parse_uuid

__all__ = ["DumpHeader", "DumpModule", "header_encoding", "parse_header"]

_MAX_DEPTH = 32
_MAX_MODULES = 65_536
_MAX_TEXT = 64 << 10
_ADDRESS = 1 << 64
_STARTS = {b"\xff\xfe": "utf-16-le", b"<\0": "utf-16-le", b"\xfe\xff": "utf-16-be", b"\0<": "utf-16-be"}
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]{0,200}\?>")
_UTF_16 = re.compile(rb"\A(?:\xef\xbb\xbf)?<\?xml[^>]{0,200}encoding\s?=\s?[\"']utf-?16", re.IGNORECASE)
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_MAX_DIGITS = 20
"""Of 2**64: `int` takes time that grows with the square of the length."""


@dataclass(frozen=True, slots=True)
class DumpModule:
    """One image that was loaded. Only its address is always known."""

    address: int
    """Of its Mach-O header in the crashed process."""
    path: str = ""
    uuid: UUID | None = None
    version: int | None = None
    """`current_version` of LC_ID_DYLIB: 16 bits major, 8 minor, 8 patch."""

    @property
    def name(self) -> str:
        """Last part of the path, or the address where the dump notes no path."""
        return self.path.rpartition("/")[2] or f"module-{self.address:#x}"


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """What a dump says of itself."""

    executable: str = ""
    bundle_version: str = ""
    thread: int = 0
    """Index of the crashed thread, in the order of the core's LC_THREADs."""
    modules: tuple[DumpModule, ...] = ()
    format_version: str = ""
    os_build: str | None = None
    """macOS build of the crashed machine, e.g. `22G120`; noted by newer writers."""
    cache_uuid: UUID | None = None
    """UUID of the shared cache that was mapped; noted by newer writers."""
    cache_base: int | None = None
    """Where the shared cache began in the crashed process; noted by newer writers."""


@dataclass(slots=True)
class _Draft:
    fields: dict[str, str] = field(default_factory=dict)
    modules: list[dict[str, str]] = field(default_factory=list)
    announced: str | None = None


class _Target:
    """Receives the parser's events; keeps the few values that are wanted, and nothing else, in memory."""

    _FIELDS = frozenset(
        {"m_strExecutable", "m_strBundleVersion", "m_nThread", "m_strOSBuild", "m_cacheuuid", "m_pvCacheStart"}
    )
    _MODULE_FIELDS = frozenset({"m_pvStartAddress", "m_strPath", "m_modver", "m_uuid"})

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: list[str] = []
        self.draft = _Draft()
        self._text: list[str] | None = None
        self._text_size = 0

    def _slot(self) -> dict[str, str] | None:
        """Return where the value of the current element goes, or None if nobody wants it."""
        match self._path:
            case ["root", "PersistentType", name] if name in self._FIELDS:
                return self.draft.fields
            case ["root", "version"]:
                return self.draft.fields
            case ["root", "PersistentType", "m_vecmodule", "elem", name] if name in self._MODULE_FIELDS:
                return self.draft.modules[-1]
        return None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]  # whatever its namespace
        self._path.append(tag)
        if len(self._path) > _MAX_DEPTH:
            raise DumpError(f"{self._name}: the XML header is nested more than {_MAX_DEPTH} elements deep")
        if self._path == ["root", "PersistentType", "m_vecmodule"]:
            self.draft.announced = attributes.get("length")
        elif self._path == ["root", "PersistentType", "m_vecmodule", "elem"]:
            if len(self.draft.modules) >= _MAX_MODULES:
                raise DumpError(f"{self._name}: the XML header lists more than {_MAX_MODULES} modules")
            self.draft.modules.append({})
        elif (slot := self._slot()) is not None:
            if tag in slot:
                raise DumpError(f"{self._name}: the XML header has two elements <{tag}> where one was expected")
            slot[tag] = attributes.get("val", "")
            self._text, self._text_size = [], 0

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text_size += len(text)
            if self._text_size > _MAX_TEXT:
                raise DumpError(
                    f"{self._name}: <{self._path[-1]}> in the XML header is longer than {_MAX_TEXT} characters"
                )
            self._text.append(text)

    def end(self, tag: str) -> None:
        slot = self._slot()
        tag = self._path.pop()
        if self._text is not None and slot is not None:
            slot[tag] = slot[tag] or "".join(self._text)
            self._text = None

    def close(self) -> _Draft:
        return self.draft


def header_encoding(xml: bytes) -> str:
    """Return how a header is encoded, by its beginning: a writer may have UTF-16 behind a declaration of UTF-8."""
    for start, encoding in _STARTS.items():
        if xml.startswith(start):
            return encoding
    return "utf-8"


def _as_utf_8(xml: bytes) -> bytes:
    """Return the header in UTF-8, without a declaration that says something else."""
    encoding = header_encoding(xml)
    if encoding == "utf-8" and not _UTF_16.match(xml):
        return xml
    text = xml.decode(encoding, "backslashreplace").removeprefix("\ufeff")
    return _DECLARATION.sub("", text, count=1).encode("utf-8", "backslashreplace")


def _repaired(xml: bytes) -> bytes:
    """Return the header with `\\xff` in the place of bytes and characters that XML does not allow."""
    text = xml.decode("utf-8", "backslashreplace")

    def referred(match: re.Match[str]) -> str:
        number = int(match[1], 16) if match[1] else int(match[2])
        return match[0] if _is_allowed(number) else f"\\x{number:02x}"

    text = _REFERENCE.sub(referred, text)
    return _FORBIDDEN.sub(lambda m: f"\\x{ord(m[0]):02x}", text).encode()


def _is_allowed(character: int) -> bool:
    return character <= sys.maxunicode and not 0xD800 <= character < 0xE000 and not _FORBIDDEN.match(chr(character))


def parse_header(xml: bytes, name: str) -> DumpHeader:
    """Return the header that `xml` (up to and with `</root>`) holds; `name` is the dump in messages. Raises DumpError.

    Checked here: numbers and UUIDs are such, and the executable is a module, which becomes the first. Whether the
    thread exists is known only with the core: see `check_crashed`.
    """
    draft = _draft(xml, name)
    fields = draft.fields
    if not fields.keys() - {"version"} and not draft.modules:
        raise DumpError(
            f"{name}: the XML header has no <PersistentType> with an executable, a thread and modules",
            hint="docs/dump-format.md describes what a dump must hold",
        )
    modules = tuple(module for fields_of in draft.modules if (module := _module(fields_of)))
    if draft.announced is not None:
        announced = _number(draft.announced, "m_vecmodule length", name, below=_ADDRESS)
        if announced != len(draft.modules):
            raise DumpError(
                f"{name}: the XML header announces {announced} modules, but lists {len(draft.modules)}",
                hint="the dump is cut or damaged: copy it again",
            )
    executable = fields.get("m_strExecutable", "")
    if not modules:
        raise DumpError(f"{name}: the XML header lists no module", hint="without modules no frame can be named")
    if not executable:
        raise DumpError(f"{name}: the XML header has no <m_strExecutable>")
    first = modules[0]
    if first.path and not first.path.endswith(executable):
        # The list is dyld's, and that of macOS 14 has the executable last.
        named = [module for module in modules if module.path.endswith(executable)]
        if not named:
            raise DumpError(
                f"{name}: the first module is {first.path!r}, but the executable {executable!r} was expected there",
                hint="no other module has the name of the executable, either",
            )
        found = min(named, key=lambda module: module.version is not None)  # executables have none
        modules = (found, *(module for module in modules if module is not found))
    if "m_nThread" not in fields:
        raise DumpError(f"{name}: the XML header does not say which thread crashed (<m_nThread>)")
    cache_uuid = fields.get("m_cacheuuid")
    cache_base = fields.get("m_pvCacheStart")
    return DumpHeader(
        executable=executable,
        bundle_version=fields.get("m_strBundleVersion", ""),
        thread=_number(fields["m_nThread"], "m_nThread", name, below=1 << 31),
        modules=modules,
        format_version=fields.get("version", ""),
        os_build=fields.get("m_strOSBuild") or None,
        cache_uuid=_uuid(cache_uuid, "<m_cacheuuid>", name) if cache_uuid else None,
        cache_base=_number(cache_base, "m_pvCacheStart", name, below=_ADDRESS) if cache_base else None,
    )


def _draft(xml: bytes, name: str) -> _Draft:
    """Parse the XML, if need be with escapes in place of what is no text: that is no reason to refuse a dump."""
    xml = _as_utf_8(xml)
    parser = DefusedXMLParser(target=_Target(name), forbid_dtd=True)
    try:
        parser.feed(xml)
        draft: _Draft = parser.close()
    except DefusedXmlException as error:
        raise DumpError(
            f"{name}: the XML header declares {type(error).__name__.removesuffix('Forbidden')}s, which no dump has",
            hint="the file was not written by a crash handler: do not trust it",
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        if (repaired := _repaired(xml)) != xml:
            return _draft(repaired, name)
        raise DumpError(f"{name}: the XML header cannot be parsed: {error}") from error
    return draft


def _module(fields: dict[str, str]) -> DumpModule | None:
    """Return the module, as far as it is told; without an address it is none."""
    address = _number_or_none(fields.get("m_pvStartAddress", ""), below=_ADDRESS)
    if address is None:
        return None
    uuid = None
    with suppress(UsageError):
        uuid = parse_uuid(fields.get("m_uuid", ""))
    return DumpModule(
        address=address,
        path=fields.get("m_strPath", ""),
        uuid=uuid if uuid and uuid.int else None,
        version=_number_or_none(fields.get("m_modver", ""), below=1 << 32),
    )


def _number_or_none(text: str, *, below: int) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and (value := int(text)) < below:
        return value
    return None


def _number(text: str, what: str, name: str, *, below: int) -> int:
    value = _number_or_none(text, below=below)
    if value is None:
        raise DumpError(f"{name}: {what} is {text[:40]!r} where a decimal number below {below} was expected")
    return value


def _uuid(text: str, what: str, name: str) -> UUID | None:
    """Return the UUID. Return None for one of zeros: that is none."""
    try:
        uuid = parse_uuid(text)
    except UsageError:
        raise DumpError(f"{name}: {what} has the UUID {text[:60]!r} where 32 hex digits were expected") from None
    return uuid if uuid.int else None
