use super::*;

fn many(split: Split) -> Vec<Problem> {
    (0..2000).map(|index| problem(7, index, split)).collect()
}

/// Works a text off line by line: its calculations and the last quantity.
fn work_off(text: &str) -> (usize, u32) {
    let mut lines = text.lines().filter(|line| !line.starts_with("Answer"));
    let start = lines.next().unwrap().strip_prefix("Start: ").unwrap();
    let mut quantity: u32 = start.parse().unwrap();
    let mut count = 0;
    for line in lines {
        let mut product = None;
        for equation in line.split([' ', ',']).filter(|word| word.contains('=')) {
            let (left, result) = equation.split_once('=').unwrap();
            let at = left.find(['+', '-', '*', '/']).unwrap();
            let number = |text: &str| text.parse::<u32>().unwrap();
            let (a, b) = match at {
                0 => (quantity, number(&left[1..])),
                _ => (number(&left[..at]), number(&left[at + 1..])),
            };
            assert!(product.is_none_or(|product| product == b), "{line}");
            let found = match &left[at..=at] {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                _ => {
                    assert!(a.is_multiple_of(b));
                    a / b
                }
            };
            assert_eq!(found, number(result), "{equation} after {quantity}");
            assert!((SMALLEST..=LARGEST).contains(&found), "{equation}");
            assert!(b <= LARGEST_GROUPS && b > 1, "{equation}");
            match at {
                0 => quantity = found,
                _ => product = Some(found),
            }
            count += 1;
        }
    }
    (count, quantity)
}

#[test]
fn solutions_are_right_and_lead_to_the_answer() {
    for problem in many(Split::Training) {
        let (steps, quantity) = work_off(&problem.solution);
        assert!((6..=7).contains(&steps), "{}", problem.solution);
        assert_eq!(quantity, problem.answer);
        assert_eq!(stated_answer(&problem.solution), Some(problem.answer));
        for text in [&problem.question, &problem.solution] {
            assert!(!text.contains(['{', '}']), "{text}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_problems_and_another_seed_others() {
    assert_eq!(problem(3, 5, Split::HeldOut), problem(3, 5, Split::HeldOut));
    assert_ne!(problem(3, 5, Split::HeldOut), problem(3, 6, Split::HeldOut));
    assert_ne!(problem(3, 5, Split::HeldOut), problem(4, 5, Split::HeldOut));
}

/// The numbers of a problem, without its words.
fn numbers(problem: &Problem) -> String {
    let digits = |c: char| c.is_ascii_digit() || "+-*/=\n".contains(c);
    problem.solution.chars().filter(|c| digits(*c)).collect()
}

#[test]
fn splits_share_no_numbers_within_a_setting() {
    let first_words = |problem: &Problem| -> String {
        let kind = problem.question.split(' ').find(|word| word.ends_with(':'));
        kind.unwrap().to_owned()
    };
    let keys = |split| -> BTreeSet<(String, String)> {
        many(split)
            .iter()
            .map(|problem| (first_words(problem), numbers(problem)))
            .collect()
    };
    assert!(keys(Split::Training).is_disjoint(&keys(Split::HeldOut)));
    // The splits come from one law; only the hash tells them apart.
    let mut rng = Rng::new(1);
    let held_out = (0..16_000)
        .filter(|_| Plan::draw(&EVENTS, &mut rng).split() == Split::HeldOut)
        .count();
    assert!((800..1200).contains(&held_out), "{held_out}");
}

#[test]
fn the_words_cover_both_splits() {
    let words = words();
    assert!(words.is_sorted() && words.len() < 300, "{}", words.len());
    for problem in many(Split::HeldOut) {
        for text in [problem.question, problem.solution] {
            for word in text.split(|c: char| !c.is_ascii_alphabetic()) {
                assert!(word.len() < 2 || words.binary_search(&word.to_owned()).is_ok());
            }
        }
    }
}

#[test]
fn an_answer_is_read_only_where_it_stands_alone() {
    assert_eq!(stated_answer("Start: 3\nAnswer: 14"), Some(14));
    assert_eq!(stated_answer("Answer: 1\nAnswer: 2\n"), Some(2));
    assert_eq!(stated_answer("Answer: 14 apples"), None);
    assert_eq!(stated_answer("14"), None);
}
