//! How flows share lanes, in virtual time.

mod support;

use std::{task::Poll, task::Waker, time::Duration};

use devproxy_tunnel::{
    Opening, Refusal,
    proto::{FlowId, Limits},
};
use support::{
    pair::{AGENT, LAPTOP, Pair},
    target,
};

/// A link of so many bytes a millisecond from the laptop to the agent; the way back is not limited.
fn run_link(pair: &mut Pair, rate: usize, mut each_millisecond: impl FnMut(&mut Pair)) {
    let mut budget = 0;
    budget += rate;
    while budget > 0 {
        let sent = pair.transmit(LAPTOP, 0);
        if sent == 0 {
            break;
        }
        budget = budget.saturating_sub(sent);
    }
    pair.advance(Duration::from_millis(1));
    pair.deliver(AGENT, 0, usize::MAX);
    each_millisecond(pair);
    while pair.transmit(AGENT, 0) > 0 {}
    pair.deliver(LAPTOP, 0, usize::MAX);
}

fn fill(pair: &mut Pair, flow: FlowId) {
    while let Poll::Ready(Ok(_)) = pair.write(LAPTOP, flow, &[7; 16 << 10]) {}
}

fn drain(pair: &mut Pair, flow: FlowId) -> usize {
    let mut got = 0;
    while let Poll::Ready(Ok(Some(bytes))) = pair.read(AGENT, flow, 64 << 10) {
        got += bytes.len();
    }
    got
}

#[test]
fn eight_bulk_flows_share_a_link_fairly() {
    let mut pair = Pair::new(1, &Limits::default());
    let flows: Vec<FlowId> = (0..8).map(|_| pair.connect(&target())).collect();
    let mut got = [0_usize; 8];
    for _ in 0..300 {
        for flow in &flows {
            fill(&mut pair, *flow);
        }
        run_link(&mut pair, 200_000, |pair| {
            for (flow, got) in flows.iter().zip(&mut got) {
                *got += drain(pair, *flow);
            }
        });
    }
    let mean = got.iter().sum::<usize>() / got.len();
    let slowest = *got.iter().min().unwrap();
    assert!(mean > 1 << 20, "{got:?}");
    assert!(slowest * 10 >= mean * 7, "{got:?}");
}

#[test]
fn flows_that_share_a_path_are_credited_by_one_message() {
    let mut pair = Pair::new(1, &Limits::default());
    let flows: Vec<FlowId> = (0..3).map(|_| pair.connect(&target())).collect();
    for flow in &flows {
        fill(&mut pair, *flow);
    }
    pair.settle();
    // A quarter of a window is worth a ride, and half of one a message.
    let window = 256 << 10;
    for flow in &flows[1..] {
        let got = pair.read(AGENT, *flow, window / 4);
        assert!(matches!(got, Poll::Ready(Ok(Some(bytes))) if bytes.len() == window / 4));
    }
    assert_eq!(pair.transmit(AGENT, 0), 0);
    assert_eq!(drain(&mut pair, flows[0]), window / 2);
    assert!(pair.transmit(AGENT, 0) > 0);
    assert_eq!(pair.transmit(AGENT, 0), 0);
    pair.deliver(LAPTOP, 0, usize::MAX);
    // The first has all of its window again, and the others what they took.
    let room = |pair: &mut Pair, flow| {
        let mut sent = 0;
        loop {
            fill(pair, flow);
            match pair.transmit(LAPTOP, 0) {
                0 => return sent,
                bytes => sent += bytes,
            }
        }
    };
    let rooms: Vec<_> = flows.iter().map(|flow| room(&mut pair, *flow) / (32 << 10)).collect();
    assert_eq!(rooms, [8, 6, 6]);
}

#[test]
fn a_keystroke_passes_a_download_within_two_records() {
    let mut pair = Pair::new(1, &Limits::default());
    let bulk: Vec<FlowId> = (0..8).map(|_| pair.connect(&target())).collect();
    let keys = pair.connect(&target());
    for round in 0..50 {
        for flow in &bulk {
            fill(&mut pair, *flow);
        }
        pair.transmit(LAPTOP, 0);
        assert_eq!(pair.write(LAPTOP, keys, b"x"), Poll::Ready(Ok(1)));
        pair.transmit(LAPTOP, 0);
        pair.transmit(LAPTOP, 0);
        pair.deliver(AGENT, 0, usize::MAX);
        assert_eq!(pair.read(AGENT, keys, 8), Poll::Ready(Ok(Some(b"x".to_vec()))), "round {round}");
        for flow in &bulk {
            drain(&mut pair, *flow);
        }
        pair.settle();
    }
}

