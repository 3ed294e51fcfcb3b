//! Scenes as pictures, with the truth about every pixel.

use std::collections::BTreeMap;
use std::path::Path;

use brisk_media::{Cutout, Picture};

use super::colour::recolour;
use super::scene::{Frame, Item, Scene};
use super::words::{Colour, Place, all_objects};
use crate::data::DataError;
use crate::data::icon_set::IconSet;
use crate::data::iconify::Icon;
use crate::data::pictures::PictureSet;

type Result<T> = std::result::Result<T, DataError>;

/// Opacity from which a pixel belongs to an object.
const OPAQUE: u8 = 128;

/// The drawings of all objects in all sets.
pub struct Drawings {
    icons: BTreeMap<(PictureSet, usize), Icon>,
}

/// A scene's picture and what is where in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The picture, square.
    pub picture: Picture,
    /// For each object a value a pixel: whether it is what is seen there.
    pub masks: Vec<Vec<bool>>,
}

impl Rendered {
    /// The rectangle around what is seen of an object, in shares of the canvas; `None` where nothing is.
    pub fn seen(&self, item: usize) -> Option<Frame> {
        let (size, mask) = (self.picture.width, self.masks.get(item)?);
        let inside = |at: usize| mask[at];
        let columns = |x: &usize| (0..size).any(|y| inside(y * size + x));
        let rows = |y: &usize| (0..size).any(|x| inside(y * size + x));
        let (left, right) = ((0..size).find(columns)?, (0..size).rfind(columns)?);
        let (top, bottom) = ((0..size).find(rows)?, (0..size).rfind(rows)?);
        let share = |pixels: usize| pixels as f64 / size as f64;
        Some(Frame {
            left: share(left),
            top: share(top),
            width: share(right + 1 - left),
            height: share(bottom + 1 - top),
        })
    }
}

impl Drawings {
    /// The drawings of unpacked npm packages, in the folders `noto`, `fluent-emoji-flat` and `twemoji` of `npm`.
    ///
    /// # Errors
    /// A package that is missing, is not what it should be, or lacks an object.
    pub fn open(npm: &Path) -> Result<Self> {
        let mut icons = BTreeMap::new();
        for set in PictureSet::ALL {
            let name = set.package().rsplit('/').next().unwrap_or_default();
            let folder = &npm.join(name);
            let drawings = IconSet::open(set, folder)?;
            for (index, object) in all_objects().enumerate() {
                let icon = drawings.icon(object.hexcode)?;
                let what = format!("{}, the emoji {}", object.with_article(), object.hexcode);
                icons.insert((set, index), icon.ok_or_else(|| drawings.lacks(&what))?);
            }
        }
        Ok(Self { icons })
    }

    /// Draws a scene, `size` pixels wide and high.
    ///
    /// # Errors
    /// A size that no picture has, and a drawing that cannot be rendered.
    pub fn render(&self, scene: &Scene, size: usize) -> Result<Rendered> {
        if !(8..=1024).contains(&size) {
            return Err(DataError::Size(size));
        }
        let mut picture = background(scene.place, size);
        let mut owner = vec![usize::MAX; size * size];
        for (index, item) in scene.items.iter().enumerate() {
            let (cutout, left, top) = self.cutout(item, size)?;
            for y in 0..cutout.size {
                for x in 0..cutout.size {
                    let (row, column) = (top + y, left + x);
                    let alpha = cutout.alpha[y * cutout.size + x];
                    if alpha == 0 || row >= size || column >= size {
                        continue;
                    }
                    let at = row * size + column;
                    let over = cutout.colours[y * cutout.size + x];
                    for (under, over) in picture.pixels[3 * at..3 * at + 3].iter_mut().zip(over) {
                        let (a, over, below) =
                            (u32::from(alpha), u32::from(over), u32::from(*under));
                        *under = ((a * over + (255 - a) * below + 127) / 255) as u8;
                    }
                    if alpha >= OPAQUE {
                        owner[at] = index;
                    }
                }
            }
        }
        let masks = (0..scene.items.len())
            .map(|index| owner.iter().map(|owner| *owner == index).collect())
            .collect();
        Ok(Rendered { picture, masks })
    }

    /// An item as it is laid on a canvas of `size` pixels, and where its corner is.
    fn cutout(&self, item: &Item, size: usize) -> Result<(Cutout, usize, usize)> {
        let pixels = |share: f64| (share * size as f64).round() as usize;
        let side = pixels(item.frame.width).clamp(8, size);
        let cutout = self.drawing((item.set, item.object), item.colour, side, item.rotation)?;
        let corner = |share: f64| pixels(share).min(size - side);
        Ok((cutout, corner(item.frame.left), corner(item.frame.top)))
    }

    /// The drawing of one of [`all_objects`] in a set, in a colour or its own, `side` pixels wide and high and turned
    /// clockwise by `degrees`.
    ///
    /// # Errors
    /// No such object, and a drawing that cannot be rendered.
    pub(in crate::data) fn drawing(
        &self,
        (set, object): (PictureSet, usize),
        colour: Option<Colour>,
        side: usize,
        degrees: f64,
    ) -> Result<Cutout> {
        let failed = |icon: &str, source| DataError::Render {
            set,
            icon: icon.to_owned(),
            source,
        };
        let icon = self.icons.get(&(set, object));
        let icon = icon.ok_or_else(|| DataError::Render {
            set,
            icon: all_objects().nth(object).map_or("", |o| o.word).to_owned(),
            source: brisk_media::Error::Argument("no such object".to_owned()),
        })?;
        let mut cutout = icon
            .cut_out(side, degrees)
            .map_err(|source| failed(&icon.name, source))?;
        if let Some(colour) = colour {
            recolour(&mut cutout.colours, &cutout.alpha, colour);
        }
        Ok(cutout)
    }
}

