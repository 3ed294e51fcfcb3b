//! Codes in files: a tensor `codes.I` `[pictures, places]` a scale.

use brisk_models::hart::Scales;

use super::options::FROM_SCALE;
use crate::error::{Error, Result};
use crate::options::{CodeTensor, Codes, keys};

/// Beginning of the tensors' names.
const NAME: &str = "codes.";

/// Codes `[scale][picture][place]` of the scales before `from`, or of all that the file has.
pub(super) fn given(
    codes: &Codes,
    scales: &Scales,
    codewords: usize,
    pictures: usize,
    from: Option<usize>,
) -> Result<Vec<Vec<Vec<u32>>>> {
    let wrong = |message: String| Error::request(keys::CODES.name(), message);
    let count = codes.0.len();
    let index = |name: &str| name.strip_prefix(NAME)?.parse::<usize>().ok();
    if let Some(name) = codes
        .0
        .keys()
        .find(|name| index(name).is_none_or(|index| index >= count))
    {
        return Err(wrong(format!(
            "{count} tensors, one of them {name:?}; expected \"{NAME}0\", \"{NAME}1\", … without a gap"
        )));
    }
    if count > scales.count() {
        return Err(wrong(format!(
            "codes of {count} scales; the model has {}",
            scales.count()
        )));
    }
    let wanted = from.unwrap_or(count);
    if wanted > count {
        return Err(Error::request(
            FROM_SCALE.name(),
            format!("is {wanted}, and the codes are of {count} scales only"),
        ));
    }
    let mut given = Vec::with_capacity(wanted);
    for (scale, side) in scales.sides().iter().copied().enumerate().take(count) {
        let name = format!("{NAME}{scale}");
        let tensor = codes
            .0
            .get(&name)
            .ok_or_else(|| wrong(format!("there is no {name:?}")))?;
        let places = side * side;
        let [rows, found] = tensor.shape[..] else {
            return Err(shape(&name, tensor, pictures, side));
        };
        if found != places
            || (rows != pictures && rows != 1)
            || tensor.values.len() != rows * places
        {
            return Err(shape(&name, tensor, pictures, side));
        }
        if let Some(code) = tensor
            .values
            .iter()
            .find(|code| **code as usize >= codewords)
        {
            return Err(wrong(format!(
                "{name:?} holds {code}; the codebook has {codewords} codewords, the last is {}",
                codewords.saturating_sub(1)
            )));
        }
        if scale < wanted {
            let row = |picture: usize| {
                let row = if rows == 1 { 0 } else { picture };
                tensor.values[row * places..(row + 1) * places].to_vec()
            };
            given.push((0..pictures).map(row).collect());
        }
    }
    Ok(given)
}

fn shape(name: &str, tensor: &CodeTensor, pictures: usize, side: usize) -> Error {
    let places = side * side;
    let rows = match pictures {
        1 => format!("[1, {places}]"),
        _ => format!("[{pictures}, {places}] or [1, {places}]"),
    };
    Error::request(
        keys::CODES.name(),
        format!(
            "{name:?} has shape {:?}; expected {rows}, a grid of {side}×{side} for each picture",
            tensor.shape
        ),
    )
}

/// The codes of picture `picture` of several, as they are given back.
pub(super) fn of_picture(codes: &[Vec<u32>], pictures: usize, picture: usize) -> Codes {
    let tensors = codes.iter().enumerate().map(|(scale, all)| {
        let places = all.len() / pictures.max(1);
        let tensor = CodeTensor {
            shape: vec![1, places],
            values: all[picture * places..(picture + 1) * places].to_vec(),
        };
        (format!("{NAME}{scale}"), tensor)
    });
    Codes(tensors.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(tensors: &[(&str, &[usize], &[u32])]) -> Codes {
        let tensors = tensors.iter().map(|(name, shape, values)| {
            let tensor = CodeTensor {
                shape: shape.to_vec(),
                values: values.to_vec(),
            };
            ((*name).to_owned(), tensor)
        });
        Codes(tensors.collect())
    }

    #[test]
    fn files_give_the_first_scales() {
        let scales = Scales::new("patch_nums", &[1, 2, 3]).unwrap();
        let file = codes(&[
            ("codes.0", &[2, 1], &[7, 8]),
            ("codes.1", &[1, 4], &[1, 2, 3, 4]),
        ]);
        let all = given(&file, &scales, 10, 2, None).unwrap();
        assert_eq!(all, [vec![vec![7], vec![8]], vec![vec![1, 2, 3, 4]; 2]]);
        let one = given(&file, &scales, 10, 2, Some(1)).unwrap();
        assert_eq!(one.len(), 1);
        let back = of_picture(&[vec![7, 8], vec![1, 2, 3, 4, 5, 6, 7, 8]], 2, 1);
        assert_eq!(back.0["codes.1"].values, [5, 6, 7, 8]);
        for (file, from, words) in [
            (file.clone(), Some(3), &["from-scale", "3", "2"][..]),
            (
                codes(&[("codes.1", &[1, 4], &[0; 4])]),
                None,
                &["codes.1", "codes.0"],
            ),
            (codes(&[("latents", &[1, 1], &[0])]), None, &["latents"]),
            (
                codes(&[("codes.0", &[1, 1], &[10])]),
                None,
                &["holds 10", "10 codewords"],
            ),
            (
                codes(&[("codes.0", &[1, 4], &[0; 4])]),
                None,
                &["[1, 4]", "[1, 1]", "1×1"],
            ),
            (
                codes(&[("codes.0", &[3, 1], &[0; 3])]),
                None,
                &["[3, 1]", "[2, 1]"],
            ),
            (
                codes(&[
                    ("codes.0", &[1, 1], &[0]),
                    ("codes.1", &[1, 4], &[0; 4]),
                    ("codes.2", &[1, 9], &[0; 9]),
                    ("codes.3", &[1, 16], &[0; 16]),
                ]),
                None,
                &["4 scales", "has 3"],
            ),
        ] {
            let error = given(&file, &scales, 10, 2, from).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
    }
}
