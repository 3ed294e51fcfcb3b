//! Contact sheets: many pictures with captions in one.

use crate::{Error, Picture, Result, picture::check_size};
use font8x8::UnicodeFonts;

/// Pixels of a character cell at scale 1.
const GLYPH: usize = 8;
/// White space between cells, in pixels.
const GAP: usize = 8;
/// Lines of caption below each picture; what does not fit is cut.
const CAPTION_LINES: usize = 2;

/// Lays `cells` (picture, caption) out on white in rows of `columns`, each caption under its picture.
///
/// A cell is as large as the largest picture; smaller ones are centred. Captions are broken into at most two lines,
/// drawn in an 8x8 font (doubled for pictures of 512 pixels and more); characters outside Latin-1 appear as `?`.
/// Without any caption no space is left for them. Errors: no cells, no columns, a sheet over the size limits.
pub fn contact_sheet(cells: &[(Picture, String)], columns: usize) -> Result<Picture> {
    if cells.is_empty() || columns == 0 {
        return Err(Error::Argument(
            "a contact sheet needs at least one picture and one column".into(),
        ));
    }
    let columns = columns.min(cells.len());
    let cell_width = cells.iter().map(|(p, _)| p.width).max().unwrap_or(0);
    let cell_height = cells.iter().map(|(p, _)| p.height).max().unwrap_or(0);
    let scale = if cell_width >= 512 { 2 } else { 1 };
    let line_height = (GLYPH + 2) * scale;
    let captioned = cells.iter().any(|(_, caption)| !caption.is_empty());
    let caption_height = if captioned {
        CAPTION_LINES * line_height + 2
    } else {
        0
    };
    let rows = cells.len().div_ceil(columns);
    let (step_x, step_y) = (cell_width + GAP, cell_height + caption_height + GAP);
    let (width, height) = (
        columns.saturating_mul(step_x) + GAP,
        rows.saturating_mul(step_y) + GAP,
    );
    check_size("contact sheet", width as u64, height as u64)?;
    let mut sheet = Picture::filled(width, height, [255; 3]);
    for (index, (picture, caption)) in cells.iter().enumerate() {
        let left = GAP + index % columns * step_x;
        let top = GAP + index / columns * step_y;
        sheet.paste(
            picture,
            left + (cell_width - picture.width) / 2,
            top + (cell_height - picture.height) / 2,
        );
        for (line_number, line) in wrap(caption, cell_width / (GLYPH * scale))
            .iter()
            .enumerate()
        {
            let indent = (cell_width - line.chars().count() * GLYPH * scale) / 2;
            draw_text(
                &mut sheet,
                left + indent,
                top + cell_height + 4 + line_number * line_height,
                line,
                scale,
            );
        }
    }
    Ok(sheet)
}

/// Breaks at spaces into at most [`CAPTION_LINES`] lines of `limit` characters; cuts what is too long.
fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if limit == 0 {
        return lines;
    }
    for word in text.split_whitespace() {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + length <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.chars().take(limit).collect()),
        }
    }
    if lines.len() > CAPTION_LINES {
        lines.truncate(CAPTION_LINES);
        if let Some(last) = lines.last_mut() {
            *last = last
                .chars()
                .take(limit.saturating_sub(2))
                .chain("..".chars())
                .take(limit)
                .collect();
        }
    }
    lines
}

/// Draws black text with its top left corner at (`left`, `top`); pixels outside the sheet are dropped.
fn draw_text(sheet: &mut Picture, left: usize, top: usize, text: &str, scale: usize) {
    for (index, c) in text.chars().enumerate() {
        let glyph = [c, '?']
            .into_iter()
            .find_map(|c| font8x8::BASIC_FONTS.get(c).or(font8x8::LATIN_FONTS.get(c)));
        for (y, bits) in glyph.unwrap_or_default().into_iter().enumerate() {
            for x in (0..GLYPH).filter(|x| bits >> x & 1 == 1) {
                for (dx, dy) in (0..scale * scale).map(|i| (i % scale, i / scale)) {
                    let (px, py) = (
                        left + (index * GLYPH + x) * scale + dx,
                        top + y * scale + dy,
                    );
                    if px < sheet.width && py < sheet.height {
                        let at = (py * sheet.width + px) * 3;
                        sheet.pixels[at..at + 3].fill(0);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_land_in_their_cells() {
        let cells: Vec<_> = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
            .into_iter()
            .map(|colour| (Picture::filled(32, 32, colour), "red".to_owned()))
            .collect();
        let sheet = contact_sheet(&cells, 2).unwrap();
        assert_eq!(sheet.width, 2 * 40 + 8);
        assert_eq!(sheet.height, 2 * (32 + 22 + 8) + 8);
        assert_eq!(sheet.pixel(10, 10), Some([255, 0, 0]));
        assert_eq!(sheet.pixel(50, 10), Some([0, 255, 0]));
        assert_eq!(sheet.pixel(10, 72), Some([0, 0, 255]));
        let caption_pixels = (40..62)
            .flat_map(|y| (8..40).map(move |x| (x, y)))
            .filter(|(x, y)| sheet.pixel(*x, *y) == Some([0; 3]))
            .count();
        assert!(
            (20..200).contains(&caption_pixels),
            "{caption_pixels} black pixels"
        );
        assert_eq!(
            sheet.pixel(60, 72),
            Some([255; 3]),
            "the last cell is empty"
        );
    }

    #[test]
    fn without_captions_there_is_no_room_for_them() {
        let cells = vec![(Picture::filled(8, 8, [0; 3]), String::new())];
        assert_eq!(contact_sheet(&cells, 5).unwrap().height, 24);
    }

    #[test]
    fn captions_wrap_and_are_cut() {
        assert_eq!(wrap("red heart", 16), ["red heart"]);
        assert_eq!(wrap("a red heart with arrow", 8), ["a red", "heart.."]);
        assert_eq!(wrap("incomprehensibilities", 8), ["incompre"]);
        assert_eq!(wrap("x", 0), Vec::<String>::new());
        let cells = vec![(Picture::filled(4, 4, [9; 3]), "心 tiny".to_owned())];
        assert!(contact_sheet(&cells, 1).is_ok());
    }

    #[test]
    fn senseless_arguments_are_errors() {
        assert!(contact_sheet(&[], 3).is_err());
        let cells = vec![(Picture::filled(4, 4, [9; 3]), String::new())];
        assert!(contact_sheet(&cells, 0).is_err());
        let wide = vec![(Picture::filled(9000, 1, [9; 3]), String::new()); 2];
        assert!(matches!(contact_sheet(&wide, 2), Err(Error::Size { .. })));
    }
}