/// What is behind the objects.
fn background(place: Place, size: usize) -> Picture {
    let (upper, lower, from) = place.colours();
    let mut picture = Picture::filled(size, size, upper);
    let first = (from * size as f64).round() as usize;
    for pixel in picture.pixels[(3 * first * size).min(3 * size * size)..].chunks_exact_mut(3) {
        pixel.copy_from_slice(&lower);
    }
    picture
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use brisk_pipelines::Control;
    use serde_json::{Map, Value, json};

    use super::super::prepare::{SceneOptions, prepare_scenes};
    use super::super::scene::Kind;
    use super::super::split::Split;
    use super::*;
    use crate::data::pictures::PictureData;

    /// Packages in which every object is a yellow square.
    pub(crate) fn packages(without: Option<&str>) -> tempfile::TempDir {
        packages_of(without, |_| r##"<path fill="#fc0" d="M0 0h16v16H0z"/>"##)
    }

    /// Packages in which an object is drawn by its place among [`all_objects`].
    pub(crate) fn packages_of(
        without: Option<&str>,
        body: impl Fn(usize) -> &'static str,
    ) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (mut icons, mut characters) = (Map::new(), Map::new());
        for (index, object) in all_objects().enumerate() {
            if Some(object.word) == without {
                continue;
            }
            icons.insert(object.word.to_owned(), json!({ "body": body(index) }));
            characters.insert(object.hexcode.to_lowercase(), object.word.into());
        }
        for name in ["noto", "fluent-emoji-flat", "twemoji"] {
            let place = folder.path().join(name);
            fs::create_dir(&place).unwrap();
            let write = |file: &str, value: Value| fs::write(place.join(file), value.to_string());
            write("icons.json", json!({"prefix": name, "icons": icons})).unwrap();
            write("chars.json", Value::Object(characters.clone())).unwrap();
        }
        folder
    }

    #[test]
    fn masks_say_what_is_seen() {
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        let mut scene = Scene::draw(1, 0, Some(Kind::Binding), Split::Training);
        scene.place = Place::Nowhere;
        for (item, (left, colour)) in scene
            .items
            .iter_mut()
            .zip([(0.1, Colour::Red), (0.4, Colour::Blue)])
        {
            item.frame = Frame {
                left,
                top: 0.3,
                width: 0.5,
                height: 0.5,
            };
            (item.rotation, item.colour) = (0.0, Some(colour));
        }
        let rendered = drawings.render(&scene, 100).unwrap();
        let at = |x: usize, y: usize| rendered.picture.pixel(x, y).unwrap();
        assert_eq!(at(2, 50), [255; 3]);
        let (red, blue) = (at(25, 55), at(70, 55));
        assert!(red[0] > 180 && red[2] < 100, "{red:?}");
        assert!(blue[2] > 150 && blue[0] < 100, "{blue:?}");
        // The second covers the first from column 44 on.
        assert_eq!(at(50, 55), blue);
        assert!(rendered.masks[0][55 * 100 + 25] && !rendered.masks[0][55 * 100 + 50]);
        let seen = rendered.seen(0).unwrap();
        assert_eq!((seen.left, seen.top), (0.14, 0.34));
        assert_eq!((seen.width, seen.height), (0.3, 0.42));
        assert!(drawings.render(&scene, 4).is_err());
    }

    #[test]
    fn a_data_set_tells_what_its_pictures_show() {
        let packages = packages(None);
        let folder = tempfile::tempdir().unwrap();
        let mut options = SceneOptions {
            count: 40,
            seed: 3,
            size: 32,
            out: folder.path().join("scenes.safetensors"),
        };
        let control = Control::silent();
        let report = prepare_scenes(packages.path(), &options, &control).unwrap();
        assert_eq!((report.pictures, report.held_out), (40, 2));
        let data = PictureData::open(&options.out).unwrap();
        let truth = fs::read_to_string(&report.truth).unwrap();
        for (line, entry) in truth.lines().zip(data.entries()) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["caption"], entry.name);
            let runs = line["items"][0]["mask"].as_array().unwrap();
            let pixels: u64 = runs.iter().map(|run| run.as_u64().unwrap()).sum();
            assert_eq!(pixels, 32 * 32);
        }
        let joined = [options.out.clone(), options.out.clone()];
        assert_eq!(PictureData::open_all(&joined).unwrap().len(), 80);
        options.count = 0;
        assert!(prepare_scenes(packages.path(), &options, &control).is_err());
    }

    #[test]
    fn a_package_without_an_object_is_named() {
        let packages = packages(Some("owl"));
        let error = Drawings::open(packages.path()).err().unwrap().to_string();
        assert!(
            error.contains("an owl") && error.contains("@iconify-json/noto"),
            "{error}"
        );
        let nothing = tempfile::tempdir().unwrap();
        assert!(Drawings::open(nothing.path()).is_err());
    }
}
