//! One command to redis (RESP, inline replies only as far as the shop needs them).

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends `words` and gives the reply as text.
pub(crate) fn command(server: &str, words: &[String]) -> Result<Vec<u8>> {
    let connection = TcpStream::connect(server)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(request, "${}\r\n{word}\r\n", word.len());
    }
    Write::write_all(&mut &connection, request.as_bytes())?;

    let mut reader = BufReader::new(&connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let value = line.get(1..).unwrap_or_default().trim().to_owned();
    match line.as_bytes().first() {
        Some(b'+' | b':') => Ok(value.into_bytes()),
        Some(b'$') => {
            let length = value.parse::<i64>().unwrap_or(-1);
            let Ok(length) = u64::try_from(length) else { return Ok(b"(nil)".to_vec()) };
            let mut body = Vec::new();
            reader.take(length.min(1 << 20)).read_to_end(&mut body)?;
            Ok(body)
        }
        _ => Err(Error::other(format!("redis said {line:?}"))),
    }
}
