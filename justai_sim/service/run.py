"""Run the service: a data folder, a socket, and uvicorn."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import uvicorn

from justai_sim import clock
from justai_sim.errors import UsageError, nearest
from justai_sim.esp import signatures
from justai_sim.loop.program import Program
from justai_sim.service.app import create_app
from justai_sim.service.engine import Engine, now_us
from justai_sim.service.settings import find_source, program_toml, read_program
from justai_sim.service.store import Store

STORE, PROGRAM, LOCK = "store.sqlite", "program.toml", "lock"
API_KEY = "JUSTAI_SIM_API_KEY"
"""Environment variable; the service is open to everybody who reaches it where it is not set."""
SECRET = "JUSTAI_SIM_SECRET_"
"""Start of the environment variables that hold the webhooks' secrets, one a provider."""
DEFAULT = "welcome"


def serve(host: str, port: int, data_dir: Path | str, program_source: Path | str | None = None) -> None:
    """Serve until interrupted. `port` 0 takes a free one; the address is printed on stderr once it answers.

    `program_source` (a program or scenario file, or a packaged scenario's name; default `welcome`) is
    written to the data folder's program.toml when that is absent, and must agree with it when it is not.
    """
    data = Path(data_dir)
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"--data {data}: cannot be made a folder ({e.strerror})") from None
    program = settled_program(data, program_source)
    with locked(data), listen(host, port) as listener:
        store = Store(data / STORE)
        try:
            engine = Engine(program, store, declared_in=data / PROGRAM, keep=lambda p: kept(data / PROGRAM, p))
            ahead = store.last - now_us()
            if ahead > clock.MINUTE:
                _say(f"warning: the newest row is of {clock.iso(store.last)}, later than the clock; time stands still")
            for org in store.orgs() or [""]:
                engine.shares(org)  # compiles and reads the journal before the first request waits for it
            run(engine, listener, os.environ.get(API_KEY, ""), secrets_of(os.environ))
        finally:
            store.close()


def settled_program(data: Path, source: Path | str | None) -> Program:
    """The program of the data folder; a first start writes it."""
    path = data / PROGRAM
    if not path.exists():
        program = read_program(find_source(source if source is not None else DEFAULT))
        kept(path, program)
        return program
    program = read_program(path)
    if source is not None and read_program(find_source(source)) != program:
        raise UsageError(
            f"{path} differs from {source}; edit {path.name}, leave --program out to go on with it (it holds what was "
            "changed through /api/variants too), or name another --data folder"
        )
    return program


def kept(path: Path, program: Program) -> None:
    """Write a program durably: the file is the old one or the new one, whatever happens."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as f:
        f.write(program_toml(program))
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def locked(data: Path) -> IO[str]:
    """A lock on the data folder that ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows: there two services on one folder are the user's care
        return (data / LOCK).open("w")
    f = (data / LOCK).open("w")
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        f.close()
        raise UsageError(f"--data {data}: another service runs on this folder") from None
    return f


def listen(host: str, port: int) -> socket.socket:
    """A bound socket."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}; expected 0 to 65535")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        s = socket.socket(family, kind, proto)
    except OSError as e:
        raise UsageError(f"--host {host!r}: not an address of this machine ({e})") from None
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(address)
    except OSError as e:
        s.close()
        raise UsageError(f"{host}:{port} cannot be listened on: {e.strerror}; try another --port") from None
    return s


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for s in sockets or []:
            host, port = s.getsockname()[:2]
            _say(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}/ (stop with Ctrl-C)")


def secrets_of(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """The live secrets of each provider, such as JUSTAI_SIM_SECRET_SEGMENT=new,old. UsageError for unknown providers.

    >>> secrets_of({"JUSTAI_SIM_SECRET_SEGMENT": "new, old", "HOME": "/"})
    {'segment': ['new', 'old']}
    """
    out = {}
    for name in environment:
        if name.startswith(SECRET):
            esp = name.removeprefix(SECRET).lower()
            if esp not in signatures.COVERS:
                raise UsageError(f"{name}: no signature is known of {esp!r}; {nearest(esp, signatures.COVERS)}")
            out[esp] = [s.strip() for s in environment[name].split(",")]
            signatures.checked(esp, out[esp])
    return out


def run(
    engine: Engine, listener: socket.socket, api_key: str = "", secrets: Mapping[str, Sequence[str]] | None = None
) -> None:
    host = str(listener.getsockname()[0])
    if not api_key and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        _say(f"warning: everybody who reaches {host} can read and write; set {API_KEY} to ask for a key")
    config: Any = uvicorn.Config(
        create_app(engine, api_key, secrets), loop="asyncio", http="h11", ws="none", log_level="warning",
        timeout_graceful_shutdown=5, server_header=False,
    )  # fmt: skip
    _Server(config).run(sockets=[listener])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
