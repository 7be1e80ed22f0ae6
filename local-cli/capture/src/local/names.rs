//! Answers DNS questions for listed names as the laptop resolves them.

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};
use tokio::{net::lookup_host, time::timeout};

use super::LocalRoutes;

/// Seconds that a program may keep an answer: short, since the laptop may change its network.
const TTL: u32 = 30;
/// Answers in one message; more would not fit a plain 512-byte datagram.
const RECORDS: usize = 12;
/// A resolver asks again after 5 s.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// A question for a listed name.
#[derive(Debug)]
pub(crate) struct LocalQuestion {
    request: Message,
    query: Query,
    name: String,
}

impl LocalQuestion {
    /// Reads a raw DNS message; `None` unless it is one plain question for a name of `routes`.
    pub(crate) fn parse(message: &[u8], routes: &LocalRoutes) -> Option<Self> {
        if routes.names.is_empty() {
            return None;
        }
        let request = Message::from_vec(message).ok()?;
        let [query] = request.queries.as_slice() else { return None };
        let query = query.clone();
        let name = query.name().to_ascii();
        let plain =
            request.metadata.message_type == MessageType::Query && request.metadata.op_code == OpCode::Query;
        (plain && query.query_class() == DNSClass::IN && routes.has_name(&name)).then_some(Self {
            request,
            query,
            name,
        })
    }

    /// Resolves on the laptop, notes the addresses in `routes`, and builds the answer. Cancel-safe.
    pub(crate) async fn answer(&self, routes: &LocalRoutes) -> Option<Vec<u8>> {
        let wanted = self.query.query_type();
        if wanted != RecordType::A && wanted != RecordType::AAAA {
            return self.message(&[], ResponseCode::NoError);
        }
        let name = self.name.trim_end_matches('.');
        let Ok(Ok(found)) = timeout(LIMIT, lookup_host((name, 0))).await else {
            return self.message(&[], ResponseCode::ServFail);
        };
        let mut addresses: Vec<IpAddr> = found
            .map(|address| address.ip())
            .filter(|address| address.is_ipv4() == (wanted == RecordType::A))
            .collect();
        addresses.dedup();
        addresses.truncate(RECORDS);
        for address in &addresses {
            routes.learn(*address);
        }
        self.message(&addresses, ResponseCode::NoError)
    }

    /// The answer with these addresses, `None` if it cannot be encoded.
    fn message(&self, addresses: &[IpAddr], code: ResponseCode) -> Option<Vec<u8>> {
        let mut answer = Message::response(self.request.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = self.request.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = code;
        answer.add_query(self.query.clone());
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            };
            answer.add_answer(Record::from_rdata(self.query.name().clone(), TTL, data));
        }
        answer.to_vec().ok()
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    #[test]
    fn only_listed_names_are_ours() {
        let routes = LocalRoutes::parse(["mirror.example"]).unwrap();
        assert!(LocalQuestion::parse(&question("Mirror.example.", RecordType::A), &routes).is_some());
        assert!(
            LocalQuestion::parse(&question("cart.shop.svc.cluster.local.", RecordType::A), &routes).is_none()
        );
        let none = LocalRoutes::default();
        assert!(LocalQuestion::parse(&question("mirror.example.", RecordType::A), &none).is_none());
    }

    #[test]
    fn an_answer_repeats_id_and_question() {
        let routes = LocalRoutes::parse(["mirror.example"]).unwrap();
        let asked = LocalQuestion::parse(&question("mIrror.example.", RecordType::A), &routes).unwrap();
        let bytes = asked.message(&["1.2.3.4".parse().unwrap()], ResponseCode::NoError).unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, 0x1234);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        assert_eq!(answer.queries[0].name().to_ascii(), "mIrror.example.");
        assert_eq!(answer.answers[0].data, RData::A(A::new(1, 2, 3, 4)));
        assert_eq!(answer.answers[0].ttl, TTL);
    }

    #[tokio::test]
    async fn localhost_is_resolved_on_the_laptop_and_learnt() {
        let routes = LocalRoutes::parse(["localhost"]).unwrap();
        let asked = LocalQuestion::parse(&question("localhost.", RecordType::A), &routes).unwrap();
        let answer = Message::from_vec(&asked.answer(&routes).await.unwrap()).unwrap();
        assert_eq!(answer.answers.len(), 1);
        assert!(routes.has_address("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn other_types_are_answered_empty() {
        let routes = LocalRoutes::parse(["mirror.example"]).unwrap();
        let asked = LocalQuestion::parse(&question("mirror.example.", RecordType::MX), &routes).unwrap();
        let answer = Message::from_vec(&asked.answer(&routes).await.unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
    }

    proptest! {
        #[test]
        fn hostile_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let routes = LocalRoutes::parse(["*.io"]).unwrap();
            let _ = LocalQuestion::parse(&bytes, &routes);
        }
    }
}
