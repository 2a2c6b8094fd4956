"""Code and unwind data whose pc-relative references cross segments that move apart."""

from __future__ import annotations

import struct

from tests.cachewriter.fixups import uleb
from tests.cachewriter.machinput import Image
from tests.cachewriter.mover import Mover
from tests.cachewriter.recode_arm64 import recode_arm64
from tests.cachewriter.recode_x86 import recode_x86_64


def _split_info_v1(image: Image, mover: Mover, content: bytearray) -> None:
    """LC_SEGMENT_SPLIT_INFO, version 1: lists of places, each a kind byte and ULEB128 deltas ended by 0.

    Kind 1 is a 32-bit value that grows with the distance from __TEXT to the data segments.
    """
    payload, at = image.split_info, 0
    while at < len(payload) and payload[at]:
        kind, at, address = payload[at], at + 1, 0
        while True:
            delta, at = uleb(payload, at)
            if not delta:
                break
            address += delta
            if kind != 1:
                raise ValueError(f"{image.path}: split info of kind {kind}")
            distances = {mover.delta(i) for i, s in enumerate(image.segments) if s.name != "__TEXT"}
            if len(distances) != 1:
                raise ValueError(f"{image.path}: split info of version 1 needs its data segments to move together")
            (value,) = struct.unpack_from("<I", content, address)
            struct.pack_into("<I", content, address, (value + distances.pop() - mover.text_delta) & 0xFFFFFFFF)


def _unwind_info(image: Image, mover: Mover, content: bytearray) -> None:
    """Personality routines in __unwind_info: header-relative offsets of pointers in a data segment."""
    text = image.text
    for section in text.sections:
        if section.name != "__unwind_info" or section.size < 28:
            continue
        at = section.addr - text.vmaddr
        offset, count = struct.unpack_from("<2I", content, at + 12)
        for i in range(count):
            (value,) = struct.unpack_from("<I", content, at + offset + 4 * i)
            moved = mover.moved(text.vmaddr + value) - mover.text_delta - text.vmaddr
            struct.pack_into("<I", content, at + offset + 4 * i, moved)


def _eh_frame(image: Image, mover: Mover, content: bytearray) -> None:
    """Personality routines in the CIEs of __eh_frame: pc-relative offsets of pointers in a data segment."""
    text = image.text
    for section in text.sections:
        if section.name != "__eh_frame":
            continue
        at, end = section.addr - text.vmaddr, section.addr + section.size - text.vmaddr
        while at + 8 <= end:
            length, identity = struct.unpack_from("<2I", content, at)
            if not length:
                break
            if length == 0xFFFFFFFF:
                raise ValueError(f"{image.path}: 64-bit DWARF in __eh_frame")
            if not identity:
                _cie(image, mover, content, at)
            at += 4 + length


def _cie(image: Image, mover: Mover, content: bytearray, at: int) -> None:
    letters_end = content.index(0, at + 9)
    letters, at = content[at + 9 : letters_end].decode(), letters_end + 1
    if "P" not in letters:
        return
    _, at = uleb(content, at)
    _, at = uleb(content, at)  # a SLEB128, only skipped
    _, at = uleb(content, at)
    _, at = uleb(content, at)
    for letter in letters[1:]:
        if letter in "LR":
            at += 1
        elif letter == "P":
            if content[at] not in (0x9B, 0x1B):
                raise ValueError(f"{image.path}: a personality encoded as {content[at]:#x}")
            at += 1
            (value,) = struct.unpack_from("<i", content, at)
            target = image.text.vmaddr + at + value
            delta = mover.delta(mover.segment(target)) - mover.text_delta
            struct.pack_into("<i", content, at, value + delta)
            at += 4


def _method_lists(image: Image, mover: Mover, content: bytearray) -> None:
    """Relative Objective-C method lists: each entry has the distances to a selector reference, types and code."""
    text = image.text
    for section in text.sections:
        if section.name != "__objc_methlist":
            continue
        at, end = section.addr - text.vmaddr, section.addr + section.size - text.vmaddr
        while at + 8 <= end:
            kind, count = struct.unpack_from("<2I", content, at)
            if kind != 0x8000000C:  # padding between lists
                if kind:
                    raise ValueError(f"{image.path}: a method list of kind {kind:#x}")
                at += 4
                continue
            for place in range(at + 8, at + 8 + 12 * count, 4):
                (value,) = struct.unpack_from("<i", content, place)
                distance = mover.delta(mover.segment(text.vmaddr + place + value)) - mover.text_delta
                struct.pack_into("<i", content, place, value + distance)
            at += 8 + 12 * count


def recode_text(image: Image, mover: Mover) -> bytearray:
    """The content of __TEXT after its image's segments have moved, load commands untouched."""
    content, text_sections = bytearray(image.text.content), image.text.sections
    if image.cputype == 0x01000007:
        recode_x86_64(image, mover, content)
    elif image.cputype & 0xFFFFFF == 12:
        recode_arm64(image, mover, content)
    elif image.split_info:
        _split_info_v1(image, mover, content)
    elif len({mover.delta(i) for i in range(len(image.segments))}) > 1:
        raise ValueError(f"{image.path}: code of cputype {image.cputype} cannot be moved without split info")
    if any(s.name.startswith("__swift5_") for s in text_sections):
        raise ValueError(f"{image.path}: Swift's relative references are not re-encoded")
    _method_lists(image, mover, content)
    _unwind_info(image, mover, content)
    _eh_frame(image, mover, content)
    return content
