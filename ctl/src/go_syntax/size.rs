/// A size in bytes for people: decimal units, one decimal below ten (`25 kB`, `2.1 GB`), as etcdctl prints it.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog(1000) as usize;
    let scaled = bytes as f64 / 1000f64.powi(exponent as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    // An u64 has at most 7 groups of three digits.
    let unit = UNITS.get(exponent).copied().unwrap_or_default();
    if rounded < 10.0 {
        format!("{rounded:.1} {unit}")
    } else {
        format!("{rounded:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::human_size;

    #[test]
    fn sizes_are_decimal() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (16_384, "16 kB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(human_size(bytes), expected);
        }
    }
}
