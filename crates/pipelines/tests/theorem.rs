//! Theorem 1 of Fast-dLLM (arXiv 2505.22618) on joint distributions that can be written down: what
//! the strict rules admit is what one-at-a-time decoding would have given.

use brisk_pipelines::families::language::Selection;

/// A deterministic stream of uniforms.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() * limit as f64) as usize
    }
}

/// A joint distribution of `n` variables with `v` values each.
struct Joint {
    n: usize,
    v: usize,
    p: Vec<f64>,
}

impl Joint {
    /// Random, with a share of its mass near one point so that marginals get sure.
    fn random(stream: &mut Stream, n: usize, v: usize) -> Self {
        let mut p: Vec<f64> = (0..v.pow(n as u32))
            .map(|_| stream.next().powi(6))
            .collect();
        let (total, peak): (f64, usize) = (p.iter().sum(), stream.below(p.len()));
        let share = stream.next().powf(0.2);
        for value in &mut p {
            *value *= (1.0 - share) / total;
        }
        p[peak] += share;
        Self { n, v, p }
    }

    fn value(&self, index: usize, variable: usize) -> usize {
        index / self.v.pow(variable as u32) % self.v
    }

    /// Distribution of a variable, given values of others.
    fn marginal(&self, variable: usize, known: &[Option<usize>]) -> Vec<f64> {
        let mut marginal = vec![0.0; self.v];
        for (index, p) in self.p.iter().enumerate() {
            let fits = |j: usize| known[j].is_none_or(|value| value == self.value(index, j));
            if (0..self.n).all(fits) {
                marginal[self.value(index, variable)] += p;
            }
        }
        let total: f64 = marginal.iter().sum();
        marginal.iter().map(|p| p / total).collect()
    }

    fn most_likely(&self) -> Vec<usize> {
        let best = largest(&self.p);
        (0..self.n).map(|j| self.value(best, j)).collect()
    }

    /// Marginal argmax of every variable, and how sure it is.
    fn parallel(&self) -> Vec<(usize, f64)> {
        let free = vec![None; self.n];
        let marginals = (0..self.n).map(|j| self.marginal(j, &free));
        marginals
            .map(|marginal| {
                let best = largest(&marginal);
                (best, marginal[best])
            })
            .collect()
    }

    /// The distribution of the variables `kept` alone.
    fn restricted(&self, kept: &[usize]) -> Self {
        let mut p = vec![0.0; self.v.pow(kept.len() as u32)];
        for (index, mass) in self.p.iter().enumerate() {
            let places = kept.iter().enumerate();
            let place: usize = places
                .map(|(rank, &j)| self.value(index, j) * self.v.pow(rank as u32))
                .sum();
            p[place] += mass;
        }
        Self {
            n: kept.len(),
            v: self.v,
            p,
        }
    }
}

fn largest(values: &[f64]) -> usize {
    let order = |a: &usize, b: &usize| values[*a].total_cmp(&values[*b]);
    (0..values.len()).max_by(order).unwrap()
}

