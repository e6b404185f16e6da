//! From text to a typed configuration, and from whatever is wrong with it to one clear line.
//!
//! The TOML library and serde find the mistakes and say where; this file turns their words into
//! ours. Values that check themselves (`value`) bring their own words, remedy included.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;

use super::ConfigError;
use crate::escape;

/// No configuration of people is larger; a device or a pipe given by mistake is.
const CONFIG_MAX_BYTES: u64 = 1 << 20;
/// How alike two keys must be for "did you mean" (1 is equal).
const LIKENESS_MIN: f64 = 0.75;

/// Which configuration a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HOST.toml.
    Host,
    /// VOLUME.toml.
    Volume,
}

/// A text with its file's name and the examples of its kind.
pub(super) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    examples: &'static [(&'static str, &'static str)],
}

/// Reads a file that may be a configuration.
pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { file: escape::name(file), source };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(CONFIG_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    let mistake =
        |line, text: &str| ConfigError::Mistake { file: escape::name(file), line, text: text.into() };
    if bytes.len() as u64 > CONFIG_MAX_BYTES {
        return Err(mistake(1, "larger than 1 MiB; this is no configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = line_of(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        mistake(line, "a byte that is no UTF-8; save the file as UTF-8 text")
    })
}

/// Which kind `text` is, where that can be told: only VOLUME.toml lists devices and hosts at its top.
pub(super) fn kind(text: &str) -> Option<Kind> {
    let table: toml::Table = text.parse().ok()?;
    if table.get("host").is_some_and(toml::Value::is_str) || table.contains_key("volume") {
        Some(Kind::Host)
    } else if table.contains_key("device") || table.get("host").is_some_and(toml::Value::is_array) {
        Some(Kind::Volume)
    } else {
        None
    }
}

fn line_of(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

impl<'a> Source<'a> {
    /// `text` of `file`; `examples` has a line for each key that must be there.
    pub(super) fn new(
        file: &'a Path,
        text: &'a str,
        examples: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { file, text, examples }
    }

    /// The typed configuration.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let deserializer = toml::Deserializer::parse(self.text).map_err(|error| {
            let what = error.message().replace('\n', ", ");
            self.mistake(error.span(), &format!("not TOML ({what}); correct this line or the one before"))
        })?;
        T::deserialize(deserializer).map_err(|error| {
            let text = self.explain(error.message());
            self.mistake(error.span(), &text)
        })
    }

    /// A mistake at `span`; without one, in the first line.
    pub(super) fn mistake(&self, span: Option<Range<usize>>, text: &str) -> ConfigError {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        ConfigError::Mistake {
            file: escape::name(self.file),
            line: line_of(&self.text.as_bytes()[..start]),
            text: escape::one_line(text),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(
        &self,
        value: &Spanned<i64>,
        key: &str,
        min: u16,
        max: u16,
    ) -> Result<u16, ConfigError> {
        let number = u16::try_from(*value.get_ref()).ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| {
            let text = format!("{key} = {} is out of range; give {min} to {max}", value.get_ref());
            self.mistake(Some(value.span()), &text)
        })
    }

    /// The line of `span`.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        line_of(&self.text.as_bytes()[..span.start.min(self.text.len())])
    }

    /// serde's words in ours.
    fn explain(&self, message: &str) -> String {
        if let Some(rest) = message.strip_prefix("unknown field `")
            && let Some((key, expected)) = rest.rsplit_once("`, expected ")
        {
            return unknown_key(key, expected);
        }
        if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            let example = self.examples.iter().find(|(name, _)| *name == key);
            let example = example.map_or_else(|| format!("{key} = …"), |(_, line)| (*line).to_owned());
            return format!("key `{key}` is missing; add it, as in {example}");
        }
        if let Some(rest) = message.strip_prefix("invalid type: ")
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            return wrong_type(found, expected);
        }
        message.to_owned()
    }
}

/// `expected` is the end of what serde says: `` `a` ``, `` `a` or `b` ``, `` one of `a`, `b`, `c` ``.
fn unknown_key(key: &str, expected: &str) -> String {
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let likeness = |name: &str| strsim::jaro_winkler(&key.to_lowercase(), name);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) >= LIKENESS_MIN => {
            format!("unknown key `{key}`; did you mean `{nearest}`?")
        }
        _ => format!("unknown key `{key}`; the keys of this section are {}", known.join(", ")),
    }
}

fn wrong_type(found: &str, expected: &str) -> String {
    let (needed, remedy) = match expected {
        "a string" | "path string" => ("a text", "put it in quotes, as in \"text\""),
        "a sequence" => ("a list", "put it in brackets, as in [\"text\"], or start a section with [[…]]"),
        "a boolean" => ("true or false", "write it without quotes"),
        "i64" => ("a whole number", "write digits without quotes"),
        "a map" => ("a section", "start it with a line in brackets, as in [section.name]"),
        other if other.starts_with("struct") => {
            ("a section", "start it with a line in brackets, as in [section] or [section.name]")
        }
        other => (other, "see `diskwire help`"),
    };
    format!("{found} where {needed} belongs; {remedy}")
}
