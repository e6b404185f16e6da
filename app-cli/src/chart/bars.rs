//! Bars of a measurement: a bar for each figure, with its spread and its goal; figures of one unit side by side.
//!
//! ```text
//!   title
//!   conditions
//!   seconds
//!   diskwire, time │███████├─┤              4.30  (4.10 to 4.52)
//!   scp, time      │██████████████████├──┤  14.7  (13.9 to 15.2)
//!   ratios
//!   scp, time      │███████████¦█           3.42  (3.1 to 3.9), ≥ 4 missed
//! ```
//!
//! Keeps true: it is one file that needs no other, and is read on a light and on a dark screen; equal input gives equal
//! text; no text is wider than its column. Not here: SVG (`svg`), measuring.

use super::svg::{Svg, style};

/// Width of the whole, in pixels.
const WIDTH: f64 = 960.0;
/// Free on both sides.
const MARGIN: f64 = 24.0;
/// Of the column of values, at the right.
const VALUES_WIDTH: f64 = 276.0;
/// The widest column of names.
const NAMES_WIDTH_MAX: f64 = 340.0;
/// Between columns.
const GAP: f64 = 10.0;
/// From row to row, and of a bar.
const ROW_STEP: f64 = 22.0;
const BAR_HEIGHT: f64 = 12.0;
/// Of a unit's heading, with the space above it.
const HEADING_STEP: f64 = 34.0;
/// Of a line of conditions.
const LINE_STEP: f64 = 15.0;
/// The most that is drawn.
const BARS_MAX: usize = 400;
const CONDITIONS_MAX: usize = 20;
/// What a sign takes, at most on average: of the title, and of all other text.
const TITLE_SIGN_WIDTH: f64 = 9.6;
const SIGN_WIDTH: f64 = 6.3;
/// What ratios have for a unit where one is shown.
const RATIO: &str = "ratio";

/// A figure. What is no positive number has no bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What was measured.
    pub what: String,
    /// Of what it is; nothing for a ratio.
    pub unit: String,
    /// How long the bar is.
    pub median: f64,
    /// The ends of its whisker.
    pub spread: (f64, f64),
    /// What is aimed at.
    pub goal: Option<f64>,
    /// Whether the goal is missed.
    pub is_missed: bool,
    /// What stands beside it.
    pub value: String,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What stands above.
    pub title: String,
    /// On what it was measured, a line each.
    pub conditions: Vec<String>,
    /// The figures.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// Leaves out the figures of all other units.
    pub fn keep_units(&mut self, units: &[String]) {
        self.bars.retain(|bar| units.iter().any(|unit| unit == shown_unit(&bar.unit)));
    }

    /// The drawing.
    #[must_use]
    pub fn svg(&self) -> String {
        let conditions = &self.conditions[..self.conditions.len().min(CONDITIONS_MAX)];
        let bars = &self.bars[..self.bars.len().min(BARS_MAX)];
        let units = units(bars);
        let top = 36.0 + LINE_STEP * conditions.len() as f64;
        let rows = HEADING_STEP * units.len() as f64 + ROW_STEP * bars.len() as f64;
        let height = top + rows + MARGIN;
        // Some thousand pixels.
        let mut svg = Svg::new(WIDTH as u32, height as u32, &self.title, &bar_style());
        svg.rectangle("ground", (0.0, 0.0), (WIDTH, height.floor()));
        let title = fitted(&self.title, WIDTH - 2.0 * MARGIN, TITLE_SIGN_WIDTH);
        svg.text((MARGIN, 28.0), "start", "title", &title);
        for (line, condition) in (1u32..).zip(conditions) {
            let text = fitted(condition, WIDTH - 2.0 * MARGIN, SIGN_WIDTH);
            svg.text((MARGIN, 30.0 + LINE_STEP * f64::from(line)), "start", "small faint", &text);
        }
        let left = left(bars);
        let mut y = top;
        for unit in units {
            let of_unit: Vec<&Bar> = bars.iter().filter(|bar| bar.unit == unit).collect();
            push_unit(&mut svg, unit, &of_unit, left, y);
            y += HEADING_STEP + ROW_STEP * of_unit.len() as f64;
        }
        svg.end()
    }
}

fn shown_unit(unit: &str) -> &str {
    if unit.is_empty() { RATIO } else { unit }
}

