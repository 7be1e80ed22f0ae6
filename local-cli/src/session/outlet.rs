//! Where events go: to the terminal process, and to whoever else asked to follow the end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};

use crate::session::protocol::Event;

/// How long an event that matters waits for a listener whose queue is full (a stopped terminal).
const PATIENCE: Duration = Duration::from_secs(2);
/// Places of a queue that only events that matter may take.
const RESERVED: usize = 8;

/// Sends events to all listeners. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outlet(Arc<Mutex<Vec<mpsc::Sender<Event>>>>);

impl Outlet {
    /// From now on `listener` gets all events.
    pub fn subscribe(&self, listener: mpsc::Sender<Event>) {
        self.listeners().push(listener);
    }

    /// What is being waited for.
    pub async fn begun(&self, text: impl Into<String>) {
        let text = text.into();
        self.send(|| Event::Begun(text.clone())).await;
    }

    /// A step that began at `since` is done.
    pub async fn done(&self, step: &str, text: impl Into<String>, since: Instant) {
        self.took(step, text, since.elapsed()).await;
    }

    /// A step is done that took so long.
    pub async fn took(&self, step: &str, text: impl Into<String>, time: Duration) {
        let text = text.into();
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.send(|| Event::Done { step: step.to_owned(), text: text.clone(), milliseconds }).await;
    }

    /// Something to know.
    pub async fn notice(&self, text: &str) {
        self.send(|| Event::Notice(text.to_owned())).await;
    }

    /// An event for all. A listener that does not read loses lines, never the events that decide, and costs the
    /// session no time for a line. Cancel-safe.
    pub async fn send(&self, event: impl Fn() -> Event) {
        let listeners = self.listeners().clone();
        for listener in listeners {
            let event = event();
            let gone = if matches!(event, Event::Begun(_) | Event::Done { .. } | Event::Notice(_)) {
                listener.capacity() > RESERVED
                    && matches!(listener.try_send(event), Err(TrySendError::Closed(_)))
            } else {
                matches!(timeout(PATIENCE, listener.send(event)).await, Ok(Err(_)))
            };
            if gone {
                self.listeners().retain(|other| !other.same_channel(&listener));
            }
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_does_not_read_loses_lines_but_not_the_end() {
        let outlet = Outlet::default();
        let (sender, mut queue) = mpsc::channel(64);
        outlet.subscribe(sender);
        let told = async {
            for number in 0..1000 {
                outlet.notice(&number.to_string()).await;
            }
            outlet.send(|| Event::Ended).await;
        };
        timeout(Duration::from_mins(1), told).await.expect("no line waits");
        let mut last = None;
        while let Ok(event) = queue.try_recv() {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Ended)), "{last:?}");
        outlet.notice("read again").await;
        assert!(matches!(queue.try_recv(), Ok(Event::Notice(_))));
    }

    #[tokio::test]
    async fn a_listener_that_is_gone_is_forgotten() {
        let outlet = Outlet::default();
        let (sender, queue) = mpsc::channel(64);
        outlet.subscribe(sender);
        drop(queue);
        outlet.notice("to nobody").await;
        assert!(outlet.listeners().is_empty());
    }
}
