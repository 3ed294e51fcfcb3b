//! Grade-school arithmetic word problems with worked steps, made from a seed.
//!
//! A problem is a quantity and six events that change it, told in one of four settings;
//! the solution works the events off one a line and ends with `Answer: N`. Every quantity, also in
//! between, has two digits, and every change has one, or is a product of two digits with two: what a
//! line looks like is decided by the kind of its event, and only its numbers need arithmetic. A line
//! gives the change and its result but not the quantity before, which ends the line before: a line
//! that repeated it would give away the result of that one, and a model that sees it there learns to
//! copy before it learns to calculate. Events come in the order of their setting's keys (Monday,
//! Tuesday, ..), so a line finds its event by the key that it begins with.
//!
//! Which split a problem belongs to is decided by its setting and numbers alone: one in
//! [`HELD_OUT_ONE_IN`] is held out, under whichever names and things it is told, so that no training
//! problem has the numbers of a held-out one.

mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use brisk_pipelines::KnownPrompts;

use crate::rng::Rng;
use settings::{Cast, SETTINGS, Setting};

/// One problem in this many is held out.
pub const HELD_OUT_ONE_IN: u64 = 16;
/// Smallest and largest quantity.
const SMALLEST: u32 = 10;
const LARGEST: u32 = 99;
/// Smallest and largest number that one event adds or takes away.
const SMALLEST_CHANGE: u32 = 2;
const LARGEST_CHANGE: u32 = 9;
/// Largest number of things in the groups that one event adds or takes away.
const LARGEST_GROUPS: u32 = 20;
/// Events of a problem.
pub const EVENTS: RangeInclusive<usize> = 6..=6;

/// A question with its solution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The question.
    pub question: String,
    /// The worked steps, a line each, and the answer.
    pub solution: String,
    /// The answer.
    pub answer: u32,
}

/// Which problems are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Training,
    /// Never trained on.
    HeldOut,
}

/// What happens to the quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Add(u32),
    Subtract(u32),
    /// Twice or three times as many.
    Multiply(u32),
    Halve,
    /// Groups of so many each.
    AddGroups(u32, u32),
    SubtractGroups(u32, u32),
}

impl Change {
    fn apply(self, quantity: u32) -> u32 {
        match self {
            Self::Add(n) => quantity + n,
            Self::Subtract(n) => quantity - n,
            Self::Multiply(n) => quantity * n,
            Self::Halve => quantity / 2,
            Self::AddGroups(a, b) => quantity + a * b,
            Self::SubtractGroups(a, b) => quantity - a * b,
        }
    }

    /// The calculation, as the solution writes it.
    fn worked(self, quantity: u32) -> String {
        let result = self.apply(quantity);
        match self {
            Self::Add(n) => format!("+{n}={result}"),
            Self::Subtract(n) => format!("-{n}={result}"),
            Self::Multiply(n) => format!("*{n}={result}"),
            Self::Halve => format!("/2={result}"),
            Self::AddGroups(a, b) => format!("{a}*{b}={}, +{}={result}", a * b, a * b),
            Self::SubtractGroups(a, b) => format!("{a}*{b}={}, -{}={result}", a * b, a * b),
        }
    }

    /// Numbers that tell the change apart from others.
    fn code(self) -> [u64; 3] {
        let (kind, a, b) = match self {
            Self::Add(n) => (0, n, 0),
            Self::Subtract(n) => (1, n, 0),
            Self::Multiply(n) => (2, n, 0),
            Self::Halve => (3, 0, 0),
            Self::AddGroups(a, b) => (4, a, b),
            Self::SubtractGroups(a, b) => (5, a, b),
        };
        [kind, a.into(), b.into()]
    }
}

/// The numbers of a problem.
struct Plan {
    setting: usize,
    start: u32,
    changes: Vec<Change>,
}

impl Plan {
    fn draw(events: &RangeInclusive<usize>, rng: &mut Rng) -> Self {
        let setting = rng.below(SETTINGS.len());
        let start = between(rng, 20, 70);
        let count = between(rng, *events.start() as u32, *events.end() as u32) as usize;
        let mut quantity = start;
        let mut changes: Vec<Change> = Vec::with_capacity(count);
        while changes.len() < count {
            let change = draw_change(quantity, &changes, rng);
            if let Some(change) = change {
                quantity = change.apply(quantity);
                changes.push(change);
            }
        }
        Self {
            setting,
            start,
            changes,
        }
    }

