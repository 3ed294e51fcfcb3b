//! Many machines: workers, a queue, and what happens when either dies.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::batch::{PICTURES, batch_in, line, report, results};
use crate::harness::Place;
use crate::serve::{Running, decoded};

/// Longest that any of it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn tell(&self, signal: &str) {
        let process = self.0.id().to_string();
        let told = Command::new("kill").args([signal, &process]).status();
        assert!(told.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A queue with its files, and those who use it.
struct Fleet {
    place: Place,
    port: u16,
    server: Option<Process>,
    /// A model that draws in milliseconds.
    model: PathBuf,
}

impl Fleet {
    /// None on a machine without a queue's server; `.ci/run` installs it.
    #[allow(clippy::print_stderr)]
    fn new() -> Option<Self> {
        let found = Command::new("nats-server").arg("--version").output();
        if found.is_err() {
            eprintln!(
                "skipped: there is no nats-server here (Debian: apt-get install nats-server)"
            );
            return None;
        }
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pipelines/sprint");
        let mut fleet = Self {
            place: Place::new(),
            port,
            server: None,
            model: model.canonicalize().unwrap(),
        };
        fleet.start_queue();
        Some(fleet)
    }

    fn start_queue(&mut self) {
        let server = Command::new("nats-server")
            .args([
                "-js",
                "-a",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-sd",
            ])
            .arg(self.place.path("queue"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(Process(server.unwrap()));
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "the queue does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn queue(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn worker(&self, more: &[&str]) -> Process {
        let queue = self.queue();
        let mut command = self
            .place
            .command(&["work", "--queue", &queue, "--ack-wait", "2"]);
        let command = command
            .arg("--model")
            .arg(&self.model)
            .args(["--threads", "1"])
            .args(more);
        let log = self.place.path("workers.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log);
        Process(
            command
                .stdout(Stdio::null())
                .stderr(log.unwrap())
                .spawn()
                .unwrap(),
        )
    }

    /// Writes a file of so many requests, with a bad one where asked for.
    fn requests(&self, count: usize, bad: bool) {
        let mut file: String = (0..count)
            .map(|number| {
                let body = json!({"prompt": format!("a red ring {number}"), "seed": number});
                line(&format!("r{number}"), PICTURES, body)
            })
            .collect();
        if bad {
            file += &line("poison", PICTURES, json!({"prompt": "x", "steps": 1000}));
        }
        std::fs::write(self.place.path("requests.jsonl"), file).unwrap();
    }

    /// What one machine makes of the file.
    fn alone(&self) -> PathBuf {
        let model = self.model.to_str().unwrap();
        let run = [
            "batch",
            "run",
            "requests.jsonl",
            "--out",
            "alone",
            "--model",
            model,
            "--threads",
            "1",
        ];
        self.place.run(&run);
        batch_in(&self.place.path("alone"))
    }

    fn submit(&self, more: &[&str]) -> crate::harness::Outcome {
        let queue = self.queue();
        let submit = [
            "batch",
            "submit",
            "requests.jsonl",
            "--out",
            "out",
            "--queue",
            &queue,
        ];
        self.place.run(&[&submit[..], more].concat())
    }

    fn batch(&self, verb: &str, more: &[&str]) -> crate::harness::Outcome {
        let queue = self.queue();
        self.place
            .run(&[&["batch", verb, "--queue", &queue], more].concat())
    }

    /// Waits until so many results are there.
    fn until(&self, count: usize) {
        let began = Instant::now();
        loop {
            let there = match self.place.path("out").is_dir() {
                true => {
                    let batches = std::fs::read_dir(self.place.path("out")).unwrap();
                    let batches = batches.map(|batch| results(&batch.unwrap().path()).len());
                    batches.sum::<usize>()
                }
                false => 0,
            };
            if there >= count {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{there} of {count}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path("workers.log")).unwrap_or_default()
    }

    /// All results are those of one machine, and nothing else is there.
    #[track_caller]
    fn expect_as_alone(&self) -> PathBuf {
        let (alone, out) = (self.alone(), batch_in(&self.place.path("out")));
        assert_eq!(alone.file_name(), out.file_name());
        let (alone, made) = (results(&alone), results(&out));
        let names = |results: &std::collections::BTreeMap<String, Vec<u8>>| -> Vec<String> {
            results.keys().cloned().collect()
        };
        assert_eq!(names(&made), names(&alone));
        assert!(made == alone, "bytes differ");
        out
    }
}

#[test]
fn workers_make_what_one_machine_makes_and_bad_requests_are_told() {
    let Some(fleet) = Fleet::new() else {
        return;
    };
    fleet.requests(30, true);
    let _workers = [fleet.worker(&[]), fleet.worker(&[])];
    let outcome = fleet.submit(&["--wait", "--json"]);
    assert_eq!(outcome.code, Some(1), "{}\n{}", outcome.stderr, fleet.log());
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&told["done"], &told["failed"]), (&json!(30), &json!(1)));
    let out = fleet.expect_as_alone();
    let told = report(&out.join("results.jsonl"));
    assert_eq!(told.len(), 31);
    assert_eq!(told[30]["error"]["param"], "steps");
    assert!(told[..30].iter().all(|line| line["worker"].is_string()));
    let workers: std::collections::BTreeSet<&str> = told
        .iter()
        .filter_map(|line| line["worker"].as_str())
        .collect();
    assert_eq!(workers.len(), 2, "{workers:?}");
    // Nobody's prompt is in a log.
    assert!(!fleet.log().contains("red ring"), "{}", fleet.log());

    let batch = out.file_name().unwrap().to_str().unwrap().to_owned();
    let status = fleet.batch("status", &[&batch, "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&json!(30), &json!(1))
    );
    assert_eq!(
        (&status["pending"], &status["workers"]),
        (&json!(0), &json!(2))
    );
    let dead = fleet.batch("dead", &["--json"]).stdout;
    let dead: Value = serde_json::from_str(&dead).unwrap();
    assert_eq!(dead["dead"].as_array().unwrap().len(), 1, "{dead}");
    assert_eq!(dead["dead"][0]["requests"], json!(["poison"]));
    assert_eq!(dead["dead"][0]["error"]["param"], "steps");
    // It dies again, for the same reason.
    let retried = fleet.batch("dead", &["--retry", "--json"]).stdout;
    let retried: Value = serde_json::from_str(&retried).unwrap();
    assert_eq!(retried["retried"], 1);
    let began = Instant::now();
    loop {
        let dead = fleet.batch("dead", &["--json"]).stdout;
        let dead: Value = serde_json::from_str(&dead).unwrap();
        if dead["dead"].as_array().unwrap().len() == 1 {
            break;
        }
        assert!(began.elapsed() < PATIENCE);
    }
    // Submitted again, everything is there, and the bad request is bad still.
    let outcome = fleet.submit(&["--wait", "--json"]);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&told["done"], &told["failed"]), (&json!(30), &json!(1)));
}

#[test]
fn what_is_killed_is_made_by_others() {
    let Some(mut fleet) = Fleet::new() else {
        return;
    };
    fleet.requests(60, false);
    let mut first = fleet.worker(&[]);
    let outcome = fleet.submit(&[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let batch = outcome.stdout.trim().to_owned();
    fleet.until(5);
    first.kill();
    let second = fleet.worker(&[]);
    fleet.until(15);
    // The queue dies with questions that it does not answer any more, and comes back with what it had.
    fleet.server.as_ref().unwrap().tell("-STOP");
    std::thread::sleep(Duration::from_millis(500));
    fleet.server.as_mut().unwrap().kill();
    fleet.start_queue();
    let outcome = fleet.submit(&["--wait"]);
    assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stderr, fleet.log());
    let out = fleet.expect_as_alone();
    assert_eq!(out.file_name().unwrap().to_str(), Some(&*batch));
    let told = report(&out.join("results.jsonl"));
    assert!(told.iter().all(|line| line["status"] == "done"), "{told:?}");
    drop(second);
}

#[test]
fn a_worker_that_ends_hands_back_and_a_batch_can_be_cancelled() {
    let Some(fleet) = Fleet::new() else {
        return;
    };
    fleet.requests(400, false);
    let mut worker = fleet.worker(&["--grace", "1"]);
    let outcome = fleet.submit(&[]);
    let batch = outcome.stdout.trim().to_owned();
    fleet.until(3);
    worker.tell("-TERM");
    let began = Instant::now();
    let status = worker.0.wait().unwrap();
    assert!(
        status.success() && began.elapsed() < Duration::from_secs(20),
        "{}",
        fleet.log()
    );
    // Handed back, not lost: nobody has to find out that it is gone.
    let status = fleet.batch("status", &[&batch, "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status["queued"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(status["failed"], 0);

    let outcome = fleet.batch("cancel", &[&batch]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let before = results(&fleet.place.path("out").join(&batch)).len();
    let _worker = fleet.worker(&[]);
    let outcome = fleet.batch("wait", &[&batch]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("was cancelled"),
        "{}",
        outcome.stderr
    );
    let after = results(&fleet.place.path("out").join(&batch)).len();
    assert_eq!(before, after);
    // Somebody wants it after all.
    let outcome = fleet.submit(&["--wait"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(results(&fleet.place.path("out").join(&batch)).len(), 400);
}

/// Texts of the deltas of a stream, and the whole of it.
fn streamed(mut stream: std::net::TcpStream, mut heard: impl FnMut(&str)) -> (String, String) {
    use std::io::Read;
    let mut whole = String::new();
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes).unwrap();
        if count == 0 {
            break;
        }
        whole.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        heard(&whole);
    }
    let events = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    let texts = events.filter_map(|data| {
        let data: Value = serde_json::from_str(data).ok()?;
        Some(data["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    (texts.collect(), whole)
}

#[test]
fn a_server_before_the_workers_answers_as_one_with_models() {
    let Some(fleet) = Fleet::new() else {
        return;
    };
    let place = &fleet.place;
    let queue = fleet.queue();
    let server = Running::start(place, &["--queue", &queue]);
    let picture = json!({"prompt": "red heart", "seed": 7, "steps": 3, "model": "sana-emoji"});
    // Nobody is there yet.
    let mut refused = String::new();
    let mut stream = server.ask(PICTURES, &picture);
    std::io::Read::read_to_string(&mut stream, &mut refused).unwrap();
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.contains("no_worker"),
        "{refused}"
    );

    let boxed = ["--model", "sana-emoji", "--model", "llada-arithmetic"];
    let mut first = fleet.worker(&boxed);
    let began = Instant::now();
    while fleet.log().matches("takes jobs of").count() < 1 {
        assert!(began.elapsed() < PATIENCE, "{}", fleet.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    place.ok(&[
        "image",
        "red heart",
        "--seed",
        "7",
        "--steps",
        "3",
        "-o",
        "heart.png",
        "--threads",
        "1",
    ]);
    let reply = server.post(PICTURES, &picture);
    let drawn = decoded(reply["data"][0]["b64_json"].as_str().unwrap());
    assert_eq!(drawn, std::fs::read(place.path("heart.png")).unwrap());

    // A bad field is told before the queue, and what only the model knows by the worker.
    for (field, value, word) in [
        ("stpes", 1, "did you mean `steps`"),
        ("steps", 1000, "more than 100"),
    ] {
        let mut refused = String::new();
        let mut stream = server.ask(PICTURES, &json!({"prompt": "x", field: value}));
        std::io::Read::read_to_string(&mut stream, &mut refused).unwrap();
        assert!(
            refused.starts_with("HTTP/1.1 400") && refused.contains(word),
            "{refused}"
        );
    }

    let question = "Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. Wednesday: doubles the \
        number. Thursday: loses 8. How many beads does Mia have now?";
    let chat = |stream: bool| {
        json!({
            "messages": [{"role": "user", "content": question}], "max_tokens": 128, "seed": 0,
            "model": "llada-arithmetic", "stream": stream, "block_length": 8, "steps": 128,
        })
    };
    let whole = server.post("/v1/chat/completions", &chat(false));
    let whole = whole["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let (text, events) = streamed(server.ask("/v1/chat/completions", &chat(true)), |_| {});
    assert_eq!(text, whole, "{events}");
    assert!(events.contains("data: [DONE]"));

    // A worker dies in the middle of a text; the next one goes on from there.
    let mut second = None;
    let stream = server.ask("/v1/chat/completions", &chat(true));
    let (text, events) = streamed(stream, |heard| {
        if second.is_none()
            && heard.contains("\"content\":\"")
            && heard.matches("data: ").count() > 2
        {
            first.kill();
            second = Some(fleet.worker(&boxed));
        }
    });
    assert!(second.is_some());
    assert_eq!(text, whole, "{events}");
    let ids: std::collections::BTreeSet<String> = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .map(|data| data["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn a_queue_that_is_none_is_told() {
    let place = Place::new();
    std::fs::write(place.path("prompts.txt"), "red heart\n").unwrap();
    let submit = |queue: &'static str| {
        [
            "batch",
            "submit",
            "prompts.txt",
            "--out",
            "out",
            "--queue",
            queue,
        ]
    };
    let outcome = place.run(&submit("nats://127.0.0.1:1"));
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("nats-server -js"),
        "{}",
        outcome.stderr
    );
    let outcome = place.run(&submit("http://127.0.0.1"));
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("expected nats://"),
        "{}",
        outcome.stderr
    );
    let Some(fleet) = Fleet::new() else {
        return;
    };
    let outcome = fleet.batch("status", &["nothing"]);
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("no batch nothing"),
        "{}",
        outcome.stderr
    );
    fleet.requests(1, false);
    let outcome = fleet.submit(&["--patience", "0"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("brisk work"), "{}", outcome.stderr);
}
