"""Asks DNS as its standard input says, one answer line per command line; raw, so that TTLs and times are seen.

ask NAME            one question: response code, TTL and data of the first record; or `silence` after 1 s
watch NAME          asks ten times a second until there is silence: `elapsed ttl` of each answer, since the first
times NAME COUNT    round trips of the same question, for 3 s at most: median and 99th percentile, milliseconds
misses NAME COUNT   the same with another EDNS size each time, so that no cache before the cluster's has the answer
echo HOST PORT COUNT  round trips of 64 bytes over TCP, to compare with
"""

import os
import socket
import struct
import sys
import time

A, OPT = 1, 41
SILENCE = 1.0
LONGEST = 3.0

with open("/etc/resolv.conf") as lines:
    SERVER = next(line.split()[1] for line in lines if line.startswith("nameserver"))
family = socket.AF_INET6 if ":" in SERVER else socket.AF_INET
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.connect((SERVER, 53))
udp.settimeout(SILENCE)


def question(name, size=0):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"
    message = os.urandom(2) + struct.pack(">5H", 0x0100, 1, 0, 0, 1 if size else 0) + labels + struct.pack(">2H", A, 1)
    return message + (struct.pack(">BHHIH", 0, OPT, size, 0, 0) if size else b"")


def exchange(message):
    """The answer to this very message; none after the time that a question has."""
    udp.send(message)
    while True:
        try:
            answer = udp.recv(65536)
        except (socket.timeout, ConnectionRefusedError):
            return None
        if answer[:2] == message[:2]:
            return answer


def after_name(message, at):
    while message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += 1 + message[at]
    return at + 1


def first_record(message):
    at = after_name(message, after_name(message, 12) + 4)
    _, _, ttl, length = struct.unpack_from(">HHIH", message, at)
    return ttl, message[at + 10 : at + 10 + length]


def ask(name):
    answer = exchange(question(name))
    if answer is None:
        return "silence"
    ttl, data = first_record(answer)
    return f"{answer[3] & 15} {ttl} {'.'.join(map(str, data))}"


def watch(name):
    start, seen = time.monotonic(), []
    while answer := exchange(question(name)):
        seen.append(f"{time.monotonic() - start:.3f} {first_record(answer)[0]}")
        time.sleep(0.1)
    return ", ".join(seen)


def timed(count, once):
    times = []
    for number in range(int(count)):
        start = time.perf_counter()
        if once(number) is None:
            return "silence"
        times.append((time.perf_counter() - start) * 1000)
        if sum(times) > LONGEST * 1000:
            break
    times.sort()
    return f"p50 {times[len(times) // 2]:.3f} p99 {times[len(times) * 99 // 100]:.3f}"


def times(name, count):
    return timed(count, lambda _: exchange(question(name)))


def misses(name, count):
    return timed(count, lambda number: exchange(question(name, 1024 + number)))


def echo(host, port, count):
    with socket.create_connection((host, int(port))) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def once(_):
            s.send(b"x" * 64)
            return s.recv(64, socket.MSG_WAITALL)

        return timed(count, once)


commands = {f.__name__: f for f in (ask, watch, times, misses, echo)}
for line in sys.stdin:
    word, *arguments = line.split()
    print(word, commands[word](*arguments), flush=True)
