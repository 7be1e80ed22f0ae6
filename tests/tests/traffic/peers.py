"""Both ends of what services say to each other: `serve` answers, `ask HOST` asks and checks what it hears.

On the port TALK the server speaks first; the client's first line then says what shall happen on the connection. On the
others it is gRPC, WebSocket and TLS, as Debian's packages speak them.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import resource
import socket
import ssl
import struct
import sys
import termios
import threading
from concurrent import futures

import grpc
import websockets

TALK, GRPC, WEBSOCKET, TLS = 7000, 7001, 7002, 7003
BLOCK = hashlib.shake_128(b"devproxy").digest(1_000_003)
SOON = 60
# What the last connections were told, for the client to ask for on another one.
remembered = {}


def pieces(count):
    """`count` bytes, in which no two million repeat at a power of two."""
    while count > 0:
        yield BLOCK[:count]
        count -= len(BLOCK)


def digest_of(count):
    found = hashlib.sha1()
    for piece in pieces(count):
        found.update(piece)
    return found.hexdigest()


async def send(writer, count):
    for piece in pieces(count):
        writer.write(piece)
        await writer.drain()


async def receive(reader):
    """Number and digest of the bytes up to the other side's end."""
    found, count = hashlib.sha1(), 0
    while piece := await reader.read(1 << 18):
        found.update(piece)
        count += len(piece)
    return f"{count} {found.hexdigest()}"


async def ending(reader):
    """How the other side ends a connection."""
    try:
        while await reader.read(1 << 16):
            pass
        return "end"
    except ConnectionResetError:
        return "reset"


def reset(writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def all_acknowledged(writer):
    connection = writer.get_extra_info("socket")
    async with asyncio.timeout(SOON):
        while any(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))):
            await asyncio.sleep(0.01)


# ---- the server


async def talk(reader, writer):
    writer.write(b"ready\n")
    words = (await reader.readline()).decode().split()
    if not words:
        return
    word, count = words[0], int(words[1]) if len(words) > 1 else 0
    if word == "digest":
        writer.write((await receive(reader)).encode())
    elif word == "leave-first":
        writer.write(b"bye")
        writer.write_eof()
        remembered[word] = await receive(reader)
    elif word == "give":
        await send(writer, count)
    elif word == "refuse":
        await send(writer, count)
        writer.write_eof()
        await all_acknowledged(writer)
        # What the client still says is not read: a reset behind the end of file.
        writer.transport.abort()
        return
    elif word == "exchange":
        _, heard = await asyncio.gather(send(writer, count), receive(reader))
        remembered[word] = heard
    elif word == "reset":
        writer.write(b"x")
        await writer.drain()
        await reader.read(1)
        reset(writer)
        return
    elif word == "until":
        remembered[word] = await ending(reader)
    elif word == "remembered":
        for name, said in remembered.items():
            writer.write(f"{name}: {said}\n".encode())
    elif word == "echo":
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    await writer.drain()


async def guarded(reader, writer):
    # Clients leave as they like.
    with contextlib.suppress(ConnectionError):
        try:
            await talk(reader, writer)
        finally:
            writer.close()


async def over_tls(reader, writer):
    writer.write(b"over TLS: " + await reader.readline())
    await writer.drain()
    writer.close()


async def over_websocket(socket):
    async for message in socket:
        await socket.send(message)


class Shop(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/shop/Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: request[::-1]),
            "/shop/Many": grpc.unary_stream_rpc_method_handler(self.many),
            "/shop/Both": grpc.stream_stream_rpc_method_handler(lambda requests, _: (one[::-1] for one in requests)),
            "/shop/Fails": grpc.unary_unary_rpc_method_handler(self.fails),
        }.get(call.method)

    @staticmethod
    def many(request, _):
        for number in range(int(request)):
            yield str(number).encode()

    @staticmethod
    def fails(_, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "out of stock")


async def serve():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    calls = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    calls.add_generic_rpc_handlers((Shop(),))
    calls.add_insecure_port(f"[::]:{GRPC}")
    calls.start()
    await asyncio.start_server(over_tls, None, TLS, ssl=context)
    await websockets.serve(over_websocket, None, WEBSOCKET, max_size=None)
    await asyncio.start_server(guarded, None, TALK, backlog=4096)
    print("serving", flush=True)
    await asyncio.Event().wait()


# ---- the client


