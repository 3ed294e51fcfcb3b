//! SVG to picture.

use crate::{Error, Picture, Result, picture::check_size};
use brisk_store::guard::guarded;
use resvg::{tiny_skia, usvg};

/// Renders `svg` into a square of `size` pixels on `background`, keeping the drawing's proportions and centring it.
///
/// Shapes, gradients, masks, clips and filters are drawn. `<text>`, `<image>` and `<foreignObject>` are refused:
/// fonts and outside files would make the result depend on the machine.
pub fn render_svg(svg: &str, size: usize, background: [u8; 3]) -> Result<Picture> {
    let [r, g, b] = background;
    let drawn = render(svg, size, tiny_skia::Color::from_rgba8(r, g, b, 255))?;
    // The background is opaque, so premultiplied and plain colours are the same.
    let pixels = drawn
        .data()
        .chunks_exact(4)
        .flat_map(|p| [p[0], p[1], p[2]]);
    Picture::new(size, size, pixels.collect())
}

/// A square drawing with the opacity of each pixel, to be laid over something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutout {
    /// Width and height in pixels.
    pub size: usize,
    /// The colour of each pixel, row by row; any where nothing is drawn.
    pub colours: Vec<[u8; 3]>,
    /// The opacity of each, 0 to 255.
    pub alpha: Vec<u8>,
}

/// As [`render_svg`], on nothing.
pub fn render_svg_cutout(svg: &str, size: usize) -> Result<Cutout> {
    let drawn = render(svg, size, tiny_skia::Color::TRANSPARENT)?;
    let pixels = drawn.pixels().iter().map(|pixel| pixel.demultiply());
    let (colours, alpha) = pixels
        .map(|p| ([p.red(), p.green(), p.blue()], p.alpha()))
        .unzip();
    Ok(Cutout {
        size,
        colours,
        alpha,
    })
}

fn render(svg: &str, size: usize, background: tiny_skia::Color) -> Result<tiny_skia::Pixmap> {
    check_size("svg", size as u64, size as u64)?;
    // The drawing library panics at some numbers far outside of any picture.
    guarded(|| draw(svg, size, background)).map_err(Error::Svg)?
}

fn draw(svg: &str, size: usize, background: tiny_skia::Color) -> Result<tiny_skia::Pixmap> {
    let document = usvg::roxmltree::Document::parse(svg).map_err(|e| Error::Svg(e.to_string()))?;
    let refused = document.descendants().find_map(|node| {
        let name = node.tag_name().name();
        matches!(name, "text" | "image" | "foreignObject" | "feImage").then(|| name.to_owned())
    });
    if let Some(name) = refused {
        return Err(Error::Svg(format!(
            "<{name}> elements are not supported; convert them to paths"
        )));
    }
    let options = usvg::Options::default();
    let tree =
        usvg::Tree::from_xmltree(&document, &options).map_err(|e| Error::Svg(e.to_string()))?;
    let side = size as u32;
    let mut pixmap = tiny_skia::Pixmap::new(side, side)
        .ok_or_else(|| Error::Svg(format!("cannot allocate {size}x{size} pixels")))?;
    pixmap.fill(background);
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = size as f32 / width.max(height);
    let (left, top) = (
        (size as f32 - width * scale) / 2.0,
        (size as f32 - height * scale) / 2.0,
    );
    let transform = tiny_skia::Transform::from_row(scale, 0.0, 0.0, scale, left, top);
    resvg::render(&tree, transform, &mut pixmap.as_mut());
    Ok(pixmap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_RED: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><path fill="#ff0000" d="M0 0h1v1H0z"/></svg>"##;

    #[test]
    fn keeps_proportions_and_background() {
        let picture = render_svg(HALF_RED, 16, [0, 255, 0]).unwrap();
        assert_eq!(picture.pixel(2, 8), Some([255, 0, 0]));
        assert_eq!(picture.pixel(12, 8), Some([0, 255, 0]));
        assert_eq!(
            picture.pixel(2, 1),
            Some([0, 255, 0]),
            "a wide drawing is centred, not stretched"
        );
        assert_eq!(picture.pixel(2, 14), Some([0, 255, 0]));
    }

    #[test]
    fn cutouts_know_where_nothing_is_drawn() {
        let cutout = render_svg_cutout(HALF_RED, 16).unwrap();
        let at = |x: usize, y: usize| (cutout.colours[16 * y + x], cutout.alpha[16 * y + x]);
        assert_eq!(at(2, 8), ([255, 0, 0], 255));
        assert_eq!(at(12, 8).1, 0);
        assert_eq!(at(2, 1).1, 0);
    }

    #[test]
    fn a_panic_of_the_drawing_library_is_an_error() {
        for size in [8, 32] {
            for svg in [
                r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1e9 1"><circle r="1e30"/></svg>"#,
                r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-5e8 -5e8 1e9 1e9" width="1e9" height="1e9"><circle r="1e30"/></svg>"#,
            ] {
                let _ = render_svg(svg, size, [255; 3]); // drawn or refused
            }
        }
        assert!(!brisk_store::guard::is_guarded());
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(render_svg("<svg", 16, [0; 3]).is_err());
        assert!(render_svg("", 16, [0; 3]).is_err());
        assert!(render_svg(HALF_RED, 0, [0; 3]).is_err());
        let image = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><image href="/etc/hostname"/></svg>"##;
        assert!(
            render_svg(image, 16, [0; 3])
                .unwrap_err()
                .to_string()
                .contains("<image>")
        );
    }
}
