use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA},
    },
};
use proptest::prelude::*;

use super::*;

const NAME: &str = "cart.shop.svc.cluster.local.";

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn asking(id: u16, text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn question(id: u16, text: &str) -> Vec<u8> {
    asking(id, text, RecordType::A).to_vec().unwrap()
}

fn address(text: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A(Ipv4Addr::new(10, 96, 0, last))))
}

fn answering(question: &Message, records: impl IntoIterator<Item = Record>) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question.queries[0].clone());
    for record in records {
        message.add_answer(record);
    }
    message
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(
        name("ns.dns.cluster.local."),
        name("hostmaster.cluster.local."),
        1,
        7200,
        1800,
        86400,
        minimum,
    );
    Record::from_rdata(name("cluster.local."), ttl, RData::SOA(data))
}

/// A cache that was told this answer, and when the question was asked.
fn told(question: &Message, answer: &Message) -> (Cache, Instant) {
    let (mut cache, asked) = (Cache::default(), Instant::now());
    cache.insert(&question.to_vec().unwrap(), &answer.to_vec().unwrap(), asked);
    (cache, asked)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Whether such an answer is given again at once.
fn is_kept(answer: impl FnOnce(&Message) -> Message) -> bool {
    let asked = asking(1, NAME, RecordType::A);
    let (cache, now) = told(&asked, &answer(&asked));
    let kept = cache.answer(&question(2, NAME), now).is_some();
    assert_eq!(kept, !cache.entries.is_empty());
    kept
}

#[test]
fn an_answer_is_given_again_until_its_time_is_over_and_counts_down() {
    let asked = asking(1, NAME, RecordType::A);
    let alias = Record::from_rdata(name(NAME), 30, RData::CNAME(CNAME(name("b.shop."))));
    let (cache, start) = told(&asked, &answering(&asked, [alias, address("b.shop.", 5, 7)]));
    let at = |elapsed| cache.answer(&question(9, NAME), start + seconds(elapsed));
    for (elapsed, ttls) in [(0.0, [30, 5]), (0.1, [29, 4]), (2.0, [28, 3]), (4.999, [25, 0])] {
        let answer = Message::from_vec(&at(elapsed).unwrap()).unwrap();
        assert_eq!(answer.metadata.id, 9);
        assert_eq!(answer.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), ttls, "{elapsed}");
    }
    assert_eq!(at(5.0), None);
}

#[test]
fn each_client_reads_the_name_as_it_wrote_it() {
    let asked = asking(1, NAME, RecordType::A);
    let (cache, now) = told(&asked, &answering(&asked, [address(NAME, 5, 7)]));
    let other = "cArT.Shop.SVC.cluster.local.";
    let answer = Message::from_vec(&cache.answer(&question(2, other), now).unwrap()).unwrap();
    assert_eq!(answer.queries[0].name().to_ascii(), other);
    assert_eq!(answer.answers[0].name.to_ascii(), other);
}

#[test]
fn what_changes_an_answer_makes_another_question() {
    let asked = asking(1, NAME, RecordType::A);
    let (cache, now) = told(&asked, &answering(&asked, [address(NAME, 5, 7)]));
    let ask = |change: &dyn Fn(&mut Message)| {
        let mut message = asking(2, NAME, RecordType::A);
        change(&mut message);
        cache.answer(&message.to_vec().unwrap(), now).is_some()
    };
    assert!(ask(&|_| {}));
    assert!(!ask(&|message| message.metadata.checking_disabled = true));
    assert!(!ask(&|message| message.metadata.authentic_data = true));
    assert!(!ask(&|message| message.metadata.recursion_desired = false));
    assert!(!ask(&|message| message.metadata.message_type = MessageType::Response));
    assert!(!ask(&|message| message.metadata.op_code = OpCode::Notify));
    assert!(!ask(&|message| {
        message.set_edns(Edns::new());
    }));
    assert!(cache.answer(&asking(2, NAME, RecordType::AAAA).to_vec().unwrap(), now).is_none());
    assert!(cache.answer(&question(2, "cart.shop.svc.cluster.loca1."), now).is_none());
    let mut longer = question(2, NAME);
    longer.push(0);
    assert!(cache.answer(&longer, now).is_none());
}

#[test]
fn clients_of_other_edns_sizes_and_flags_have_answers_of_their_own() {
    let with = |size: u16, dnssec: bool| {
        let mut message = asking(1, NAME, RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_dnssec_ok(dnssec);
        message.set_edns(edns);
        message
    };
    let asked = with(1232, false);
    let mut answer = answering(&asked, [address(NAME, 5, 7)]);
    answer.set_edns(asked.edns.clone().unwrap());
    let (cache, now) = told(&asked, &answer);
    let ask = |message: Message| cache.answer(&message.to_vec().unwrap(), now).is_some();
    assert!(ask(with(1232, false)));
    assert!(!ask(with(4096, false)));
    assert!(!ask(with(1232, true)));
}

#[test]
fn a_no_is_kept_for_as_long_as_its_soa_says() {
    let asked = asking(1, NAME, RecordType::A);
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        for (ttl, minimum) in [(30, 4), (4, 30)] {
            let mut no = answering(&asked, []);
            no.metadata.response_code = code;
            no.add_authority(soa(ttl, minimum));
            let (cache, start) = told(&asked, &no);
            let later = Message::from_vec(&cache.answer(&question(2, NAME), start + seconds(1.5)).unwrap());
            let later = later.unwrap();
            assert_eq!((later.metadata.response_code, later.authorities[0].ttl), (code, 2));
            assert!(cache.answer(&question(2, NAME), start + seconds(4.0)).is_none());
        }
    }
}

