//! Port-forward by SPDY/3.1, as the kubelet and the container runtime speak it: one *error* and one *data* stream for
//! the one port.
//!
//! Of SPDY only what this needs: no header of the other side is read, so none is decompressed, and ours are sent in
//! stored blocks. Neither side has flow control here; TCP's is enough for a single stream.

mod frame;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Method, header};
use hyper_util::rt::TokioIo;
use kube::{
    Client,
    client::{Body, UpgradeConnectionError},
    core::{Status, response::StatusSummary},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frame::{Header, Kind, PING_LENGTH};

/// The subprotocol of the streams: pairs of an error and a data stream.
const PROTOCOL: &str = "portforward.k8s.io";
/// Names the subprotocols in the request and the chosen one in the answer.
const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// Streams of a client are odd.
const ERROR_STREAM: u32 = 1;
const DATA_STREAM: u32 = 3;

/// Payload of a frame that we send: the runtime copies through a buffer of this size.
const FRAME: usize = 32 << 10;
/// Frames taken by one write.
const FRAMES: usize = 2;
/// What waits goes along with the next frames, unless it is longer. TLS takes 64 KiB at once, so frames leave a little behind.
const TAIL: usize = 1 << 10;
/// Room for answers to pings beside them; a peer that pings without reading gets no more.
const SIGNALS: usize = 16 * (frame::HEADER + PING_LENGTH);

/// Longest control frame: headers of an answer, of which Kubernetes sends none.
const CONTROL: u32 = 64 << 10;

/// Upgrades a port-forward request for `port` and waits until both streams stand.
pub(super) async fn open(
    client: &Client,
    request: &http::Request<Vec<u8>>,
    port: u16,
) -> Result<Spdy<TokioIo<hyper::upgrade::Upgraded>>, kube::Error> {
    let asked = http::Request::builder()
        .method(Method::POST)
        .uri(request.uri())
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"))
        .header(PROTOCOL_HEADER, HeaderValue::from_static(PROTOCOL))
        .body(Body::empty())
        .map_err(kube::Error::HttpError)?;
    let answer = client.send(asked).await?;
    if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    let upgraded = hyper::upgrade::on(answer)
        .await
        .map_err(|error| kube::Error::UpgradeConnection(UpgradeConnectionError::GetPendingUpgrade(error)))?;
    Spdy::begin(TokioIo::new(upgraded), port).await.map_err(|error| kube::Error::Service(error.into()))
}

/// The answer's own words: a `Status`, or the text of whatever stands between.
async fn refusal(answer: http::Response<Body>) -> kube::Error {
    let code = answer.status();
    if !code.is_client_error() && !code.is_server_error() {
        return kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code));
    }
    let body = match answer.into_body().collect_bytes().await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let status = serde_json::from_slice(&body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body[..body.len().min(super::WORDS)]).trim().to_owned();
        Status {
            status: Some(StatusSummary::Failure),
            code: code.as_u16(),
            message: text,
            ..Status::default()
        }
    });
    kube::Error::Api(Box::new(status))
}

/// The byte stream of the data stream. No task of its own.
pub(super) struct Spdy<S> {
    io: S,
    incoming: Incoming,
    /// Whole frames on their way, `out[sent..]` of them still to be written.
    out: Vec<u8>,
    sent: usize,
    /// What came on the error stream.
    words: Vec<u8>,
    replied: bool,
    /// Our FIN is queued.
    finished: bool,
    ended: bool,
    /// Met behind bytes that had to be handed on first.
    failure: Option<io::Error>,
}

/// Where in the stream of frames reading stands.
enum Incoming {
    Header {
        bytes: [u8; frame::HEADER],
        have: usize,
    },
    /// The rest of a data frame, for the reader.
    Data {
        left: usize,
        last: bool,
    },
    /// The rest of a frame of the error stream.
    Words {
        left: usize,
        last: bool,
    },
    /// A control frame; its first bytes are kept.
    Control {
        kind: Kind,
        head: [u8; 8],
        have: usize,
        length: usize,
    },
}

impl Incoming {
    const START: Self = Self::Header { bytes: [0; frame::HEADER], have: 0 };
}

