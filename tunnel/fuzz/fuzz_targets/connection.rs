//! A peer after the handshake: arbitrary bytes, and well-formed records with arbitrary frames, into one end whose
//! application meanwhile does what applications do.
//!
//! The input is a list of steps; the first byte of each says what it is.

#![no_main]

use std::{
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use devproxy_tunnel::{
    Open, Refusal, Role,
    proto::{
        Connection, FlowId, Limits,
        frame::{Frame, ResetCode},
        record,
    },
};
use libfuzzer_sys::fuzz_target;

const LANES: usize = 2;

fn limits() -> Limits {
    Limits {
        initial_window: 4096,
        max_window: 32 << 10,
        max_inflow: 64 << 10,
        total_window: 128 << 10,
        send_queue: 4096,
        total_send_queue: 64 << 10,
        flows: 32,
        unanswered: 8,
        datagrams: 8,
        datagram_bytes: 16 << 10,
        total_datagram_bytes: 64 << 10,
        ..Limits::default()
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn flow(&mut self) -> FlowId {
        FlowId(u32::from(self.byte() % 32))
    }
}

fn open(byte: u8) -> Open {
    let target = ([10, 0, 0, 1], 80).into();
    match byte % 4 {
        0 => Open::Udp { target },
        1 => Open::Control,
        2 => Open::Files { roots: vec!["/etc".into()] },
        _ => Open::Tcp { target },
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut now = Instant::now();
    let role = if input.byte() % 2 == 0 { Role::Agent } else { Role::Laptop };
    let limits = limits();
    let mut end = Connection::new(role, limits.clone());
    for _ in 0..LANES {
        end.add_lane(now);
    }
    let mut numbers = [0; LANES];
    let mut meta;
    let mut out = Vec::new();
    while !input.0.is_empty() && end.ended().is_none() {
        let step = input.byte();
        let lane = usize::from(step >> 7) % LANES;
        let heard = match step % 32 {
            // Raw bytes.
            0 => end.handle_bytes(lane, input.bytes(), now).map(drop),
            // A record with a raw body.
            1 => hear(&mut end, lane, &mut numbers, input.bytes(), now),
            // A record with one well-formed frame.
            kind @ 2..=16 => {
                let flow = input.flow();
                let number = input.byte();
                let frame = match kind {
                    2 | 3 => {
                        meta = postcard::to_stdvec(&open(number)).unwrap_or_default();
                        Frame::Open(flow, u32::from(number) << (number % 25), &meta)
                    }
                    4 => Frame::Answer(flow, Ok(u32::from(number) << (number % 25))),
                    5 => Frame::Answer(flow, Err(Refusal::TimedOut)),
                    6 | 7 => Frame::Data(flow, input.bytes()),
                    8 if number % 2 == 0 => Frame::Fin(flow),
                    8 => Frame::Move(flow),
                    9 => Frame::Reset(flow, ResetCode::Stop),
                    10 => Frame::Reset(flow, ResetCode::Abort(Refusal::Refused)),
                    11 => Frame::Credit(flow, u32::from(number) << (number % 25)),
                    12 => Frame::Datagram(flow, input.bytes()),
                    13 => Frame::Ping(u64::from(number)),
                    14 => Frame::Pong(u64::from(number)),
                    15 => Frame::Ack(u64::from(number)),
                    _ => Frame::Goaway,
                };
                let mut body = Vec::new();
                frame.encode(&mut body);
                hear(&mut end, lane, &mut numbers, &body, now)
            }
            17 => {
                let _opened = end.open(&open(input.byte()));
                Ok(())
            }
            18 | 19 => {
                if let Poll::Ready(Some((flow, _))) = end.poll_request(Waker::noop()) {
                    if input.byte() % 8 == 0 { end.refuse(flow, Refusal::Refused) } else { end.accept(flow) }
                }
                Ok(())
            }
            20 => {
                let _answer = end.poll_answer(input.flow(), Waker::noop());
                Ok(())
            }
            21 | 22 => {
                let (flow, bytes) = (input.flow(), input.bytes());
                let _written = end.poll_write(flow, bytes, Waker::noop());
                Ok(())
            }
            23 => {
                let (flow, bytes) = (input.flow(), input.bytes());
                let fill = |room: &mut [u8]| {
                    let count = bytes.len().min(room.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    count
                };
                let _filled = end.poll_fill(flow, fill, Waker::noop());
                Ok(())
            }
            24 => {
                let (flow, most) = (input.flow(), usize::from(input.byte()) * 16);
                let _read = end.poll_read(flow, |_| most, Waker::noop());
                Ok(())
            }
            25 => {
                let flow = input.flow();
                let datagram = input.bytes().to_vec().into();
                let _sent = end.poll_send(flow, &datagram, Waker::noop());
                let _received = end.poll_recv(flow, Waker::noop());
                Ok(())
            }
            26 => {
                let _finished = end.finish(input.flow());
                Ok(())
            }
            27 => {
                end.reset(input.flow());
                Ok(())
            }
            28 => {
                let flow = input.flow();
                end.close_datagrams(flow, Refusal::Refused);
                end.release(flow);
                Ok(())
            }
            29 => {
                now += Duration::from_millis(u64::from(input.byte()) * 16);
                end.handle_timeout(now);
                Ok(())
            }
            30 if input.byte() == 0 => {
                end.close(now);
                Ok(())
            }
            _ => {
                out.clear();
                end.poll_transmit(lane, &mut out, now);
                assert!(out.len() <= record::MAX_RECORD);
                check(&out);
                Ok(())
            }
        };
        if let Err(error) = heard {
            end.end(error.into());
        }
        assert!(end.flow_count() <= 2 * limits.flows);
        assert!(end.unsent_bytes() <= end.flow_count() * limits.datagram_bytes);
        assert!(end.promised_bytes() <= limits.total_window + end.flow_count() as u64 * 4096);
    }
    for id in 0..32 {
        end.release(FlowId(id));
    }
});

fn hear(
    end: &mut Connection,
    lane: usize,
    numbers: &mut [u64; LANES],
    body: &[u8],
    now: Instant,
) -> Result<(), devproxy_tunnel::proto::ProtocolError> {
    if end.is_congested(lane) {
        return Ok(());
    }
    numbers[lane] += 1;
    let mut bytes = vec![0; record::HEADER];
    bytes.extend_from_slice(body);
    record::seal(&mut bytes, 0, numbers[lane]);
    end.handle_bytes(lane, &bytes, now).map(drop)
}

/// What this end says is well-formed.
fn check(out: &[u8]) {
    if out.is_empty() {
        return;
    }
    let record = record::Record::first(out).expect("our length is in bounds").expect("our record is whole");
    let mut body = record.body;
    while Frame::decode(&mut body).expect("our frames are well-formed").is_some() {}
}
