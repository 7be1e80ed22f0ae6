"""What a program sees of its network, one line each. Argument: JSON of names, and of targets by what they do.

Run in the original's pod and in the shell, both must print the same; the own address is printed as `own`.
"""

import concurrent.futures
import errno
import json
import socket
import sys
import urllib.request

asked = json.loads(sys.argv[1])
SYN_RETRIES = 7  # TCP_SYNCNT, which Python does not name


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own(target):
    """The address that the kernel would send from."""
    with socket.socket(family(target), socket.SOCK_DGRAM) as s:
        s.connect((target, 9))
        return s.getsockname()[0]


own_addresses = [own(target) for target in asked["routed"]]


def shown(address):
    host = address[0].removeprefix("::ffff:")
    return "own" if host in own_addresses else host


def error(e):
    if isinstance(e, socket.gaierror):
        return f"gai {e.errno} {e.strerror}"
    return errno.errorcode.get(e.errno, str(e))


def tcp(address, port, retries):
    with socket.socket(family(address), socket.SOCK_STREAM) as s:
        s.setsockopt(socket.IPPROTO_TCP, SYN_RETRIES, retries)
        try:
            s.connect((address, port))
            return f"connected peer={shown(s.getpeername())}:{s.getpeername()[1]} local={shown(s.getsockname())}"
        except OSError as e:
            return error(e)


def limited(address, port):
    """As most programs connect: not blocking, with a limit of their own."""
    with socket.socket(family(address), socket.SOCK_STREAM) as s:
        s.settimeout(3)
        try:
            s.connect((address, port))
            return "connected"
        except socket.timeout:
            return "no answer"
        except OSError as e:
            return error(e)


def udp(address, port, message):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        try:
            s.connect((address, port))
            s.send(message)
            head, _, body = s.recv(65536).partition(b" ")
            peer = head.decode().rpartition(":")[0].strip("[]")
            return f"{len(body)} bytes, same={body == message}, seen as {shown((peer,))}"
        except socket.timeout:
            return "no answer"
        except OSError as e:
            return error(e)


def addresses(name):
    try:
        found = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        return f"{sorted(shown(f[4]) for f in found)} {found[0][3]}"
    except OSError as e:
        return error(e)


def reverse(address):
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError as e:
        return error(e) if e.errno in errno.errorcode else str(e)


def get(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode().strip()
    except OSError as e:
        return str(e)


def own_name(name):
    return addresses(name).replace(name, "own")


def lines():
    for what, address, port in asked["tcp"]:
        yield ("tcp", what, address, port), tcp, (address, port, 1 if what == "silent" else 3)
        yield ("tcp with a limit", what, address, port), limited, (address, port)
    for what, address, port, size in asked["udp"]:
        yield ("udp", what, address, port), udp, (address, port, b"x" * size)
    for address in own_addresses:
        for port in asked["own"]:
            yield ("own", "v6" if ":" in address else "v4", port), tcp, (address, port, 3)
    for name in asked["names"]:
        yield ("name", name), addresses, (name,)
    for address in asked["reverse"]:
        yield ("reverse", address), reverse, (address,)
    yield ("host",), own_name, (socket.gethostname(),)
    for url in asked["urls"]:
        yield ("url", url), get, (url,)


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for words, answer in [(words, pool.submit(work, *args)) for words, work, args in lines()]:
        print(*words, answer.result())
