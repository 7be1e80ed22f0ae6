//! The namespaces' helper, and small programs to run in the shell, for the tests of this crate.

use std::{
    env,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(20);

fn main() {
    devproxy_namespaces::helper::main();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["connect", target] => connect(target).and_then(hear),
        ["connect-within", milliseconds, target] => connect_within(milliseconds, target),
        ["half-close", target] => connect(target).and_then(half_close),
        ["abort", target] => connect(target).and_then(abort),
        ["bulk", length, target] => bulk(length, target),
        ["many", count, target] => many(count, target),
        ["datagram", length, target] => datagram(length, target),
        ["datagrams", count, target] => datagrams(count, target),
        ["ask", count, target] => ask(count, target),
        ["serve", address] => serve(address),
        ["stall", address] => stall(address),
        ["serve-datagrams", address] => serve_datagrams(address),
        _ => Err(io::Error::other("this program is only started by devproxy's tests")),
    };
    if let Err(error) = result {
        match error.raw_os_error() {
            Some(number) => println!("error {}", nix::errno::Errno::from_raw(number)),
            None => println!("error {error}"),
        }
    }
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(io::Error::other)
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(io::Error::other)
}

fn connect(target: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address(target)?)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Prints the peer and all that it says.
fn hear(stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    hear_from(peer, stream)
}

/// The same with the peer as it was: once both directions have ended the kernel knows none.
fn hear_from(peer: SocketAddr, mut stream: TcpStream) -> io::Result<()> {
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    println!("peer {peer} said {said}");
    Ok(())
}

fn connect_within(milliseconds: &str, target: &str) -> io::Result<()> {
    let limit = Duration::from_millis(milliseconds.parse().map_err(io::Error::other)?);
    match TcpStream::connect_timeout(&address(target)?, limit) {
        Err(error) if error.raw_os_error().is_none() => println!("silence"),
        other => hear(other?)?,
    }
    Ok(())
}

/// Says something, ends its own direction, hears the rest.
fn half_close(mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.write_all(b"question")?;
    stream.shutdown(Shutdown::Write)?;
    hear_from(peer, stream)
}

/// Waits for one byte, then resets the connection.
fn abort(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    println!("reset");
    Ok(())
}

fn pattern(at: usize) -> u8 {
    u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap_or_default()
}

/// Sends a pattern to an echo and compares what comes back.
fn bulk(length: &str, target: &str) -> io::Result<()> {
    let length = number(length)?;
    let stream = connect(target)?;
    let mut writing = stream.try_clone()?;
    let writer = thread::spawn(move || {
        let mut at = 0;
        while at < length {
            let chunk: Vec<u8> = (at..length.min(at + 100_000)).map(pattern).collect();
            writing.write_all(&chunk)?;
            at += chunk.len();
        }
        writing.shutdown(Shutdown::Write)
    });
    let (mut at, mut wrong) = (0, 0);
    let mut buffer = vec![0; 100_000];
    loop {
        match (&stream).read(&mut buffer)? {
            0 => break,
            count => {
                wrong += buffer[..count].iter().zip(at..).filter(|(byte, at)| **byte != pattern(*at)).count();
                at += count;
            }
        }
    }
    writer.join().map_err(|_| io::Error::other("the writer failed"))??;
    println!("{at} bytes, {wrong} wrong");
    Ok(())
}

/// As many connections at once, each with an exchange of its own.
fn many(count: &str, target: &str) -> io::Result<()> {
    let count = number(count)?;
    let start = Barrier::new(count);
    let exchange = |number: usize| -> io::Result<bool> {
        start.wait();
        let mut stream = connect(target)?;
        let said = format!("number {number}");
        stream.write_all(said.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard == said)
    };
    let good = thread::scope(|scope| {
        let exchange = &exchange;
        let all: Vec<_> = (0..count).map(|number| scope.spawn(move || exchange(number))).collect();
        all.into_iter().map(thread::ScopedJoinHandle::join).filter(|one| matches!(one, Ok(Ok(true)))).count()
    });
    println!("{good} of {count}");
    Ok(())
}

fn socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// One datagram out of a connected socket, twice (the second one takes the flow's own path); prints what came back.
fn datagram(length: &str, target: &str) -> io::Result<()> {
    let target = address(target)?;
    let socket = socket(target)?;
    socket.connect(target)?;
    let sent: Vec<u8> = (0..number(length)?).map(pattern).collect();
    let mut buffer = vec![0; 65_536];
    for _ in 0..2 {
        socket.send(&sent)?;
        let heard = socket.recv(&mut buffer)?;
        let same = buffer[..heard].ends_with(&sent);
        println!("{heard} bytes, {}", if same { "the same" } else { "others" });
    }
    Ok(())
}

/// As many sockets, each with a question of its own; an unconnected socket sees the true sender.
fn datagrams(count: &str, target: &str) -> io::Result<()> {
    let (target, count) = (address(target)?, number(count)?);
    let sockets: Vec<UdpSocket> = (0..count).map(|_| socket(target)).collect::<io::Result<_>>()?;
    for (number, socket) in sockets.iter().enumerate() {
        socket.send_to(format!("question number {number}").as_bytes(), target)?;
    }
    let mut good = 0;
    let mut buffer = [0; 2048];
    for (number, socket) in sockets.iter().enumerate() {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let right = buffer[..length].ends_with(format!("question number {number}").as_bytes());
        good += usize::from(right && from == target);
    }
    println!("{good} of {count}");
    Ok(())
}

/// The same question, one time after the other; prints the last byte of each answer, which is of its address.
fn ask(count: &str, target: &str) -> io::Result<()> {
    let target = address(target)?;
    let socket = socket(target)?;
    socket.connect(target)?;
    let mut question = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x04cart\x04shop\0\0\x01\0\x01";
    let mut buffer = [0; 2048];
    let mut said = Vec::new();
    for number in 0..number(count)? {
        question[1] = u8::try_from(number).map_err(io::Error::other)?;
        socket.send(&question)?;
        let length = socket.recv(&mut buffer)?;
        if buffer[..2] != question[..2] {
            return Err(io::Error::other("the answer to another question"));
        }
        said.push(buffer[..length].last().map_or_else(String::new, u8::to_string));
    }
    println!("{}", said.join(" "));
    Ok(())
}

/// Tells every client whom it sees, then echoes, until standard input ends. Then it stops listening and serves to
/// the end those that it has accepted, as a server does on SIGTERM.
fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening {}", listener.local_addr()?);
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let serving = thread::spawn(move || -> Vec<thread::JoinHandle<io::Result<()>>> {
        let mut clients = Vec::new();
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => clients.push(thread::spawn(move || answer(stream))),
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        clients
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    ended.store(true, Ordering::Relaxed);
    for client in serving.join().unwrap_or_default() {
        let _ = client.join();
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    writeln!(stream, "{} sees {}", stream.local_addr()?, stream.peer_addr()?)?;
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// Listens and accepts nobody, as a program at a breakpoint.
fn stall(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?);
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(listener);
    Ok(())
}

fn serve_datagrams(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("listening {}", socket.local_addr()?);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = format!("sees {from}: {}", String::from_utf8_lossy(&buffer[..length]));
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