#[test]
fn many_small_writes_do_not_starve_a_download() {
    let mut pair = Pair::new(1, &Limits::default());
    let bulk = pair.connect(&target());
    let chatty: Vec<FlowId> = (0..64).map(|_| pair.connect(&target())).collect();
    let mut got = 0;
    for _ in 0..100 {
        fill(&mut pair, bulk);
        for flow in &chatty {
            // As much as a turn: a flow that pretends to be interactive.
            let _written = pair.write(LAPTOP, *flow, &[1; 16 << 10]);
        }
        run_link(&mut pair, 64 << 10, |pair| {
            got += drain(pair, bulk);
            for flow in &chatty {
                drain(pair, *flow);
            }
        });
    }
    let fair = 100 * (64 << 10) / 65;
    assert!(got * 10 >= fair * 7, "{got} of {fair}");
}

#[test]
fn a_stalled_flow_stalls_no_other() {
    let mut pair = Pair::new(1, &Limits::default());
    let stalled = pair.connect(&target());
    let other = pair.connect(&target());
    for _ in 0..100 {
        fill(&mut pair, stalled);
        pair.settle();
    }
    assert!(pair.write(LAPTOP, stalled, b"x").is_pending(), "back-pressure reaches the writer");
    assert!(pair.ends[LAPTOP].unsent_bytes() <= 128 << 10);
    let mut got = 0;
    for _ in 0..100 {
        fill(&mut pair, other);
        pair.settle();
        got += drain(&mut pair, other);
    }
    assert!(got >= 100 * (128 << 10), "{got}");
    assert_eq!(drain(&mut pair, stalled), 256 << 10, "its window, and nothing lost");
}

/// Bytes a second that one flow gets through a link of `rate` bytes a millisecond in its second second.
fn throughput(pair: &mut Pair, flow: FlowId, rate: usize) -> usize {
    let mut got = 0;
    for millisecond in 0..2000 {
        fill(pair, flow);
        run_link(pair, rate, |pair| {
            let read = drain(pair, flow);
            if millisecond >= 1000 {
                got += read;
            }
        });
    }
    got
}

#[test]
fn the_window_grows_to_the_path() {
    // 100 MB/s and 40 ms: 4 MB under way, 16 times the window a flow begins with.
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(20));
    let flow = pair.connect(&target());
    let before = pair.ends[AGENT].promised_bytes();
    let got = throughput(&mut pair, flow, 100_000);
    assert!(got >= 70_000_000, "{got} bytes a second");
    let after = pair.ends[AGENT].promised_bytes();
    assert!(after > before && after <= 16 << 20, "{before} to {after}");
}

#[test]
fn busy_flows_share_what_the_path_holds() {
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(20));
    let flows: Vec<FlowId> = (0..8).map(|_| pair.connect(&target())).collect();
    throughput(&mut pair, flows[0], 100_000);
    let alone = pair.ends[AGENT].promised_bytes();
    let mut got = [0; 8];
    for millisecond in 0..2000 {
        for flow in &flows {
            fill(&mut pair, *flow);
        }
        run_link(&mut pair, 100_000, |pair| {
            for (flow, got) in flows.iter().zip(&mut got) {
                let read = drain(pair, *flow);
                *got += if millisecond >= 1000 { read } else { 0 };
            }
        });
    }
    let together = pair.ends[AGENT].promised_bytes();
    assert!(together <= alone, "{alone} bytes for one, {together} for eight");
    let (sum, slowest) = (got.iter().sum::<usize>(), *got.iter().min().unwrap());
    assert!(sum >= 70_000_000 && slowest * 8 * 10 >= sum * 9, "{got:?}");
}

