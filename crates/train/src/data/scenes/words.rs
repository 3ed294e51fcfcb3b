//! What scenes are made of: objects, colours, places.

use serde::{Deserialize, Serialize};

/// One thing that a scene can show.
#[derive(Debug, PartialEq, Eq)]
pub struct Object {
    /// Its word.
    pub word: &'static str,
    /// The word for several.
    pub plural: &'static str,
    /// Code point of its emoji, upper case hexadecimal.
    pub hexcode: &'static str,
}

impl Object {
    /// The word with its article.
    pub fn with_article(&self) -> String {
        with_article(self.word)
    }
}

/// A word after "a" or "an".
pub(crate) fn with_article(word: &str) -> String {
    let article = match word.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
    format!("{article} {word}")
}

const fn object(word: &'static str, plural: &'static str, hexcode: &'static str) -> Object {
    Object {
        word,
        plural,
        hexcode,
    }
}

/// Objects whose outlines differ at 32 pixels; all three sets draw them from the side, whole.
pub const OBJECTS: [Object; 40] = [
    object("cat", "cats", "1F408"),
    object("dog", "dogs", "1F415"),
    object("rabbit", "rabbits", "1F407"),
    object("pig", "pigs", "1F416"),
    object("penguin", "penguins", "1F427"),
    object("duck", "ducks", "1F986"),
    object("owl", "owls", "1F989"),
    object("turtle", "turtles", "1F422"),
    object("whale", "whales", "1F40B"),
    object("fish", "fish", "1F420"),
    object("octopus", "octopuses", "1F419"),
    object("snail", "snails", "1F40C"),
    object("butterfly", "butterflies", "1F98B"),
    object("crab", "crabs", "1F980"),
    object("elephant", "elephants", "1F418"),
    object("sheep", "sheep", "1F411"),
    object("apple", "apples", "1F34E"),
    object("banana", "bananas", "1F34C"),
    object("strawberry", "strawberries", "1F353"),
    object("pear", "pears", "1F350"),
    object("carrot", "carrots", "1F955"),
    object("mushroom", "mushrooms", "1F344"),
    object("pizza", "pizzas", "1F355"),
    object("car", "cars", "1F697"),
    object("bus", "buses", "1F68C"),
    object("bicycle", "bicycles", "1F6B2"),
    object("rocket", "rockets", "1F680"),
    object("boat", "boats", "26F5"),
    object("key", "keys", "1F511"),
    object("umbrella", "umbrellas", "2602"),
    object("balloon", "balloons", "1F388"),
    object("guitar", "guitars", "1F3B8"),
    object("bell", "bells", "1F514"),
    object("clock", "clocks", "23F0"),
    object("book", "books", "1F4D5"),
    object("shirt", "shirts", "1F455"),
    object("house", "houses", "1F3E0"),
    object("cactus", "cactuses", "1F335"),
    object("tulip", "tulips", "1F337"),
    object("tree", "trees", "1F333"),
];

/// Objects of clips of motion that are in no scene: the checker of scenes does not know them.
pub const FURTHER_OBJECTS: [Object; 40] = [
    object("heart", "hearts", "2764"),
    object("star", "stars", "2B50"),
    object("moon", "moons", "1F319"),
    object("sun", "suns", "2600"),
    object("ball", "balls", "26BD"),
    object("rose", "roses", "1F339"),
    object("cherry", "cherries", "1F352"),
    object("lemon", "lemons", "1F34B"),
    object("tomato", "tomatoes", "1F345"),
    object("egg", "eggs", "1F95A"),
    object("hamburger", "hamburgers", "1F354"),
    object("doughnut", "doughnuts", "1F369"),
    object("cake", "cakes", "1F382"),
    object("pumpkin", "pumpkins", "1F383"),
    object("frog", "frogs", "1F438"),
    object("bear", "bears", "1F43B"),
    object("fox", "foxes", "1F98A"),
    object("lion", "lions", "1F981"),
    object("cow", "cows", "1F404"),
    object("horse", "horses", "1F40E"),
    object("dolphin", "dolphins", "1F42C"),
    object("snake", "snakes", "1F40D"),
    object("bee", "bees", "1F41D"),
    object("ladybug", "ladybugs", "1F41E"),
    object("robot", "robots", "1F916"),
    object("ghost", "ghosts", "1F47B"),
    object("snowman", "snowmen", "26C4"),
    object("crown", "crowns", "1F451"),
    object("gem", "gems", "1F48E"),
    object("hat", "hats", "1F3A9"),
    object("gift", "gifts", "1F381"),
    object("airplane", "airplanes", "2708"),
    object("helicopter", "helicopters", "1F681"),
    object("train", "trains", "1F682"),
    object("trophy", "trophies", "1F3C6"),
    object("camera", "cameras", "1F4F7"),
    object("shoe", "shoes", "1F45F"),
    object("drum", "drums", "1F941"),
    object("leaf", "leaves", "1F341"),
    object("sunflower", "sunflowers", "1F33B"),
];

