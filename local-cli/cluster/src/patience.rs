//! How long something that fails is tried again. Each kind of failure has a limit of its own: an API server that comes
//! back after a while may well answer with trouble of its own at first.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// So long while the API server is away: a laptop that was closed, a VPN that was down.
const AWAY: Duration = Duration::from_hours(1);
/// So many attempts that fail in another way; each may wait for something itself.
const FAILURES: u32 = 20;
/// Pause between two attempts, first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(15));

/// Of one thing that is tried again and again.
#[derive(Debug, Default)]
pub struct Patience {
    away_since: Option<Instant>,
    failures: u32,
    told: Option<&'static str>,
    pause: Option<Duration>,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It was tried for long enough.
    No,
    /// Another attempt, after [`Patience::pause`].
    Quietly,
    /// The same, and worth a line: how often or how long it will be tried.
    Tell(&'static str),
}

impl Patience {
    /// After an attempt that failed. `away`: the API server could not be reached.
    pub fn again(&mut self, away: bool) -> Again {
        let limit = if away {
            if self.away_since.get_or_insert_with(Instant::now).elapsed() > AWAY {
                return Again::No;
            }
            "for an hour"
        } else {
            self.failures += 1;
            if self.failures >= FAILURES {
                return Again::No;
            }
            self.pause = None;
            "up to 20 times"
        };
        if self.told.replace(limit) == Some(limit) { Again::Quietly } else { Again::Tell(limit) }
    }

    /// Longer from time to time. Cancel-safe.
    pub async fn pause(&mut self) {
        let pause = self.pause.unwrap_or(PAUSE.0);
        sleep(pause).await;
        self.pause = Some((pause * 5 / 4).min(PAUSE.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_comes_back_with_trouble_has_time_to_settle() {
        let mut patience = Patience::default();
        let begin = Instant::now();
        assert_eq!(patience.again(true), Again::Tell("for an hour"));
        while begin.elapsed() < Duration::from_mins(50) {
            patience.pause().await;
            assert_eq!(patience.again(true), Again::Quietly);
        }
        assert_eq!(patience.again(false), Again::Tell("up to 20 times"));
        // An attempt may take longer than the limit.
        sleep(Duration::from_mins(5)).await;
        for _ in 2..FAILURES {
            assert_eq!(patience.again(false), Again::Quietly);
        }
        assert_eq!(patience.again(false), Again::No);
        sleep(Duration::from_mins(10)).await;
        assert_eq!(patience.again(true), Again::No);
    }
}