impl<S: AsyncRead + AsyncWrite + Unpin> Spdy<S> {
    /// Opens both streams and waits for the answer; before it the other side drops what comes.
    async fn begin(io: S, port: u16) -> io::Result<Self> {
        let mut spdy = Self {
            io,
            incoming: Incoming::START,
            out: Vec::with_capacity(FRAMES * (frame::HEADER + FRAME)),
            sent: 0,
            words: Vec::new(),
            replied: false,
            finished: false,
            ended: false,
            failure: None,
        };
        frame::put_streams(&mut spdy.out, port, [(ERROR_STREAM, "error"), (DATA_STREAM, "data")])?;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = spdy.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
            while !spdy.replied {
                ready!(spdy.poll_frame(cx))?;
                if spdy.ended || matches!(spdy.incoming, Incoming::Data { .. }) {
                    return Poll::Ready(Err(bad("no answer to the streams")));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        Ok(spdy)
    }

    /// Writes what is queued.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads what is not for the reader, one step at a time: ready when something was done, at the latest when a data
    /// frame stands in front or everything has ended.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; 512];
        let (into, from, length): (&mut [u8], usize, usize) = match &mut self.incoming {
            Incoming::Data { .. } => return Poll::Ready(Ok(())),
            Incoming::Header { bytes, have } => (bytes, *have, frame::HEADER),
            Incoming::Words { left, .. } => (&mut room, 0, *left),
            Incoming::Control { head, have, length, .. } if *have < head.len().min(*length) => {
                let most = head.len().min(*length);
                (head, *have, most)
            }
            Incoming::Control { have, length, .. } => (&mut room, 0, *length - *have),
        };
        let most = length.min(into.len());
        let mut buffer = ReadBuf::new(&mut into[from..most]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            let between = matches!(self.incoming, Incoming::Header { have: 0, .. });
            self.ended = true;
            return Poll::Ready(if between { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
        }
        match &mut self.incoming {
            Incoming::Header { bytes, have } => {
                *have += read;
                if *have == frame::HEADER {
                    self.incoming = begin_frame(Header::parse(*bytes))?;
                    self.end_frame(cx)?;
                }
            }
            Incoming::Words { left, .. } => {
                *left -= read;
                let kept = read.min(super::WORDS.saturating_sub(self.words.len()));
                self.words.extend_from_slice(&room[..kept]);
                self.end_frame(cx)?;
            }
            Incoming::Control { have, .. } => {
                *have += read;
                self.end_frame(cx)?;
            }
            Incoming::Data { .. } => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Acts on the frame in front if all of it was read.
    fn end_frame(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.incoming {
            Incoming::Data { left: 0, last } => self.ended |= last,
            Incoming::Words { left: 0, last: true } if self.words.is_empty() => {}
            // The runtime writes its words at once and then closes the stream; an implementation that does not close
            // it must be heard as well.
            Incoming::Words { left: 0, .. } if !self.words.is_empty() => {
                return Err(super::refused(&self.words));
            }
            Incoming::Words { left: 0, .. } => {}
            Incoming::Control { kind, head, have, length } if have == length => {
                self.control(cx, kind, head)?;
            }
            _ => return Ok(()),
        }
        self.incoming = Incoming::START;
        Ok(())
    }

    fn control(&mut self, cx: &mut Context<'_>, kind: Kind, head: [u8; 8]) -> io::Result<()> {
        let stream = frame::stream(head);
        match kind {
            Kind::Reply => self.replied |= stream == DATA_STREAM,
            Kind::Reset if stream == DATA_STREAM || stream == ERROR_STREAM => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "port-forward: the stream was reset",
                ));
            }
            // Even ones are the server's, to be sent back as they are.
            Kind::Ping
                if stream.is_multiple_of(2)
                    && self.out.len() < FRAMES * (frame::HEADER + FRAME) + SIGNALS =>
            {
                frame::put_ping(&mut self.out, stream);
                if let Poll::Ready(written) = self.poll_out(cx) {
                    written?;
                    // What is written may wait in the TLS layer; the next flush or write takes it along.
                    if let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(cx) {
                        flushed?;
                    }
                }
            }
            Kind::Reset | Kind::Ping | Kind::Other => {}
        }
        Ok(())
    }
}

fn begin_frame(header: Header) -> io::Result<Incoming> {
    Ok(match header {
        Header::Data { stream: DATA_STREAM, length, last } => Incoming::Data { left: length as usize, last },
        Header::Data { stream: ERROR_STREAM, length, last } => {
            Incoming::Words { left: length as usize, last }
        }
        Header::Control { kind, length } if length <= CONTROL => {
            Incoming::Control { kind, head: [0; 8], have: 0, length: length as usize }
        }
        Header::Data { .. } => return Err(bad("a frame of an unknown stream")),
        Header::Control { .. } => return Err(bad("a control frame that is too long")),
        Header::Foreign => return Err(bad("not SPDY/3")),
    })
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("port-forward: {what}"))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Spdy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(error) = this.failure.take() {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        while buffer.remaining() > 0 && !this.ended {
            let step = match &mut this.incoming {
                Incoming::Data { left, .. } => {
                    let most = buffer.remaining().min(*left);
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                    let read = Pin::new(&mut this.io).poll_read(cx, &mut part);
                    let count = part.filled().len();
                    buffer.advance(count);
                    *left -= count;
                    match read {
                        Poll::Ready(Ok(())) if count == 0 => {
                            Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
                        }
                        Poll::Ready(Ok(())) => Poll::Ready(this.end_frame(cx)),
                        other => other,
                    }
                }
                _ => this.poll_frame(cx),
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if buffer.filled().len() == before => return Poll::Ready(Err(error)),
                Poll::Pending if buffer.filled().len() == before => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    this.failure = Some(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Spdy<S> {
    /// The bytes go down from where they are, between the heads of their frames, with what waits; only what is not taken at
    /// once is copied.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.out.len() - self.sent > TAIL {
            ready!(self.poll_out(cx))?;
        }
        let this = &mut *self;
        let taken = &bytes[..bytes.len().min(FRAMES * FRAME)];
        let mut heads = [[0; frame::HEADER]; FRAMES];
        let mut frames = [IoSlice::new(&[]); 2 * FRAMES];
        for ((pair, head), payload) in frames.chunks_mut(2).zip(&mut heads).zip(taken.chunks(FRAME)) {
            *head = frame::data_head(DATA_STREAM, payload.len(), false);
            pair.copy_from_slice(&[IoSlice::new(head), IoSlice::new(payload)]);
        }
        let waiting = &this.out[this.sent..];
        let mut pieces = [IoSlice::new(waiting); 1 + 2 * FRAMES];
        pieces[1..].copy_from_slice(&frames);
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, &pieces))?;
        if written == 0 && !taken.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_frames = written.saturating_sub(waiting.len());
        this.out.drain(..this.sent + written - of_frames);
        this.sent = 0;
        let mut rest = &mut frames[..];
        IoSlice::advance_slices(&mut rest, of_frames);
        for piece in rest {
            this.out.extend_from_slice(piece);
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The runtime ends both directions when it has copied everything; the connection itself ends with its drop.
        if !self.finished {
            self.out.extend_from_slice(&frame::data_head(DATA_STREAM, 0, true));
            self.finished = true;
        }
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests;
