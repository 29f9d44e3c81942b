"""What stands before a broker of Kafka's protocol and asks who it is: TLS, and a user's name and password.

No broker that a package brings lets a user in by SASL, so it is spoken here, as KIP-43, KIP-152 and RFC 5802 have it.
Once a client is let in, its bytes go through as they are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_MECHANISM, _REFUSED = 33, 58


def certificate(folder: Path, name: str, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for that address, signed by itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return files


@dataclass
class Gate:
    """A gate that stands; `users` may be changed, which is asked of those who connect from then on."""

    users: dict[str, str]
    let_in: list[str] = field(default_factory=list)
    drop: Callable[[], None] = lambda: None


@contextmanager
def gate(port: int, broker: int, users: dict[str, str], tls: tuple[Path, Path] | None = None) -> Iterator[Gate]:
    """Stand at `port` before the broker until the block ends; without users nobody is asked."""
    made = Gate(users)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    loop = asyncio.new_event_loop()
    writers: set[asyncio.StreamWriter] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        inside, outside = await asyncio.open_connection("127.0.0.1", broker)
        writers.add(outside)
        try:
            if not made.users or await _admit(made, reader, writer, inside, outside):
                await asyncio.gather(_pass(reader, outside), _pass(inside, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, outside):
                each.transport.abort()  # closing TLS politely would wait for the client
                writers.discard(each)

    def drop() -> None:
        for each in list(writers):
            loop.call_soon_threadsafe(each.transport.abort)

    made.drop = drop
    patience = None if context is None else 3.0
    listening = asyncio.start_server(client, "127.0.0.1", port, ssl=context, ssl_handshake_timeout=patience)
    server = loop.run_until_complete(listening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        for each in server.sockets:  # who has just come is let in before it is closed, or would stay half in
            loop.remove_reader(each.fileno())
        await asyncio.sleep(0.02)
        server.close()
        quiet = 0
        while quiet < 3:  # who has been in the middle of shaking hands, and has no task yet, comes out of it
            for each in list(writers):
                each.transport.abort()
            await asyncio.sleep(0.02)
            connected = server._active_count  # type: ignore[attr-defined]
            quiet = quiet + 1 if not connected and len(asyncio.all_tasks()) == 1 else 0

    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    writer.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])


async def _admit(
    made: Gate,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inside: asyncio.StreamReader,
    outside: asyncio.StreamWriter,
) -> bool:
    exchange: Callable[[bytes], tuple[bytes, str | None]] | None = None
    while True:
        request = await _frame(reader)
        kind, version, number, length = struct.unpack_from(">hhih", request)
        body = request[10 + max(length, 0) :]
        user: str | None = None
        if kind == _API_VERSIONS:
            outside.write(_sized(request))
            answer = await _frame(inside)
        elif kind == _HANDSHAKE:
            mechanism = body[2:].decode()
            exchange = {"PLAIN": _plain, "SCRAM-SHA-256": _scram}.get(mechanism, lambda _: None)(made.users)
            code = 0 if exchange is not None else _UNSUPPORTED_MECHANISM
            answer = struct.pack(">ihi", number, code, 2) + _text("PLAIN") + _text("SCRAM-SHA-256")
        elif kind == _AUTHENTICATE and exchange is not None:
            assert version < 2, "from version 2 on a request is laid out in another way"
            lifetime = struct.pack(">q", 0) if version == 1 else b""
            try:
                said, user = exchange(body[4:])
                answer = struct.pack(">ihhi", number, 0, -1, len(said)) + said + lifetime
            except PermissionError:
                refused = _text("the name or the password is wrong")
                answer = struct.pack(">ih", number, _REFUSED) + refused + struct.pack(">i", 0) + lifetime
        else:
            return False  # whoever says nothing of himself is cut off, as by Kafka
        writer.write(_sized(answer))
        await writer.drain()
        if user is not None:
            made.let_in.append(user)
            return True


def _sized(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _plain(users: dict[str, str]) -> Callable[[bytes], tuple[bytes, str | None]]:
    def step(said: bytes) -> tuple[bytes, str | None]:
        _, user, password = said.decode().split("\0")
        if not hmac.compare_digest(users.get(user, "").encode(), password.encode()):
            raise PermissionError
        return b"", user

    return step


def _scram(users: dict[str, str]) -> Callable[[bytes], tuple[bytes, str | None]]:
    state: dict[str, str] = {}

    def step(said: bytes) -> tuple[bytes, str | None]:
        if not state:
            bare = said.decode().split(",", 2)[2]
            parts = dict(part.split("=", 1) for part in bare.split(","))
            salt, nonce = secrets.token_bytes(16), parts["r"] + secrets.token_hex(8)
            first = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
            state.update(user=parts["n"], salt=salt.hex(), nonce=nonce, said=f"{bare},{first}")
            return first.encode(), None
        without, _, proof = said.decode().rpartition(",p=")
        whole = f"{state['said']},{without}".encode()
        password = users.get(state["user"], "").encode()
        salted = hashlib.pbkdf2_hmac("sha256", password, bytes.fromhex(state["salt"]), 4096)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), whole, "sha256")
        right = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        nonce = dict(part.split("=", 1) for part in without.split(","))["r"]
        if nonce != state["nonce"] or not hmac.compare_digest(right, base64.b64decode(proof)):
            raise PermissionError
        verifier = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), whole, "sha256")
        return b"v=" + base64.b64encode(verifier), state["user"]

    return step
