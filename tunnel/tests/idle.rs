//! What idle flows cost. Alone in its process, since it measures the process.

mod support;

use support::{Ends, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Resident bytes of this process.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux");
    let kibibytes: usize =
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kibibytes << 10
}

#[tokio::test]
async fn ten_thousand_idle_flows_cost_less_than_four_kibibytes_each() {
    const FLOWS: usize = 10_000;
    let mut ends = Ends::new().await;
    let mut flows = vec![ends.flow().await];
    let before = resident();
    for _ in 1..FLOWS {
        let mut pair = ends.flow().await;
        pair.0.write_all(b"hello").await.unwrap();
        within(pair.1.read_exact(&mut [0; 5])).await.unwrap();
        flows.push(pair);
    }
    let each = (resident() - before) / FLOWS / 2;
    assert!(each < 4 << 10, "{each} bytes a flow and end");
    println!("{each} bytes a flow and end");
}
