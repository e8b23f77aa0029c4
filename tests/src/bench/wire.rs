//! The three protocols of the PUT comparison, as bytes: HTTP/1.1 (JSON and raw), RESP, and gRPC's
//! `etcdserverpb.KV` over hand-made HTTP/2 frames. All are driven by the same loop
//! ([`super::load`]), one request in flight a connection, so that no peer pays for a heavier client
//! library than another. An answer counts only when it says that the write was done.

use super::data::{Item, Payloads};

/// How much of the input an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that are done with.
    pub used: usize,
    /// Whether the answer to the request in flight is whole.
    pub whole: bool,
}

impl Fed {
    const MORE: Fed = Fed {
        used: 0,
        whole: false,
    };
}

/// One connection's side of a protocol.
pub trait Wire: Send {
    /// What is sent right after connecting.
    fn hello(&mut self, _out: &mut Vec<u8>) {}
    /// Appends a write of `item`.
    fn put(&mut self, out: &mut Vec<u8>, item: Item, payloads: &Payloads);
    /// Appends a read of `item`.
    fn get(&mut self, out: &mut Vec<u8>, item: Item);
    /// Looks at what has come. May append to `out` what the protocol wants answered.
    ///
    /// # Errors
    /// The peer's refusal, or what is wrong with its bytes.
    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Fed, String>;
    /// The last whole answer's body: for a read, it holds the value.
    fn body(&self) -> &[u8];
}

/// How a value travels over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"value":B64}`.
    Json,
    /// The value's bytes.
    Raw,
}

/// HTTP/1.1, keep-alive.
#[derive(Debug)]
pub struct Http {
    form: Form,
    host: String,
    writes: bool,
    body: Vec<u8>,
}

impl Http {
    /// A connection to `host:port`.
    pub fn new(host: &str, form: Form) -> Http {
        Http {
            form,
            host: host.to_owned(),
            writes: false,
            body: Vec::new(),
        }
    }
}

/// The namespace that all benchmarks write to.
pub const NAMESPACE: &str = "bench";

