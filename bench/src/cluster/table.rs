//! One line for each figure of both clusters.

use super::verdict::{Floor, median, ratios};
use serde_json::{Value, json};

/// A figure, taken in every round.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) etcd: Vec<f64>,
    pub(crate) holdfast: Vec<f64>,
    /// For the median of the ratios.
    pub(crate) floor: Option<Floor>,
}

pub(crate) fn head(title: &str) -> String {
    format!(
        "\n{title:<46}{:>10}{:>10}{:>9}  each round",
        "etcd", "holdfast", "to etcd"
    )
}

impl Row {
    /// Medians, the median of the ratios, each ratio, and the verdict; clears `good` on a miss.
    pub(crate) fn line(&self, good: &mut bool) -> String {
        let ratios = ratios(&self.holdfast, &self.etcd);
        let mut line = format!(
            "  {:<44}{:>10}{:>10}",
            self.name,
            number(median(&self.etcd)),
            number(median(&self.holdfast))
        );
        if ratios.is_empty() {
            return line;
        }
        let middle = median(&ratios);
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        line.push_str(&format!(
            "{:>9}  [{}]",
            format!("{middle:.2}×"),
            each.join(" ")
        ));
        if let Some(floor) = self.floor {
            line.push_str("  ");
            line.push_str(&floor.verdict(middle, "×", good));
        }
        line
    }

    pub(crate) fn document(&self) -> Value {
        let ratios = ratios(&self.holdfast, &self.etcd);
        json!({
            "figure": self.name,
            "etcd": self.etcd,
            "holdfast": self.holdfast,
            "ratios": ratios,
            "median_ratio": (!ratios.is_empty()).then(|| median(&ratios)),
        })
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_judges_the_median_of_the_ratios() {
        let mut row = Row {
            name: "requests/s",
            etcd: vec![100.0, 200.0, 100.0],
            holdfast: vec![300.0, 500.0, 200.0],
            floor: Some(Floor::AtLeast(2.5)),
        };
        let mut good = true;
        let line = row.line(&mut good);
        assert!(
            good && line.contains("2.50×  [3.00 2.50 2.00]  PASS"),
            "{line}"
        );
        row.floor = Some(Floor::AtLeast(2.6));
        assert!(row.line(&mut good).contains("MISS") && !good);
    }

    #[test]
    fn without_the_other_there_is_nothing_to_judge() {
        let row = Row {
            name: "requests/s",
            etcd: vec![],
            holdfast: vec![300.0],
            floor: Some(Floor::AtLeast(2.5)),
        };
        let mut good = true;
        let line = row.line(&mut good);
        assert!(
            good && line.contains('-') && !line.contains("MISS"),
            "{line}"
        );
    }
}
