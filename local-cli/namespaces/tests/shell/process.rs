use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use devproxy_namespaces::{Entrance, Family, Kind, NamespaceError, Side, inhabitants};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::bed::{self, Session, as_user};

#[test]
fn a_program_has_the_pods_name_the_users_id_and_no_capability() {
    as_user("process::a_program_has_the_pods_name_the_users_id_and_no_capability", || {
        let (session, _sockets) = Session::start();
        let mut command = Command::new(bed::helper());
        Entrance::of(session.namespaces.pid()).unwrap().prepare(&mut command, Path::new("/usr"));
        let said = String::from_utf8(command.arg("status").output().unwrap().stdout).unwrap();
        let uid = nix::unistd::getuid();
        for line in [
            "hostname cart-7f2",
            "directory /usr",
            &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapInh:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t0",
            "SigBlk:\t0000000000000000",
        ] {
            assert!(said.contains(line), "{line} is not in\n{said}");
        }
    });
}

#[test]
fn a_folder_that_does_not_exist_is_told_by_spawn() {
    as_user("process::a_folder_that_does_not_exist_is_told_by_spawn", || {
        let (session, _sockets) = Session::start();
        let mut command = Command::new(bed::helper());
        Entrance::of(session.namespaces.pid()).unwrap().prepare(&mut command, Path::new("/no/such/folder"));
        assert_eq!(command.spawn().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn a_user_namespace_can_be_made_inside() {
    as_user("process::a_user_namespace_can_be_made_inside", || {
        let (session, _sockets) = Session::start();
        let output = session.command(Path::new("unshare")).args(["-U", "true"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn inhabitants_are_the_programs_inside() {
    as_user("process::inhabitants_are_the_programs_inside", || {
        let (session, _sockets) = Session::start();
        assert_eq!(inhabitants(session.namespaces.pid()).unwrap(), []);
        let kept = session.keep(&["serve", "127.0.0.1:80"]);
        assert_eq!(inhabitants(session.namespaces.pid()).unwrap(), [kept.pid()]);
        drop(kept);
        // Also in namespaces of its own, as a rootless container has them.
        let mut nested = session.command(Path::new("unshare"));
        let helper = bed::helper();
        nested.args(["-Un", helper.to_str().unwrap(), "serve", "0.0.0.0:8080"]);
        let nested = bed::Kept::start(&mut nested);
        assert!(nested.line.starts_with("listening"), "{}", nested.line);
        assert_eq!(inhabitants(session.namespaces.pid()).unwrap(), [nested.pid()]);
        drop(nested);
        assert_eq!(inhabitants(session.namespaces.pid()).unwrap(), []);
    });
}

#[test]
fn what_a_session_in_a_container_left_behind_is_not_the_whole_container() {
    as_user("process::what_a_session_in_a_container_left_behind_is_not_the_whole_container", || {
        // The shell is the container's; below it are the session's namespaces, in which a program is left.
        let helper = bed::helper();
        let session = format!("unshare -Urn env LEFT=k7f2 {} serve 127.0.0.1:80; true", helper.display());
        let mut container = Command::new("unshare");
        let container = bed::Kept::start(container.args(["-Urn", "sh", "-c", &session]));
        assert!(container.line.starts_with("listening"), "{}", container.line);
        let left = Entrance::left_behind("LEFT", "k7f2").unwrap().inhabitants().unwrap();
        let [left] = left[..] else { panic!("{left:?} in the container of {}", container.pid()) };
        let status = std::fs::read_to_string(format!("/proc/{left}/status")).unwrap();
        assert!(status.contains(&format!("PPid:\t{}\n", container.pid())), "{status}");
    });
}

#[test]
fn the_terminals_signals_do_not_end_the_helper() {
    as_user("process::the_terminals_signals_do_not_end_the_helper", || {
        let (session, _sockets) = Session::start();
        let helper = Pid::from_raw(session.namespaces.pid());
        for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
            kill(helper, signal).unwrap();
        }
        let made =
            session.runtime.block_on(session.namespaces.sockets(Side::Shell, Family::V6, Kind::Udp, 64));
        assert_eq!(made.unwrap().len(), 64);
    });
}

#[test]
fn a_killed_helper_is_noticed_and_leaves_nothing() {
    as_user("process::a_killed_helper_is_noticed_and_leaves_nothing", || {
        let (session, _sockets) = Session::start();
        let mounts = bed::mounts();
        let helper = session.namespaces.pid();
        kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
        let ended = async { tokio::time::timeout(Duration::from_secs(10), session.namespaces.ended()).await };
        session.runtime.block_on(ended).unwrap();
        let refused =
            session.runtime.block_on(session.namespaces.sockets(Side::Shell, Family::V4, Kind::Tcp, 1));
        assert!(matches!(refused, Err(NamespaceError::Gone)), "{refused:?}");
        assert!(!Path::new(&format!("/proc/{helper}")).exists(), "reaped");
        assert!(bed::mounts().is_subset(&mounts));
    });
}

#[test]
fn a_dropped_session_ends_its_helper() {
    as_user("process::a_dropped_session_ends_its_helper", || {
        let (session, _sockets) = Session::start();
        let helper = session.namespaces.pid();
        let entrance = Entrance::of(helper).unwrap();
        drop(session);
        let mut command = Command::new(bed::helper());
        entrance.prepare(&mut command, Path::new("/"));
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
    });
}

#[test]
fn what_is_left_inside_is_known_after_the_helpers_end() {
    as_user("process::what_is_left_inside_is_known_after_the_helpers_end", || {
        let (session, _sockets) = Session::start();
        let entrance = Entrance::of(session.namespaces.pid()).unwrap();
        let kept = session.keep(&["serve", "127.0.0.1:80"]);
        drop(session);
        assert_eq!(entrance.inhabitants().unwrap(), [kept.pid()]);
        drop(kept);
        assert_eq!(entrance.inhabitants().unwrap(), []);
    });
}

#[test]
fn what_runs_inside_is_hung_up_when_the_session_was_killed() {
    as_user("process::what_runs_inside_is_hung_up_when_the_session_was_killed", || {
        let mut session = Command::new(bed::helper())
            .arg("session")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        BufReader::new(session.stdout.take().unwrap()).read_line(&mut told).unwrap();
        // The helper, a program that obeys SIGHUP, and a stopped one that ignores it.
        let pids: Vec<i32> = told.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        let running = || pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
        assert_eq!((pids.len(), running()), (3, 3), "{told}");
        session.kill().unwrap();
        session.wait().unwrap();
        let since = Instant::now();
        while running() > 0 && since.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = running();
        for pid in pids.iter().filter(|_| left > 0) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        assert_eq!(left, 0, "of {told}");
    });
}
