use std::{
    future::{pending, poll_fn, ready},
    time::{Duration, Instant},
};

use devproxy_tunnel::{Carrier, Open, Role, SessionKey, Tunnel, TunnelId};
use tokio::task::JoinSet;

use super::*;

fn question() -> Bytes {
    Bytes::from_static(b"question")
}

#[test]
fn a_line_that_stays_silent_takes_no_more_questions() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    assert_eq!(lines.line(now, pending), 1);
    lines.ask(question(), now);
    assert_eq!(lines.line(now + Duration::from_millis(999), pending), 1);
    assert_eq!(lines.line(now + SILENCE, pending), 2);
    lines.expire(now + LATE);
    assert_eq!(lines.clear(), [2], "late answers are in");
}

#[test]
fn an_idle_line_takes_no_more_questions_and_ends() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    lines.line(now, pending);
    assert_eq!(lines.line(now + IDLE.saturating_sub(Duration::from_millis(1)), pending), 1);
    assert_eq!(lines.line(now + IDLE, pending), 2);
    lines.expire(now + IDLE + IDLE + LATE);
    assert!(lines.clear().is_empty());
}

#[test]
fn a_refused_line_says_so_once() {
    let (mut lines, now) = (Lines::default(), Instant::now());
    let number = lines.line(now, || ready(Err(Refusal::Refused)));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(
        matches!(lines.poll(&mut cx), Poll::Ready(Said::Ended(line, Refusal::Refused)) if line == number)
    );
    assert!(lines.poll(&mut cx).is_pending());
}

#[tokio::test]
async fn an_answered_line_goes_on() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let key = SessionKey::from_bytes([7; SessionKey::LEN]);
    let (near, far) = tokio::join!(
        Carrier::handshake(near, Role::Laptop, &key, TunnelId(1)),
        Carrier::handshake(far, Role::Agent, &key, TunnelId(1)),
    );
    let (laptop, _incoming, laptop_driver) = Tunnel::new(Role::Laptop, near.unwrap());
    let (_agent, mut incoming, agent_driver) = Tunnel::new(Role::Agent, far.unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(laptop_driver.await) });
    tasks.spawn(async move { drop(agent_driver.await) });
    tasks.spawn(async move {
        let flow = incoming.next().await.unwrap().accept_datagrams();
        while let Ok(asked) = flow.recv().await {
            flow.send(asked).await.unwrap();
        }
    });
    let (mut lines, mut now) = (Lines::default(), Instant::now());
    let server = ([10, 96, 0, 10], 53).into();
    for _ in 0..3 {
        let laptop = laptop.clone();
        let open = || async move { laptop.open_datagrams(Open::Dns { server }).await };
        assert_eq!(lines.line(now, open), 1);
        lines.ask(question(), now);
        let said = poll_fn(|cx| lines.poll(cx)).await;
        assert!(matches!(said, Said::Answer(answer) if answer == question()));
        now += 5 * SILENCE;
    }
}
