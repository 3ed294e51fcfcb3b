//! From logits of columns to text.

use super::CrnnConfig;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The text.
    pub text: String,
    /// How sure it is: the product of the columns' probabilities that are not none, to the power 2/√n.
    pub confidence: f32,
}

/// The likeliest character of each column `[columns, classes]`, without repetitions and without none (class 0).
pub fn read(config: &CrnnConfig, logits: &[f32]) -> Reading {
    let characters: Vec<char> = config.characters.chars().collect();
    let mut text = String::new();
    let (mut before, mut product, mut count) = (0, 1.0f64, 0u32);
    for column in logits.chunks_exact(config.classes()) {
        let best = (0..column.len()).fold(
            0,
            |best, at| if column[at] > column[best] { at } else { best },
        );
        if best != 0 {
            let sum: f64 = column
                .iter()
                .map(|x| f64::from(x - column[best]).exp())
                .sum();
            product *= 1.0 / sum;
            count += 1;
            if best != before {
                text.extend(characters.get(best - 1));
            }
        }
        before = best;
    }
    let confidence = match count {
        0 => 0.0,
        count => product.powf(2.0 / f64::from(count).sqrt()),
    };
    Reading {
        text,
        confidence: confidence as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_and_none_are_dropped() {
        let config = CrnnConfig {
            characters: "ab".to_owned(),
            ..CrnnConfig::default()
        };
        let columns = [1, 1, 0, 1, 2, 2, 0];
        let logits =
            columns.map(|best| [0, 1, 2].map(|class| if class == best { 20.0 } else { 0.0 }));
        let reading = read(&config, &logits.concat());
        assert_eq!(reading.text, "aab");
        assert!(reading.confidence > 0.99);
        assert_eq!(
            read(&config, &[1.0, 0.0, 0.0]),
            Reading {
                text: String::new(),
                confidence: 0.0
            }
        );
    }
}