#[test]
fn what_is_no_plain_answer_is_not_kept() {
    assert!(is_kept(|asked| answering(asked, [address(NAME, 5, 7)])));
    assert!(!is_kept(|asked| answering(asked, [address(NAME, 0, 7)])), "a TTL of zero");
    assert!(!is_kept(|asked| answering(asked, [address(NAME, 1 << 31, 7)])), "a TTL that is none");
    assert!(
        !is_kept(|asked| answering(asked, [address(NAME, 5, 7), address(NAME, 5, 8)])),
        "shuffled by the server"
    );
    assert!(!is_kept(|asked| answering(asked, [])), "no, without saying how long");
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
        assert!(!is_kept(|asked| {
            let mut answer = answering(asked, []);
            answer.metadata.response_code = code;
            answer.add_authority(soa(30, 30));
            answer
        }));
    }
    assert!(!is_kept(|asked| {
        let mut answer = answering(asked, [address(NAME, 5, 7)]);
        answer.metadata.truncation = true;
        answer
    }));
    assert!(!is_kept(|_| {
        let other = asking(1, "other.shop.svc.cluster.local.", RecordType::A);
        answering(&other, [address(NAME, 5, 7)])
    }));
    assert!(
        !is_kept(|asked| {
            let other = |n: u8| {
                Record::from_rdata(
                    name(NAME),
                    5,
                    RData::CNAME(CNAME(name(&format!("a{n}{}", "x".repeat(40))))),
                )
            };
            answering(asked, (0..12).map(other).chain([address(NAME, 5, 7)]))
        }),
        "longer than its client takes"
    );
}

#[test]
fn nothing_is_kept_beyond_the_longest_time() {
    let asked = asking(1, NAME, RecordType::A);
    let (cache, start) = told(&asked, &answering(&asked, [address(NAME, 3600, 7)]));
    let answer = cache.answer(&question(2, NAME), start + seconds(29.5)).unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().answers[0].ttl, 3570);
    assert!(cache.answer(&question(2, NAME), start + LONGEST).is_none());
}

#[test]
fn a_later_answer_takes_the_place_of_the_first() {
    let asked = asking(1, NAME, RecordType::A);
    let (mut cache, start) = told(&asked, &answering(&asked, [address(NAME, 5, 7)]));
    let later = start + seconds(3.0);
    cache.insert(&question(3, NAME), &answering(&asked, [address(NAME, 5, 8)]).to_vec().unwrap(), later);
    let answer = cache.answer(&question(2, NAME), start + seconds(6.0)).unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().answers[0], address(NAME, 2, 8));
    cache.expire(start + seconds(8.0));
    assert_eq!((cache.entries.len(), cache.order.len(), cache.bytes), (0, 0, 0));
}

#[test]
fn entries_and_bytes_are_bounded() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    for number in 0..5000 {
        let text = format!("n{number}.{}.shop.", "x".repeat(number % 60 + 1));
        let asked = asking(1, &text, RecordType::A);
        let answer = answering(&asked, [address(&text, 5, 7)]).to_vec().unwrap();
        // Each is asked twice, as programs on both families do.
        for _ in 0..2 {
            cache.insert(&asked.to_vec().unwrap(), &answer, now);
        }
        assert!(cache.entries.len() <= ENTRIES && cache.bytes <= BYTES && cache.order.len() <= 2 * ENTRIES);
        assert!(cache.answer(&question(2, &text), now).is_some(), "the newest stays");
    }
    let sum: usize = cache.entries.iter().map(|(key, entry)| size(key, entry)).sum();
    assert_eq!(cache.bytes, sum);
    cache.clear();
    assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
}

/// An answer, changed in a few bytes.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let asked = asking(1, NAME, RecordType::A);
    let mut answer = answering(&asked, [address(NAME, 5, 7)]);
    answer.add_authority(soa(30, 30));
    let bytes = answer.to_vec().unwrap();
    proptest::collection::vec((0..bytes.len(), any::<u8>()), 0..6).prop_map(move |changes| {
        let mut spoilt = bytes.clone();
        for (at, byte) in changes {
            spoilt[at] = byte;
        }
        spoilt
    })
}

proptest! {
    #[test]
    fn hostile_messages_never_panic(
        asked in proptest::collection::vec(any::<u8>(), 0..64),
        answer in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.insert(&asked, &answer, now);
        let _ = cache.answer(&asked, now);
        cache.insert(&question(1, NAME), &answer, now);
        let _ = cache.answer(&question(1, NAME), now);
    }

    /// Whatever a broken server says: what is kept is given again as it was but for id, TTLs and case, and not longer
    /// than the server said.
    #[test]
    fn what_is_given_again_is_what_the_server_said(answer in spoilt(), elapsed in 0_u32..40) {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.insert(&question(1, NAME), &answer, start);
        let given = cache.answer(&question(1, NAME), start + Duration::from_secs(elapsed.into()));
        if let Some(given) = given {
            let (first, again) = (Message::from_vec(&answer), Message::from_vec(&given));
            if let (Ok(first), Ok(again)) = (first, again) {
                prop_assert_eq!(first.metadata.response_code, again.metadata.response_code);
                let old = first.all_sections().filter(|record| record.record_type() != RecordType::OPT);
                let new = again.all_sections().filter(|record| record.record_type() != RecordType::OPT);
                for (old, new) in old.zip(new) {
                    prop_assert_eq!(&old.data, &new.data);
                    prop_assert!(new.ttl <= old.ttl.saturating_sub(elapsed));
                }
            }
            prop_assert_eq!(given.len(), answer.len());
            prop_assert!(elapsed < 30);
        }
    }
}