class Client:
    def __init__(self, host):
        self.host = host

    @contextlib.asynccontextmanager
    async def talk(self, words):
        reader, writer = await asyncio.open_connection(self.host, TALK)
        try:
            assert await reader.readline() == b"ready\n"
            writer.write(words.encode() + b"\n")
            yield reader, writer
        finally:
            writer.close()

    async def remembered(self, name):
        async with self.talk("remembered") as (reader, _):
            said = (await reader.read()).decode()
        found = dict(line.split(": ") for line in said.splitlines())
        return found.get(name)

    async def until_remembered(self, name, wanted):
        async with asyncio.timeout(SOON):
            while (found := await self.remembered(name)) != wanted:
                assert found is None, f"{name}: {found}, not {wanted}"
                await asyncio.sleep(0.1)

    async def round_trip(self, reader, writer, piece=b"x" * 64):
        writer.write(piece)
        assert await reader.readexactly(len(piece)) == piece

    # What each word of the command line checks.

    async def half_close(self):
        count = 3_000_000
        wanted = f"{count} {digest_of(count)}"
        async with self.talk("digest") as (reader, writer):
            await send(writer, count)
            writer.write_eof()
            assert (await reader.read()).decode() == wanted
        async with self.talk("leave-first") as (reader, writer):
            assert await reader.read() == b"bye"
            await send(writer, count)
            writer.write_eof()
        await self.until_remembered("leave-first", wanted)

    async def resets(self):
        async with self.talk("reset") as (reader, writer):
            assert await reader.readexactly(1) == b"x"
            writer.write(b"x")
            assert await ending(reader) == "reset"
        async with self.talk("until") as (reader, writer):
            await writer.drain()
            reset(writer)
        await self.until_remembered("until", "reset")

    async def refused_upload(self, count):
        """An answer arrives whole although its server does not read the upload that goes on meanwhile, and resets it."""
        await asyncio.to_thread(self.upload_and_read, int(count))

    def upload_and_read(self, count):
        with socket.create_connection((self.host, TALK), timeout=SOON) as connection:

            def upload():
                with contextlib.suppress(ConnectionError):
                    while True:
                        connection.sendall(BLOCK)

            assert connection.recv(6, socket.MSG_WAITALL) == b"ready\n"
            connection.sendall(b"refuse %d\n" % count)
            uploading = threading.Thread(target=upload, daemon=True)
            uploading.start()
            found, heard = hashlib.sha1(), 0
            while piece := connection.recv(1 << 18):
                found.update(piece)
                heard += len(piece)
            assert (heard, found.hexdigest()) == (count, digest_of(count)), f"{heard} of {count} bytes"
            uploading.join(SOON)
            assert not uploading.is_alive(), "the upload is not reset"

    async def tls(self):
        context = ssl.create_default_context(cafile="certificate.pem")
        reader, writer = await asyncio.open_connection(self.host, TLS, ssl=context, server_hostname="shop.test")
        writer.write(b"hello\n")
        assert await reader.read() == b"over TLS: hello\n"
        writer.close()

    async def websocket(self):
        async with websockets.connect(f"ws://{self.host}:{WEBSOCKET}/", max_size=None) as socket:
            for message in ["hello", BLOCK, "", "goodbye"]:
                await socket.send(message)
                assert await socket.recv() == message
            await asyncio.wait_for(await socket.ping(), SOON)
        assert socket.close_code == 1000

    async def grpc(self):
        async with grpc.aio.insecure_channel(f"{self.host}:{GRPC}") as channel:
            unary, many = channel.unary_unary("/shop/Unary"), channel.unary_stream("/shop/Many")
            assert await asyncio.gather(*(unary(b"abc", timeout=SOON) for _ in range(200))) == [b"cba"] * 200
            assert [one async for one in many(b"5000", timeout=SOON)] == [b"%d" % n for n in range(5000)]
            both = channel.stream_stream("/shop/Both")(timeout=SOON)
            for number in range(100):
                await both.write(b"a%d" % number)
                assert await both.read() == (b"a%d" % number)[::-1]
            await both.done_writing()
            try:
                await channel.unary_unary("/shop/Fails")(b"", timeout=SOON)
                raise AssertionError("no failure")
            except grpc.aio.AioRpcError as error:
                assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "out of stock")

    async def at_once(self, count=250):
        async def one():
            async with self.talk("give 20000") as (reader, _):
                return await receive(reader)

        wanted = f"20000 {digest_of(20000)}"
        assert await asyncio.gather(*(one() for _ in range(int(count)))) == [wanted] * int(count)

    async def exchange(self, count):
        """So many bytes in both directions at a time."""
        count = int(count)
        wanted = f"{count} {digest_of(count)}"
        async with self.talk(f"exchange {count}") as (reader, writer):

            async def say():
                await send(writer, count)
                writer.write_eof()

            _, heard = await asyncio.gather(say(), receive(reader))
            assert heard == wanted, f"{heard}, not {wanted}"
        await self.until_remembered("exchange", wanted)

    async def aborts(self, count=200):
        for _ in range(int(count)):
            async with self.talk("give 1000000000") as (reader, writer):
                await reader.readexactly(100_000)
                writer.transport.abort()
        await self.at_once(20)

    async def stalled(self):
        """One that does not read keeps nobody waiting, and loses nothing."""
        count = 100_000_000
        async with self.talk(f"give {count}") as (slow, _):
            async with self.talk("echo") as (reader, writer):
                for _ in range(50):
                    await self.round_trip(reader, writer)
            async with self.talk("give 50000000") as (reader, _):
                assert await receive(reader) == f"50000000 {digest_of(50_000_000)}"
            assert await receive(slow) == f"{count} {digest_of(count)}"

    async def idle(self, count):
        gate = asyncio.Semaphore(64)
        async with contextlib.AsyncExitStack() as open_ones:

            async def one():
                async with gate:
                    return await open_ones.enter_async_context(self.talk("echo"))

            flows = await asyncio.gather(*(one() for _ in range(int(count))))

            async def speaks(flow):
                async with gate:
                    await self.round_trip(*flow)

            await asyncio.gather(*map(speaks, flows))

    async def churn(self, count):
        gate = asyncio.Semaphore(64)

        async def one():
            async with gate, self.talk("echo") as (reader, writer):
                await self.round_trip(reader, writer)

        for _ in range(0, int(count), 1000):
            await asyncio.gather(*(one() for _ in range(1000)))


async def ask(host, checks):
    client = Client(host)
    for check in checks:
        name, *counts = check.split("=")
        async with asyncio.timeout(600):
            await getattr(client, name.replace("-", "_"))(*counts)
        print("as expected:", check, flush=True)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve() if sys.argv[1] == "serve" else ask(sys.argv[2], sys.argv[3:]))
