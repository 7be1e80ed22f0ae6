//! What the cache must know of DNS messages: which bytes tell two questions apart, and which bytes of an answer
//! change with time and asker. Nothing is decoded that is not needed, and nothing is encoded again: an answer from the
//! cache is the server's own message.

use std::{ops::Range, time::Duration};

use hickory_proto::{
    rr::{DNSClass, Name, RecordType},
    serialize::binary::{BinDecodable as _, BinDecoder, DecodeError},
};

/// Bytes of the header.
const HEADER: usize = 12;
/// QR, OPCODE, AA, TC, RA and the reserved bit: all zero in a plain question. RD, AD and CD may be set.
const NOT_PLAIN: u16 = 0b1111_1110_1100_0000;
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0b0111_1000_0000_0000;
const TRUNCATED: u16 = 1 << 9;
const CODE: u16 = 0b1111;
const NO_ERROR: u16 = 0;
const NO_SUCH_NAME: u16 = 3;
/// What a client takes that says nothing of it (RFC 1035).
const PLAIN_ROOM: usize = 512;
/// The five numbers at the end of SOA, of which the last is the minimum.
const SOA_NUMBERS: usize = 20;

/// A question that may be answered from the cache.
pub(super) struct Question<'a> {
    message: &'a [u8],
    name: Range<usize>,
    kind: RecordType,
    /// The largest answer that its client takes.
    room: usize,
}

impl<'a> Question<'a> {
    /// `None` unless it is one plain question for one type of the Internet class, with nothing beside it but an
    /// EDNS record without options: cookies and client subnets make an answer one client's own.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        Self::read(message).ok().flatten()
    }

    fn read(message: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder)?;
        if header.flags & NOT_PLAIN != 0 || header.questions != 1 || header.answers + header.authorities != 0
        {
            return Ok(None);
        }
        let asked = Name::read(&mut decoder)?;
        let name = HEADER..decoder.index();
        // Compressed it could not be replaced by another's.
        let is_whole = name.len() == asked.iter().map(|label| 1 + label.len()).sum::<usize>() + 1;
        let kind = RecordType::from(word(&mut decoder)?);
        let class = DNSClass::from(word(&mut decoder)?);
        if !is_whole || class != DNSClass::IN || is_meta(kind) {
            return Ok(None);
        }
        let mut room = PLAIN_ROOM;
        for _ in 0..header.additionals {
            let record = Record::read(&mut decoder)?;
            let plain = record.kind == RecordType::OPT && record.data.is_empty() && record.ttl >> 16 == 0;
            if !plain || header.additionals > 1 {
                return Ok(None);
            }
            room = room.max(record.class.into());
        }
        Ok(decoder.is_empty().then_some(Self { message, name, kind, room }))
    }

    /// Two questions with the same key have the same answer: the messages but for id and the case of the name. So
    /// whatever changes an answer (DO, CD, the EDNS size that a server repeats) is part of it.
    pub(super) fn key(&self) -> Box<[u8]> {
        let mut key: Box<[u8]> = self.message[2..].into();
        // Lengths of labels are below the letters.
        key[self.name.start - 2..self.name.end - 2].make_ascii_lowercase();
        key
    }

    /// The id, as its client wrote it.
    pub(super) fn id(&self) -> &'a [u8] {
        &self.message[..2]
    }

    /// The name, as its client wrote it.
    pub(super) fn name(&self) -> &'a [u8] {
        &self.message[self.name.clone()]
    }

    fn class_and_kind(&self) -> &'a [u8] {
        &self.message[self.name.end..self.name.end + 4]
    }
}

/// An answer that may be given again.
#[derive(Debug)]
pub(super) struct Answer {
    /// From its question on.
    pub(super) lifetime: Duration,
    /// Where its TTLs are, and what they were.
    pub(super) ttls: Vec<(usize, u32)>,
    /// Where the asked name stands in full, to be written as its next client does.
    pub(super) names: Vec<usize>,
}

impl Answer {
    /// `None` unless it is a whole answer to `question`, yes or no (RFC 2308), whose records all say how long they
    /// hold. An answer of several records of the asked type is left out too: servers shuffle those at each question,
    /// and clients share their load by it.
    pub(super) fn parse(message: &[u8], question: &Question<'_>) -> Option<Self> {
        Self::read(message, question).ok().flatten()
    }

