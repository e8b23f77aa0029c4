//! A small HTTP/1.1 client over `TcpStream`: keep-alive, lengths and chunks, no redirects, no TLS.
//! One connection a client; a client that lost its connection makes a new one at the next request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
    /// The body as JSON; panics with the body when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: HTTP {} {}", self.status, self.text()))
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// This answer, if its status is `status`; panics with the body otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    address: String,
    deadline: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of `host:port`; connects at the first request.
    pub fn new(address: impl Into<String>) -> Client {
        Client {
            address: address.into(),
            deadline: Duration::from_secs(60),
            connection: None,
        }
    }

    /// The longest wait for bytes of an answer; a minute when not set.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// GET.
    ///
    /// # Errors
    /// The connection's: the outcome is unknown.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, &[], b"")
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// The connection's: the outcome is unknown.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.request(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// PUT of raw bytes.
    ///
    /// # Errors
    /// The connection's: the outcome is unknown.
    pub fn put(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.request(
            "PUT",
            path,
            &[("content-type", "application/octet-stream")],
            body,
        )
    }

    /// Any request.
    ///
    /// # Errors
    /// The connection's: the outcome is unknown. Nothing is tried twice.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        connection.get_mut().write_all(&message)?;
        let answer = read_answer(&mut connection, method == "HEAD")?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.deadline))?;
        stream.set_write_timeout(Some(self.deadline))?;
        Ok(BufReader::new(stream))
    }
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_answer(from: &mut impl BufRead, head_only: bool) -> io::Result<Answer> {
    loop {
        let first = line(from)?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| bad(&first))?;
        let mut headers = Vec::new();
        loop {
            let line = line(from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if (100..200).contains(&status) {
            continue;
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if !head_only && status != 204 && status != 304 {
            answer.body = read_body(from, &answer)?;
        }
        return Ok(answer);
    }
}

fn read_body(from: &mut impl BufRead, answer: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(from)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| bad(&size))?;
            exactly(from, size, &mut body)?;
            line(from)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match answer.header("content-length") {
        Some(length) => exactly(from, length.parse().map_err(|_| bad(length))?, &mut body)?,
        None => {
            from.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

/// A body that ends early is an error, never a shorter body.
fn exactly(from: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    let read = from.by_ref().take(length).read_to_end(body)?;
    if u64::try_from(read).unwrap_or(u64::MAX) == length {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_chunks_and_interim_answers_are_read() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
                    HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let mut from = text.as_bytes();
        let first = read_answer(&mut from, false).unwrap();
        assert_eq!((first.status, first.text().as_str()), (200, "hi"));
        let second = read_answer(&mut from, false).unwrap();
        assert_eq!((second.status, second.text().as_str()), (404, "abcd"));
        assert!(from.is_empty());
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        let mut from = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc".as_bytes();
        assert!(read_answer(&mut from, false).is_err());
    }
}
