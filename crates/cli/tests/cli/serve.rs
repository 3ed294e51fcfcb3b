//! `brisk serve`: the process around the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Place;

/// A server that runs, and where.
pub struct Running {
    pub child: Child,
    pub address: String,
}

impl Running {
    pub fn start(place: &Place, more: &[&str]) -> Self {
        let (running, log) = Self::begin(place, more);
        // The log goes on, and must go somewhere.
        std::thread::spawn(move || log.lines().for_each(drop));
        running
    }

    /// The same, with what comes of its log.
    fn begin(place: &Place, more: &[&str]) -> (Self, BufReader<ChildStderr>) {
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let mut child = place
            .command(&[&serve[..], more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = log.by_ref().lines().find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("listening on http://").map(str::to_owned)
        });
        let address = address.expect("an address");
        (Self { child, address }, log)
    }

    /// Tells it to end, and waits until it has.
    #[cfg(unix)]
    fn ends(&mut self) {
        let asked = Instant::now();
        let process = self.child.id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-TERM", &process])
            .status();
        assert!(told.unwrap().success());
        let ended = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if asked.elapsed() > Duration::from_secs(60) => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert_eq!(ended.code(), Some(0));
    }

    /// Asks, and gives the connection on which the answer comes.
    pub fn ask(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        stream
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let mut stream = self.ask(path, body);
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{reply}");
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of base64.
pub fn decoded(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.trim_end_matches('=').bytes().map(value).collect();
    let mut bytes = Vec::new();
    for group in letters.chunks(4) {
        let bits = (0..4).fold(0u32, |bits, at| {
            bits << 6 | u32::from(group.get(at).copied().unwrap_or(0))
        });
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn pictures_over_http_are_the_commands() {
    let place = Place::new();
    let options = ["--seed", "7", "--steps", "3", "-o", "heart.png"];
    place.ok(&[&["image", "red heart"], &options[..]].concat());
    let mut server = Running::start(&place, &[]);
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 3});
    let reply = server.post("/v1/images/generations", &body);
    let picture = decoded(reply["data"][0]["b64_json"].as_str().unwrap());
    assert_eq!(picture, std::fs::read(place.path("heart.png")).unwrap());

    let question = "Mia has 34 beads. Monday: finds 7 more. How many beads does Mia have now?";
    let answer = place.ok(&["text", question, "--gen-length", "64"]).stdout;
    let body =
        json!({"messages": [{"role": "user", "content": question}], "max_tokens": 64, "seed": 0});
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(
        reply["choices"][0]["message"]["content"],
        answer.trim_end_matches('\n')
    );

    #[cfg(unix)]
    server.ends();
}

/// A log that nobody reads any more is no reason to fail, nor to stay.
#[cfg(unix)]
#[test]
fn who_reads_the_log_may_go_away() {
    let place = Place::new();
    let (mut server, log) = Running::begin(&place, &[]);
    drop(log);
    let body = json!({"prompt": "red heart", "seed": 7, "steps": 1});
    let reply = server.post("/v1/images/generations", &body);
    assert_eq!(reply["data"][0]["seed"], 7);
    server.ends();
}

#[test]
fn what_cannot_be_served_is_told_at_once() {
    let place = Place::new();
    place.fails(
        2,
        &["--listen 0.0.0.0:0", "--api-key-file"],
        &["serve", "--listen", "0.0.0.0:0"],
    );
    let local = ["serve", "--listen", "127.0.0.1:0"];
    let with = |more: &[&'static str]| -> Vec<&str> { [&local, more].concat() };
    place.fails(2, &["expected NAME=ID"], &with(&["--alias", "x"]));
    place.fails(2, &["no model nobody"], &with(&["--keep", "nobody"]));
    place.fails(
        2,
        &["two models have the id"],
        &with(&["--model", "sana-emoji", "--model", "sana-emoji"]),
    );
    place.fails(2, &["--memory", "no size"], &with(&["--memory", "much"]));
    place.fails(
        2,
        &["--allow-origin"],
        &with(&["--allow-origin", "example.org"]),
    );
    place.fails(1, &["nowhere"], &with(&["--model", "./nowhere"]));
}
