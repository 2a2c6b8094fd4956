"""dyld shared caches of every era: opened by their headers, images extracted to files that debuggers accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symcache.late_imports import late_imports

if TYPE_CHECKING:
    from symcache.dyld.address_space import AddressSpace
    from symcache.dyld.batch import Batch, ImageWork, Row
    from symcache.dyld.cache import Image, MissingFile, SharedCache
    from symcache.dyld.cache_file import CacheFilePart
    from symcache.dyld.code_signature import SignedPages, check_pages, platform_identifier
    from symcache.dyld.exported import ExportedSymbol, exported_symbols
    from symcache.dyld.exports import read_exports
    from symcache.dyld.extract import Extracted, ExtractReport, Failed, extract_all, extract_image
    from symcache.dyld.header import (
        HEAD_SIZE,
        MAX_HEADER,
        Header,
        Mapping,
        parse_header,
        parse_mappings,
        parse_subcaches,
    )
    from symcache.dyld.image_writer import Extractor, NewImage
    from symcache.dyld.images import ImageTable, read_images, tables_end
    from symcache.dyld.mach_image import MachImage, parse_image
    from symcache.dyld.names import (
        Companion,
        arch_of_images,
        cache_arch,
        canonical_arch,
        companions,
        find_caches,
        is_cache_name,
        is_main_name,
    )
    from symcache.dyld.processes import input_has_ended, run_in_processes, serve_batches
    from symcache.dyld.revision import EXTRACTOR, REVISION
    from symcache.dyld.symbols import LocalSymbols, SymbolSource, gather_strings, read_local_symbols
    from symcache.dyld.trie import walk_exports

__all__ = [
    "EXTRACTOR",
    "HEAD_SIZE",
    "MAX_HEADER",
    "REVISION",
    "AddressSpace",
    "Batch",
    "CacheFilePart",
    "Companion",
    "ExportedSymbol",
    "ExtractReport",
    "Extracted",
    "Extractor",
    "Failed",
    "Header",
    "Image",
    "ImageTable",
    "ImageWork",
    "LocalSymbols",
    "MachImage",
    "Mapping",
    "MissingFile",
    "NewImage",
    "Row",
    "SharedCache",
    "SignedPages",
    "SymbolSource",
    "arch_of_images",
    "cache_arch",
    "canonical_arch",
    "check_pages",
    "companions",
    "exported_symbols",
    "extract_all",
    "extract_image",
    "find_caches",
    "gather_strings",
    "input_has_ended",
    "is_cache_name",
    "is_main_name",
    "parse_header",
    "parse_image",
    "parse_mappings",
    "parse_subcaches",
    "platform_identifier",
    "read_exports",
    "read_images",
    "read_local_symbols",
    "run_in_processes",
    "serve_batches",
    "tables_end",
    "walk_exports",
]

# What maps and extracts needs numpy; names, constants and headers are used by many who need neither.
__getattr__ = late_imports(
    __name__,
    {
        "address_space": ("AddressSpace",),
        "batch": ("Batch", "ImageWork", "Row"),
        "cache": ("Image", "MissingFile", "SharedCache"),
        "cache_file": ("CacheFilePart",),
        "code_signature": ("SignedPages", "check_pages", "platform_identifier"),
        "exported": ("ExportedSymbol", "exported_symbols"),
        "exports": ("read_exports",),
        "extract": ("Extracted", "ExtractReport", "Failed", "extract_all", "extract_image"),
        "header": ("HEAD_SIZE", "MAX_HEADER", "Header", "Mapping", "parse_header", "parse_mappings", "parse_subcaches"),
        "image_writer": ("Extractor", "NewImage"),
        "images": ("ImageTable", "read_images", "tables_end"),
        "mach_image": ("MachImage", "parse_image"),
        "names": (
            "Companion",
            "arch_of_images",
            "cache_arch",
            "canonical_arch",
            "companions",
            "find_caches",
            "is_cache_name",
            "is_main_name",
        ),
        "processes": ("input_has_ended", "run_in_processes", "serve_batches"),
        "revision": ("EXTRACTOR", "REVISION"),
        "symbols": ("LocalSymbols", "SymbolSource", "gather_strings", "read_local_symbols"),
        "trie": ("walk_exports",),
    },
)
