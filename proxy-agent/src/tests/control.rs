use std::{fs, os::unix::fs::symlink};

use devproxy_tunnel::{
    Open,
    control::{self, FileKind, FileTree, FromAgent, Protocol, RootState, SCHEMA, ToAgent},
};
use tokio::net::{TcpListener, TcpStream};

use super::bed::{Agent, local, pod_port, soon};

#[tokio::test]
async fn the_facts_come_first() {
    let agent = Agent::start().await;
    let control = agent.laptop(1).await.control().await;
    assert_eq!(control.facts.schema, SCHEMA);
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_cause() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let sidecar = TcpListener::bind(local(0)).await.unwrap();
    let taken = pod_port(Protocol::Tcp, sidecar.local_addr().unwrap().port());
    let answer = laptop.control().await.ask(ToAgent::Listen(vec![taken])).await;
    assert_eq!(answer, FromAgent::Listening { failed: vec![(taken, "Address already in use".into())] });
}

#[tokio::test]
async fn readiness_is_a_latch_that_outlives_the_tunnel() {
    let agent = Agent::start().await;
    let connects = || async { TcpStream::connect(local(agent.ready_port)).await.is_ok() };
    assert!(!connects().await);
    let mut laptop = agent.laptop(1).await;
    let open = FromAgent::Ready { failed: None };
    assert_eq!(laptop.control().await.ask(ToAgent::Ready).await, open);
    assert!(connects().await);
    laptop.tunnel.close();
    let _ = soon(laptop.driver.join_next()).await;
    assert!(connects().await);
    let laptop = agent.laptop(2).await;
    assert_eq!(laptop.control().await.ask(ToAgent::Ready).await, open);
}

#[tokio::test]
async fn a_readiness_port_that_is_taken_is_told() {
    let agent = Agent::start().await;
    let _sidecar = TcpListener::bind(local(agent.ready_port)).await.unwrap();
    let answer = agent.laptop(1).await.control().await.ask(ToAgent::Ready).await;
    let failed = format!("cannot open the readiness port {}: Address already in use", agent.ready_port);
    assert_eq!(answer, FromAgent::Ready { failed: Some(failed) });
}

#[tokio::test]
async fn sigterm_is_told_once_and_orders_are_still_obeyed() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let mut control = laptop.control().await;
    agent.terminate.send_replace(true);
    assert_eq!(control.next().await, FromAgent::Terminating);
    assert_eq!(control.ask(ToAgent::Splice(Vec::new())).await, FromAgent::Splicing);
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_with_its_cause() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let folder = tempfile::tempdir().unwrap();
    let present = folder.path().to_str().unwrap();
    let mut roots = vec!["/no/such/volume".to_owned()];
    // One more than are served.
    roots.resize(257, present.to_owned());
    let mut flow = laptop.open(Open::Files { roots: roots.clone() }).await.unwrap();
    let (mut sent, mut unreadable) = (0, Vec::new());
    for _ in roots {
        match soon(control::read(&mut flow)).await.unwrap() {
            RootState::Tree(_) => sent += 1,
            RootState::Unreadable { root, cause } => unreadable.push((root, cause)),
        }
    }
    unreadable.sort();
    let missing = ("/no/such/volume".to_owned(), "No such file or directory (os error 2)".to_owned());
    let many = (present.to_owned(), "there are more than 256 mounts".to_owned());
    let mut expected = [missing, many];
    expected.sort();
    assert_eq!((sent, unreadable), (255, Vec::from(expected)));
}

#[tokio::test]
async fn a_volume_is_sent_again_after_its_flip() {
    let agent = Agent::start().await;
    let laptop = agent.laptop(1).await;
    let volume = tempfile::tempdir().unwrap();
    let publish = |version: &str| {
        fs::create_dir(volume.path().join(version)).unwrap();
        fs::write(volume.path().join(version).join("key"), version).unwrap();
        symlink(version, volume.path().join("..data_tmp")).unwrap();
        fs::rename(volume.path().join("..data_tmp"), volume.path().join("..data")).unwrap();
    };
    publish("..one");
    let root = volume.path().to_str().unwrap().to_owned();
    let roots = vec!["/no/such/volume".to_owned(), root.clone()];
    let mut flow = laptop.open(Open::Files { roots }).await.unwrap();
    let data = |tree: &FileTree| {
        let link = tree.entries.iter().find(|entry| entry.path == "..data");
        link.map(|entry| entry.kind.clone())
    };
    let mut tree = async || loop {
        if let RootState::Tree(tree) = soon(control::read(&mut flow)).await.unwrap() {
            return tree;
        }
    };
    let first = tree().await;
    assert_eq!(first.root, root);
    assert_eq!(data(&first), Some(FileKind::Symlink("..one".into())));
    publish("..two");
    let second = tree().await;
    assert_eq!(data(&second), Some(FileKind::Symlink("..two".into())));
    let content = FileKind::File(b"..two".to_vec());
    assert!(second.entries.iter().any(|entry| entry.path == "..two/key" && entry.kind == content));
}
