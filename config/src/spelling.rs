//! The known name nearest to a mistyped one.

/// Longer input is compared by its beginning: the cost of a comparison grows with the product of the lengths, and the
/// input is foreign. No known name is longer than this.
const COMPARED_CHARS: usize = 64;

/// The candidate with the smallest edit distance to `given`; the first of several. Empty only if there are no candidates.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    let given: Vec<char> = given.chars().take(COMPARED_CHARS).collect();
    candidates
        .into_iter()
        .min_by_key(|candidate| distance(&given, candidate))
        .unwrap_or_default()
}

/// Edit distance where a swap of two neighbours counts once (optimal string alignment).
fn distance(given: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().take(COMPARED_CHARS).collect();
    let width = candidate.len() + 1;
    let mut before_last = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (i, &left) in given.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, &right) in candidate.iter().enumerate() {
            let substitution = last[j] + usize::from(left != right);
            row[j + 1] = substitution.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left == candidate[j - 1] && given[i - 1] == right {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_by_edit_distance() {
        let known = ["name", "data-dir", "wal-dir", "max-wals"];
        for (given, expected) in [
            ("nmae", "name"),
            ("datadir", "data-dir"),
            ("wal_dir", "wal-dir"),
            ("max-wal", "max-wals"),
        ] {
            assert_eq!(nearest(given, known), expected, "{given}");
        }
        assert_eq!(nearest(&"q".repeat(1 << 20), known), "name");
        assert_eq!(distance(&['a', 'b'], "ba"), 1);
        assert_eq!(distance(&[], "abc"), 3);
    }
}