#[test]
fn paced_flows_do_not_count_as_a_download() {
    // 64 kB/s each through a path of 64 MB/s and 80 ms, then a download beside them.
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(40));
    let paced: Vec<FlowId> = (0..8).map(|_| pair.connect(&target())).collect();
    let bulk = pair.connect(&target());
    let before = pair.ends[AGENT].promised_bytes();
    let mut got = 0;
    for millisecond in 0..12_000 {
        for flow in &paced {
            if millisecond % 100 == 0 {
                assert!(pair.write(LAPTOP, *flow, &[1; 6_400]).is_ready());
            }
        }
        if millisecond >= 8000 {
            fill(&mut pair, bulk);
        }
        run_link(&mut pair, 60_000, |pair| {
            for flow in &paced {
                drain(pair, *flow);
            }
            let read = drain(pair, bulk);
            got += if millisecond >= 10_000 { read } else { 0 };
        });
    }
    assert!(got >= 2 * 45_000_000, "{} bytes a second", got / 2);
    pair.ends[AGENT].release(bulk);
    // The flow goes with its RESET.
    pair.settle();
    let after = pair.ends[AGENT].promised_bytes();
    assert_eq!(after, before - (256 << 10), "no window grows by what its flow brings with time");
}

#[test]
fn the_window_shrinks_with_the_path() {
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(20));
    let flow = pair.connect(&target());
    throughput(&mut pair, flow, 100_000);
    let before = pair.ends[AGENT].promised_bytes();
    for millisecond in 0..10_000 {
        fill(&mut pair, flow);
        // A record in 32 ms: 2 MB/s.
        run_link(&mut pair, usize::from(millisecond % 32 == 0), |pair| {
            drain(pair, flow);
        });
    }
    let after = pair.ends[AGENT].promised_bytes();
    assert!(before > 4 << 20 && after <= 2 << 20, "{before} to {after}");
}

#[test]
fn load_that_slows_the_path_for_a_while_grows_no_window() {
    // 10 MB/s and 2 ms, then 40 ms: for a window of 256 KiB too long, if it is the path and not what waits on it.
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(1));
    let flow = pair.connect(&target());
    throughput(&mut pair, flow, 10_000);
    let before = pair.ends[AGENT].promised_bytes();
    let mut pair = pair.with_delay(Duration::from_millis(20));
    for _ in 0..12 {
        throughput(&mut pair, flow, 10_000);
    }
    let after = pair.ends[AGENT].promised_bytes();
    assert!(after <= before, "{before} to {after} in 24 s");
    // Then it is another path.
    for _ in 0..4 {
        throughput(&mut pair, flow, 10_000);
    }
    let got = throughput(&mut pair, flow, 10_000);
    assert!(got > 9_000_000, "{got} bytes a second");
}

#[test]
fn a_slow_reader_does_not_grow_its_window() {
    let mut pair = Pair::new(1, &Limits::default()).with_delay(Duration::from_millis(20));
    let flow = pair.connect(&target());
    let before = pair.ends[AGENT].promised_bytes();
    for _ in 0..2000 {
        fill(&mut pair, flow);
        run_link(&mut pair, 100_000, |pair| {
            let _one_kilobyte = pair.read(AGENT, flow, 1000);
        });
    }
    assert_eq!(pair.ends[AGENT].promised_bytes(), before);
}

#[test]
fn promises_stay_bounded_with_any_number_of_flows() {
    let limits = Limits { unanswered: 20_000, ..Limits::default() };
    let mut pair = Pair::new(1, &limits);
    for _ in 0..10_000 {
        pair.ends[LAPTOP].open(&target()).unwrap();
    }
    pair.settle();
    let promised = pair.ends[LAPTOP].promised_bytes();
    assert!(promised <= limits.total_window + 10_000 * 4096, "{promised}");
    assert_eq!(pair.ends[AGENT].flow_count(), 10_000);
}

#[test]
fn records_are_acknowledged() {
    let mut pair = Pair::new(1, &Limits::default());
    let flow = pair.connect(&target());
    for _ in 0..20 {
        fill(&mut pair, flow);
        pair.settle();
        drain(&mut pair, flow);
    }
    pair.advance(Duration::from_millis(100));
    pair.settle();
    pair.advance(Duration::from_millis(100));
    pair.settle();
    let (sent, acknowledged) = pair.ends[LAPTOP].records_sent(0);
    assert!(sent > 10 && acknowledged > sent - 3, "{acknowledged} of {sent}");
    assert_eq!(pair.in_flight(0, AGENT), 0);
}

