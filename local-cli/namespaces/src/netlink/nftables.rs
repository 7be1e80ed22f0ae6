//! `nf_tables` batches: one atomic transaction of a table, its chains and rules.

use std::io;

use nix::sys::socket::SockProtocol;

use super::{ACK, APPEND, Attributes, CREATE, Netlink, message};
use crate::Family;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const PREROUTING: u32 = 0;
const ACCEPT: u32 = 1;
const EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// How a held packet gets to the queue. They are probed by doing, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The `queue` expression of `nf_tables` itself (`CONFIG_NFT_QUEUE`).
    Native,
    /// The NFQUEUE target of xtables inside `nf_tables` (`CONFIG_NFT_COMPAT`), by its revision.
    Target(u32),
}

impl Hold {
    pub(crate) const WAYS: [Self; 3] = [Self::Native, Self::Target(3), Self::Target(1)];
}

/// One family's part of a transaction: its table, chains and rules.
#[derive(Debug)]
pub(crate) struct Batch {
    family: Family,
    table: &'static str,
    bytes: Vec<u8>,
}

impl Batch {
    pub(crate) fn new(family: Family, table: &'static str) -> Self {
        let mut batch = Self { family, table, bytes: Vec::new() };
        batch.push(NEW_TABLE, CREATE, &Attributes::default().text(1, table));
        batch
    }

    /// A base chain at the prerouting hook that accepts what its rules leave alone.
    pub(crate) fn chain(&mut self, name: &str, priority: i32) {
        let hook = Attributes::default().network(1, PREROUTING).network(2, priority.cast_unsigned());
        let attributes = Attributes::default()
            .text(1, self.table)
            .text(3, name)
            .nest(4, &hook)
            .network(5, ACCEPT)
            .text(7, "filter");
        self.push(NEW_CHAIN, CREATE, &attributes);
    }

    pub(crate) fn rule(&mut self, chain: &str, rule: &Rule) {
        let attributes = Attributes::default().text(1, self.table).text(2, chain).nest(EXPRESSIONS, &rule.0);
        self.push(NEW_RULE, CREATE | APPEND, &attributes);
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        let header = [nf_family(self.family), 0, 0, 0];
        self.bytes.extend(message(SUBSYSTEM << 8 | kind, ACK | flags, &header, attributes));
    }
}

/// Applies all batches or nothing, in the network namespace of the caller.
pub(crate) fn commit(batches: impl IntoIterator<Item = Batch>) -> io::Result<()> {
    let end = |kind| message(kind, 0, &batch_header(), &Attributes::default());
    let mut bytes = end(BATCH_BEGIN);
    for batch in batches {
        bytes.extend(batch.bytes);
    }
    bytes.extend(end(BATCH_END));
    Netlink::open(SockProtocol::NetlinkNetFilter)?.ask(&bytes)
}

/// `struct nfgenmsg` of a batch's ends: the subsystem stands in the resource id.
fn batch_header() -> [u8; 4] {
    let id = SUBSYSTEM.to_be_bytes();
    [0, 0, id[0], id[1]]
}

fn nf_family(family: Family) -> u8 {
    // NFPROTO_IPV4 and NFPROTO_IPV6 have the numbers of AF_INET and AF_INET6.
    family.number()
}

/// Expressions that are evaluated one after another until one does not match.
#[derive(Debug, Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    /// Packets that came in by the link.
    pub(crate) fn link(self, index: u32) -> Self {
        self.meta(4).compare(EQUAL, &index.to_ne_bytes())
    }

    /// Packets that came in by another link.
    pub(crate) fn other_link(self, index: u32) -> Self {
        self.meta(4).compare(NOT_EQUAL, &index.to_ne_bytes())
    }

    pub(crate) fn marked(self, mark: u32) -> Self {
        self.meta(3).compare(EQUAL, &mark.to_ne_bytes())
    }

    pub(crate) fn tcp(self) -> Self {
        self.meta(16).compare(EQUAL, &[TCP])
    }

    pub(crate) fn udp(self) -> Self {
        self.meta(16).compare(EQUAL, &[UDP])
    }

    /// TCP packets that open a connection: of FIN, SYN, RST and ACK only SYN is set.
    pub(crate) fn syn(self) -> Self {
        let flags = Attributes::default()
            .network(1, REGISTER)
            .network(2, 2) // transport header
            .network(3, 13)
            .network(4, 1);
        let mask = Attributes::default()
            .network(1, REGISTER)
            .network(2, REGISTER)
            .network(3, 1)
            .nest(4, &value(&[0x17]))
            .nest(5, &value(&[0]));
        self.tcp().expression("payload", &flags).expression("bitwise", &mask).compare(EQUAL, &[0x02])
    }

    /// Packets for which a socket of this namespace exists, also one in `TIME_WAIT`, whose `IP_TRANSPARENT` is as given.
    ///
    /// (The `wildcard` key knows no `TIME_WAIT` socket: a client that reuses its port would be sent astray.)
    pub(crate) fn socket(self, transparent: bool) -> Self {
        self.expression("socket", &Attributes::default().network(1, 0).network(2, REGISTER))
            .compare(EQUAL, &[u8::from(transparent)])
    }

    /// Gives the packet to the catcher on `port`; does not match when there is none.
    pub(crate) fn tproxy(self, family: Family, port: u16) -> Self {
        let immediate = Attributes::default().network(1, REGISTER).nest(2, &value(&port.to_be_bytes()));
        let attributes = Attributes::default().network(1, u32::from(nf_family(family))).network(3, REGISTER);
        self.expression("immediate", &immediate).expression("tproxy", &attributes)
    }

    pub(crate) fn set_mark(self, mark: u32) -> Self {
        let immediate = Attributes::default().network(1, REGISTER).nest(2, &value(&mark.to_ne_bytes()));
        let attributes = Attributes::default().network(2, 3).network(3, REGISTER);
        self.expression("immediate", &immediate).expression("meta", &attributes)
    }

    pub(crate) fn accept(self) -> Self {
        let verdict = Attributes::default().network(1, ACCEPT);
        let attributes = Attributes::default()
            .network(1, VERDICT_REGISTER)
            .nest(2, &Attributes::default().nest(2, &verdict));
        self.expression("immediate", &attributes)
    }

    /// Waits in the queue for a verdict; dropped when nobody listens to the queue.
    pub(crate) fn queue(self, hold: Hold, number: u16) -> Self {
        match hold {
            Hold::Native => {
                let attributes =
                    Attributes::default().put(1, &number.to_be_bytes()).put(2, &1_u16.to_be_bytes());
                self.expression("queue", &attributes)
            }
            Hold::Target(revision) => {
                // struct xt_NFQ_info_v1 and _v3: number, count, flags, padded to 8 bytes.
                let mut info = [0; 8];
                info[..2].copy_from_slice(&number.to_ne_bytes());
                info[2..4].copy_from_slice(&1_u16.to_ne_bytes());
                let attributes = Attributes::default().text(1, "NFQUEUE").network(2, revision).put(3, &info);
                self.expression("target", &attributes)
            }
        }
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", &Attributes::default().network(1, REGISTER).network(2, key))
    }

    fn compare(self, operator: u32, data: &[u8]) -> Self {
        let attributes =
            Attributes::default().network(1, REGISTER).network(2, operator).nest(3, &value(data));
        self.expression("cmp", &attributes)
    }

    fn expression(self, name: &str, attributes: &Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nest(2, attributes);
        Self(self.0.nest(ELEMENT, &expression))
    }
}

fn value(data: &[u8]) -> Attributes {
    Attributes::default().put(1, data)
}
