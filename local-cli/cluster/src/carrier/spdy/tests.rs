use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// `FIN` in the flags of a data frame.
const LAST: u8 = 1;

/// The streams' request as a server reads it, and the answer.
async fn accepted() -> (Spdy<DuplexStream>, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (spdy, ()) = tokio::join!(Spdy::begin(near, 8080), async {
        let request = streams(&mut far).await;
        assert_eq!(request, [(ERROR_STREAM, "error".into()), (DATA_STREAM, "data".into())]);
        far.write_all(&reply(ERROR_STREAM)).await.unwrap();
        far.write_all(&reply(DATA_STREAM)).await.unwrap();
    });
    (spdy.unwrap(), far)
}

/// Two `SYN_STREAM` frames, unpacked with a decompressor of its own, as Go's does it: one zlib stream over both.
async fn streams(far: &mut DuplexStream) -> Vec<(u32, String)> {
    let mut zlib = flate2::Decompress::new(true);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut head = [0; 18];
        far.read_exact(&mut head).await.unwrap();
        assert_eq!(head[..4], [0x80, 3, 0, 1]);
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize - 10;
        let mut block = vec![0; length];
        far.read_exact(&mut block).await.unwrap();
        let (mut plain, before) = (Vec::with_capacity(1024), zlib.total_in());
        zlib.decompress_vec(&block, &mut plain, flate2::FlushDecompress::Sync).unwrap();
        assert_eq!(zlib.total_in() - before, length as u64, "all of the block is used");
        let headers = headers(&plain);
        assert_eq!(headers[1..], [("port".into(), "8080".into()), ("requestid".into(), "0".into())]);
        let id = u32::from_be_bytes(head[8..12].try_into().unwrap());
        streams.push((id, headers[0].1.clone()));
    }
    streams
}

fn headers(mut block: &[u8]) -> Vec<(String, String)> {
    let number = |block: &mut &[u8]| {
        let (number, rest) = block.split_first_chunk().unwrap();
        *block = rest;
        u32::from_be_bytes(*number) as usize
    };
    let text = |block: &mut &[u8]| {
        let length = number(block);
        let (text, rest) = block.split_at(length);
        *block = rest;
        String::from_utf8(text.to_vec()).unwrap()
    };
    let count = number(&mut block);
    let all = (0..count).map(|_| (text(&mut block), text(&mut block))).collect();
    assert!(block.is_empty());
    all
}

fn reply(stream: u32) -> Vec<u8> {
    // With headers that nobody reads.
    [&[0x80, 3, 0, 2, 0, 0, 0, 9][..], &stream.to_be_bytes(), b"anyth"].concat()
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap() | u32::from(flags) << 24;
    [&stream.to_be_bytes()[..], &length.to_be_bytes(), bytes].concat()
}

async fn frame(far: &mut DuplexStream) -> (u32, u8, Vec<u8>) {
    let mut head = [0; frame::HEADER];
    far.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
    far.read_exact(&mut payload).await.unwrap();
    (u32::from_be_bytes(head[..4].try_into().unwrap()), head[4], payload)
}