#[test]
fn an_idle_tunnel_is_quiet_but_for_its_pings() {
    let mut pair = Pair::new(1, &Limits::default());
    pair.connect(&target());
    pair.advance(Duration::from_millis(500));
    pair.settle();
    let mut bytes = 0;
    for _ in 0..60 {
        pair.advance(Duration::from_secs(1));
        bytes += pair.transmit(LAPTOP, 0) + pair.transmit(AGENT, 0);
        pair.settle();
    }
    assert!((100..2000).contains(&bytes), "{bytes} bytes a minute");
    assert!(pair.ends[LAPTOP].poll_ended(Waker::noop()).is_none());
}

/// Everything in flight on `lane` arrives at the agent, and its answers back on all lanes.
fn exchange(pair: &mut Pair, lane: usize) {
    while pair.transmit(LAPTOP, lane) > 0 {}
    pair.deliver(AGENT, lane, usize::MAX);
    for lane in 0..pair.wires.len() {
        while pair.transmit(AGENT, lane) > 0 {}
        pair.deliver(LAPTOP, lane, usize::MAX);
    }
}

/// A flow that sent enough at home to go on on the bulk lane.
fn bulk_flow(pair: &mut Pair) -> FlowId {
    let bulk = pair.connect(&target());
    for _ in 0..20 {
        fill(pair, bulk);
        exchange(pair, 0);
        drain(pair, bulk);
        pair.advance(Duration::from_millis(1));
    }
    bulk
}

#[test]
fn a_download_leaves_the_home_lane_and_a_keystroke_does_not_wait_for_it() {
    let mut pair = Pair::new(2, &Limits::default());
    let bulk = bulk_flow(&mut pair);
    let keys = pair.connect(&target());
    fill(&mut pair, bulk);
    assert_eq!(pair.write(LAPTOP, keys, b"x"), Poll::Ready(Ok(1)));
    // The bulk lane stands still; what the home lane sends is the keystroke and nothing else.
    let sent: usize = std::iter::from_fn(|| Some(pair.transmit(LAPTOP, 0)).filter(|sent| *sent > 0)).sum();
    assert!(sent < 100, "{sent} bytes beside the keystroke");
    pair.deliver(AGENT, 0, usize::MAX);
    assert_eq!(pair.read(AGENT, keys, 8), Poll::Ready(Ok(Some(b"x".to_vec()))));
    assert!(pair.transmit(LAPTOP, 1) > 0, "the download is on the other lane");
}

#[test]
fn a_flow_that_calmed_down_comes_home() {
    let mut pair = Pair::new(2, &Limits::default());
    let flow = bulk_flow(&mut pair);
    fill(&mut pair, flow);
    exchange(&mut pair, 1);
    drain(&mut pair, flow);
    pair.advance(Duration::from_secs(5));
    exchange(&mut pair, 1);
    assert!(matches!(pair.write(LAPTOP, flow, b"calm"), Poll::Ready(Ok(4))));
    exchange(&mut pair, 1);
    exchange(&mut pair, 0);
    assert_eq!(pair.read(AGENT, flow, 8), Poll::Ready(Ok(Some(b"calm".to_vec()))));
    assert!(matches!(pair.write(LAPTOP, flow, b"home"), Poll::Ready(Ok(4))));
    assert_eq!(pair.transmit(LAPTOP, 1), 0);
    exchange(&mut pair, 0);
    assert_eq!(pair.read(AGENT, flow, 8), Poll::Ready(Ok(Some(b"home".to_vec()))));
}

/// Bytes of bulk that the laptop has on its way with `say` every millisecond, at most, in the last half of a second; and
/// how many arrived in that time.
fn bulk_on_its_way(pair: &mut Pair, bulk: FlowId, mut say: impl FnMut(&mut Pair)) -> (usize, usize) {
    let (mut most, mut arrived) = (0, 0);
    for millisecond in 0..1000 {
        say(pair);
        // More than one turn in a millisecond: what is filled leaves at once where it may.
        for _ in 0..4 {
            fill(pair, bulk);
            for lane in 0..2 {
                while pair.transmit(LAPTOP, lane) > 0 {}
                while pair.transmit(AGENT, lane) > 0 {}
            }
        }
        if millisecond >= 500 {
            most = most.max(pair.in_flight(1, AGENT));
        }
        pair.advance(Duration::from_millis(1));
        for lane in 0..2 {
            pair.deliver(AGENT, lane, usize::MAX);
            pair.deliver(LAPTOP, lane, usize::MAX);
        }
        let got = drain(pair, bulk);
        arrived += if millisecond >= 500 { got } else { 0 };
    }
    (most, arrived)
}

