"""`/source/v1`: the files that the server serves anyway, and of these only what a frame at the address is in."""

from __future__ import annotations

import json
from pathlib import Path

from tests.server.symbolicate.conftest import Own
from tests.server.symbolicate.v5 import debug_id, post, symbolicate
from tests.support.servers import Samples, Server, uuid_of


def test_the_file_of_a_frame_is_served(own: Own) -> None:
    identity, folder = debug_id(uuid_of(own.image).hex), own.sources
    files = {str(folder / "own.h"), str(folder / "libown.dylib.c")}
    job = {"memoryMap": [["lib.dylib", identity]], "stacks": [[[0, offset] for offset in range(0x300, 0x380)]]}
    frames = [f for f in symbolicate(own.server.url, job)[0]["stacks"][0] if f.get("file")]
    assert {f["file"] for f in frames} == files
    alone = [f for f in frames if "inlines" not in f]
    for frame in (next(f for f in alone if f["file"] == file) for file in files):
        wanted = {"debugName": "lib.dylib", "debugId": identity, "moduleOffset": frame["module_offset"]}
        answer = post(own.server.url, wanted | {"file": frame["file"]}, "/source/v1")
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert json.loads(answer.body) == {
            "symbolsLastModified": None,
            "sourceLastModified": None,
            "file": frame["file"],
            "source": Path(frame["file"]).read_text(),
        }
        (other,) = files - {frame["file"]}
        for file in (other, "/etc/passwd", f"{folder}/../a/{Path(frame['file']).name}", ""):
            refused = post(own.server.url, wanted | {"file": file}, "/source/v1")
            assert refused.status == 404, file
            assert json.loads(refused.body)["error"]
    inlined = next(f for f in frames if any(call["file"] != f["file"] for call in f.get("inlines", [])))
    for file in files:
        wanted = {"debugName": "", "debugId": identity, "moduleOffset": inlined["module_offset"], "file": file}
        assert post(own.server.url, wanted, "/source/v1").status == 200


def test_a_file_that_is_not_served_otherwise_is_not_served_here(server: Server) -> None:
    job = {"debugName": "x", "debugId": "1" * 33, "moduleOffset": "0x320", "file": "/etc/passwd"}
    assert post(server.url, job, "/source/v1").status == 404
    for odd in ({}, [], job | {"moduleOffset": 5}, job | {"moduleOffset": "320"}, job | {"debugId": "x"}, b"{"):
        answer = post(server.url, odd, "/source/v1")
        assert answer.status == 400
        assert json.loads(answer.body)["title"]
    assert post(server.url, job | {"file": "x" * (65 << 10)}, "/source/v1").status == 413


def test_no_sources_are_served_unless_the_operator_says_where_they_are(server: Server, samples: Samples) -> None:
    uuid = samples.uuid
    job = {"memoryMap": [["libanswer.dylib", debug_id(uuid.hex)]], "stacks": [[[0, 0x320]]]}
    file = symbolicate(server.url, job)[0]["stacks"][0][0]["file"]
    wanted = {"debugName": "", "debugId": debug_id(uuid.hex), "moduleOffset": "0x320", "file": file}
    assert Path(file).is_file()
    assert post(server.url, wanted, "/source/v1").status == 404
