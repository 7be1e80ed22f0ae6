//! A tunnel that fits into the container: its queues count towards the original's memory limit, and over it the
//! kernel kills the agent.

use devproxy_tunnel::proto::Limits;

/// Where cgroup v2 and v1 show a container its own limit, bytes.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The bounds of a tunnel in this container.
pub(crate) fn limits() -> Limits {
    let limit = FILES.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    limit.map_or_else(Limits::default, within)
}

/// At most half of `memory` bytes for windows, queues and datagrams; sockets and tasks need the rest. Two gibibytes and
/// more leave the defaults as they are.
fn within(memory: u64) -> Limits {
    let defaults = Limits::default();
    let share = |part: u64, most: usize| usize::try_from(memory / part).unwrap_or(most).min(most);
    let window = |bytes: u64, most: u32| u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
    let max_window = window(memory / 8, defaults.max_window);
    Limits {
        initial_window: defaults.initial_window.min(max_window),
        max_window,
        max_inflow: window(memory / 16 * 3, defaults.max_inflow),
        total_window: (memory / 4).min(defaults.total_window),
        total_send_queue: share(8, defaults.total_send_queue),
        total_datagram_bytes: share(16, defaults.total_datagram_bytes),
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_gets_a_small_tunnel() {
        for memory in [16 << 20, 128 << 20, 1 << 30] {
            let limits = within(memory);
            let sum =
                limits.total_window + limits.total_send_queue as u64 + limits.total_datagram_bytes as u64;
            assert!(sum <= memory / 2, "{sum} of {memory}");
            assert!(limits.initial_window <= limits.max_window && limits.max_window <= limits.max_inflow);
            assert!(u64::from(limits.max_inflow) < limits.total_window);
        }
    }

    #[test]
    fn without_a_limit_nothing_is_cut() {
        let (limits, defaults) = (within(u64::MAX), Limits::default());
        assert_eq!(limits.total_window, defaults.total_window);
        assert_eq!((limits.max_window, limits.max_inflow), (defaults.max_window, defaults.max_inflow));
        assert_eq!(limits.total_send_queue, defaults.total_send_queue);
    }
}
