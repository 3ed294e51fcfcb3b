//! PNG files with text metadata.

use crate::{Error, Picture, Result, picture::check_size};
use std::io::{Cursor, Write};

/// Longest single text that is read back, in bytes after decompression.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Most texts that are read back from one file.
const MAX_TEXTS: usize = 256;

/// Encodes `picture` as PNG with `metadata` as (keyword, text) pairs.
///
/// ASCII texts become `tEXt` chunks, which every tool reads, others `iTXt` (UTF-8). A keyword has 1 to 79 printable
/// Latin-1 characters without spaces at its ends; a text holds no NUL.
pub fn encode_png(picture: &Picture, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    let size = [picture.width, picture.height];
    let kind = (png::ColorType::Rgb, png::BitDepth::Eight);
    encode(size, kind, &picture.pixels, metadata)
}

/// A PNG file of width and height, of pixels of this kind.
pub(crate) fn encode(
    size: [usize; 2],
    kind: (png::ColorType, png::BitDepth),
    pixels: &[u8],
    metadata: &[(String, String)],
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = encoder(&mut bytes, size, kind, metadata)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// As [`encode`], of rows that `write` appends the bytes of one by one: those of a whole picture would lie beside it.
pub(crate) fn encode_rows<R>(
    size: [usize; 2],
    kind: (png::ColorType, png::BitDepth),
    rows: impl Iterator<Item = R>,
    write: impl Fn(R, &mut Vec<u8>),
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = encoder(&mut bytes, size, kind, &[])?;
    let mut writer = encoder.write_header().map_err(failed)?;
    let mut stream = writer.stream_writer().map_err(failed)?;
    let mut row = Vec::new();
    for pixels in rows {
        row.clear();
        write(pixels, &mut row);
        stream
            .write_all(&row)
            .map_err(|error| Error::Png(error.to_string()))?;
    }
    stream.finish().map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// An animated PNG of so many RGB frames of one size that repeats; each is shown for `delay` seconds, a fraction.
pub(crate) fn write_animated(
    out: &mut dyn Write,
    (size, count): ([usize; 2], usize),
    frames: &mut dyn Iterator<Item = Result<Picture>>,
    [numerator, denominator]: [u16; 2],
    metadata: &[(String, String)],
) -> Result<()> {
    let kind = (png::ColorType::Rgb, png::BitDepth::Eight);
    let mut encoder = encoder(out, size, kind, metadata)?;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    encoder.set_animated(count, 0).map_err(failed)?;
    encoder
        .set_frame_delay(numerator, denominator)
        .map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    for frame in frames {
        writer.write_image_data(&frame?.pixels).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

fn failed(error: png::EncodingError) -> Error {
    Error::Png(error.to_string())
}

/// An encoder into `out` that has written nothing yet.
fn encoder<'a, W: Write>(
    out: W,
    [width, height]: [usize; 2],
    (colours, depth): (png::ColorType, png::BitDepth),
    metadata: &[(String, String)],
) -> Result<png::Encoder<'a, W>> {
    check_size("PNG", width as u64, height as u64)?;
    let mut encoder = png::Encoder::new(out, width as u32, height as u32);
    encoder.set_color(colours);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::Balanced);
    for (keyword, text) in metadata {
        check_keyword(keyword)?;
        if text.contains('\0') {
            return Err(Error::Png(format!(
                "the text of {keyword:?} contains a NUL character"
            )));
        }
        let added = if text.is_ascii() {
            encoder.add_text_chunk(keyword.clone(), text.clone())
        } else {
            encoder.add_itxt_chunk(keyword.clone(), text.clone())
        };
        added.map_err(failed)?;
    }
    Ok(encoder)
}

fn check_keyword(keyword: &str) -> Result<()> {
    let printable = |c: char| matches!(u32::from(c), 32..=126 | 161..=255);
    let good = (1..=79).contains(&keyword.chars().count())
        && keyword.chars().all(printable)
        && keyword.trim() == keyword;
    if good {
        return Ok(());
    }
    Err(Error::Png(format!(
        "{keyword:?} is no keyword: 1 to 79 printable Latin-1 characters, no spaces at the ends"
    )))
}

/// Reads the texts of a PNG file (`tEXt`, then `zTXt`, then `iTXt`), wherever they stand in it.
///
/// At most 256 texts of 1 MiB each; more is an error, so that a small file cannot fill the memory.
pub fn read_png_metadata(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let failed = |e: png::DecodingError| Error::Png(e.to_string());
    let mut decoder =
        png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 64 << 20 });
    decoder.set_ignore_text_chunk(false);
    let mut reader = decoder.read_info().map_err(failed)?;
    reader.finish().map_err(failed)?;
    let info = reader.info();
    let count = info.uncompressed_latin1_text.len()
        + info.compressed_latin1_text.len()
        + info.utf8_text.len();
    if count > MAX_TEXTS {
        return Err(Error::Png(format!(
            "{count} texts, at most {MAX_TEXTS} are read"
        )));
    }
    let mut texts = Vec::with_capacity(count);
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(failed)?;
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(failed)?));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk
            .decompress_text_with_limit(MAX_TEXT_BYTES)
            .map_err(failed)?;
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(failed)?));
    }
    if let Some((keyword, text)) = texts.iter().find(|(_, text)| text.len() > MAX_TEXT_BYTES) {
        let length = text.len();
        return Err(Error::Png(format!(
            "the text of {keyword:?} has {length} bytes, at most {MAX_TEXT_BYTES} are read"
        )));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(keyword: &str, text: &str) -> (String, String) {
        (keyword.into(), text.into())
    }

    #[test]
    fn metadata_round_trips() {
        let picture = Picture::filled(3, 2, [1, 2, 3]);
        let texts = vec![
            pair("prompt", "a red heart"),
            pair("empty", ""),
            pair("other", "ein Käse, 心 ❤"),
            pair("seed", "7"),
        ];
        let png = encode_png(&picture, &texts).unwrap();
        let mut back = read_png_metadata(&png).unwrap();
        back.sort();
        let mut expected = texts;
        expected.sort();
        assert_eq!(back, expected);
        assert_eq!(
            read_png_metadata(&encode_png(&picture, &[]).unwrap()).unwrap(),
            []
        );
    }

    #[test]
    fn compressed_texts_behind_the_pixels_are_read() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder
            .add_ztxt_chunk("early".into(), "one".into())
            .unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0; 3]).unwrap();
        writer
            .write_text_chunk(&png::text_metadata::TEXtChunk::new("late", "two"))
            .unwrap();
        writer.finish().unwrap();
        assert_eq!(
            read_png_metadata(&bytes).unwrap(),
            [pair("late", "two"), pair("early", "one")]
        );
    }

    #[test]
    fn a_text_that_inflates_without_end_is_refused() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder
            .add_ztxt_chunk("bomb".into(), "x".repeat(8 << 20))
            .unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0; 3]).unwrap();
        writer.finish().unwrap();
        assert!(bytes.len() < 100_000);
        assert!(read_png_metadata(&bytes).is_err());
    }

    #[test]
    fn bad_keywords_and_files_are_errors() {
        let picture = Picture::filled(3, 2, [1, 2, 3]);
        for keyword in ["", " x", "a\nb", "心", &"k".repeat(80)] {
            assert!(
                encode_png(&picture, &[pair(keyword, "x")]).is_err(),
                "{keyword:?}"
            );
        }
        assert!(encode_png(&picture, &[pair("x", "a\0b")]).is_err());
        let png = encode_png(&picture, &[pair("prompt", "x")]).unwrap();
        assert!(read_png_metadata(&png[..40]).is_err());
        assert!(read_png_metadata(b"no").is_err());
    }
}
