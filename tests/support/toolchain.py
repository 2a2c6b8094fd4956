"""Mach-O files made on the spot with LLVM's compiler, linker and dsymutil; no Apple SDK needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["compile_image", "dsym", "lipo", "need_toolchain"]

_TOOLS = ("clang-19", "ld64.lld-19", "dsymutil-19", "llvm-lipo-19", "llvm-strip-19", "llvm-otool-19", "yaml2obj-19")


def need_toolchain() -> None:
    """Skip the test, with the reason, where the compiler is not installed."""
    missing = [t for t in _TOOLS if not shutil.which(t)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install clang-19 lld-19 llvm-19)")


def _run(*command: str | Path) -> None:
    subprocess.run([str(c) for c in command], check=True, capture_output=True)


def compile_image(
    folder: Path, name: str, source: str, *, arch: str = "x86_64", dylib: bool = True, install_name: str | None = None
) -> Path:
    """Compile C into a dylib, or into an executable whose entry is `main`."""
    need_toolchain()
    folder.mkdir(parents=True, exist_ok=True)
    code, object_file, image = folder / f"{name}.c", folder / f"{name}.o", folder / name
    code.write_text(source)
    _run("clang-19", "-target", f"{arch}-apple-macos12", "-g", "-O1", "-c", code, "-o", object_file)
    stub = folder / "libSystem.tbd"
    stub.write_text(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ x86_64-macos, arm64-macos ]\n"
        "install-name: '/usr/lib/libSystem.B.dylib'\nexports:\n"
        "  - targets: [ x86_64-macos, arm64-macos ]\n    symbols: [ dyld_stub_binder, _malloc ]\n...\n"
    )
    kind = ["-dylib", "-install_name", install_name or f"@rpath/{name}"] if dylib else ["-e", "_main"]
    _run(
        *("ld64.lld-19", "-arch", arch, "-platform_version", "macos", "12.0", "12.0", stub, *kind),
        *(object_file, "-o", image),
    )
    return image


def dsym(image: Path) -> Path:
    """Make the dSYM bundle of an image and return it."""
    bundle = image.with_name(image.name + ".dSYM")
    _run("dsymutil-19", image, "-o", bundle)
    return bundle


def lipo(target: Path, *images: Path) -> Path:
    """Join thin images into a universal file."""
    _run("llvm-lipo-19", "-create", *images, "-output", target)
    return target
