//! Which of many pictures stay.

use super::Judgement;

/// How the best are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The best of all.
    TopK,
    /// By pairs in the order of the pictures, round after round, as the authors' tool does: the winner of each part of
    /// the bracket, in its order. Numbers of pictures and of winners are taken down to powers of two.
    Bracket,
}

impl Rule {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TopK, Self::Bracket];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::Bracket => "bracket",
        }
    }

    /// How many pictures take part, and how many stay, where so many are asked for.
    pub fn numbers(self, pictures: usize, kept: usize) -> (usize, usize) {
        let kept = kept.min(pictures);
        match self {
            Self::TopK => (pictures, kept),
            Self::Bracket => (floor(pictures), floor(kept)),
        }
    }
}

/// The largest power of two that is not above a number.
fn floor(number: usize) -> usize {
    match number.checked_ilog2() {
        Some(bits) => 1 << bits,
        None => 0,
    }
}

/// The pictures that may still win, of those that were judged so far; so few need to be kept.
#[derive(Debug, Clone)]
pub struct Leaders {
    rule: Rule,
    kept: usize,
    /// Pictures of each part of a bracket.
    part: usize,
    /// Places and judgements; for [`Rule::TopK`] the best first, for [`Rule::Bracket`] by their parts.
    leaders: Vec<(usize, Judgement)>,
}

impl Leaders {
    /// Of `pictures` pictures, of which `kept` stay; see [`Rule::numbers`].
    pub fn new(rule: Rule, pictures: usize, kept: usize) -> Self {
        let (pictures, kept) = rule.numbers(pictures, kept);
        Self {
            rule,
            kept,
            part: pictures.checked_div(kept).unwrap_or(1).max(1),
            leaders: Vec::new(),
        }
    }

    /// Takes in the picture at `place`; they come in their order. Of equals the later one counts as the better.
    ///
    /// Pairs decide by a total order of single judgements, so whoever is left of a part of the bracket is the best of it.
    pub fn add(&mut self, place: usize, judgement: Judgement) {
        let beats = |judgement: &Judgement, other: &Judgement| judgement.quality(other).is_ge();
        match self.rule {
            Rule::TopK => {
                let leaders = self.leaders.iter();
                let rank = leaders
                    .take_while(|(_, known)| !beats(&judgement, known))
                    .count();
                self.leaders.insert(rank, (place, judgement));
                self.leaders.truncate(self.kept);
            }
            Rule::Bracket => {
                let part = place / self.part;
                match self.leaders.get_mut(part) {
                    Some(leader) if beats(&judgement, &leader.1) => *leader = (place, judgement),
                    Some(_) => {}
                    None if part < self.kept => self.leaders.push((place, judgement)),
                    None => {}
                }
            }
        }
    }

    /// Places of the pictures that lead.
    pub fn places(&self) -> Vec<usize> {
        self.leaders.iter().map(|(place, _)| *place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(number: u64) -> Judgement {
        Judgement {
            yes: number.is_multiple_of(3),
            // Few different scores, so that there are equals.
            score: (number % 7) as f64,
            said: String::new(),
        }
    }

    /// The authors' tournament, pair by pair.
    fn tournament(judgements: &[Judgement], kept: usize) -> Vec<usize> {
        let count = floor(judgements.len());
        let mut left: Vec<usize> = (0..count).collect();
        while left.len() > floor(kept) {
            left = left
                .chunks_exact(2)
                .map(|pair| {
                    let (a, b) = (&judgements[pair[0]], &judgements[pair[1]]);
                    let first = match (a.yes, b.yes) {
                        (true, false) => true,
                        (false, true) => false,
                        (true, true) => a.score > b.score,
                        (false, false) => a.score < b.score,
                    };
                    if first { pair[0] } else { pair[1] }
                })
                .collect();
        }
        left
    }

    #[test]
    fn a_bracket_is_the_tournament_of_pairs() {
        for seed in 0..60u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let count = 1 + (seed as usize * 7) % 40;
            let judgements: Vec<Judgement> = (0..count)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    judgement(state)
                })
                .collect();
            for kept in [1, 2, 3, 4, 9] {
                let mut leaders = Leaders::new(Rule::Bracket, count, kept);
                for (place, judgement) in judgements.iter().enumerate() {
                    leaders.add(place, judgement.clone());
                }
                assert_eq!(
                    leaders.places(),
                    tournament(&judgements, kept.min(count)),
                    "{count} {kept}"
                );
                let mut best = Leaders::new(Rule::TopK, count, kept);
                for (place, judgement) in judgements.iter().enumerate() {
                    best.add(place, judgement.clone());
                }
                let mut wanted: Vec<usize> = (0..count).collect();
                wanted.sort_by(|a, b| judgements[*b].quality(&judgements[*a]).then(b.cmp(a)));
                wanted.truncate(kept);
                assert_eq!(best.places(), wanted);
            }
        }
    }

    #[test]
    fn the_winner_of_all_is_the_best_and_a_no_less_sure_is_better() {
        let judge = |yes: bool, score: f64| Judgement {
            yes,
            score,
            said: String::new(),
        };
        let judged = [
            judge(false, 0.2),
            judge(true, 0.1),
            judge(false, 0.9),
            judge(true, 0.6),
        ];
        for rule in Rule::ALL {
            let mut leaders = Leaders::new(rule, 4, 1);
            judged
                .iter()
                .enumerate()
                .for_each(|(at, one)| leaders.add(at, one.clone()));
            assert_eq!(leaders.places(), [3]);
        }
        assert!(judged[0].quality(&judged[2]).is_gt());
        assert_eq!(Rule::Bracket.numbers(13, 5), (8, 4));
        assert_eq!(Rule::TopK.numbers(3, 5), (3, 3));
    }
}
