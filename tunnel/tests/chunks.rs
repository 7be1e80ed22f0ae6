//! The byte queue against a naive one.

use std::collections::VecDeque;

use devproxy_tunnel::proto::chunks::{Chunks, Pool};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Fill(usize),
    Take(usize),
    Drain(usize),
    Truncate(usize),
}

/// From a keystroke to more than any chunk holds.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..300_usize, 0..20_000_usize, 45_000..70_000_usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        length().prop_map(Step::Push),
        length().prop_map(Step::Fill),
        length().prop_map(Step::Take),
        length().prop_map(Step::Drain),
        length().prop_map(Step::Truncate),
    ]
}

proptest! {
    #[test]
    fn bytes_leave_in_the_order_in_which_they_came(steps in prop::collection::vec(step(), 1..60)) {
        let (mut chunks, mut pool) = (Chunks::default(), Pool::default());
        let mut model = VecDeque::new();
        let mut next = 0_u32;
        let mut bytes = |count: usize| -> Vec<u8> {
            (0..count).map(|_| { next = next.wrapping_add(1); next.wrapping_mul(0x9E37_79B1).to_be_bytes()[0] }).collect()
        };
        for step in steps {
            match step {
                Step::Push(count) => {
                    let pushed = bytes(count);
                    chunks.push(&pushed, &mut pool);
                    model.extend(pushed);
                }
                Step::Fill(most) => {
                    let mut came = Vec::new();
                    let filled = chunks.fill(most, |room| {
                        assert!(room.len() <= most);
                        came = bytes(room.len());
                        room.copy_from_slice(&came);
                        came.len()
                    }, &mut pool);
                    prop_assert_eq!(filled, came.len());
                    model.extend(came);
                }
                Step::Take(most) => {
                    let mut got = Vec::new();
                    let taken = chunks.take(most, |bytes| got.extend_from_slice(bytes), &mut pool);
                    prop_assert_eq!(taken, most.min(model.len()));
                    prop_assert!(got.iter().eq(model.drain(..taken).collect::<Vec<_>>().iter()));
                }
                Step::Drain(most) => {
                    let mut got = Vec::new();
                    let taken = chunks.drain(|pieces| {
                        got = pieces.concat();
                        got.truncate(most);
                        got.len()
                    }, &mut pool);
                    prop_assert_eq!(taken, got.len());
                    prop_assert!(got.iter().eq(model.drain(..taken).collect::<Vec<_>>().iter()));
                }
                Step::Truncate(most) => {
                    chunks.truncate(most);
                    model.truncate(most);
                }
            }
            prop_assert_eq!(chunks.len(), model.len());
        }
    }
}
