//! The helper alone, and small programs to run in the shell, for the tests of this crate.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use devproxy_namespaces::{Entrance, Namespaces, Spec};

fn main() {
    devproxy_namespaces::helper::main();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["connect", target] => TcpStream::connect(target).and_then(converse),
        ["connect-from", port, target] => connect_from(port, target).and_then(converse),
        ["serve", address] => serve(address),
        ["ask", target, size] => ask(target, size),
        ["flood", target, count] => flood(target, count),
        ["read", path] => fs::read_to_string(path).map(|text| println!("{text}")),
        ["list", path] => list(Path::new(path)),
        ["status"] => status(),
        ["session"] => session(),
        ["touch", path] => fs::write(path, "written inside"),
        ["wait"] => io::stdin().read_to_end(&mut Vec::new()).map(drop),
        _ => Err(io::Error::other("this program is only started by devproxy's tests")),
    };
    if let Err(e) = result {
        println!("error {} {e}", e.raw_os_error().unwrap_or(0));
    }
}

/// From a fixed port, as a client with `SO_REUSEADDR`.
fn connect_from(port: &str, target: &str) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let port: u16 = port.parse().map_err(io::Error::other)?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
    socket.connect(&target.parse::<SocketAddr>().map_err(io::Error::other)?.into())?;
    Ok(socket.into())
}

/// Prints the peer and all that it says.
fn converse(mut stream: TcpStream) -> io::Result<()> {
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    println!("peer {peer} local {local} said {said}");
    Ok(())
}

/// Listens, tells every client what it sees, until standard input ends.
fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told = stream.peer_addr().and_then(|peer| write!(&stream, "program sees {peer}"));
            drop(told);
        }
    });
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// One datagram each way, from an unconnected socket.
fn ask(target: &str, size: &str) -> io::Result<()> {
    let size: usize = size.parse().map_err(io::Error::other)?;
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(&vec![b'?'; size], target)?;
    let mut buffer = [0; 1024];
    let (length, from) = socket.recv_from(&mut buffer)?;
    println!("from {from} said {}", String::from_utf8_lossy(&buffer[..length]));
    Ok(())
}

/// Begins many connections at once and tells how many succeeded.
fn flood(target: &str, count: &str) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    let count: usize = count.parse().map_err(io::Error::other)?;
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&target.into()) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                sockets.push(TcpStream::from(socket));
            }
            other => other?,
        }
    }
    let mut connected = 0;
    for mut socket in sockets {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut said = String::new();
        connected += usize::from(socket.read_to_string(&mut said).is_ok() && said.starts_with("caught"));
    }
    println!("connected {connected}");
    Ok(())
}

fn list(path: &Path) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(path)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.sort();
    println!("{}", names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(" "));
    Ok(())
}

/// A session with two programs inside, to be killed: prints the helper's pid and theirs. The second is stopped and
/// ignores SIGHUP.
fn session() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let spec = Spec {
        hostname: "cart-7f2".to_owned(),
        addresses: vec![Ipv4Addr::new(10, 244, 9, 9).into()],
        mtu: 1450,
    };
    let created = runtime.block_on(Namespaces::create(Path::new("/proc/self/exe"), &spec));
    let (namespaces, _sockets) = created.map_err(io::Error::other)?;
    let inside = Entrance::of(namespaces.pid())?;
    let start = |script: &str| {
        let mut command = Command::new("sh");
        inside.prepare(&mut command, Path::new("/"));
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let obeys = start("exec sleep 3600")?;
    let ignores = start("trap '' HUP; kill -STOP $$; exec sleep 3600")?;
    let state = || fs::read_to_string(format!("/proc/{}/stat", ignores.id()));
    while !state()?.contains(") T ") {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{} {} {}", namespaces.pid(), obeys.id(), ignores.id());
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// What a program can tell about where it runs.
fn status() -> io::Result<()> {
    println!("hostname {}", fs::read_to_string("/proc/sys/kernel/hostname")?.trim());
    println!("directory {}", env::current_dir()?.display());
    print!("{}", fs::read_to_string("/proc/self/status")?);
    Ok(())
}
