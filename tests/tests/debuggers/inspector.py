"""A small client of node's inspector, as an IDE is one. Arguments: a line's number in server.js, from 0.

Stops the program there; resumes it when told by a line on standard input; leaves at the end of it.
"""

import base64
import json
import os
import socket
import struct
import sys
import urllib.request

targets = json.load(urllib.request.urlopen("http://127.0.0.1:9229/json/list", timeout=10))
path = targets[0]["webSocketDebuggerUrl"].split(":9229")[1]
wire = socket.create_connection(("127.0.0.1", 9229))
key = base64.b64encode(os.urandom(16)).decode()
wire.sendall(
    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9229\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
)
stream = wire.makefile("rb")
while stream.readline().strip():
    pass


def send(number, method, **params):
    text = json.dumps({"id": number, "method": method, "params": params}).encode()
    # Masked with zeros: a client must mask.
    wire.sendall(b"\x81" + struct.pack("!BH", 0x80 | 126, len(text)) + b"\0\0\0\0" + text)


def receive():
    _, length = stream.read(2)
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", stream.read(8))
    return json.loads(stream.read(length))


def until(wanted):
    while True:
        message = receive()
        if "error" in message:
            sys.exit(f"{message}")
        if wanted(message):
            return message


send(1, "Debugger.enable")
send(2, "Debugger.setBreakpointByUrl", lineNumber=int(sys.argv[1]), urlRegex="server.js$")
breakpoint_id = until(lambda message: message.get("id") == 2)["result"]["breakpointId"]
print("set", flush=True)
paused = until(lambda message: message.get("method") == "Debugger.paused")
print("paused in", paused["params"]["callFrames"][0]["functionName"], flush=True)
sys.stdin.readline()
send(3, "Debugger.removeBreakpoint", breakpointId=breakpoint_id)
send(4, "Debugger.resume")
until(lambda message: message.get("id") == 4)
print("resumed", flush=True)
sys.stdin.read()
