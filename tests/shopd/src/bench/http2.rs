//! Calls as gRPC makes them: a POST with a small message, answered by headers, a small message and trailers, many at
//! once on a few connections.

use std::io::{Error, Result};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::result::{Requests, Times};
use super::{SMALL, patiently};

/// Calls at once on each connection.
const AT_ONCE: usize = 16;

/// As many calls as go in `time` on all `connections`.
pub async fn measure(connections: Vec<TcpStream>, time: Duration) -> Result<Requests> {
    let begin = Instant::now();
    let mut drivers = JoinSet::new();
    let mut callers = JoinSet::new();
    for connection in connections {
        let (client, driver) = h2::client::handshake(connection).await.map_err(Error::other)?;
        drivers.spawn(driver);
        for _ in 0..AT_ONCE {
            let client = client.clone();
            callers.spawn(async move {
                let mut times = Vec::new();
                while begin.elapsed() < time {
                    let start = Instant::now();
                    patiently(call(client.clone())).await?;
                    times.push(start.elapsed());
                }
                Ok::<_, Error>(times)
            });
        }
    }
    let mut times = Vec::new();
    for own in callers.join_all().await {
        times.extend(own?);
    }
    let measured_ms = begin.elapsed().as_secs_f64() * 1e3;
    drivers.shutdown().await;
    Ok(Requests { times: Times::of(times), measured_ms, ..Requests::default() })
}

async fn call(client: SendRequest<Bytes>) -> Result<()> {
    let request = Request::post("http://shop/shop.Cart/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(Error::other)?;
    let mut client = client.ready().await.map_err(Error::other)?;
    let (answer, mut stream) = client.send_request(request, false).map_err(Error::other)?;
    stream.send_data(Bytes::from_static(&[b'q'; SMALL]), true).map_err(Error::other)?;
    let mut body = answer.await.map_err(Error::other)?.into_body();
    let mut length = 0;
    while let Some(part) = body.data().await {
        let part = part.map_err(Error::other)?;
        length += part.len();
        body.flow_control().release_capacity(part.len()).map_err(Error::other)?;
    }
    let trailers = body.trailers().await.map_err(Error::other)?;
    if length == SMALL && trailers.is_some_and(|trailers| trailers.contains_key("grpc-status")) {
        Ok(())
    } else {
        Err(Error::other("another answer"))
    }
}

/// The server's end of one connection.
pub async fn serve(connection: TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(connection).await.map_err(Error::other)?;
    while let Some(call) = connection.accept().await {
        let (_, respond) = call.map_err(Error::other)?;
        answer(respond).map_err(Error::other)?;
    }
    Ok(())
}

/// At once: a call's message is not waited for, and what was not read of it is released with the stream.
fn answer(mut respond: SendResponse<Bytes>) -> std::result::Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::from_static(&[b'a'; SMALL]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
