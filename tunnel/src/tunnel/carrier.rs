//! A byte stream with both ends proved.

use std::{fmt, io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Role, TunnelId};
use crate::{
    SessionKey,
    handshake::{Greeting, HandshakeError, Initiator, MAX_MESSAGE, Responder},
};

/// A stranger on the port gets no longer than this.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A byte stream on which both ends have proved the session key: a lane of the tunnel `id`.
pub struct Carrier {
    pub(super) io: Box<dyn Stream>,
    greeting: Greeting,
}

impl Carrier {
    /// Handshake over `io`. Cancel-safe in the sense that dropping it only loses `io`. Limited to 10 s.
    ///
    /// On the agent's side `id` is not looked at: the laptop says it. `PermissionDenied`: not the same key.
    pub async fn handshake<S>(io: S, role: Role, key: &SessionKey, id: TunnelId) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::handshake_lane(io, role, key, id, 0).await
    }

    /// As [`Self::handshake`] for a lane with a number, by which a resume will know it again.
    pub async fn handshake_lane<S>(
        mut io: S,
        role: Role,
        key: &SessionKey,
        id: TunnelId,
        lane: u32,
    ) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = async {
            match role {
                Role::Laptop => initiate(&mut io, key, id, lane).await,
                Role::Agent => respond(&mut io, key).await,
            }
        };
        let greeting = tokio::time::timeout(LIMIT, handshake).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the other side did not finish the handshake within 10 s")
        })??;
        Ok(Self { io: Box::new(io), greeting })
    }

    /// The tunnel it belongs to (on the agent: as the laptop said it).
    pub fn id(&self) -> TunnelId {
        TunnelId(self.greeting.tunnel)
    }

    /// Number of the lane as the laptop said it.
    pub fn lane(&self) -> u32 {
        self.greeting.lane
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("greeting", &self.greeting).finish_non_exhaustive()
    }
}

async fn initiate(io: &mut impl Stream, key: &SessionKey, id: TunnelId, lane: u32) -> io::Result<Greeting> {
    let mut initiator = Initiator::new(key, id, lane)?;
    write(io, &initiator.hello()?).await?;
    let answer = read(io).await.map_err(|error| match error.kind() {
        // An agent with another key ends the carrier without a word.
        io::ErrorKind::UnexpectedEof => io::Error::new(
            error.kind(),
            "the other side ended the handshake: another session key, or no agent",
        ),
        _ => error,
    })?;
    let (confirmation, greeting) = initiator.finish(&answer)?;
    write(io, &confirmation).await?;
    Ok(greeting)
}

async fn respond(io: &mut impl Stream, key: &SessionKey) -> io::Result<Greeting> {
    let (answer, greeting, confirmation) = Responder::new(key)?.answer(&read(io).await?)?;
    write(io, &answer).await?;
    confirmation.check(&read(io).await?)?;
    Ok(greeting)
}

/// Reads exactly one message: what follows belongs to the records.
async fn read(io: &mut impl Stream) -> io::Result<Vec<u8>> {
    let length = usize::from(io.read_u16_le().await?);
    if length > MAX_MESSAGE {
        return Err(HandshakeError::Malformed.into());
    }
    let mut message = vec![0; length];
    io.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(io: &mut impl Stream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| HandshakeError::Malformed)?;
    let mut framed = length.to_le_bytes().to_vec();
    framed.extend_from_slice(message);
    io.write_all(&framed).await?;
    io.flush().await
}