/// [`OBJECTS`], then [`FURTHER_OBJECTS`].
pub fn all_objects() -> impl Iterator<Item = &'static Object> {
    OBJECTS.iter().chain(&FURTHER_OBJECTS)
}

/// A colour that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Red.
    Red,
    /// Orange.
    Orange,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Purple.
    Purple,
    /// Pink.
    Pink,
    /// Brown.
    Brown,
}

impl Colour {
    /// All of them.
    pub const ALL: [Colour; 8] = [
        Colour::Red,
        Colour::Orange,
        Colour::Yellow,
        Colour::Green,
        Colour::Blue,
        Colour::Purple,
        Colour::Pink,
        Colour::Brown,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Colour::Red => "red",
            Colour::Orange => "orange",
            Colour::Yellow => "yellow",
            Colour::Green => "green",
            Colour::Blue => "blue",
            Colour::Purple => "purple",
            Colour::Pink => "pink",
            Colour::Brown => "brown",
        }
    }
}

/// Where a scene takes place: what is behind its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// White, and not named.
    Nowhere,
    /// Green below a light sky.
    Grass,
    /// Sand below a light sky.
    Beach,
    /// Dark blue.
    Night,
    /// Light blue.
    Sky,
    /// Grey.
    Road,
    /// Blue-green, darker below.
    Water,
}

impl Place {
    /// The places that have a name.
    pub const NAMED: [Place; 6] = [
        Place::Grass,
        Place::Beach,
        Place::Night,
        Place::Sky,
        Place::Road,
        Place::Water,
    ];

    /// As it ends a caption; empty for [`Place::Nowhere`].
    pub fn phrase(self) -> &'static str {
        match self {
            Place::Nowhere => "",
            Place::Grass => "on grass",
            Place::Beach => "on the beach",
            Place::Night => "at night",
            Place::Sky => "in the sky",
            Place::Road => "on the road",
            Place::Water => "under water",
        }
    }

    /// Colour of the upper and of the lower part, which begins at this share of the height.
    pub(super) fn colours(self) -> ([u8; 3], [u8; 3], f64) {
        match self {
            Place::Nowhere => ([255; 3], [255; 3], 1.0),
            Place::Grass => ([214, 236, 250], [142, 196, 110], 0.6),
            Place::Beach => ([214, 236, 250], [240, 220, 170], 0.6),
            Place::Night => ([24, 28, 60], [24, 28, 60], 1.0),
            Place::Sky => ([190, 224, 250], [190, 224, 250], 1.0),
            Place::Road => ([176, 178, 182], [176, 178, 182], 1.0),
            Place::Water => ([120, 200, 208], [70, 160, 180], 0.5),
        }
    }
}

/// Where the first of two objects is, seen from the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// To the left.
    Left,
    /// To the right.
    Right,
    /// Above.
    Above,
    /// Below.
    Below,
}

impl Relation {
    /// All of them.
    pub const ALL: [Relation; 4] = [
        Relation::Left,
        Relation::Right,
        Relation::Above,
        Relation::Below,
    ];

    /// The same seen from the other object.
    pub fn reversed(self) -> Self {
        match self {
            Relation::Left => Relation::Right,
            Relation::Right => Relation::Left,
            Relation::Above => Relation::Below,
            Relation::Below => Relation::Above,
        }
    }

    /// Whether the first of two centres is clearly there, seen from the second: at least `apart` along the
    /// relation's axis, and farther so than across.
    pub fn holds(self, (x, y): (f64, f64), (other_x, other_y): (f64, f64), apart: f64) -> bool {
        let (right, down) = (x - other_x, y - other_y);
        let (along, across) = match self {
            Relation::Left => (-right, down),
            Relation::Right => (right, down),
            Relation::Above => (-down, right),
            Relation::Below => (down, right),
        };
        along >= apart && along > across.abs()
    }

    /// As plain captions say it.
    pub fn word(self) -> &'static str {
        self.phrases()[0]
    }

    /// Three ways to say it between the two objects; the first is the plain one.
    pub(super) fn phrases(self) -> [&'static str; 3] {
        match self {
            Relation::Left => ["left of", "to the left of", "on the left side of"],
            Relation::Right => ["right of", "to the right of", "on the right side of"],
            Relation::Above => ["above", "over", "higher than"],
            Relation::Below => ["below", "under", "lower than"],
        }
    }
}

/// A number as captions write it.
pub(super) fn number_word(count: usize) -> &'static str {
    ["no", "one", "two", "three", "four"]
        .get(count)
        .copied()
        .unwrap_or("many")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_told_apart() {
        let words: HashSet<_> = OBJECTS.iter().map(|object| object.word).collect();
        let codes: HashSet<_> = OBJECTS.iter().map(|object| object.hexcode).collect();
        assert_eq!((words.len(), codes.len()), (OBJECTS.len(), OBJECTS.len()));
        assert_eq!(OBJECTS[0].with_article(), "a cat");
        assert_eq!(with_article("orange owl"), "an orange owl");
        for relation in Relation::ALL {
            assert_eq!(relation.reversed().reversed(), relation);
        }
    }
}
