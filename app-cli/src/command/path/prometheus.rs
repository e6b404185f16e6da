//! The Prometheus texts of several processes as one.
//!
//! Keeps true: the lines of a metric stand together after one help and one type, as the format demands, and every sample
//! says its lane. Not here: the metrics (`multipath::report`).

use std::fmt::Write;

/// A metric: its name, its comments, its samples.
struct Family {
    name: String,
    comments: Vec<String>,
    samples: Vec<String>,
}

/// One text of the texts of lanes, each with the labels that tell it from the others.
pub(super) fn merge<'a>(texts: impl Iterator<Item = (String, &'a str)>) -> String {
    let mut families: Vec<Family> = Vec::new();
    for (labels, text) in texts {
        let mut at = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# ") {
                let name = rest.split(' ').nth(1).unwrap_or_default();
                let found = families.iter().position(|family| family.name == name);
                let place = found.unwrap_or_else(|| {
                    families.push(Family {
                        name: name.to_owned(),
                        comments: Vec::new(),
                        samples: Vec::new(),
                    });
                    families.len() - 1
                });
                at = Some(place);
                if !families[place].comments.iter().any(|comment| comment == line) {
                    families[place].comments.push(line.to_owned());
                }
            } else if let (Some(place), Some((name, rest))) = (at, line.split_once('{')) {
                families[place].samples.push(format!("{name}{{{labels}{rest}"));
            }
        }
    }
    let mut text = String::new();
    for line in families.iter().flat_map(|family| family.comments.iter().chain(&family.samples)) {
        let _ = writeln!(text, "{}", crate::escape::one_line(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_two_lanes_stand_together() {
        let text = |value| {
            format!("# HELP a A.\n# TYPE a counter\na{{x=\"1\"}} {value}\n# TYPE b gauge\nb{{x=\"1\"}} 0\n")
        };
        let (first, second) = (text(1), text(2));
        let merged = merge(
            [("lane=\"0\",".to_owned(), first.as_str()), ("lane=\"3\",".to_owned(), second.as_str())]
                .into_iter(),
        );
        let expected = "\
# HELP a A.
# TYPE a counter
a{lane=\"0\",x=\"1\"} 1
a{lane=\"3\",x=\"1\"} 2
# TYPE b gauge
b{lane=\"0\",x=\"1\"} 0
b{lane=\"3\",x=\"1\"} 0
";
        assert_eq!(merged, expected);
    }
}
