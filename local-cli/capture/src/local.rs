//! What goes out through the laptop instead of the cluster: `--local NAME|CIDR`.

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

pub(crate) mod names;

/// Addresses kept of listed names; the oldest make room.
const LEARNT: usize = 4096;

/// The targets that are dialled from the laptop.
#[derive(Debug, Default)]
pub struct LocalRoutes {
    names: Vec<Pattern>,
    networks: Vec<Network>,
    learnt: Mutex<Learnt>,
}

#[derive(Debug, Default)]
struct Learnt {
    order: VecDeque<IpAddr>,
    set: HashSet<IpAddr>,
}

/// An entry of `--local` that is neither a name nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalRouteError {
    /// Empty.
    #[error("`--local` needs a name, an address or a network")]
    Empty,
    /// The prefix is no number or longer than the address.
    #[error("`{0}` has a prefix length that its address family does not have")]
    Prefix(String),
    /// Not an address before the slash.
    #[error("`{0}` is not a network: an address is expected before the `/`")]
    Address(String),
    /// Not a host name.
    #[error("`{0}` is not a host name, nor `*.` and one")]
    Name(String),
}

impl LocalRoutes {
    /// Reads the entries: `mirror.example`, `*.mirror.example` (any name below it), `192.168.0.0/16`, `fd00::/8`, `10.0.0.7`.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, LocalRouteError> {
        let mut routes = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            if entry.is_empty() {
                return Err(LocalRouteError::Empty);
            }
            if entry.contains('/') || entry.parse::<IpAddr>().is_ok() {
                routes.networks.push(entry.parse()?);
            } else {
                routes.names.push(entry.parse()?);
            }
        }
        Ok(routes)
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }

    /// Whether an address is in a listed network or was the answer for a listed name.
    pub fn has_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
            || (!self.names.is_empty() && self.learnt().set.contains(&address))
    }

    /// Whether a name is listed; case and a final dot do not matter.
    pub fn has_name(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.names.iter().any(|pattern| pattern.matches(&name))
    }

    /// Notes an address of a listed name.
    pub(crate) fn learn(&self, address: IpAddr) {
        let mut learnt = self.learnt();
        if learnt.set.insert(address.to_canonical()) {
            learnt.order.push_back(address.to_canonical());
            if learnt.order.len() > LEARNT
                && let Some(oldest) = learnt.order.pop_front()
            {
                learnt.set.remove(&oldest);
            }
        }
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    name: String,
    below: bool,
}

impl Pattern {
    /// `name` is lower-case and without a final dot.
    fn matches(&self, name: &str) -> bool {
        if self.below {
            name.strip_suffix(&self.name).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
        } else {
            name == self.name
        }
    }
}

impl FromStr for Pattern {
    type Err = LocalRouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253
            || !name.split('.').all(label)
            || name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        {
            return Err(LocalRouteError::Name(text.to_owned()));
        }
        Ok(Self { name, below })
    }
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// IPv4 as IPv4-mapped.
    bits: u128,
    mask: u128,
    v4: bool,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.v4 && bits(address) & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for Network {
    type Err = LocalRouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| LocalRouteError::Address(text.to_owned()))?;
        let width = if address.is_ipv4() { Ipv4Addr::BITS } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or_else(|| LocalRouteError::Prefix(text.to_owned()))?,
            Some(_) => return Err(LocalRouteError::Prefix(text.to_owned())),
        };
        let mask = u128::MAX.checked_shl(width - prefix).unwrap_or(0);
        // Host bits, as in 192.168.1.7/16, are ignored as `ip route` does not, but a person means the network.
        Ok(Self { bits: bits(address) & mask, mask, v4: address.is_ipv4() })
    }
}

#[cfg(test)]
mod tests;
