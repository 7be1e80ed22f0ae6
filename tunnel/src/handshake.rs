//! How both ends prove the session key to each other before the first record, as messages without IO.
//!
//! `Noise_NNpsk0` with the session key as psk, three messages, each a little-endian `u16` length and that many bytes:
//! hello and answer carry a [`Greeting`]; the confirmation, sealed with the fresh keys, shows that the hello was not
//! a replayed one. Sealed records (AEAD) would go on with the same keys; today's carriers are TLS underneath, so
//! the capability is not announced.

use serde::{Deserialize, Serialize};
use snow::{HandshakeState, TransportState};

use crate::{Role, SessionKey, TunnelId};

/// Version of the record and frame format. Another one is refused.
pub const VERSION: u16 = 1;
/// Longest handshake message, bytes.
pub const MAX_MESSAGE: usize = 512;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// The same for all versions, so that a difference is told as such and not as a wrong key.
const PROLOGUE: &[u8] = b"devproxy tunnel";

/// What each end says of itself, encrypted under the session key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// Bits of optional features; what both announce is used, unknown ones are ignored. None exist yet: the first
    /// will be sealed records and resume.
    pub capabilities: u64,
    /// The laptop's choice, repeated by the agent.
    pub tunnel: u64,
    /// Number of the lane in the tunnel, for resume.
    pub lane: u32,
}

/// The handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not the same session key, or no tunnel at the other end.
    #[error("the other side does not hold the session key")]
    WrongKey,
    /// A message is longer than [`MAX_MESSAGE`] or malformed inside.
    #[error("malformed handshake")]
    Malformed,
    /// See [`VERSION`].
    #[error("the other side speaks version {0} of the tunnel, this one {VERSION}")]
    Version(u16),
    /// The answer names another tunnel.
    #[error("the other side answered for another tunnel")]
    WrongTunnel,
    /// No random numbers, or a mistake here.
    #[error("the handshake could not be computed")]
    Noise(#[from] snow::Error),
}

impl From<HandshakeError> for std::io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match error {
            HandshakeError::WrongKey => std::io::ErrorKind::PermissionDenied,
            _ => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// The laptop's side: [`Self::hello`], then [`Self::finish`] with the answer.
#[derive(Debug)]
pub struct Initiator {
    state: HandshakeState,
    greeting: Greeting,
}

impl Initiator {
    /// Starts a handshake for `lane` of `tunnel`.
    pub fn new(key: &SessionKey, tunnel: TunnelId, lane: u32) -> Result<Self, HandshakeError> {
        let greeting = Greeting { version: VERSION, capabilities: 0, tunnel: tunnel.0, lane };
        Ok(Self { state: noise(Role::Laptop, key)?, greeting })
    }

    /// The first message.
    pub fn hello(&mut self) -> Result<Vec<u8>, HandshakeError> {
        write(&mut self.state, &self.greeting)
    }

    /// Reads the answer; returns the confirmation to send and what the agent said.
    pub fn finish(mut self, answer: &[u8]) -> Result<(Vec<u8>, Greeting), HandshakeError> {
        let greeting = read(&mut self.state, answer)?;
        if greeting.tunnel != self.greeting.tunnel {
            return Err(HandshakeError::WrongTunnel);
        }
        let mut message = vec![0; MAX_MESSAGE];
        let length = self.state.into_transport_mode()?.write_message(&[], &mut message)?;
        message.truncate(length);
        Ok((message, greeting))
    }
}

/// The agent's side: [`Self::answer`] to the hello, then [`Confirmation::check`].
#[derive(Debug)]
pub struct Responder {
    state: HandshakeState,
}

/// Waits for the last message.
#[derive(Debug)]
pub struct Confirmation {
    state: TransportState,
}

impl Responder {
    /// Waits for a hello.
    pub fn new(key: &SessionKey) -> Result<Self, HandshakeError> {
        Ok(Self { state: noise(Role::Agent, key)? })
    }

    /// Reads the hello; returns the answer to send and what the laptop said.
    pub fn answer(mut self, hello: &[u8]) -> Result<(Vec<u8>, Greeting, Confirmation), HandshakeError> {
        let greeting = read(&mut self.state, hello)?;
        let answer = write(&mut self.state, &Greeting { version: VERSION, capabilities: 0, ..greeting })?;
        Ok((answer, greeting, Confirmation { state: self.state.into_transport_mode()? }))
    }
}

impl Confirmation {
    /// Whether the laptop is the one that said hello just now.
    pub fn check(mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let mut payload = [0; MAX_MESSAGE];
        let read = self.state.read_message(message, &mut payload).map_err(|_| HandshakeError::WrongKey)?;
        if read == 0 { Ok(()) } else { Err(HandshakeError::Malformed) }
    }
}

fn noise(role: Role, key: &SessionKey) -> Result<HandshakeState, HandshakeError> {
    let builder = snow::Builder::new(PATTERN.parse()?).prologue(PROLOGUE)?.psk(0, key.as_bytes())?;
    Ok(match role {
        Role::Laptop => builder.build_initiator()?,
        Role::Agent => builder.build_responder()?,
    })
}

fn write(state: &mut HandshakeState, greeting: &Greeting) -> Result<Vec<u8>, HandshakeError> {
    let payload = postcard::to_stdvec(greeting).map_err(|_| HandshakeError::Malformed)?;
    let mut message = vec![0; MAX_MESSAGE];
    let length = state.write_message(&payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Greeting, HandshakeError> {
    let mut payload = [0; MAX_MESSAGE];
    if message.len() > MAX_MESSAGE {
        return Err(HandshakeError::Malformed);
    }
    let length = state.read_message(message, &mut payload).map_err(|_| HandshakeError::WrongKey)?;
    // What a newer version adds behind these fields is ignored, as unknown capabilities are.
    let (greeting, _) =
        postcard::take_from_bytes::<Greeting>(&payload[..length]).map_err(|_| HandshakeError::Malformed)?;
    if greeting.version != VERSION {
        return Err(HandshakeError::Version(greeting.version));
    }
    Ok(greeting)
}