#[test]
fn a_download_keeps_little_on_its_way_while_somebody_types() {
    let limits = Limits::default();
    let mut pair = Pair::new(2, &limits).with_delay(Duration::from_micros(1500));
    let bulk = pair.connect(&target());
    let keys = pair.connect(&target());
    let (alone, _) = bulk_on_its_way(&mut pair, bulk, |_| {});
    assert!(alone > 1 << 20, "{alone} bytes on their way, alone");
    let (beside, arrived) = bulk_on_its_way(&mut pair, bulk, |pair| {
        assert_eq!(pair.write(LAPTOP, keys, b"x"), Poll::Ready(Ok(1)));
        let _echoed = pair.read(AGENT, keys, 8);
    });
    let passes = limits.yielding_rate * 4 / 1000;
    assert!(beside <= passes + (64 << 10), "{beside} bytes on their way beside keystrokes");
    // Acknowledged record by record: it never waits for a delayed acknowledgement.
    assert!(arrived > passes * 500 / 10, "{arrived} bytes arrived in half a second");
    let (again, _) = bulk_on_its_way(&mut pair, bulk, |_| {});
    assert!(again > 1 << 20, "{again} bytes on their way, alone again");
}

#[test]
fn what_is_written_ahead_of_the_answer_leaves_with_the_open_and_at_most_four_kilobytes() {
    let mut pair = Pair::new(1, &Limits::default());
    let flow = pair.ends[LAPTOP].open(&target()).unwrap();
    fill(&mut pair, flow);
    assert!(pair.transmit(LAPTOP, 0) > Opening::EARLY, "the open and the bytes are one record");
    assert_eq!(pair.transmit(LAPTOP, 0), 0, "the rest waits for the answer");
    pair.deliver(AGENT, 0, usize::MAX);
    assert!(pair.ends[AGENT].poll_request(Waker::noop()).is_ready());
    pair.ends[AGENT].accept(flow);
    assert_eq!(drain(&mut pair, flow), Opening::EARLY);
    pair.settle();
    assert_eq!(drain(&mut pair, flow), (128 << 10) - Opening::EARLY, "what was queued follows the answer");
}

#[test]
fn nothing_of_an_early_write_is_left_after_a_refusal() {
    let mut pair = Pair::new(1, &Limits::default());
    let flow = pair.ends[LAPTOP].open(&target()).unwrap();
    fill(&mut pair, flow);
    pair.settle();
    assert!(pair.ends[LAPTOP].unsent_bytes() > 0);
    assert!(pair.ends[AGENT].poll_request(Waker::noop()).is_ready());
    pair.ends[AGENT].refuse(flow, Refusal::Refused);
    pair.settle();
    assert_eq!(pair.ends[LAPTOP].unsent_bytes(), 0);
    let refused = pair.ends[LAPTOP].poll_answer(flow, Waker::noop());
    assert_eq!(refused, Poll::Ready(Err(Refusal::Refused)));
    assert_eq!(pair.ends.map(|end| end.flow_count()), [0, 0]);
}

#[test]
fn an_acknowledgement_that_cannot_leave_rings_once() {
    let limits = Limits::default();
    let mut pair = Pair::new(1, &limits);
    let flow = pair.connect(&target());
    assert!(pair.write(LAPTOP, flow, b"a word").is_ready());
    pair.transmit(LAPTOP, 0);
    pair.deliver(AGENT, 0, usize::MAX);
    // Nothing of the agent's is transmitted from here on: its carrier takes nothing.
    pair.advance(limits.ack_delay);
    let next = pair.ends[AGENT].poll_timeout().expect("a next ping");
    assert!(next > pair.now, "the same time again is a busy loop");
    assert!(pair.transmit(AGENT, 0) > 0, "it is still owed");
}
