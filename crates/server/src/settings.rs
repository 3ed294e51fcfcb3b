//! What an operator decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Where the server listens unless told otherwise.
const USUAL_ADDRESS: &str = "127.0.0.1:8420";

/// Options of `brisk serve`.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Address and port; others than this machine's own need --api-key-file
    #[arg(long, value_name = "ADDRESS:PORT", default_value = USUAL_ADDRESS)]
    pub listen: SocketAddr,

    /// A model: one in the box, a folder or a hub id; ID=MODEL chooses its id (default: all in the box)
    #[arg(long = "model", value_name = "[ID=]MODEL")]
    pub models: Vec<String>,

    /// Another name for a model, as clients that fix one use: gpt-image-1=sana-emoji
    #[arg(long = "alias", value_name = "NAME=ID")]
    pub aliases: Vec<String>,

    /// Load this model at the start, not when it is first asked for
    #[arg(long, value_name = "ID")]
    pub preload: Vec<String>,

    /// Never drop this model from memory
    #[arg(long, value_name = "ID")]
    pub keep: Vec<String>,

    /// Memory for models and jobs, such as 24GiB (default: 80 % of what is free)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory: Option<u64>,

    /// File with an API key a line, or NAME KEY; each at least 32 letters and digits
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Host name under which the server may be asked for, besides this machine's own
    #[arg(long = "allow-host", value_name = "NAME")]
    pub allowed_hosts: Vec<String>,

    /// Web origin whose pages may use the server, such as `https://example.org`
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub allowed_origins: Vec<String>,

    /// Address of the server as clients see it, for links (default: from the request)
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,

    /// Keep every picture and clip in this folder too
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,

    /// Serve the page from this folder, while it is being changed
    #[arg(long, value_name = "DIR")]
    pub ui_dir: Option<PathBuf>,

    /// Most jobs that wait
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_jobs: usize,

    /// Most jobs that wait for one caller
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_jobs_per_caller: usize,

    /// Most requests of one caller in a minute
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: u32,

    /// Most pictures or texts of a request
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub max_results: usize,

    /// Most steps of a picture or clip
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_steps: usize,

    /// Most pixels of a picture, or of a clip's frame
    #[arg(long, value_name = "N", default_value_t = 2048 * 2048)]
    pub max_pixels: usize,

    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_tokens: usize,

    /// Let messages spell the tokens that mark turns
    #[arg(long)]
    pub allow_special_tokens: bool,

    /// Write prompts to the log
    #[arg(long)]
    pub log_prompts: bool,

    /// Seconds that running jobs get when the server ends
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub grace: u64,

    /// Hands freed memory back to the system, where the allocator keeps it.
    #[arg(skip)]
    pub release_memory: Option<fn()>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8420)),
            models: Vec::new(),
            aliases: Vec::new(),
            preload: Vec::new(),
            keep: Vec::new(),
            memory: None,
            api_key_file: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            public_url: None,
            save: None,
            ui_dir: None,
            max_jobs: 64,
            max_jobs_per_caller: 16,
            requests_per_minute: 120,
            max_results: 8,
            max_steps: 100,
            max_pixels: 2048 * 2048,
            max_tokens: 4096,
            allow_special_tokens: false,
            log_prompts: false,
            grace: 25,
            release_memory: None,
        }
    }
}

impl Settings {
    /// What hands freed memory back; nothing, where the allocator keeps none.
    pub fn release_memory(&self) -> fn() {
        self.release_memory.unwrap_or(|| ())
    }

    /// Time that running jobs get when the server ends.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

/// Most pixels of all pictures of a request.
pub const MAX_REQUEST_PIXELS: usize = 16 << 20;
/// Most frames of a clip.
pub const MAX_CLIP_FRAMES: usize = 129;
/// Most pixels of all frames of a clip: those of the longest at the largest size that published models were trained
/// at. Its two files have about four bytes a pixel at most, which is what may be kept.
pub const MAX_CLIP_PIXELS: usize = MAX_CLIP_FRAMES * 960 * 544;
/// Longest time that a job waits for its turn.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Longest time that a job runs.
pub const LONGEST_RUN: Duration = Duration::from_secs(3600);
/// How long results, links and repeated submissions are kept.
pub const KEPT: Duration = Duration::from_secs(600);
/// Bytes of results that are kept, all together.
pub const KEPT_BYTES: usize = 256 << 20;

/// Reads a number of bytes: `24GiB`, `512MiB`, or plain.
///
/// # Errors
/// Another text, or a number that is not above 0.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1u64 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1));
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no size; expected a number with KiB, MiB, GiB or TiB"))?;
    match number * unit as f64 {
        bytes if bytes >= 1.0 && bytes < 2f64.powi(63) => Ok(bytes as u64),
        _ => Err(format!("{text:?} is no number of bytes above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("24GiB"), Ok(24 << 30));
        assert_eq!(bytes("1.5 MiB"), Ok(3 << 19));
        assert_eq!(bytes("4096"), Ok(4096));
        for wrong in ["", "GiB", "-1GiB", "1e300GiB", "many", "NaN"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_defaults_are_the_command_lines() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        use clap::Parser;
        let line = Line::parse_from(["serve"]);
        assert_eq!(
            format!("{:?}", line.settings),
            format!("{:?}", Settings::default())
        );
    }
}
