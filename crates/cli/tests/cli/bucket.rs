//! Results that go to a bucket: a stand-in for S3 that knows what is needed of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness::Place;

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket, and where it is asked for.
struct Bucket {
    objects: Objects,
    endpoint: String,
}

impl Bucket {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let objects = Objects::default();
        let shared = Arc::clone(&objects);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = Arc::clone(&shared);
                std::thread::spawn(move || while answer(&stream, &objects).is_some() {});
            }
        });
        Self { objects, endpoint }
    }

    /// Objects by their keys, without reports.
    fn results(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = self.objects.lock().unwrap().clone();
        objects.retain(|key, _| !key.ends_with(".jsonl"));
        objects
    }
}

/// Answers one request of a connection.
fn answer(stream: &TcpStream, objects: &Objects) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut only_new) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        only_new |= header.starts_with("if-none-match: *");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path
        .strip_prefix("/pictures")?
        .trim_start_matches('/')
        .to_owned();
    let mut objects = objects.lock().unwrap();
    let (status, body) = match method.as_str() {
        "PUT" if only_new && objects.contains_key(&key) => ("412 Precondition Failed", Vec::new()),
        "PUT" => {
            objects.insert(key, body);
            ("200 OK", Vec::new())
        }
        "GET" if query.contains("list-type=2") => ("200 OK", listed(&objects, query).into_bytes()),
        _ => match objects.get(&key) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", Vec::new()),
        },
    };
    drop(objects);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"1\"\r\n\
         Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
        body.len()
    )
    .ok()?;
    if method != "HEAD" {
        stream.write_all(&body).ok()?;
    }
    stream.flush().ok()
}

fn listed(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="));
    let prefix = prefix.unwrap_or_default().replace("%2F", "/");
    let found = objects.iter().filter(|(key, _)| key.starts_with(&prefix));
    let contents: String = found
        .map(|(key, bytes)| {
            format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>1</ETag>\
                 <LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>",
                bytes.len()
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

#[test]
fn results_go_to_a_bucket_as_they_go_to_a_folder() {
    let place = Place::new();
    let bucket = Bucket::start();
    std::fs::write(place.path("prompts.txt"), "red heart\nblue star\n").unwrap();
    let run = |out: &str| {
        let set = ["--set", "steps=1", "--set", "output_format=webp"];
        let mut command = place.command(&["batch", "run", "prompts.txt", "--out", out]);
        command
            .args(set)
            .env("AWS_ENDPOINT", &bucket.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "nobody")
            .env("AWS_SECRET_ACCESS_KEY", "nothing")
            .env("AWS_REGION", "nowhere");
        let outcome = crate::harness::Outcome::of(command.output().unwrap());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stderr
    };
    run("folder");
    run("s3://pictures/run");
    let batch = crate::batch::batch_in(&place.path("folder"));
    let id = batch.file_name().unwrap().to_str().unwrap();
    let expected: BTreeMap<String, Vec<u8>> = crate::batch::results(&batch)
        .into_iter()
        .map(|(path, bytes)| (format!("run/{id}/{path}"), bytes))
        .collect();
    assert_eq!(expected.len(), 2);
    assert!(
        bucket.results() == expected,
        "{:?}",
        bucket.results().keys()
    );
    // What is there is not made again.
    let told = run("s3://pictures/run");
    assert!(told.contains("2 of 2 done (2 were there)"), "{told}");
}
