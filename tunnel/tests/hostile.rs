//! A peer that holds the key and lies: each lie has a defined result and bounded cost.

#![expect(clippy::unwrap_used, reason = "the liar's helpers fail the test by panicking")]

mod support;

use std::{
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use devproxy_tunnel::{
    Open, Opening, Refusal, Role,
    proto::{
        Connection, FlowId, Limits, ProtocolError,
        frame::{Frame, FrameError, ResetCode},
        record,
    },
};
use support::{target, udp};

/// An agent's end with one lane, and what is sent to it.
struct Victim {
    end: Connection,
    number: u64,
    now: Instant,
}

impl Victim {
    fn new() -> Self {
        let now = Instant::now();
        let mut end = Connection::new(Role::Agent, Limits::default());
        end.add_lane(now);
        Self { end, number: 0, now }
    }

    fn hear(&mut self, frames: &[Frame<'_>]) -> Result<(), ProtocolError> {
        let mut body = Vec::new();
        for frame in frames {
            frame.encode(&mut body);
        }
        self.hear_bytes(&body)
    }

    fn hear_bytes(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        self.number += 1;
        let mut bytes = vec![0; record::HEADER];
        bytes.extend_from_slice(body);
        record::seal(&mut bytes, 0, self.number);
        self.end.handle_bytes(0, &bytes, self.now).map(drop)
    }

    /// A flow opened by the liar and accepted.
    fn accept(&mut self, id: u32, open: &Open) -> FlowId {
        let id = FlowId(id);
        self.hear(&[Frame::Open(id, 1000, &meta(open))]).unwrap();
        assert!(matches!(self.end.poll_request(Waker::noop()), Poll::Ready(Some((got, _))) if got == id));
        self.end.accept(id);
        id
    }
}

fn meta(open: &Open) -> Vec<u8> {
    postcard::to_stdvec(open).unwrap()
}

#[test]
fn unknown_frames_and_reserved_ones_end_the_tunnel() {
    for kind in [0, 12, 14, 255] {
        let unknown = Victim::new().hear_bytes(&[kind, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(unknown, ProtocolError::Frame(FrameError::Unknown(kind)));
    }
}

#[test]
fn records_out_of_order_or_out_of_bounds_end_the_tunnel() {
    let mut victim = Victim::new();
    victim.number = 5;
    let skipped = victim.hear(&[Frame::Goaway]).unwrap_err();
    assert_eq!(skipped, ProtocolError::RecordNumber { got: 6, expected: 1 });
    for length in [0, 65_529, u32::MAX] {
        let now = Instant::now();
        let error = Victim::new().end.handle_bytes(0, &length.to_le_bytes(), now).unwrap_err();
        assert_eq!(error, ProtocolError::RecordLength(length));
    }
}

#[test]
fn frames_for_flows_that_never_were_end_the_tunnel() {
    for id in [FlowId(2), FlowId(1), FlowId(0), FlowId(u32::MAX)] {
        for frame in [
            Frame::Data(id, b"x"),
            Frame::Fin(id),
            Frame::Credit(id, 1),
            Frame::Datagram(id, b"x"),
            Frame::Reset(id, ResetCode::Stop),
        ] {
            let unknown = Victim::new().hear(&[frame]).unwrap_err();
            assert_eq!(unknown, ProtocolError::UnknownFlow(id.0));
        }
    }
}

#[test]
fn frames_for_flows_that_ended_are_ignored() {
    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    victim.end.release(id);
    let late = [Frame::Data(id, b"x"), Frame::Credit(id, 1), Frame::Fin(id)];
    assert_eq!(victim.hear(&late), Ok(()));
}

#[test]
fn opens_with_a_wrong_or_used_id_end_the_tunnel() {
    let meta = meta(&target());
    let open = |id| Frame::Open(FlowId(id), 1000, &meta);
    assert_eq!(Victim::new().hear(&[open(3)]), Err(ProtocolError::BadOpen(3)));
    assert_eq!(Victim::new().hear(&[open(4), open(4)]), Err(ProtocolError::BadOpen(4)));
    assert_eq!(Victim::new().hear(&[open(4), open(2)]), Err(ProtocolError::BadOpen(2)));
}

#[test]
fn an_overrun_window_ends_the_tunnel() {
    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    let piece = vec![0; 32 << 10];
    for _ in 0..8 {
        victim.hear(&[Frame::Data(id, &piece)]).unwrap();
    }
    assert_eq!(victim.hear(&[Frame::Data(id, b"x")]), Err(ProtocolError::Overrun(2)));
}

#[test]
fn impossible_credit_ends_the_tunnel() {
    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    victim.hear(&[Frame::Credit(id, 1 << 29)]).unwrap();
    assert_eq!(victim.hear(&[Frame::Credit(id, 1 << 30)]), Err(ProtocolError::CreditOverflow(2)));
}

#[test]
fn too_much_before_the_answer_and_data_after_the_end_or_of_the_wrong_kind_end_the_tunnel() {
    let mut victim = Victim::new();
    let opened = meta(&target());
    let piece = [0; 1024];
    victim.hear(&[Frame::Open(FlowId(2), 0, &opened)]).unwrap();
    for _ in 0..Opening::EARLY / piece.len() {
        victim.hear(&[Frame::Data(FlowId(2), &piece)]).unwrap();
    }
    assert_eq!(victim.hear(&[Frame::Data(FlowId(2), b"x")]), Err(ProtocolError::Overrun(2)));

    let mut victim = Victim::new();
    let early_end = [Frame::Open(FlowId(2), 0, &opened), Frame::Fin(FlowId(2))];
    assert_eq!(victim.hear(&early_end), Err(ProtocolError::BadState(2)));

    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    assert_eq!(victim.hear(&[Frame::Fin(id), Frame::Data(id, b"x")]), Err(ProtocolError::BadState(2)));

    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    assert_eq!(victim.hear(&[Frame::Datagram(id, b"x")]), Err(ProtocolError::BadState(2)));

    let mut victim = Victim::new();
    let id = victim.accept(2, &udp());
    assert_eq!(victim.hear(&[Frame::Data(id, b"x")]), Err(ProtocolError::BadState(2)));
}

#[test]
fn answers_to_what_was_not_asked_end_the_tunnel() {
    let mut victim = Victim::new();
    assert_eq!(victim.hear(&[Frame::Answer(FlowId(1), Ok(1))]), Err(ProtocolError::UnknownFlow(1)));
    let mut victim = Victim::new();
    let id = victim.end.open(&target()).unwrap();
    assert_eq!(victim.hear(&[Frame::Answer(id, Ok(1))]), Err(ProtocolError::BadState(id.0)));
    let mut victim = Victim::new();
    assert_eq!(victim.hear(&[Frame::Ack(1)]), Err(ProtocolError::AckTooHigh(1)));
}

#[test]
fn an_open_of_an_unknown_kind_is_refused_and_harms_nothing() {
    let mut victim = Victim::new();
    victim.hear(&[Frame::Open(FlowId(2), 1000, &[99, 1, 2, 3])]).unwrap();
    let mut answer = Vec::new();
    assert!(victim.end.poll_transmit(0, &mut answer, victim.now));
    let mut expected = Vec::new();
    Frame::Answer(FlowId(2), Err(Refusal::Unsupported)).encode(&mut expected);
    assert!(answer.windows(expected.len()).any(|window| window == expected));
    assert_eq!(victim.end.flow_count(), 0);
}

#[test]
fn a_peer_that_opens_without_end_and_takes_no_answer_is_not_read_any_further() {
    let mut victim = Victim::new();
    let meta = meta(&target());
    let mut opened = 0;
    while !victim.end.is_congested(0) {
        opened += 1;
        victim.hear(&[Frame::Open(FlowId(opened * 2), 1000, &meta)]).unwrap();
        assert!(opened < 200_000, "it goes on for ever");
    }
    assert!(victim.end.flow_count() <= 1024);
    let number = victim.number;
    victim.hear(&[Frame::Data(FlowId(1), b"never looked at")]).unwrap();
    victim.number = number;
    while victim.end.poll_transmit(0, &mut Vec::new(), victim.now) {}
    assert!(!victim.end.is_congested(0));
}

#[test]
fn opens_that_are_taken_back_leave_nothing() {
    let mut victim = Victim::new();
    let meta = meta(&target());
    for id in (2..20_000).step_by(2).map(FlowId) {
        let reset = ResetCode::Abort(Refusal::Closed);
        victim.hear(&[Frame::Open(id, 1000, &meta), Frame::Reset(id, reset)]).unwrap();
    }
    assert_eq!(victim.end.flow_count(), 0);
    assert_eq!(victim.end.promised_bytes(), 0);
    assert!(victim.end.poll_request(Waker::noop()).is_pending());
}

#[test]
fn a_flood_of_pings_is_answered_once() {
    let mut victim = Victim::new();
    for token in 0..10_000 {
        victim.hear(&[Frame::Ping(token)]).unwrap();
    }
    let mut out = Vec::new();
    while victim.end.poll_transmit(0, &mut out, victim.now) {}
    assert!(out.len() < 100, "{} bytes", out.len());
}

#[test]
fn datagrams_beyond_the_bounds_of_the_tunnel_are_dropped() {
    let mut victim = Victim::new();
    let datagram = vec![0; 60_000];
    for flow in 1..=100 {
        let id = victim.accept(flow * 2, &udp());
        for _ in 0..300 {
            victim.hear(&[Frame::Datagram(id, &datagram)]).unwrap();
        }
    }
    let mut held = 0;
    for flow in 1..=100 {
        while let Poll::Ready(Ok(got)) = victim.end.poll_recv(FlowId(flow * 2), Waker::noop()) {
            held += got.len();
        }
    }
    assert!(held <= 32 << 20, "{held}");
}

#[test]
fn single_bytes_cost_no_more_than_their_window() {
    let mut victim = Victim::new();
    let id = victim.accept(2, &target());
    for _ in 0..256 << 10 {
        victim.hear(&[Frame::Data(id, b"x")]).unwrap();
    }
    assert_eq!(victim.hear(&[Frame::Data(id, b"x")]), Err(ProtocolError::Overrun(2)));
}

#[test]
fn silence_ends_the_tunnel_and_signs_of_life_keep_it() {
    let mut victim = Victim::new();
    let second = Duration::from_secs(1);
    for _ in 0..60 {
        victim.now += second;
        victim.end.handle_timeout(victim.now);
        victim.hear(&[Frame::Pong(0)]).unwrap();
    }
    assert!(victim.end.ended().is_none());
    for _ in 0..21 {
        victim.now += second;
        victim.end.handle_timeout(victim.now);
    }
    assert!(victim.end.ended().is_some());
}

#[test]
fn a_longest_open_fits_and_a_longer_one_is_malformed() {
    let open = Open::Files { roots: vec!["r".repeat(16_000)] };
    Victim::new().hear(&[Frame::Open(FlowId(2), 1, &meta(&open))]).unwrap();
    let long = vec![0; (16 << 10) + 1];
    let error = Victim::new().hear(&[Frame::Open(FlowId(2), 1, &long)]).unwrap_err();
    assert_eq!(error, ProtocolError::Frame(FrameError::Malformed(1)));
}

#[test]
fn a_request_that_waits_is_held_as_it_came() {
    let mut victim = Victim::new();
    // 16,000 bytes on the wire, 384,000 decoded: only who takes it pays for that, one at a time.
    let open = Open::Files { roots: vec![String::new(); 16_000] };
    let id = FlowId(2);
    victim.hear(&[Frame::Open(id, 1000, &meta(&open))]).unwrap();
    assert_eq!(victim.end.poll_request(Waker::noop()), Poll::Ready(Some((id, open))));
    assert!(victim.end.poll_request(Waker::noop()).is_pending());
}