/// All units, in the order in which they first come.
fn units(bars: &[Bar]) -> Vec<&str> {
    let mut units: Vec<&str> = Vec::new();
    for bar in bars {
        if !units.contains(&bar.unit.as_str()) {
            units.push(&bar.unit);
        }
    }
    units
}

/// Where bars begin: beside the longest name.
fn left(bars: &[Bar]) -> f64 {
    let longest = bars.iter().map(|bar| bar.what.chars().count()).max().unwrap_or(0);
    MARGIN + (longest as f64 * SIGN_WIDTH).min(NAMES_WIDTH_MAX) + GAP
}

fn push_unit(svg: &mut Svg, unit: &str, bars: &[&Bar], left: f64, top: f64) {
    let right = WIDTH - MARGIN - VALUES_WIDTH - GAP;
    let values = bars.iter().flat_map(|bar| [bar.median, bar.spread.1, bar.goal.unwrap_or(0.0)]);
    let longest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let x = |value: f64| {
        let share = if longest > 0.0 { value / longest } else { 0.0 };
        if share.is_finite() { left + share.clamp(0.0, 1.0) * (right - left) } else { left }
    };
    let heading = fitted(shown_unit(unit), WIDTH - 2.0 * MARGIN, SIGN_WIDTH);
    svg.text((MARGIN, top + 24.0), "start", "label unit", &heading);
    let first = top + HEADING_STEP;
    svg.line("axis", (left, first - 4.0), (left, first + ROW_STEP * bars.len() as f64 - 4.0));
    for (row, bar) in (0u32..).zip(bars) {
        let y = first + ROW_STEP * f64::from(row);
        let (middle, baseline) = (y + BAR_HEIGHT / 2.0, y + 10.0);
        let name = fitted(&bar.what, left - GAP - MARGIN, SIGN_WIDTH);
        svg.text((left - GAP, baseline), "end", "small", &name);
        let class = if bar.what.starts_with("diskwire") { "bar ours" } else { "bar" };
        svg.rectangle(class, (left, y), (x(bar.median) - left, BAR_HEIGHT));
        let (least, most) = (x(bar.spread.0), x(bar.spread.1));
        if most > least {
            svg.line("whisker", (least, middle), (most, middle));
            for end in [least, most] {
                svg.line("whisker", (end, middle - 3.0), (end, middle + 3.0));
            }
        }
        if let Some(goal) = bar.goal {
            svg.line("goal", (x(goal), y - 3.0), (x(goal), y + BAR_HEIGHT + 3.0));
        }
        let value = fitted(&bar.value, VALUES_WIDTH, SIGN_WIDTH);
        svg.text(
            (right + GAP, baseline),
            "start",
            if bar.is_missed { "small missed" } else { "small" },
            &value,
        );
    }
}

/// A text without its end, if it is wider than its place.
fn fitted(text: &str, width: f64, sign_width: f64) -> String {
    // A hundred or so.
    let room = (width / sign_width + 1e-6).floor() as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(2)).collect();
    format!("{kept}..")
}

