//! Whether a picture file is there to its end. Decoders make up what is missing; here it is seen.

/// What the parts of a file tell without decoding it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The end of the picture is there. Whatever follows is not looked at.
    Whole,
    /// The file ends in the middle of the picture.
    Cut,
}

/// A PNG: chunks up to `IEND`.
pub(crate) fn png(bytes: &[u8]) -> Extent {
    let mut rest = bytes.get(8..).unwrap_or_default();
    // Length, type, data, checksum.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(next) = after.get(length.saturating_add(8)..) else {
            break;
        };
        if after.starts_with(b"IEND") {
            return Extent::Whole;
        }
        rest = next;
    }
    Extent::Cut
}

/// A WebP: as many bytes as its RIFF header says.
pub(crate) fn webp(bytes: &[u8]) -> Extent {
    let length = bytes.get(4..).and_then(<[u8]>::first_chunk::<4>);
    match length.map(|length| u32::from_le_bytes(*length) as usize) {
        Some(length) if bytes.len() - 8 >= length => Extent::Whole,
        _ => Extent::Cut,
    }
}

/// What is known of a JPEG before decoding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jpeg {
    pub(crate) extent: Extent,
    /// Whether Adobe's segment tells how colours are stored.
    pub(crate) adobe: bool,
    /// Whether scans refine the whole picture.
    pub(crate) progressive: bool,
}

/// A JPEG: segments and scans up to the end marker.
pub(crate) fn jpeg(bytes: &[u8]) -> Jpeg {
    let mut found = Jpeg {
        extent: Extent::Cut,
        adobe: false,
        progressive: false,
    };
    let mut at = 2; // after the start marker
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            0xd9 => {
                found.extent = Extent::Whole;
                break;
            }
            0xd8 | 0x01 => {} // markers without a segment
            _ => {
                // A segment says its own length; entropy-coded data up to the next marker may follow.
                let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else {
                    break;
                };
                found.progressive |= marker == 0xc2;
                found.adobe |= marker == 0xee && bytes[at + 2..].starts_with(b"Adobe");
                at = at.saturating_add(u16::from_be_bytes(*length).max(2).into());
            }
        }
    }
    found
}

/// The next marker at or after `at`, which is moved behind it. Restart markers and escaped bytes belong to
/// entropy-coded data and are passed over.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let start = bytes.get(*at..)?.iter().position(|byte| *byte == 0xff)?;
        *at += start + 1;
        match *bytes.get(*at)? {
            0xff => {} // a fill byte: the next one may be the marker
            0x00 | 0xd0..=0xd7 => *at += 1,
            marker => {
                *at += 1;
                return Some(marker);
            }
        }
    }
}