    fn read(message: &[u8], question: &Question<'_>) -> Result<Option<Self>, DecodeError> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder)?;
        let code = header.flags & CODE;
        let is_answer = header.flags & (RESPONSE | OPCODE | TRUNCATED) == RESPONSE && header.questions == 1;
        if !is_answer || !matches!(code, NO_ERROR | NO_SUCH_NAME) || message.len() > question.room {
            return Ok(None);
        }
        if !decoder.read_slice(question.name.len())?.unverified().eq_ignore_ascii_case(question.name())
            || decoder.read_slice(4)?.unverified() != question.class_and_kind()
        {
            return Ok(None);
        }
        let mut answer = Self { lifetime: Duration::MAX, ttls: Vec::new(), names: vec![HEADER] };
        let mut found = 0;
        let mut says_how_long_not = false;
        for number in 0..header.answers + header.authorities + header.additionals {
            let record = Record::read(&mut decoder)?;
            if record.kind == RecordType::OPT {
                // Options are one client's own; the upper bits of the code would be an error.
                if !record.data.is_empty() || record.ttl >> 24 != 0 {
                    return Ok(None);
                }
                continue;
            }
            if is_meta(record.kind) {
                return Ok(None);
            }
            let mut ttl = record.ttl;
            if number < header.answers {
                found += u32::from(record.kind == question.kind);
            } else if record.kind == RecordType::SOA && number < header.answers + header.authorities {
                let minimum = record.data.last_chunk().copied().map_or(0, u32::from_be_bytes);
                if record.data.len() < SOA_NUMBERS {
                    return Ok(None);
                }
                ttl = ttl.min(minimum);
                says_how_long_not = true;
            }
            // A TTL with its first bit set is none (RFC 2181).
            let seconds = if ttl > i32::MAX.cast_unsigned() { 0 } else { ttl };
            answer.lifetime = answer.lifetime.min(Duration::from_secs(seconds.into()));
            answer.ttls.push((record.ttl_at, seconds));
            if message.get(record.name.clone()).is_some_and(|name| name.eq_ignore_ascii_case(question.name()))
            {
                answer.names.push(record.name.start);
            }
        }
        let is_yes = found == 1 && code == NO_ERROR;
        let is_no = found == 0 && says_how_long_not;
        Ok(((is_yes || is_no) && decoder.is_empty() && !answer.lifetime.is_zero()).then_some(answer))
    }
}

/// Types of questions and of things that are no data (RFC 6895): ANY, transfers, signatures of messages.
fn is_meta(kind: RecordType) -> bool {
    const SIGNATURE: u16 = 24;
    matches!(u16::from(kind), 0 | SIGNATURE | 41 | 128..=255)
}

struct Header {
    flags: u16,
    questions: usize,
    answers: usize,
    authorities: usize,
    additionals: usize,
}

impl Header {
    fn read(decoder: &mut BinDecoder<'_>) -> Result<Self, DecodeError> {
        let _id = word(decoder)?;
        Ok(Self {
            flags: word(decoder)?,
            questions: word(decoder)?.into(),
            answers: word(decoder)?.into(),
            authorities: word(decoder)?.into(),
            additionals: word(decoder)?.into(),
        })
    }
}

struct Record<'a> {
    name: Range<usize>,
    kind: RecordType,
    /// In an EDNS record: the largest answer that its sender takes.
    class: u16,
    /// In an EDNS record: upper bits of the code, version, flags.
    ttl: u32,
    ttl_at: usize,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(decoder: &mut BinDecoder<'a>) -> Result<Self, DecodeError> {
        let start = decoder.index();
        Name::read(decoder)?;
        let name = start..decoder.index();
        let kind = RecordType::from(word(decoder)?);
        let class = word(decoder)?;
        let ttl_at = decoder.index();
        let ttl = decoder.read_u32()?.unverified();
        let length = word(decoder)?;
        let data = decoder.read_slice(length.into())?.unverified();
        Ok(Self { name, kind, class, ttl, ttl_at, data })
    }
}

fn word(decoder: &mut BinDecoder<'_>) -> Result<u16, DecodeError> {
    Ok(decoder.read_u16()?.unverified())
}
