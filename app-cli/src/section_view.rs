//! Sections as text for 80 columns, and as JSON.
//!
//! A section whose parts all have the same short fields becomes a table, its column heads without the
//! words that all of them begin with; everything else is one line for each field. Not here: what the
//! sections say (`transfer_core::inspect`).

use std::fmt::Write;

use serde_json::{Map, Value};
use transfer_core::inspect::Section;

use crate::escape;

/// Columns of the screen.
const COLUMNS: usize = 80;
/// Columns between those of a table.
const GAP: usize = 2;
/// Names longer than this do not move the values of the other lines.
const NAME_COLUMNS_MAX: usize = 34;

/// Sections as text.
#[must_use]
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        if !text.is_empty() {
            text.push('\n');
        }
        push_section(&mut text, section, 0);
    }
    text
}

/// Sections as an array: `{"title", "fields": {…}, "parts": […]}`.
#[must_use]
pub fn json(sections: &[Section]) -> Value {
    sections
        .iter()
        .map(|section| {
            let fields = section.fields.iter().map(|(name, value)| (name.clone(), value.clone().into()));
            let mut object = Map::new();
            object.insert("title".into(), section.title.clone().into());
            object.insert("fields".into(), Value::Object(fields.collect()));
            object.insert("parts".into(), json(&section.children));
            Value::Object(object)
        })
        .collect()
}

fn push_section(text: &mut String, section: &Section, depth: usize) {
    push_line(text, depth, &section.title);
    let widest = section.fields.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let names = widest.min(NAME_COLUMNS_MAX);
    for (name, value) in &section.fields {
        let line = format!("{name:<names$}  {value}");
        push_line(text, depth + 1, line.trim_end());
    }
    if let Some(rows) = table(&section.children, 2 * (depth + 1)) {
        for row in rows {
            push_line(text, depth + 1, &row);
        }
        return;
    }
    for child in &section.children {
        push_section(text, child, depth + 1);
    }
}

/// One line, escaped, `depth` steps of two columns in; what is too long goes on below, further in.
pub fn push_line(text: &mut String, depth: usize, line: &str) {
    let mut left = escape::one_line(line);
    let mut indent = 2 * depth;
    while indent + width(&left) > COLUMNS {
        let room = COLUMNS - indent;
        let limit = left.char_indices().nth(room).map_or(left.len(), |(at, _)| at);
        let cut = left[..limit].rfind(' ').filter(|cut| !left[..*cut].trim().is_empty()).unwrap_or(limit);
        let _ = writeln!(text, "{:indent$}{}", "", left[..cut].trim_end());
        left = left[cut..].trim_start().to_owned();
        indent = 2 * depth + 4;
    }
    let _ = writeln!(text, "{:indent$}{left}", "");
}

/// The rows of a table, head first, if the parts are alike and fit.
fn table(parts: &[Section], indent: usize) -> Option<Vec<String>> {
    let first = parts.first()?;
    let names: Vec<&str> = first.fields.iter().map(|(name, _)| name.as_str()).collect();
    let alike = parts.iter().all(|part| {
        part.children.is_empty()
            && part.fields.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied())
    });
    if !alike || names.is_empty() {
        return None;
    }
    let common = common_words(&names);
    let head: Vec<String> = std::iter::once(common.to_owned())
        .chain(names.iter().map(|name| name[common.len()..].to_owned()))
        .collect();
    let rows = parts.iter().map(|part| {
        let title = std::iter::once(escape::one_line(&part.title));
        title.chain(part.fields.iter().map(|(_, value)| escape::one_line(value))).collect()
    });
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..=names.len())
        .map(|column| lines.iter().map(|line| width(&line[column])).max().unwrap_or(0))
        .collect();
    if indent + widths.iter().sum::<usize>() + GAP * names.len() > COLUMNS {
        return None;
    }
    let format = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    Some(lines.iter().map(format).collect())
}

/// What all names begin with, in whole words (`ptr_process_`).
fn common_words<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else { return "" };
    let ends = first.match_indices('_').map(|(at, _)| at + 1);
    let mut shared = ends.filter(|end| names.iter().all(|name| name.starts_with(&first[..*end])));
    match shared.next_back() {
        Some(end) if names.len() > 1 => &first[..end],
        _ => "",
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, fields: &[(&str, &str)], children: Vec<Section>) -> Section {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Section { title: title.into(), fields, children }
    }

    #[test]
    fn parts_that_are_alike_become_a_table() {
        let part = |title, seq, size| section(title, &[("ptr_seq", seq), ("ptr_size", size)], Vec::new());
        let parts = vec![part("entry 0", "1", "257"), part("entry 12", "13", "2")];
        let shown = text(&[section("Table", &[("state", "Free"), ("a_long_name", "1")], parts)]);
        let expected = "\
Table
  state        Free
  a_long_name  1
  ptr_      seq  size
  entry 0   1    257
  entry 12  13   2
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn nothing_is_wider_than_the_screen_or_controls_it() {
        let long = "word ".repeat(60) + &"x".repeat(200) + "\x1b[31m";
        let part = section("part\n", &[("name", &long), ("other", "1")], Vec::new());
        let other = section("other", &[("name", "short")], Vec::new());
        let shown = text(&[section("Title", &[], vec![part.clone(), part, other])]);
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        assert!(!shown.contains('\x1b') && shown.contains("\\x1b[31m"));
    }

    #[test]
    fn json_keeps_names_and_order() {
        let part = section("part", &[("b", "1"), ("a", "2")], Vec::new());
        let json = json(&[section("whole", &[], vec![part])]).to_string();
        assert!(json.contains(r#""title":"whole""#) && json.contains(r#""b":"1""#), "{json}");
    }
}