impl Wire for Http {
    fn put(&mut self, out: &mut Vec<u8>, item: Item, payloads: &Payloads) {
        self.writes = true;
        let start = |out: &mut Vec<u8>, kind: &str, length: usize| {
            out.extend_from_slice(b"PUT /api/v1/bench/kv/");
            out.extend_from_slice(&item.key());
            let head = format!(
                " HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
                self.host
            );
            out.extend_from_slice(head.as_bytes());
        };
        match self.form {
            Form::Raw => {
                let value = payloads.raw(item);
                start(out, "application/octet-stream", value.len());
                out.extend_from_slice(value);
            }
            Form::Json => {
                let value = payloads.base64(item);
                start(out, "application/json", value.len() + 12);
                out.extend_from_slice(b"{\"value\":\"");
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
    }

    fn get(&mut self, out: &mut Vec<u8>, item: Item) {
        self.writes = false;
        out.extend_from_slice(b"GET /api/v1/bench/kv/");
        out.extend_from_slice(&item.key());
        let head = format!(
            " HTTP/1.1\r\nhost: {}\r\naccept: application/octet-stream\r\n\r\n",
            self.host
        );
        out.extend_from_slice(head.as_bytes());
    }

    fn feed(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Fed, String> {
        let Some(head) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Ok(Fed::MORE);
        };
        let text = std::str::from_utf8(&input[..head]).map_err(|e| e.to_string())?;
        let mut length = None;
        for line in text.split("\r\n").skip(1) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let length = length.ok_or_else(|| format!("no content-length: {text}"))?;
        let used = head + 4 + length;
        let Some(body) = input.get(head + 4..used) else {
            return Ok(Fed::MORE);
        };
        let done = text.starts_with("HTTP/1.1 200")
            && (!self.writes || contains(body, b"\"success\":true"));
        if !done {
            return Err(format!("{text}\n{}", String::from_utf8_lossy(body)));
        }
        self.body.clear();
        self.body.extend_from_slice(body);
        Ok(Fed { used, whole: true })
    }

    fn body(&self) -> &[u8] {
        &self.body
    }
}

/// RESP2, the redis protocol.
#[derive(Debug, Default)]
pub struct Resp {
    body: Vec<u8>,
}

fn bulk(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

impl Wire for Resp {
    fn put(&mut self, out: &mut Vec<u8>, item: Item, payloads: &Payloads) {
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
        bulk(out, &item.key());
        bulk(out, payloads.raw(item));
    }

    fn get(&mut self, out: &mut Vec<u8>, item: Item) {
        out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
        bulk(out, &item.key());
    }

    fn feed(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Fed, String> {
        let Some(end) = input.windows(2).position(|w| w == b"\r\n") else {
            return Ok(Fed::MORE);
        };
        let line = String::from_utf8_lossy(&input[..end]);
        self.body.clear();
        if line == "+OK" {
            return Ok(Fed {
                used: end + 2,
                whole: true,
            });
        }
        let length: usize = line
            .strip_prefix('$')
            .and_then(|n| n.parse().ok())
            .ok_or_else(|| line.clone().into_owned())?;
        let Some(body) = input.get(end + 2..end + 2 + length) else {
            return Ok(Fed::MORE);
        };
        if input.len() < end + 4 + length {
            return Ok(Fed::MORE);
        }
        self.body.extend_from_slice(body);
        Ok(Fed {
            used: end + 4 + length,
            whole: true,
        })
    }

    fn body(&self) -> &[u8] {
        &self.body
    }
}

/// etcd's `KV/Put` and `KV/Range`: gRPC over HTTP/2 (RFC 9113), one stream at a time.
///
/// The request headers are HPACK literals (RFC 7541) that need no table; of the answer's headers
/// nothing is decoded: a refusal in gRPC is an answer without a message, and that is an error here.
#[derive(Debug)]
pub struct Grpc {
    host: String,
    stream: u32,
    body: Vec<u8>,
}

mod frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames here are small");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn push_literal(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("header texts here are below 127 bytes"));
    out.extend_from_slice(text.as_bytes());
}

fn push_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    // A varint of two bytes: keys and values here are below 2^14 bytes, padding is legal.
    let length = u16::try_from(bytes.len()).expect("values here are small");
    let [high, low] = (length << 1).to_be_bytes();
    out.extend_from_slice(&[low >> 1 | 0x80, high]);
    out.extend_from_slice(bytes);
}

impl Grpc {
    /// A connection to `host:port`.
    pub fn new(host: &str) -> Grpc {
        Grpc {
            host: host.to_owned(),
            stream: 0,
            body: Vec::new(),
        }
    }

    fn call(&mut self, out: &mut Vec<u8>, path: &str, message: &[u8]) {
        // Client streams are odd and rise; 2^30 requests a connection are never reached here.
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.body.clear();
        let mut headers = vec![0x83, 0x86, 0x04]; // :method POST, :scheme http, :path
        push_literal(&mut headers, path);
        headers.push(0x01); // :authority
        push_literal(&mut headers, &self.host);
        headers.extend_from_slice(&[0x0f, 0x10]); // content-type
        push_literal(&mut headers, "application/grpc");
        headers.push(0x00);
        push_literal(&mut headers, "te");
        push_literal(&mut headers, "trailers");
        push_frame(
            out,
            frame::HEADERS,
            frame::END_HEADERS,
            self.stream,
            &headers,
        );
        let mut data = vec![0];
        let length = u32::try_from(message.len()).expect("messages here are small");
        data.extend_from_slice(&length.to_be_bytes());
        data.extend_from_slice(message);
        push_frame(out, frame::DATA, frame::END_STREAM, self.stream, &data);
    }
}

impl Wire for Grpc {
    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        push_frame(out, frame::SETTINGS, 0, 0, &[]);
        // The connection's window never closes while a benchmark runs.
        push_frame(
            out,
            frame::WINDOW_UPDATE,
            0,
            0,
            &0x7fff_0000_u32.to_be_bytes(),
        );
    }

    fn put(&mut self, out: &mut Vec<u8>, item: Item, payloads: &Payloads) {
        let mut message = Vec::with_capacity(1_100);
        push_field(&mut message, 1, &item.key());
        push_field(&mut message, 2, payloads.raw(item));
        self.call(out, "/etcdserverpb.KV/Put", &message);
    }

    fn get(&mut self, out: &mut Vec<u8>, item: Item) {
        let mut message = Vec::new();
        push_field(&mut message, 1, &item.key());
        self.call(out, "/etcdserverpb.KV/Range", &message);
    }

    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Fed, String> {
        let mut used = 0;
        while let Some(head) = input.get(used..used + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some(payload) = input.get(used + 9..used + 9 + length) else {
                break;
            };
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            used += 9 + length;
            match kind {
                frame::SETTINGS if flags & frame::ACK == 0 => {
                    push_frame(out, frame::SETTINGS, frame::ACK, 0, &[]);
                }
                frame::PING if flags & frame::ACK == 0 => {
                    push_frame(out, frame::PING, frame::ACK, 0, payload);
                }
                frame::GOAWAY | frame::RST_STREAM => {
                    return Err(format!("HTTP/2 frame {kind}: {payload:?}"));
                }
                frame::DATA => self.body.extend_from_slice(payload),
                _ => {}
            }
            let ends =
                matches!(kind, frame::DATA | frame::HEADERS) && flags & frame::END_STREAM != 0;
            if ends && stream == self.stream {
                // Five bytes stand before a message: compressed or not, and its length.
                if self.body.len() <= 5 {
                    return Err("gRPC answered without a message: an error".to_owned());
                }
                return Ok(Fed { used, whole: true });
            }
        }
        Ok(Fed { used, whole: false })
    }

    fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Whether `whole` contains `part`.
pub fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|w| w == part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn whole(wire: &mut dyn Wire, bytes: &[u8]) -> Result<(), String> {
        for cut in 0..bytes.len() {
            let fed = wire.feed(&bytes[..cut], &mut Vec::new())?;
            assert!(!fed.whole, "whole after {cut} of {}", bytes.len());
            if fed.used > 0 {
                return Ok(()); // frames before the last one were taken: begins anew from there
            }
        }
        let fed = wire.feed(bytes, &mut Vec::new())?;
        assert_eq!((fed.used, fed.whole), (bytes.len(), true));
        Ok(())
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        let (mut http, mut resp) = (Http::new("h:1", Form::Json), Resp::default());
        whole(&mut http, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(http.body(), b"hi");
        whole(&mut resp, b"+OK\r\n").unwrap();
        whole(&mut resp, b"$2\r\nhi\r\n").unwrap();
        assert_eq!(resp.body(), b"hi");
    }

    #[test]
    fn a_refusal_is_an_error_and_never_counted() {
        let payloads = Payloads::new(8);
        let mut http = Http::new("h:1", Form::Json);
        http.put(&mut Vec::new(), Item(1), &payloads);
        let refused = b"HTTP/1.1 507 Full\r\ncontent-length: 2\r\n\r\n{}";
        assert!(http.feed(refused, &mut Vec::new()).is_err());
        let silent = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert!(http.feed(silent, &mut Vec::new()).is_err());
        assert!(
            Resp::default()
                .feed(b"-ERR no\r\n", &mut Vec::new())
                .is_err()
        );
        assert!(Resp::default().feed(b"$-1\r\n", &mut Vec::new()).is_err());
        let mut grpc = Grpc::new("h:1");
        grpc.put(&mut Vec::new(), Item(1), &payloads);
        let mut trailers = Vec::new();
        push_frame(&mut trailers, frame::HEADERS, 5, 1, b"x");
        assert!(grpc.feed(&trailers, &mut Vec::new()).is_err());
    }

    #[test]
    fn grpc_answers_settings_and_pings_and_ends_with_its_stream() {
        let mut grpc = Grpc::new("h:1");
        grpc.get(&mut Vec::new(), Item(1));
        let (mut input, mut out) = (Vec::new(), Vec::new());
        push_frame(&mut input, frame::SETTINGS, 0, 0, &[]);
        push_frame(&mut input, frame::PING, 0, 0, &[7; 8]);
        push_frame(&mut input, frame::HEADERS, frame::END_HEADERS, 1, b"x");
        push_frame(&mut input, frame::DATA, 0, 1, b"\0\0\0\0\x02hi");
        assert!(!grpc.feed(&input, &mut out).unwrap().whole);
        assert_eq!((out[3], out[4], out[12], out[13]), (4, 1, 6, 1));
        let mut last = Vec::new();
        push_frame(&mut last, frame::HEADERS, 5, 1, b"x");
        assert!(grpc.feed(&last, &mut out).unwrap().whole);
        assert!(contains(grpc.body(), b"hi"));
    }
}