    fn split(&self) -> Split {
        let codes = self.changes.iter().flat_map(|change| change.code());
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for part in [self.setting as u64, self.start.into()]
            .into_iter()
            .chain(codes)
        {
            hash = (hash ^ part).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // The low bits of such a hash are poor; the generator's finaliser mixes them.
        if Rng::from_state(hash)
            .next_u64()
            .is_multiple_of(HELD_OUT_ONE_IN)
        {
            Split::HeldOut
        } else {
            Split::Training
        }
    }
}

/// A number of `low..=high`.
fn between(rng: &mut Rng, low: u32, high: u32) -> u32 {
    low + rng.below((high - low + 1) as usize) as u32
}

/// A change that keeps the quantity in range; none where the drawn kind has no room.
fn draw_change(quantity: u32, before: &[Change], rng: &mut Rng) -> Option<Change> {
    let room = LARGEST - quantity;
    let spare = quantity - SMALLEST;
    let grouped = before
        .iter()
        .any(|c| matches!(c, Change::AddGroups(..) | Change::SubtractGroups(..)));
    match rng.below(10) {
        0..=2 => (room >= SMALLEST_CHANGE)
            .then(|| Change::Add(between(rng, SMALLEST_CHANGE, room.min(LARGEST_CHANGE)))),
        3..=5 => (spare >= SMALLEST_CHANGE)
            .then(|| Change::Subtract(between(rng, SMALLEST_CHANGE, spare.min(LARGEST_CHANGE)))),
        6 => {
            let factor = between(rng, 2, 3);
            (quantity * factor <= LARGEST).then_some(Change::Multiply(factor))
        }
        7 => (quantity.is_multiple_of(2) && quantity >= 2 * SMALLEST).then_some(Change::Halve),
        // At most one, which keeps solutions below 128 tokens.
        kind => {
            let (a, b) = (between(rng, 2, 9), between(rng, 2, 9));
            let limit = if kind == 8 { room } else { spare }.min(LARGEST_GROUPS);
            let groups = if kind == 8 {
                Change::AddGroups(a, b)
            } else {
                Change::SubtractGroups(a, b)
            };
            (!grouped && (SMALLEST..=limit).contains(&(a * b))).then_some(groups)
        }
    }
}

/// Problem number `index` of a seed; the same for the same three values.
pub fn problem(seed: u64, index: u64, split: Split) -> Problem {
    problem_of(EVENTS, seed, index, split)
}

/// As [`problem`], with another number of events, 1 to 7.
pub fn problem_of(events: RangeInclusive<usize>, seed: u64, index: u64, split: Split) -> Problem {
    let mut rng = Rng::stream(seed, index);
    loop {
        let plan = Plan::draw(&events, &mut rng);
        if plan.split() == split {
            return tell(&plan, &mut rng);
        }
    }
}

/// Puts the numbers into words.
fn tell(plan: &Plan, rng: &mut Rng) -> Problem {
    let setting: &Setting = &SETTINGS[plan.setting];
    let cast = Cast::draw(setting, plan.changes.len(), rng);
    let mut question = cast.start(plan.start);
    let mut solution = format!("Start: {}", plan.start);
    let mut quantity = plan.start;
    for (index, change) in plan.changes.iter().enumerate() {
        let (told, noted) = cast.event(index, *change, rng);
        question.push(' ');
        question.push_str(&told);
        solution.push_str(&format!("\n{noted}, {}", change.worked(quantity)));
        quantity = change.apply(quantity);
    }
    question.push(' ');
    question.push_str(&cast.question());
    solution.push_str(&format!("\nAnswer: {quantity}"));
    Problem {
        question,
        solution,
        answer: quantity,
    }
}

/// The number that a solution ends with: what stands behind its last `Answer:`.
pub fn stated_answer(solution: &str) -> Option<u32> {
    let (_, stated) = solution.rsplit_once("Answer:")?;
    stated.trim().parse().ok()
}

/// Every word that problems and solutions use, sorted.
pub fn words() -> Vec<String> {
    /// Enough for every phrase and every name to turn up.
    const PROBLEMS: u64 = 20_000;
    let mut words = BTreeSet::new();
    for index in 0..PROBLEMS {
        let problem = problem(0, index, Split::Training);
        for text in [&problem.question, &problem.solution] {
            let found = text
                .split(|c: char| !c.is_ascii_alphabetic())
                .filter(|word| word.len() > 1);
            for word in found {
                if !words.contains(word) {
                    words.insert(word.to_owned());
                }
            }
        }
    }
    words.into_iter().collect()
}

/// What a model that was trained on the problems knows: some of them, and the words of all.
pub fn known() -> KnownPrompts {
    const LISTED: u64 = 8;
    let listed = (0..LISTED).map(|index| problem(0, index, Split::Training).question);
    KnownPrompts::new(listed.collect(), words())
}
