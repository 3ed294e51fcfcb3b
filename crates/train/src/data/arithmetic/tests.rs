use super::*;

fn many(split: Split) -> Vec<Problem> {
    (0..2000).map(|index| problem(7, index, split)).collect()
}

/// Evaluates every `a∘b=c` of a text.
fn equations_hold(text: &str) -> usize {
    let equations = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| word.contains('='));
    equations
        .map(|equation| {
            let (left, result) = equation.split_once('=').unwrap();
            let at = left.find(['+', '-', '*', '/']).unwrap();
            let number = |text: &str| text.parse::<u32>().unwrap();
            let (a, b) = (number(&left[..at]), number(&left[at + 1..]));
            let found = match &left[at..=at] {
                "+" => a + b,
                "-" => a - b,
                "*" => a * b,
                _ => {
                    assert!(a.is_multiple_of(b));
                    a / b
                }
            };
            assert_eq!(found, number(result), "{equation}");
            assert!((SMALLEST..=LARGEST).contains(&found), "{equation}");
            assert!(a <= LARGEST && b <= LARGEST && a > 1 && b > 1, "{equation}");
        })
        .count()
}

#[test]
fn solutions_are_right_and_lead_to_the_answer() {
    for problem in many(Split::Training) {
        let steps = equations_hold(&problem.solution);
        assert!((4..=6).contains(&steps), "{}", problem.solution);
        assert_eq!(stated_answer(&problem.solution), Some(problem.answer));
        let lines: Vec<&str> = problem.solution.lines().collect();
        let last = lines[lines.len() - 2];
        assert!(last.ends_with(&format!("={}", problem.answer)), "{last}");
        for text in [&problem.question, &problem.solution] {
            assert!(!text.contains(['{', '}']), "{text}");
        }
    }
}

#[test]
fn drills_are_right() {
    let mut rng = Rng::new(2);
    let text = drill(500, &mut rng);
    assert_eq!(text.lines().count(), 500);
    assert!(equations_hold(&text) >= 500);
}

#[test]
fn every_line_continues_with_the_result_before() {
    for problem in many(Split::Training).iter().take(200) {
        let mut lines = problem.solution.lines();
        let mut quantity = lines
            .next()
            .unwrap()
            .strip_prefix("Start: ")
            .unwrap()
            .to_owned();
        for line in lines {
            if let Some(answer) = line.strip_prefix("Answer: ") {
                assert_eq!(answer, quantity);
                continue;
            }
            let (_, worked) = line.rsplit_once(", ").unwrap();
            assert!(worked.starts_with(&quantity), "{line} after {quantity}");
            quantity = worked.rsplit_once('=').unwrap().1.to_owned();
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
        let kind = problem
            .question
            .split(' ')
            .find(|word| ["On", "At", "In"].contains(word));
        kind.unwrap_or("compare").to_owned()
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
