//! Where events go: to the terminal process, and to whoever else asked to follow the end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout};

use crate::session::protocol::Event;

/// How long a listener may leave its queue full before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let text = text.into();
        let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.send(|| Event::Done { step: step.to_owned(), text: text.clone(), milliseconds }).await;
    }

    /// Something to know.
    pub async fn notice(&self, text: &str) {
        self.send(|| Event::Notice(text.to_owned())).await;
    }

    /// An event for all; listeners that are gone or do not read are given up. Cancel-safe.
    pub async fn send(&self, event: impl Fn() -> Event) {
        let listeners = self.listeners().clone();
        for listener in listeners {
            if !matches!(timeout(PATIENCE, listener.send(event())).await, Ok(Ok(()))) {
                self.listeners().retain(|other| !other.same_channel(&listener));
            }
        }
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
