//! The settings that problems are told in, and their words.

use super::Change;
use crate::rng::Rng;

/// What an event is said to be: in the question, and noted in the solution.
type Phrase = (&'static str, &'static str);

/// One setting. An event is told as its key and a phrase, and noted with the phrase's first words, so
/// that a solution can copy them. In phrases `{n}`, `{a}` and `{b}` are the event's numbers, `{key}`
/// what tells the event apart, `{before}` the key of the event before, `{subject}` and `{unit}` who
/// or what has how many of what, `{friend}` somebody else.
pub(super) struct Setting {
    keys: Keys,
    subjects: Subjects,
    start: &'static str,
    add: &'static [Phrase],
    subtract: &'static [Phrase],
    double: Phrase,
    triple: Phrase,
    halve: Phrase,
    add_groups: Phrase,
    subtract_groups: Phrase,
    question: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Days,
    Months,
    Places,
    People,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subjects {
    People,
    Buildings,
    Vehicles,
}

pub(super) const SETTINGS: [Setting; 4] = [
    Setting {
        keys: Keys::Days,
        subjects: Subjects::People,
        start: "{subject} has {n} {unit}.",
        add: &[
            ("finds {n} more", "finds {n}"),
            ("buys {n} more", "buys {n}"),
            ("wins {n} more", "wins {n}"),
            ("gets {n} from {friend}", "gets {n}"),
        ],
        subtract: &[
            ("loses {n}", "loses {n}"),
            ("sells {n}", "sells {n}"),
            ("gives {n} to {friend}", "gives {n}"),
        ],
        double: ("doubles the number", "doubles"),
        triple: ("triples the number", "triples"),
        halve: ("half are given away", "half"),
        add_groups: ("buys {a} bags of {b}", "buys {a} bags of {b}"),
        subtract_groups: ("sells {a} bags of {b}", "sells {a} bags of {b}"),
        question: "How many {unit} does {subject} have now?",
    },
    Setting {
        keys: Keys::Places,
        subjects: Subjects::Vehicles,
        start: "A {subject} starts with {n} people.",
        add: &[
            ("{n} get on", "{n} get on"),
            ("{n} climb in", "{n} climb in"),
        ],
        subtract: &[("{n} get off", "{n} get off"), ("{n} leave", "{n} leave")],
        double: ("doubles in number", "doubles"),
        triple: ("triples in number", "triples"),
        halve: ("half of them leave", "half"),
        add_groups: ("{a} groups of {b} get on", "{a} groups of {b} get on"),
        subtract_groups: ("{a} groups of {b} get off", "{a} groups of {b} get off"),
        question: "How many people are on the {subject} now?",
    },
    Setting {
        keys: Keys::Months,
        subjects: Subjects::Buildings,
        start: "The {subject} has {n} {unit}.",
        add: &[
            ("orders {n} more", "orders {n}"),
            ("makes {n} more", "makes {n}"),
            ("gets {n} from {friend}", "gets {n}"),
        ],
        subtract: &[
            ("sells {n}", "sells {n}"),
            ("lends {n} to {friend}", "lends {n}"),
            ("loses {n}", "loses {n}"),
        ],
        double: ("doubles the stock", "doubles"),
        triple: ("triples the stock", "triples"),
        halve: ("half are sold", "half"),
        add_groups: ("orders {a} boxes of {b}", "orders {a} boxes of {b}"),
        subtract_groups: ("sells {a} boxes of {b}", "sells {a} boxes of {b}"),
        question: "How many {unit} does the {subject} have now?",
    },
    Setting {
        keys: Keys::People,
        subjects: Subjects::People,
        start: "{subject} has {n} {unit}.",
        add: &[("{n} more than {before}", "{n} more")],
        subtract: &[("{n} fewer than {before}", "{n} fewer")],
        double: ("twice as many as {before}", "twice"),
        triple: ("three times as many as {before}", "three times"),
        halve: ("half as many as {before}", "half"),
        add_groups: ("{a} bags of {b} more than {before}", "{a} bags of {b} more"),
        subtract_groups: (
            "{a} bags of {b} fewer than {before}",
            "{a} bags of {b} fewer",
        ),
        question: "How many {unit} does {key} have?",
    },
];

/// Who has things, and others; nobody of [`COMPARED`].
const PEOPLE: [&str; 14] = [
    "Amir", "Anna", "Hugo", "Igor", "Jack", "Lara", "Leo", "Lily", "Mia", "Nora", "Omar", "Rosa",
    "Tom", "Zoe",
];

const THINGS: [&str; 20] = [
    "apples", "balls", "beads", "books", "buttons", "cards", "coins", "cups", "eggs", "flowers",
    "hats", "keys", "lamps", "nuts", "pears", "pencils", "plates", "shells", "stamps", "toys",
];

/// Who is compared, in this order.
const COMPARED: [&str; 7] = ["Ada", "Ben", "Clara", "Diego", "Emma", "Felix", "Hana"];

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

const MONTHS: [&str; 7] = [
    "January", "February", "March", "April", "May", "June", "July",
];

const PLACES: [&str; 7] = [
    "airport", "bank", "beach", "bridge", "castle", "church", "harbour",
];

const BUILDINGS: [&str; 8] = [
    "bakery", "factory", "farm", "hotel", "library", "museum", "shop", "theatre",
];

const VEHICLES: [&str; 6] = ["boat", "bus", "ferry", "ship", "train", "tram"];

/// Who and what one problem is about.
pub(super) struct Cast<'a> {
    setting: &'a Setting,
    subject: &'static str,
    unit: &'static str,
    friend: &'static str,
    keys: &'static [&'static str],
}

