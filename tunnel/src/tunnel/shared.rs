//! What handles and driver share: the state machine behind a mutex that is held for microseconds, never across an await.
//! While a socket is read into a flow or written out of one it is held for that system call: both programs have one thread.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{Carrier, Role, TunnelId};
use crate::{
    Refusal,
    proto::{Connection, Limits},
};

/// A tunnel has few carriers; more is a mistake of the caller.
const MOST_LANES: usize = 16;

pub(super) struct Shared {
    id: TunnelId,
    connection: Mutex<Connection>,
    /// Carriers that the driver has not taken yet, and how many there were ever.
    joining: Mutex<(Vec<Carrier>, usize)>,
}

impl Shared {
    pub(super) fn new(role: Role, limits: Limits, id: TunnelId) -> Self {
        Self {
            id,
            connection: Mutex::new(Connection::new(role, limits)),
            joining: Mutex::new((Vec::new(), 1)),
        }
    }

    /// A panic of another task while it held the lock must not spread to every flow: the state machine leaves no
    /// half-made change that matters more than that.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self, carrier: Carrier) -> Result<(), Refusal> {
        if carrier.id() != self.id {
            return Err(Refusal::Unsupported);
        }
        if self.lock().is_closing() {
            return Err(Refusal::Closed);
        }
        {
            let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
            if joining.1 >= MOST_LANES {
                return Err(Refusal::Overloaded);
            }
            joining.1 += 1;
            joining.0.push(carrier);
        }
        self.lock().wake_driver();
        Ok(())
    }

    pub(super) fn take_joining(&self) -> Vec<Carrier> {
        std::mem::take(&mut self.joining.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Tokio's clock, so that tests can pause it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