#[tokio::test]
async fn bytes_pass_both_ways_in_frames_of_the_data_stream() {
    let (mut spdy, mut far) = accepted().await;
    far.write_all(&data(DATA_STREAM, 0, b"hello ")).await.unwrap();
    far.write_all(&data(DATA_STREAM, 0, b"")).await.unwrap();
    far.write_all(&data(DATA_STREAM, 0, b"world")).await.unwrap();
    let mut received = [0; 11];
    spdy.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"hello world");

    let sent: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let read = async {
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let (stream, flags, payload) = frame(&mut far).await;
            assert!((stream, flags) == (DATA_STREAM, 0) && payload.len() <= FRAME);
            got.extend(payload);
        }
        got
    };
    let write = async {
        spdy.write_all(&sent).await.unwrap();
        spdy.flush().await.unwrap();
    };
    let ((), got) = tokio::join!(write, read);
    assert_eq!(got, sent);
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte() {
    let (mut spdy, mut far) = accepted().await;
    let (mut bytes, mut received) = (data(DATA_STREAM, 0, b"slow"), Vec::new());
    bytes.extend(data(DATA_STREAM, LAST, b"ly"));
    let write = async {
        for byte in bytes {
            far.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (read, ()) = tokio::join!(spdy.read_to_end(&mut received), write);
    read.unwrap();
    assert_eq!(received, b"slowly");
}

#[tokio::test]
async fn shutdown_ends_the_stream_behind_what_was_written() {
    let (mut spdy, mut far) = accepted().await;
    spdy.write_all(b"last").await.unwrap();
    spdy.shutdown().await.unwrap();
    spdy.shutdown().await.unwrap();
    assert_eq!(frame(&mut far).await, (DATA_STREAM, 0, b"last".to_vec()));
    assert_eq!(frame(&mut far).await, (DATA_STREAM, LAST, Vec::new()));
    assert_eq!(spdy.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn pings_of_the_server_are_answered_and_our_own_are_not_sent() {
    let (mut spdy, mut far) = accepted().await;
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2];
    far.write_all(&ping).await.unwrap();
    far.write_all(&data(DATA_STREAM, 0, b"x")).await.unwrap();
    spdy.read_exact(&mut [0]).await.unwrap();
    let mut answer = [0; 12];
    far.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, ping);
}

#[tokio::test]
async fn nothing_listening_in_the_pod_is_connection_refused_behind_the_bytes_before() {
    let (mut spdy, mut far) = accepted().await;
    far.write_all(&data(DATA_STREAM, 0, b"before")).await.unwrap();
    far.write_all(&data(ERROR_STREAM, 0, b"dial tcp4 127.0.0.1:1: connect: connection refused"))
        .await
        .unwrap();
    spdy.read_exact(&mut [0; 6]).await.unwrap();
    let error = spdy.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn the_end_of_the_connection_is_the_end_of_the_stream_only_between_frames() {
    let (mut spdy, mut far) = accepted().await;
    far.write_all(&data(DATA_STREAM, 0, b"all")).await.unwrap();
    drop(far);
    let mut received = Vec::new();
    spdy.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"all");

    let (mut spdy, mut far) = accepted().await;
    far.write_all(&data(DATA_STREAM, 0, b"half")[..10]).await.unwrap();
    drop(far);
    let error = spdy.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_reset_of_the_stream_is_a_reset() {
    let (mut spdy, mut far) = accepted().await;
    far.write_all(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]).await.unwrap();
    assert_eq!(spdy.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn hostile_frames_are_refused() {
    let long = [0x80, 3, 0, 4, 0, 1, 0, 1];
    let foreign = [0x80, 2, 0, 2, 0, 0, 0, 0];
    for bytes in [&data(99, 0, b"x")[..], &long, &foreign] {
        let (mut spdy, mut far) = accepted().await;
        far.write_all(bytes).await.unwrap();
        assert_eq!(spdy.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_streams_is_an_error() {
    for said in [data(DATA_STREAM, 0, b"too early"), Vec::new()] {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        far.write_all(&said).await.unwrap();
        far.shutdown().await.unwrap();
        assert!(Spdy::begin(near, 1).await.is_err());
    }
}

proptest::proptest! {
    /// Bytes of the other side never panic, hang or grow.
    #[test]
    fn arbitrary_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut spdy, mut far) = accepted().await;
            far.write_all(&bytes).await.unwrap();
            drop(far);
            let mut received = Vec::new();
            let _ = spdy.read_to_end(&mut received).await;
            assert!(received.len() <= bytes.len());
            assert!(spdy.words.len() <= super::super::WORDS && spdy.out.len() <= 4096);
        });
    }
}

/// Takes as many bytes as the next step says, none where it is 0; then all.
struct Narrow {
    steps: VecDeque<usize>,
    taken: Vec<u8>,
}

impl AsyncRead for Narrow {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = self.steps.pop_front().unwrap_or(usize::MAX);
        if step == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = self.taken.len();
        self.taken.extend(pieces.iter().flat_map(|piece| piece.iter()).take(step));
        Poll::Ready(Ok(self.taken.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest::proptest! {
    /// Wherever a write is cut, within a head, a payload or what waits: frames stay whole and nothing is lost.
    #[test]
    fn frames_are_whole_however_little_is_taken_at_once(
        steps in proptest::collection::vec(proptest::prop_oneof![0..20_usize, 0..2000_usize, 0..70_000_usize], 0..60),
        writes in proptest::collection::vec(proptest::prop_oneof![0..40_usize, 0..80_000_usize], 1..12),
        pings in proptest::bool::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sent, taken) = runtime.block_on(async {
            let io = Narrow { steps: steps.into(), taken: Vec::new() };
            let mut spdy = Spdy {
                io,
                incoming: Incoming::START,
                out: Vec::new(),
                sent: 0,
                words: Vec::new(),
                replied: true,
                finished: false,
                ended: false,
                failure: None,
            };
            let mut sent = Vec::new();
            for length in writes {
                let bytes: Vec<u8> = (0..length).map(|at| (at + sent.len()).to_le_bytes()[0]).collect();
                spdy.write_all(&bytes).await.unwrap();
                assert!(spdy.out.len() <= TAIL + FRAMES * (frame::HEADER + FRAME) + SIGNALS);
                sent.extend(bytes);
                if pings {
                    let head = [0, 0, 0, 2, 0, 0, 0, 0];
                    std::future::poll_fn(|cx| Poll::Ready(spdy.control(cx, Kind::Ping, head))).await.unwrap();
                }
            }
            spdy.shutdown().await.unwrap();
            (sent, spdy.io.taken)
        });
        let (mut rest, mut got, mut ended) = (&taken[..], Vec::new(), false);
        while let Some((head, behind)) = rest.split_first_chunk() {
            let length = match Header::parse(*head) {
                Header::Data { stream, length, last } => {
                    assert!(stream == DATA_STREAM && !ended);
                    ended = last;
                    got.extend_from_slice(&behind[..length as usize]);
                    length
                }
                Header::Control { kind, length } => {
                    assert_eq!(kind, Kind::Ping);
                    length
                }
                Header::Foreign => panic!("not a frame"),
            };
            rest = &behind[length as usize..];
        }
        assert!(rest.is_empty() && ended && got == sent);
    }
}
