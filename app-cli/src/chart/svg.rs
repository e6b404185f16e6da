//! SVG as text: elements with attributes, and text that cannot become anything else.
//!
//! Keeps true: what is written is well-formed, whatever texts it is given. Not here: what is drawn (`chart`).

use std::fmt::{Display, Write};

/// How every chart looks: plain rules, for who does not know whether the screen is dark, and those for a dark one.
const LIGHT: &str = "text{font-family:system-ui,sans-serif;fill:#222}.title{font-size:17px;font-weight:600}.label{font-size:12px}\
     .small{font-size:11px}.faint{fill:#666}.ground{fill:#fff}.grid{stroke:#ddd;stroke-width:1}\
     .axis{stroke:#555;stroke-width:1}.bound{stroke:#b00020;stroke-width:1.5;stroke-dasharray:7 4}";
const DARK: &str = "text{fill:#e6e6e6}.faint{fill:#a0a0a0}.ground{fill:#16181c}.grid{stroke:#33373d}.axis{stroke:#9a9a9a}\
     .bound{stroke:#ff6b7d}";

/// The rules of a chart: those of every chart, and its own for a light and for a dark screen.
pub(super) fn style(light: &str, dark: &str) -> String {
    format!("{LIGHT}{light}@media(prefers-color-scheme:dark){{{DARK}{dark}}}")
}

/// A drawing under way.
pub(super) struct Svg {
    text: String,
}

impl Svg {
    /// A drawing of so many pixels, with rules of style. `title` is read to people who do not see it.
    pub(super) fn new(width: u32, height: u32, title: &str, style: &str) -> Self {
        let mut svg = Self { text: String::new() };
        let _ = write!(
            svg.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<style>{style}</style>\n",
            escaped(title)
        );
        svg
    }

    /// An element without content.
    pub(super) fn element(&mut self, name: &str, class: &str, attributes: &[(&str, &dyn Display)]) {
        self.open(name, class, attributes);
        self.text.push_str("/>\n");
    }

    /// A line of text at a place; `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, at: (f64, f64), anchor: &str, class: &str, text: &str) {
        self.open("text", class, &[("x", &pixel(at.0)), ("y", &pixel(at.1)), ("text-anchor", &anchor)]);
        let _ = writeln!(self.text, ">{}</text>", escaped(text));
    }

    /// A line of text that is read upwards, its middle at a place.
    pub(super) fn turned_text(&mut self, at: (f64, f64), class: &str, text: &str) {
        let turn = format!("translate({},{}) rotate(-90)", pixel(at.0), pixel(at.1));
        self.open("text", class, &[("transform", &turn), ("text-anchor", &"middle")]);
        let _ = writeln!(self.text, ">{}</text>", escaped(text));
    }

    /// A rectangle.
    pub(super) fn rectangle(&mut self, class: &str, corner: (f64, f64), size: (f64, f64)) {
        self.element(
            "rect",
            class,
            &[
                ("x", &pixel(corner.0)),
                ("y", &pixel(corner.1)),
                ("width", &pixel(size.0.max(0.0))),
                ("height", &pixel(size.1.max(0.0))),
            ],
        );
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.element(
            "line",
            class,
            &[("x1", &pixel(from.0)), ("y1", &pixel(from.1)), ("x2", &pixel(to.0)), ("y2", &pixel(to.1))],
        );
    }

    fn open(&mut self, name: &str, class: &str, attributes: &[(&str, &dyn Display)]) {
        let _ = write!(self.text, "<{name} class=\"{}\"", escaped(class));
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escaped(&value.to_string()));
        }
    }

    /// The whole.
    pub(super) fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// A coordinate: a tenth of a pixel is enough.
pub(super) fn pixel(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}

/// Text as XML takes it; signs that it does not take at all are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            _ if sign.is_control() => {}
            _ => escaped.push(sign),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Every element is closed, and nothing stands open at the end.
    pub(in super::super) fn check_nesting(text: &str) {
        let mut open = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let end = at + rest[at..].find('>').expect("a tag ends");
            let tag = &rest[at + 1..end];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn no_text_leaves_its_place() {
        let mut svg = Svg::new(10, 20, "a < b", "text{}");
        svg.text((1.0, 2.25), "start", "x", "</text><script>\"&\0\x1b");
        svg.rectangle("r", (0.0, 0.0), (-1.0, 3.0));
        let text = svg.end();
        assert!(text.contains("<title>a &lt; b</title>"), "{text}");
        assert!(text.contains("&lt;/text&gt;&lt;script&gt;&quot;&amp;</text>"), "{text}");
        assert!(text.contains("width=\"0\" height=\"3\"/>") && text.ends_with("</svg>\n"), "{text}");
        assert_eq!([0.04, 12.0, 12.34].map(pixel), ["0", "12", "12.3"]);
    }
}
