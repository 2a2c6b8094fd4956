"""`symcache serve`: a library over HTTP."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from symcache.cli.common import console, errors_to_exit, plain, to_output
from symcache.cli.options import JsonOption, LibraryOption
from symcache.cli.settings import library_location, path_setting, server_urls

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(serve)


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen on; by default only this machine can connect."
        ),
    ] = "127.0.0.1",
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name", metavar="NAME", help="Name by which a proxy on this machine is reached; may be repeated."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 8080,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, max=256, help="Processes that share the port.")
    ] = 1,
    public_reads: Annotated[
        bool, typer.Option("--public-reads", help="Whoever can connect may read, without a token.")
    ] = False,
    require_token: Annotated[
        bool, typer.Option("--require-token", help="Ask for tokens on this machine, too: for use behind a proxy.")
    ] = False,
    cache_gib: Annotated[
        float,
        typer.Option("--cache-gib", metavar="GIB", min=0.001, help="Limit of the cache of decoded files, in GiB."),
    ] = 16.0,
    upstream: Annotated[
        list[str] | None, typer.Option("--upstream", metavar="URL", help="Server to ask on a miss; may be repeated.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--sources",
            metavar="PREFIX=DIR",
            help="Serve the sources that were compiled at PREFIX, or PREFIX=git:REPOSITORY@REVISION; may be repeated.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Web page that may have functions named here, e.g. https://profiler.firefox.com; may be repeated.",
        ),
    ] = None,
    access_log: Annotated[
        Path | None, typer.Option("--access-log", metavar="FILE", help="One JSON object a request; - is stderr.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="PEM certificate with its chain: serve HTTPS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM key without passphrase.")
    ] = None,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option("--trust-proxy", metavar="ADDRESS", help="Proxy whose X-Forwarded-For counts; may be repeated."),
    ] = None,
    x_accel: Annotated[
        str,
        typer.Option("--x-accel", metavar="PREFIX", help="Have the trusted nginx send files, by X-Accel-Redirect."),
    ] = "",
    redirect_to_store: Annotated[
        bool,
        typer.Option(
            "--redirect-to-store", help="Send clients that accept zstd to the object store, by presigned URLs."
        ),
    ] = False,
    lookup_rate: Annotated[
        float | None,
        typer.Option(
            "--lookup-rate",
            metavar="N",
            min=0,
            help="Look-ups a second of one client; 0: any.",
            show_default="200, local: any",
        ),
    ] = None,
    upload_rate: Annotated[
        float | None,
        typer.Option(
            "--upload-rate",
            metavar="N",
            min=0,
            help="Uploads a second of one client; 0: any.",
            show_default="50, local: any",
        ),
    ] = None,
    library: LibraryOption = None,
    json: JsonOption = False,
) -> None:
    """Serve a library over HTTP, in every layout that debuggers ask in, until it is stopped."""
    from symcache.dump import SourceTree
    from symcache_server import ServerConfig, parse_network, run

    def ready(url: str) -> None:
        if json:
            with to_output():
                sys.stdout.write(json_module.dumps({"url": url, "library": location}) + "\n")
                sys.stdout.flush()
        else:
            console.print(f"serving {plain(location)} at [bold]{plain(url)}[/] (Ctrl-C stops)", soft_wrap=True)

    with errors_to_exit():
        location = library_location(library)
        releases = path_setting(None, "releases")
        if releases:
            from symcache.verify import Expectations

            Expectations.load(releases)  # refused now, not at the first request
        run(
            ServerConfig(
                library=location,
                cache_dir=platformdirs.user_cache_path("symcache") / "server",
                state_dir=Path(platformdirs.user_state_path("symcache")),
                host=host,
                host_names=tuple(host_name or ()),
                port=port,
                processes=processes,
                releases=releases,
                cache_bytes=int(cache_gib * (1 << 30)),
                public_reads=public_reads,
                require_token=require_token,
                upstreams=tuple(server_urls(upstream)) if upstream else (),
                sources=tuple(SourceTree.parse(text) for text in sources or ()),
                origins=tuple(allow_origin or ()),
                access_log=access_log,
                tls_cert=tls_cert,
                tls_key=tls_key,
                trusted_proxies=tuple(parse_network(text) for text in trust_proxy or ()),
                x_accel=x_accel,
                redirect_to_store=redirect_to_store,
                lookup_rate=lookup_rate,
                upload_rate=upload_rate,
            ),
            ready,
        )