/// Variables that a rule admits, most confident first.
fn admitted(rule: Selection, proposals: &[(usize, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..proposals.len()).collect();
    order.sort_by(|a, b| proposals[*b].1.total_cmp(&proposals[*a].1));
    let sorted: Vec<f64> = order.iter().map(|j| proposals[*j].1).collect();
    order.truncate(rule.count(&sorted, 0));
    order
}

/// (a) Parallel choice = joint choice = greedy choice in any order. A rule always admits one, so
/// runs that admit a single variable prove nothing and are not counted.
#[test]
fn strict_rules_admit_only_what_greedy_decoding_would_choose() {
    for rule in [Selection::FactorStrict(1.0), Selection::Frechet(1.0)] {
        let mut stream = Stream(11);
        let mut counted = 0;
        for _ in 0..4000 {
            let (n, v) = (2 + stream.below(4), 2 + stream.below(3));
            let joint = Joint::random(&mut stream, n, v);
            let proposals = joint.parallel();
            let kept = admitted(rule, &proposals);
            if kept.len() < 2 {
                continue;
            }
            counted += 1;
            let part = joint.restricted(&kept);
            let parallel: Vec<usize> = kept.iter().map(|&j| proposals[j].0).collect();
            assert_eq!(part.most_likely(), parallel, "{rule:?}");
            // One at a time, in random order.
            let mut known = vec![None; kept.len()];
            for _ in 0..kept.len() {
                let open: Vec<usize> = (0..kept.len()).filter(|j| known[*j].is_none()).collect();
                let next = open[stream.below(open.len())];
                known[next] = Some(largest(&part.marginal(next, &known)));
            }
            let greedy: Vec<usize> = known.into_iter().flatten().collect();
            assert_eq!(greedy, parallel, "{rule:?}");
        }
        assert!(counted > 500, "{rule:?}: only {counted} cases");
    }
}

/// (b) The bound is tight: just above it there is a distribution whose parallel choice is wrong,
/// and the strict rules refuse it.
#[test]
fn the_counterexample_stands_just_above_the_bound() {
    for n in [2usize, 3, 5] {
        let epsilon = 1.0 / (n as f64 + 1.0) + 1e-3;
        let eta = (epsilon - 1.0 / (n as f64 + 1.0)) / (n as f64 + 1.0);
        let mut p = vec![0.0; 1 << n];
        p[0] = 1.0 / (n as f64 + 1.0) - eta;
        for j in 0..n {
            p[1 << j] = 1.0 / (n as f64 + 1.0) + eta / n as f64;
        }
        let joint = Joint { n, v: 2, p };
        let proposals = joint.parallel();
        assert!(
            proposals
                .iter()
                .all(|(value, sure)| *value == 0 && *sure > 1.0 - epsilon)
        );
        assert_ne!(
            joint.most_likely(),
            vec![0; n],
            "the parallel choice is wrong"
        );
        for rule in [Selection::FactorStrict(1.0), Selection::Frechet(1.0)] {
            assert!(
                admitted(rule, &proposals).len() < n,
                "{rule:?} admits all {n}"
            );
        }
        // (d) The reference's quirk takes the last one along.
        if n == 2 {
            assert_eq!(admitted(Selection::Factor(1.0), &proposals).len(), 2);
        }
    }
}

/// (c) Total variation and KL divergence of the product of marginals stay below the bounds.
#[test]
fn distances_stay_below_the_bounds() {
    let mut stream = Stream(5);
    for _ in 0..500 {
        let (n, v) = (2 + stream.below(3), 2 + stream.below(3));
        let joint = Joint::random(&mut stream, n, v);
        let proposals = joint.parallel();
        let least = proposals.iter().map(|(_, sure)| *sure).fold(1.0, f64::min);
        let epsilon = 1.0 - least + 1e-12;
        if epsilon >= 1.0 - 1.0 / v as f64 {
            continue;
        }
        let free = vec![None; n];
        let marginals: Vec<Vec<f64>> = (0..n).map(|j| joint.marginal(j, &free)).collect();
        let (mut distance, mut divergence) = (0.0, 0.0);
        for (index, &p) in joint.p.iter().enumerate() {
            let q: f64 = (0..n)
                .map(|j| marginals[j][joint.value(index, j)])
                .product();
            distance += 0.5 * (p - q).abs();
            if p > 0.0 {
                divergence += p * (p / q).ln();
            }
        }
        assert!(distance < (3.0 * n as f64 - 1.0) * epsilon / 2.0);
        let entropy = -epsilon * epsilon.ln() - (1.0 - epsilon) * (1.0 - epsilon).ln();
        let bound = (n as f64 - 1.0) * (entropy + epsilon * (v as f64 - 1.0).ln());
        assert!(divergence < bound + 1e-9, "{divergence} {bound}");
    }
}

/// (e) More tokens for a larger factor and for a smaller threshold; at least one, at most all.
#[test]
fn counts_are_monotone_and_bounded() {
    let mut stream = Stream(3);
    for _ in 0..2000 {
        let mut sorted: Vec<f64> = (0..1 + stream.below(12))
            .map(|_| 1.0 - stream.next().powi(3))
            .collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let (small, large) = (stream.next() * 1.5, stream.next());
        let large = small + large;
        type Rule = fn(f64) -> Selection;
        let rules: [(Rule, f64, f64); 4] = [
            (Selection::Factor, small, large),
            (Selection::FactorStrict, small, large),
            (Selection::Frechet, small, large),
            (Selection::Threshold, large, small),
        ];
        for (rule, few, many) in rules {
            let (few, many) = (rule(few).count(&sorted, 0), rule(many).count(&sorted, 0));
            assert!(1 <= few && few <= many && many <= sorted.len());
        }
        let strict = Selection::FactorStrict(large).count(&sorted, 0);
        assert!(strict <= Selection::Frechet(large).count(&sorted, 0));
        assert!(strict <= Selection::Factor(large).count(&sorted, 0));
        assert_eq!(Selection::Threshold(1.1).count(&sorted, 0), 1);
        assert_eq!(Selection::Threshold(0.0).count(&sorted, 0), sorted.len());
    }
}
