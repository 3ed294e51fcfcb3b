//! Progress for people: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brisk::{Control, Event, Number, Unit, Work};
use brisk_store::hub::HubProgress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::stop_on_interrupt;
use crate::failure::Result;
use crate::{allocator, output, terminal, text};

/// Least time between two lines of the same stage.
const QUIET: Duration = Duration::from_secs(2);

/// Memory below which an estimate is not worth a line.
const LARGE: u64 = 1 << 30;

/// What fits beside each other on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A bar of thirty columns and everything else.
    Whole,
    /// What is left for the bar.
    Narrow,
    /// No bar, one line of text, cut.
    Line,
}

impl Shape {
    fn of_terminal() -> Self {
        match terminal::stderr_columns() {
            Some(0..50) => Self::Line,
            Some(50..100) => Self::Narrow,
            _ => Self::Whole,
        }
    }

    /// The template of a stage.
    fn stage(self, steps: bool) -> &'static str {
        match (self, steps) {
            (Self::Line, _) => "{wide_msg}",
            (_, false) => "{msg:12} {spinner}",
            (Self::Narrow, true) => "{msg:12} [{wide_bar}] {pos}/{len}  {prefix}",
            (Self::Whole, true) => "{msg:12} [{bar:30}] {pos}/{len}  {prefix}",
        }
    }

    /// The template of a download.
    fn download(self) -> &'static str {
        match self {
            Self::Line => "{bytes} {wide_msg}",
            Self::Narrow => "{bytes}/{total_bytes}  {eta} left  {wide_msg}",
            Self::Whole => {
                "[{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {wide_msg}"
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// A control that shows everything on stderr, and that Ctrl-C stops.
pub fn control() -> Result<Control> {
    let mut stages = Stages::new();
    let stop = stop_on_interrupt()?;
    Ok(Control::new(move |event| stages.show(&event)).with_cancel(stop))
}

/// A number of a line, two columns after what stands before it.
fn shown(number: &Number) -> String {
    let name = number.name;
    let Some(value) = number.value else {
        return format!("  {name} not finite");
    };
    match number.unit {
        Unit::None if value == 0.0 || (1e-3..1e6).contains(&value.abs()) => {
            format!("  {name} {value:.5}")
        }
        Unit::None => format!("  {name} {value:.2e}"),
        Unit::Count => format!("  {name} {value:.0}"),
        Unit::Decibels => format!("  {name} {value:.2} dB"),
        Unit::Share => format!("  {name} {:.1} %", 100.0 * value),
        Unit::PerSecond => format!("  {value:.1} {name}/s"),
    }
}

/// One stage at a time, with the time that is left.
pub struct Stages {
    bar: Option<ProgressBar>,
    terminal: bool,
    shape: Shape,
    name: String,
    began: Instant,
    told: Instant,
    pace: Pace,
}

/// How fast a long run goes on of late: what it did before may have been on another machine, or asleep.
#[derive(Default)]
struct Pace {
    /// Share that was done and seconds that it took, when they were last told.
    last: Option<(f64, f64)>,
    /// Seconds for all.
    whole: Option<f64>,
    /// Whether the first share and seconds tell nothing, as they are those of other runs too.
    resumed: bool,
}

impl Pace {
    /// Seconds that are left of a run of which a share is done after so many; none where that cannot be told yet.
    fn left(&mut self, share: f64, seconds: f64) -> Option<f64> {
        if let Some((last, told)) = self.last
            && share > last
        {
            let new = (seconds - told).max(0.0) / (share - last);
            self.whole = Some(self.whole.map_or(new, |whole| 0.5 * (whole + new)));
        }
        self.last = Some((share, seconds));
        let overall = if share > 0.0 { seconds / share } else { 0.0 };
        let whole = self.whole.or((!self.resumed).then_some(overall))?;
        Some(whole * (1.0 - share))
    }
}

impl Stages {
    /// A bar if stderr is a terminal, lines otherwise.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            bar: None,
            terminal: std::io::stderr().is_terminal(),
            shape: Shape::of_terminal(),
            name: String::new(),
            began: now,
            told: now,
            pace: Pace::default(),
        }
    }

    /// Begins a stage of `total` steps; 0 for one without steps.
    pub fn stage(&mut self, name: &str, total: u64) {
        self.finish();
        self.name = name.to_owned();
        self.began = Instant::now();
        self.told = self.began;
        if !self.terminal {
            output::note(&match total {
                0 | 1 => name.to_owned(),
                _ => format!("{name}: {total} steps"),
            });
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total.max(1)), terminal::progress_target());
        self.shape = Shape::of_terminal();
        bar.set_style(style(self.shape.stage(total > 1)));
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = Some(bar);
    }

    /// Step `index` of `total` is done.
    pub fn step(&mut self, index: u64, total: u64) {
        let elapsed = self.began.elapsed().as_secs_f64();
        let left = elapsed / index.max(1) as f64 * total.saturating_sub(index) as f64;
        if let Some(bar) = &self.bar {
            let shape = Shape::of_terminal();
            if shape != self.shape {
                self.shape = shape;
                bar.set_style(style(shape.stage(total > 1)));
            }
            let left = format!("{} left", text::seconds(left));
            bar.set_message(match shape {
                Shape::Line => format!("{} {index}/{total}  {left}", self.name),
                _ => self.name.clone(),
            });
            bar.set_prefix(left);
            bar.set_position(index);
        } else if !self.terminal && total > 1 && (index == total || self.told.elapsed() >= QUIET) {
            self.told = Instant::now();
            output::note(&if index == total {
                format!("{} {index}/{total}, {}", self.name, text::seconds(elapsed))
            } else {
                format!(
                    "{} {index}/{total}, {} left",
                    self.name,
                    text::seconds(left)
                )
            });
        }
    }

    /// Shows what a job reports, whichever it is. Previews and canvases are for who asked for them.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::SaveMemory => allocator::release_memory(),
            Event::Stage {
                work: Work::Load,
                total,
                ..
            } => self.stage("loading", *total as u64),
            Event::Stage { name, total, .. } => {
                self.stage(&name.replace('_', " "), *total as u64);
            }
            Event::Step { index, total, .. } => self.step(*index as u64, *total as u64),
            Event::Log(line) => self.line(line),
            Event::Warning(warning) => self.suspended(|| output::warn(warning)),
            Event::Memory {
                stage,
                needed,
                available,
            } if *needed >= LARGE => {
                let free = available
                    .map(|bytes| format!(" of {} available", text::bytes(bytes)))
                    .unwrap_or_default();
                let needed = text::bytes(*needed);
                self.line(&format!("memory: about {needed}{free} for {stage}"));
            }
            Event::Resumed { step } => {
                self.pace.resumed = true;
                self.line(&format!("goes on after step {step}"));
            }
            Event::Saved { step } => self.line(&format!("checkpoint at step {step}")),
            Event::Written { what, path } => self.line(&format!("{what} {}", path.display())),
            Event::Progress {
                step,
                share,
                seconds,
                numbers,
            } => {
                let numbers: String = numbers.iter().map(shown).collect();
                let left = self.pace.left(*share, *seconds);
                let left = left.map(|left| format!(", {} left", text::seconds(left)));
                self.line(&format!(
                    "step {step}{numbers}  {:.0} %{}",
                    100.0 * share,
                    left.unwrap_or_default()
                ));
            }
            Event::Done { .. } => self.finish(),
            Event::Memory { .. }
            | Event::Preview { .. }
            | Event::Latents { .. }
            | Event::Canvas { .. } => {}
        }
    }

    /// A line that does not disturb the bar.
    pub fn line(&mut self, line: &str) {
        self.suspended(|| output::note(line));
    }

    fn suspended(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The warnings of a job, for its JSON document.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Keeps what is a warning.
    pub fn watch(&self, event: &Event) {
        if let Event::Warning(warning) = event {
            self.with(|kept| kept.push(warning.clone()));
        }
    }

    /// All of them, in order; none are left.
    pub fn take(&self) -> Vec<String> {
        self.with(std::mem::take)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
        work(
            &mut self
                .0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }
}

/// Shows a download from the hub.
#[derive(Default)]
pub struct Download {
    state: Mutex<DownloadState>,
}

#[derive(Default)]
struct DownloadState {
    bar: Option<ProgressBar>,
    done: u64,
    total: Option<u64>,
    told: Option<Instant>,
}

impl Download {
    fn with(&self, work: impl FnOnce(&mut DownloadState)) {
        work(
            &mut self
                .state
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
    }
}

impl HubProgress for Download {
    fn begin(&self, model: &str, files: usize, bytes: Option<u64>) {
        let size = bytes
            .map(|bytes| format!(", {}", text::bytes(bytes)))
            .unwrap_or_default();
        let plural = if files == 1 { "" } else { "s" };
        output::note(&format!("downloading {model} ({files} file{plural}{size})"));
        self.with(|state| {
            state.total = bytes;
            if std::io::stderr().is_terminal() {
                let bar = ProgressBar::with_draw_target(bytes, terminal::progress_target());
                bar.set_style(style(Shape::of_terminal().download()));
                state.bar = Some(bar);
            }
        });
    }

    fn file(&self, name: &str, bytes: Option<u64>) {
        self.with(|state| match &state.bar {
            Some(bar) => bar.set_message(output::harmless(name).into_owned()),
            None => {
                let size = bytes
                    .map(|bytes| format!(" ({})", text::bytes(bytes)))
                    .unwrap_or_default();
                output::note(&format!("  {name}{size}"));
            }
        });
    }

    fn advance(&self, bytes: u64) {
        self.with(|state| {
            state.done = state.done.saturating_add(bytes);
            if let Some(bar) = &state.bar {
                bar.inc(bytes);
            } else if state
                .told
                .is_none_or(|told| told.elapsed() >= Duration::from_secs(10))
            {
                let total = state
                    .total
                    .map(|total| format!(" of {}", text::bytes(total)))
                    .unwrap_or_default();
                if state.told.is_some() {
                    output::note(&format!("  {}{total}", text::bytes(state.done)));
                }
                state.told = Some(Instant::now());
            }
        });
    }

    fn retract(&self, bytes: u64) {
        self.with(|state| {
            state.done = state.done.saturating_sub(bytes);
            if let Some(bar) = &state.bar {
                bar.set_position(state.done);
            }
        });
    }

    fn end(&self) {
        self.with(|state| {
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn note(&self, text: &str) {
        self.with(|state| match &state.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        });
    }

    fn stopped(&self) -> bool {
        crate::commands::interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace_of_late() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(0.0, 5.0), Some(0.0));
        let mut pace = Pace::default();
        let mut near = |share: f64, seconds: f64, wanted: f64| {
            let left = pace.left(share, seconds).unwrap();
            assert!((left - wanted).abs() < 1e-6, "{left}");
        };
        // A night's sleep is in the first number.
        near(0.5, 36000.0, 36000.0);
        near(0.6, 36010.0, 40.0);
        near(0.7, 36030.0, 45.0);
        // A run that is prolonged has the seconds of the one before it, and little of its own share.
        let mut resumed = Pace {
            resumed: true,
            ..Pace::default()
        };
        assert_eq!(resumed.left(0.01, 36000.0), None);
        assert!((resumed.left(0.11, 36010.0).unwrap() - 89.0).abs() < 1e-6);
    }

    #[test]
    fn numbers_are_shown_by_what_they_mean() {
        let line = |name, unit, value| shown(&Number { name, unit, value });
        for (text, expected) in [
            (line("loss", Unit::None, Some(0.123456)), "  loss 0.12346"),
            (line("loss", Unit::None, None), "  loss not finite"),
            (line("rate", Unit::None, Some(2e-4)), "  rate 2.00e-4"),
            (line("rate", Unit::None, Some(0.0)), "  rate 0.00000"),
            (line("skipped", Unit::Count, Some(3.0)), "  skipped 3"),
            (
                line("held-out", Unit::Decibels, Some(20.456)),
                "  held-out 20.46 dB",
            ),
            (line("right", Unit::Share, Some(0.25)), "  right 25.0 %"),
            (
                line("samples", Unit::PerSecond, Some(7.25)),
                "  7.2 samples/s",
            ),
        ] {
            assert_eq!(text, expected);
        }
    }
}
