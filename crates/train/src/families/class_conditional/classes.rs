//! Which class each picture is of.

use std::collections::BTreeMap;

use brisk_pipelines::{Control, Event};

use super::recipe::{ClassLaw, ClassRecipe};
use crate::data::pictures::{PictureData, PictureEntry};
use crate::data::scenes::{Kind, OBJECTS, scene_of};
use crate::error::{Error, Result};

/// Names that a message lists.
const LISTED: usize = 8;

/// The pictures of a run with their classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Classes {
    /// Names, sorted; a class's number is its place.
    pub names: Vec<String>,
    /// Pictures to train on, in the order of the data.
    pub pictures: Vec<usize>,
    /// The class of each.
    pub of: Vec<u32>,
    /// Pictures that are held out, of the same classes.
    pub held_out: Vec<(usize, u32)>,
}

impl Classes {
    /// Those of a data set by a recipe's law; says how many pictures have none.
    ///
    /// # Errors
    /// No picture of a class, or a class of the sample sheets that is none.
    pub fn of(recipe: &ClassRecipe, data: &PictureData, control: &Control) -> Result<Self> {
        let training = recipe.pictures.training(data, control)?;
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for index in &training {
            if let Some(name) = name_of(recipe.classes, &data.entries()[*index]) {
                by_name.entry(name).or_default().push(*index);
            }
        }
        let all = by_name.len();
        by_name.retain(|_, pictures| pictures.len() >= recipe.least_pictures);
        let names: Vec<String> = by_name.keys().cloned().collect();
        let mut with_class: Vec<(usize, u32)> = (0u32..)
            .zip(by_name.values())
            .flat_map(|(class, pictures)| pictures.iter().map(move |index| (*index, class)))
            .collect();
        with_class.sort_unstable();
        if with_class.is_empty() {
            return Err(Error::Data(format!(
                "none of {} pictures has a class: `classes` {} gives {all}, none of them with `least_pictures` {}",
                training.len(),
                serde_json::json!(recipe.classes),
                recipe.least_pictures
            )));
        }
        if with_class.len() < training.len() {
            control.send(Event::Log(format!(
                "{} of {} pictures are of none of the {} classes and left out",
                training.len() - with_class.len(),
                training.len(),
                names.len()
            )));
        }
        let held_out = recipe.pictures.of(data, true).into_iter();
        let held_out = held_out.filter_map(|index| {
            let name = name_of(recipe.classes, &data.entries()[index])?;
            Some((index, names.binary_search(&name).ok()? as u32))
        });
        Ok(Self {
            held_out: held_out.collect(),
            pictures: with_class.iter().map(|(index, _)| *index).collect(),
            of: with_class.iter().map(|(_, class)| *class).collect(),
            names,
        })
    }

    /// The classes of the sample sheets.
    ///
    /// # Errors
    /// A name that is none.
    pub fn sampled(&self, recipe: &ClassRecipe) -> Result<Vec<u32>> {
        if recipe.sample_classes.is_empty() {
            return Ok((0..self.names.len().min(16) as u32).collect());
        }
        let class = |name: &String| match self.names.binary_search(name) {
            Ok(class) => Ok(class as u32),
            Err(_) => {
                let some: Vec<&str> = self.names.iter().take(LISTED).map(String::as_str).collect();
                Err(Error::Recipe(format!(
                    "sample_classes names {name:?}, expected some of the {} classes of the data, such as {}",
                    self.names.len(),
                    some.join(", ")
                )))
            }
        };
        recipe.sample_classes.iter().map(class).collect()
    }
}