fn pick<const N: usize>(list: &[&'static str; N], rng: &mut Rng) -> &'static str {
    list[rng.below(N)]
}

/// `count` different entries in random order.
fn several<const N: usize>(
    list: &[&'static str; N],
    count: usize,
    rng: &mut Rng,
) -> Vec<&'static str> {
    let order = rng.permutation(N);
    order.into_iter().take(count).map(|at| list[at]).collect()
}

impl<'a> Cast<'a> {
    pub(super) fn draw(setting: &'a Setting, events: usize, rng: &mut Rng) -> Self {
        let people = several(&PEOPLE, 2, rng);
        let keys = match setting.keys {
            Keys::Days => &DAYS,
            Keys::Months => &MONTHS,
            Keys::Places => &PLACES,
            Keys::People => &COMPARED,
        };
        Self {
            setting,
            subject: match setting.subjects {
                Subjects::People => people[0],
                Subjects::Buildings => pick(&BUILDINGS, rng),
                Subjects::Vehicles => pick(&VEHICLES, rng),
            },
            unit: pick(&THINGS, rng),
            friend: people[1],
            keys: &keys[..events],
        }
    }

    fn fill(&self, phrase: &str, index: usize) -> String {
        let before = match index.checked_sub(1) {
            Some(before) => self.keys[before],
            None => self.subject,
        };
        phrase
            .replace("{subject}", self.subject)
            .replace("{unit}", self.unit)
            .replace("{friend}", self.friend)
            .replace("{before}", before)
            .replace("{key}", self.keys[index])
    }

    pub(super) fn start(&self, quantity: u32) -> String {
        self.fill(self.setting.start, 0)
            .replace("{n}", &quantity.to_string())
    }

    /// The event in the question, and what the solution notes of it.
    pub(super) fn event(&self, index: usize, change: Change, rng: &mut Rng) -> (String, String) {
        let setting = self.setting;
        let ((told, noted), numbers) = match change {
            Change::Add(n) => (setting.add[rng.below(setting.add.len())], [n, 0]),
            Change::Subtract(n) => (setting.subtract[rng.below(setting.subtract.len())], [n, 0]),
            Change::Multiply(2) => (setting.double, [2, 0]),
            Change::Multiply(n) => (setting.triple, [n, 0]),
            Change::Halve => (setting.halve, [2, 0]),
            Change::AddGroups(a, b) => (setting.add_groups, [a, b]),
            Change::SubtractGroups(a, b) => (setting.subtract_groups, [a, b]),
        };
        let numbered = |phrase: &str| {
            phrase
                .replace("{n}", &numbers[0].to_string())
                .replace("{a}", &numbers[0].to_string())
                .replace("{b}", &numbers[1].to_string())
        };
        (
            self.fill(&format!("{{key}}: {}.", numbered(told)), index),
            format!("{}: {}", self.keys[index], numbered(noted)),
        )
    }

    pub(super) fn question(&self) -> String {
        self.fill(self.setting.question, self.keys.len() - 1)
    }
}