fn bar_style() -> String {
    style(
        ".unit{font-weight:600}.bar{fill:#b3b9c1}.ours{fill:#0072b2}.whisker{stroke:#333;stroke-width:1.5}\
         .goal{stroke:#b00020;stroke-width:2.5}.missed{fill:#b00020}",
        ".bar{fill:#5d646d}.ours{fill:#2f8fc9}.whisker{stroke:#e6e6e6}.goal{stroke:#ff6b7d}.missed{fill:#ff6b7d}",
    )
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::check_nesting;
    use super::*;

    fn bar(what: &str, unit: &str, median: f64) -> Bar {
        Bar {
            what: what.to_owned(),
            unit: unit.to_owned(),
            median,
            spread: (median * 0.9, median * 1.2),
            goal: None,
            is_missed: false,
            value: format!("{median}  ({} to {})", median * 0.9, median * 1.2),
        }
    }

    fn bars() -> Bars {
        let missed = Bar { goal: Some(4.0), is_missed: true, ..bar("scp, time ratio", "", 3.0) };
        Bars {
            title: "bench <file>".to_owned(),
            conditions: vec!["a file of 2 GiB & more".to_owned()],
            bars: vec![
                bar("diskwire, time", "s", 2.0),
                bar("diskwire, rate", "MiB/s", 1000.0),
                bar("scp, time", "s", 6.0),
                missed,
            ],
        }
    }

    fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
        let from = tag.find(&format!(" {name}=\"")).unwrap_or_else(|| panic!("{name} in {tag}"));
        tag[from + name.len() + 3..].split('"').next().unwrap()
    }

    /// Every text with its beginning and its end, as far as that can be known.
    fn texts(svg: &str) -> Vec<(f64, f64, String)> {
        let lines = svg.lines().filter(|line| line.starts_with("<text"));
        let extent = |line: &str| {
            let (tag, text) = line.trim_end_matches("</text>").split_once('>').unwrap();
            let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
            let sign = if attribute(tag, "class") == "title" { 9.5 } else { 6.2 };
            let (x, width): (f64, f64) =
                (attribute(tag, "x").parse().unwrap(), sign * text.chars().count() as f64);
            match attribute(tag, "text-anchor") {
                "start" => (x, x + width, text),
                _ => (x - width, x, text),
            }
        };
        lines.map(extent).collect()
    }

    #[test]
    fn everything_is_on_the_chart_and_units_stand_together() {
        let text = bars().svg();
        check_nesting(&text);
        assert_eq!(text, bars().svg());
        let order: Vec<String> = texts(&text).into_iter().map(|(_, _, text)| text).collect();
        let names: Vec<&str> =
            order.iter().map(String::as_str).filter(|text| !text.contains(" to ")).collect();
        assert_eq!(
            names,
            [
                "bench <file>",
                "a file of 2 GiB & more",
                "s",
                "diskwire, time",
                "scp, time",
                "MiB/s",
                "diskwire, rate",
                "ratio",
                "scp, time ratio"
            ]
        );
        assert_eq!(text.matches("class=\"bar ours\"").count(), 2);
        assert_eq!((text.matches("class=\"goal\"").count(), text.matches("small missed").count()), (1, 1));
        assert!(text.contains("prefers-color-scheme:dark"), "{text}");
    }

    #[test]
    fn units_can_be_left_out() {
        let mut some = bars();
        some.keep_units(&["ratio".to_owned(), "s".to_owned()]);
        let units: Vec<_> = some.bars.iter().map(|bar| bar.unit.as_str()).collect();
        assert_eq!(units, ["s", "s", ""]);
        some.keep_units(&["MiB".to_owned()]);
        assert!(some.bars.is_empty());
    }

    #[test]
    fn bars_of_one_unit_are_to_scale() {
        let text = bars().svg();
        let widths: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("<rect class=\"bar"))
            .map(|line| attribute(line, "width").parse().unwrap())
            .collect();
        assert!((widths[1] / widths[0] - 3.0).abs() < 0.01, "{widths:?}");
        // The longest whisker or goal of its unit ends where bars end.
        assert!((widths[2] / widths[1] - 1.0).abs() < 0.01, "{widths:?}");
        assert!((widths[3] / widths[1] - (3.0 / 4.0) * 1.2).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn no_text_leaves_its_column() {
        let long = "long ".repeat(60);
        let mut odd = Bars { title: long.clone(), conditions: vec![long.clone(); 50], ..bars() };
        odd.bars.push(Bar { what: long.clone(), value: long.clone(), ..bar("x", &long, 1.0) });
        for text in [odd.svg(), bars().svg()] {
            check_nesting(&text);
            for (from, to, text) in texts(&text) {
                assert!(from >= 0.0 && to <= WIDTH, "{from} to {to}: {text}");
            }
        }
        let text = odd.svg();
        let names = texts(&text).into_iter().filter(|(_, to, _)| *to < WIDTH - VALUES_WIDTH - MARGIN);
        let bars_begin = left(&odd.bars);
        assert!(names.filter(|(from, ..)| *from > MARGIN).all(|(_, to, _)| to <= bars_begin));
    }

    #[test]
    fn odd_figures_make_a_chart_all_the_same() {
        let values = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300];
        let mut odd: Vec<Bar> = values.map(|value| bar("x", "s", value)).into();
        odd.push(Bar { goal: Some(f64::NAN), spread: (5.0, -5.0), ..bar("y", "s", 1.0) });
        for bars in [odd.clone(), [&odd[..]; 100].concat(), odd[..3].to_vec(), Vec::new()] {
            let text = Bars { bars, ..self::bars() }.svg();
            check_nesting(&text);
            let drawn: Vec<_> = text.lines().filter(|line| !line.starts_with("<text")).collect();
            assert!(!drawn.iter().any(|line| line.contains("NaN") || line.contains("inf")), "{drawn:?}");
        }
    }
}