fn name_of(law: ClassLaw, entry: &PictureEntry) -> Option<String> {
    match law {
        ClassLaw::Name => Some(entry.name.clone()),
        ClassLaw::Group => Some(entry.group.clone()),
        ClassLaw::Object | ClassLaw::ColouredObject => {
            let scene = scene_of(entry)?;
            let [item] = &scene.items[..] else {
                return None;
            };
            let word = OBJECTS[item.object].word;
            match (law, scene.kind, item.colour) {
                (ClassLaw::Object, ..) => Some(word.to_owned()),
                (_, Kind::Colours, Some(colour)) => Some(format!("{} {word}", colour.word())),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::PictureSet;
    use brisk_media::Picture;
    use serde_json::json;

    fn recipe(classes: &str, least: usize, sampled: &[&str]) -> ClassRecipe {
        serde_json::from_value(json!({
            "name": "t", "network": {"_class_name": "UViT"}, "classes": classes, "least_pictures": least,
            "training": {
                "seed": 0, "batch": 1, "steps": 1, "max_minutes": null, "optimiser": "adamw", "learning_rate": 1.0,
                "warm_up_steps": 0, "decay": "constant", "weight_decay": 0.0, "clip": null, "ema_decay": 0.9,
                "log_every": 1, "checkpoint_every": 1
            },
            "sample_every": 1, "sample_classes": sampled, "guidance": 1.0
        }))
        .unwrap()
    }

    fn data(of: &[(&str, &str, &str, PictureSet, bool)]) -> PictureData {
        let entry = |(name, group, code, set, held_out): &(&str, &str, &str, PictureSet, bool)| {
            PictureEntry {
                name: (*name).to_owned(),
                tags: Vec::new(),
                captions: Vec::new(),
                hexcode: (*code).to_owned(),
                set: *set,
                group: (*group).to_owned(),
                held_out: *held_out,
            }
        };
        let dot = Picture {
            width: 1,
            height: 1,
            pixels: vec![0; 3],
        };
        let mut data = PictureData::new();
        for one in of {
            data.push(entry(one), &dot);
        }
        data
    }

    #[test]
    fn classes_are_names_or_groups() {
        let own = PictureSet::Own;
        let data = data(&[
            ("b", "x", "", own, false),
            ("a", "x", "", own, false),
            ("b", "y", "", own, false),
            ("a", "y", "", own, true),
            ("c", "y", "", own, false),
        ]);
        let control = Control::silent();
        let of = |classes: &str, least| Classes::of(&recipe(classes, least, &[]), &data, &control);
        let by_name = of("name", 1).unwrap();
        assert_eq!(by_name.names, ["a", "b", "c"]);
        assert_eq!(
            (&by_name.pictures[..], &by_name.of[..]),
            (&[0, 1, 2, 4][..], &[1, 0, 1, 2][..])
        );
        assert_eq!(by_name.held_out, [(3, 0)]);
        assert_eq!(by_name.sampled(&recipe("name", 1, &[])).unwrap(), [0, 1, 2]);
        assert_eq!(
            by_name.sampled(&recipe("name", 1, &["c", "a"])).unwrap(),
            [2, 0]
        );
        let refused = by_name.sampled(&recipe("name", 1, &["d"])).unwrap_err();
        assert!(refused.to_string().contains("such as a, b, c"), "{refused}");
        let often = of("name", 2).unwrap();
        assert_eq!(
            (often.names, often.pictures),
            (vec!["b".to_owned()], vec![0, 2])
        );
        assert_eq!(of("group", 1).unwrap().of, [0, 0, 1, 1]);
        for (classes, least) in [("name", 3), ("object", 1)] {
            let refused = of(classes, least).unwrap_err().to_string();
            assert!(
                refused.contains(classes) && refused.contains("least_pictures"),
                "{refused}"
            );
        }
    }

    /// Kinds of scenes take turns; those of one thing have a class.
    #[test]
    fn scenes_of_one_thing_have_a_class() {
        let codes: Vec<String> = (0..240).map(|index| format!("1-{index}")).collect();
        let scenes: Vec<_> = codes
            .iter()
            .map(|code| ("x", "scenes", code.as_str(), PictureSet::Scenes, false))
            .collect();
        let (data, control) = (data(&scenes), Control::silent());
        let objects = Classes::of(&recipe("object", 1, &[]), &data, &control).unwrap();
        assert!(
            (80..=130).contains(&objects.pictures.len()),
            "{}",
            objects.pictures.len()
        );
        assert!(objects.names.iter().all(|name| !name.contains(' ')));
        let coloured = Classes::of(&recipe("coloured_object", 1, &[]), &data, &control).unwrap();
        assert!((38..=50).contains(&coloured.pictures.len()));
        assert!(coloured.names.iter().all(|name| name.contains(' ')));
    }
}
