//! The chart of a drill: the time of every request, over the time at which it was sent.
//!
//! ```text
//!   title
//!   10 s ┤          │▒▒▒▒▒▒▒▒▒▒▒▒│
//!    5 s ┤ ─ ─ ─ ─ ─│▒ predicted ▒│─ ─ ─      points by path, time on a logarithmic scale
//!   1 ms ┤ ·:·:·:·:·│:·:·:·:·:·:·│:·:·:
//!        └──────────┴────────────┴──────▶ seconds since the fault began
//!   path 0  ████████ active █████████████
//!   path 1  ████████│████ failed ██│█████
//!   legend
//! ```
//!
//! Keeps true: it is one file that needs no other, and is read on a light and on a dark screen; equal input gives equal
//! text. Not here: SVG (`svg`), bars of a measurement (`bars`), measuring.

pub mod bars;
mod svg;

use std::collections::BTreeMap;
use std::fmt::Write;

use svg::{Svg, pixel};

/// Width of the whole, in pixels.
const WIDTH: u32 = 960;
/// Where the plot begins and ends, from left to right.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 936.0;
/// From top to bottom.
const TOP: f64 = 66.0;
const BOTTOM: f64 = 396.0;
/// Of a path's band, with the space below it.
const BAND_HEIGHT: f64 = 16.0;
const BAND_STEP: f64 = 36.0;
/// Signs of an address that fit beside a band's name.
const ADDRESS_SIGNS_MAX: usize = 100;
/// Points of paths have colours that people who see few of them tell apart; more paths begin anew.
const PATH_COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9d4d"),
    ("#007a5a", "#2fd6a6"),
    ("#aa4488", "#e79ac8"),
    ("#7a6a00", "#e8d84a"),
    ("#4b3fa8", "#a79cff"),
    ("#8c2d19", "#ff8f7a"),
    ("#444444", "#cccccc"),
];
/// States of a path, with their colours on a light and on a dark screen.
const STATE_COLOURS: [(&str, &str, &str); 6] = [
    ("active", "#8fce9b", "#2f7d43"),
    ("isolated", "#f2cf66", "#8a6d00"),
    ("failed", "#ee9a93", "#a3352b"),
    ("standby", "#b9d4ee", "#345f8a"),
    ("foreign", "#d9b3e6", "#7a3f91"),
    ("disabled", "#c9c9c9", "#5c5c5c"),
];

/// A request. Times are in seconds; those on the axis count from the beginning of the fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When it was sent.
    pub at: f64,
    /// How long it took.
    pub seconds: f64,
    /// The path that it went over last.
    pub path: Option<usize>,
    /// Whether it was done.
    pub is_done: bool,
    /// Whether it met the fault.
    pub met_fault: bool,
}

/// A path was in a state.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// From then.
    pub from: f64,
    /// Until then.
    pub to: f64,
    /// The state's word.
    pub state: String,
}

/// A path with its states, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its place.
    pub place: usize,
    /// Its address.
    pub address: String,
    /// Its states.
    pub bands: Vec<Band>,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What stands above.
    pub title: String,
    /// The beginning of the time axis; the fault begins at 0.
    pub begins: f64,
    /// Its end.
    pub ends: f64,
    /// The fault's word.
    pub fault: String,
    /// The path at fault.
    pub fault_path: usize,
    /// When the fault ended.
    pub fault_ends: f64,
    /// The longest time that was predicted.
    pub predicted: Option<f64>,
    /// The longest that was measured of requests that met the fault.
    pub worst: Option<f64>,
    /// The requests.
    pub points: Vec<Point>,
    /// All paths.
    pub paths: Vec<Path>,
}

/// From values to pixels.
struct Scale {
    begins: f64,
    ends: f64,
    /// Powers of ten of a second.
    lowest: i32,
    highest: i32,
}

impl Scale {
    fn new(chart: &Chart) -> Self {
        let times = chart.points.iter().map(|point| point.seconds).chain(chart.predicted);
        let times = times.filter(|time| (1e-9..1e6).contains(time));
        let (low, high) =
            times.fold((1e-3, 1e-2), |(low, high): (f64, f64), time| (low.min(time), high.max(time)));
        // Between -9 and 7.
        let (lowest, highest) = (low.log10().floor() as i32, (high * 1.2).log10().ceil() as i32);
        Self { begins: chart.begins, ends: chart.ends.max(chart.begins + 1e-3), lowest, highest }
    }

    fn x(&self, at: f64) -> f64 {
        let share = (at.max(self.begins) - self.begins) / (self.ends - self.begins);
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn y(&self, seconds: f64) -> f64 {
        let (low, high) = (f64::from(self.lowest), f64::from(self.highest));
        let share = (seconds.max(1e-9).log10() - low) / (high - low);
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    /// Seconds between two marks of the time axis: 1, 2 or 5 times a power of ten, and at most a dozen marks.
    fn step(&self) -> f64 {
        let least = (self.ends - self.begins) / 12.0;
        let power = 10f64.powi(least.log10().floor() as i32);
        [1.0, 2.0, 5.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= least)
            .unwrap_or(10.0 * power)
    }
}

impl Chart {
    /// The drawing.
    #[must_use]
    pub fn svg(&self) -> String {
        let scale = Scale::new(self);
        let bands_at = BOTTOM + 58.0;
        let legend_at = bands_at + BAND_STEP * self.paths.len() as f64 + 14.0;
        // A few hundred pixels.
        let height = (legend_at + 34.0) as u32;
        let mut svg = Svg::new(WIDTH, height, &self.title, &style());
        svg.rectangle("ground", (0.0, 0.0), (f64::from(WIDTH), f64::from(height)));
        svg.text((24.0, 28.0), "start", "title", &self.title);
        svg.text((24.0, 48.0), "start", "label", &self.subtitle());
        self.push_fault(&mut svg, &scale);
        push_axes(&mut svg, &scale);
        self.push_points(&mut svg, &scale);
        self.push_bound(&mut svg, &scale);
        self.push_bands(&mut svg, &scale, bands_at);
        self.push_legend(&mut svg, legend_at);
        svg.end()
    }

    fn subtitle(&self) -> String {
        let mut text = format!(
            "{} of path {} for {}; {} requests",
            self.fault,
            self.fault_path,
            time(self.fault_ends),
            self.points.len()
        );
        let failed = self.points.iter().filter(|point| !point.is_done).count();
        let _ = write!(text, ", {failed} failed");
        if let Some(worst) = self.worst {
            let _ = write!(text, "; the worst that met the fault took {}", time(worst));
        }
        if let Some(predicted) = self.predicted {
            let _ = write!(text, ", {} predicted", time(predicted));
        }
        text
    }

    fn push_fault(&self, svg: &mut Svg, scale: &Scale) {
        let (from, to) = (scale.x(0.0), scale.x(self.fault_ends));
        svg.rectangle("fault", (from, TOP), (to - from, BOTTOM - TOP));
        svg.text(
            (from + 6.0, BOTTOM - 8.0),
            "start",
            "label",
            &format!("{} of path {}", self.fault, self.fault_path),
        );
    }

    /// One element for each path, or thousands of requests would make a large file.
    fn push_points(&self, svg: &mut Svg, scale: &Scale) {
        let mut dots: BTreeMap<Option<usize>, String> = BTreeMap::new();
        let (mut crosses, mut met) = (String::new(), String::new());
        for point in &self.points {
            let (x, y) = (pixel(scale.x(point.at)), pixel(scale.y(point.seconds)));
            if point.met_fault {
                let _ = write!(met, "M{x},{y}h0");
            }
            let _ = if point.is_done {
                write!(dots.entry(point.path).or_default(), "M{x},{y}h0")
            } else {
                write!(crosses, "M{x},{y}m-4,-4l8,8m0,-8l-8,8")
            };
        }
        if !met.is_empty() {
            svg.element("path", "met", &[("d", &met)]);
        }
        for (path, dots) in dots {
            let class =
                path.map_or_else(|| "dot".to_owned(), |path| format!("dot p{}", path % PATH_COLOURS.len()));
            svg.element("path", &class, &[("d", &dots)]);
        }
        if !crosses.is_empty() {
            svg.element("path", "cross", &[("d", &crosses)]);
        }
    }

    fn push_bound(&self, svg: &mut Svg, scale: &Scale) {
        let Some(predicted) = self.predicted else { return };
        let y = scale.y(predicted);
        svg.line("bound", (LEFT, y), (RIGHT, y));
        svg.text((RIGHT - 4.0, y - 5.0), "end", "label", &format!("predicted worst {}", time(predicted)));
    }

    fn push_bands(&self, svg: &mut Svg, scale: &Scale, top: f64) {
        for (row, path) in self.paths.iter().enumerate() {
            let y = top + BAND_STEP * row as f64;
            let dot = format!("M{},{}h0", pixel(30.0), pixel(y + BAND_HEIGHT / 2.0));
            svg.element("path", &format!("dot big p{}", path.place % PATH_COLOURS.len()), &[("d", &dot)]);
            svg.text((42.0, y + 12.0), "start", "label", &format!("path {}", path.place));
            for band in &path.bands {
                let (from, to) = (scale.x(band.from), scale.x(band.to));
                svg.rectangle(
                    &format!("band {}", class_of(&band.state)),
                    (from, y),
                    (to - from, BAND_HEIGHT),
                );
                // About six pixels a sign.
                if to - from > 8.0 + 6.5 * band.state.chars().count() as f64 {
                    svg.text((from + 4.0, y + 12.0), "start", "small", &band.state);
                }
            }
            svg.text((LEFT, y + BAND_HEIGHT + 11.0), "start", "small faint", &short(&path.address));
        }
    }

    fn push_legend(&self, svg: &mut Svg, y: f64) {
        let mut x = 24.0;
        let mut entry = |svg: &mut Svg, width: f64, text: &str, draw: &dyn Fn(&mut Svg, f64)| {
            draw(svg, x);
            svg.text((x + 24.0, y + 10.0), "start", "small", text);
            x += 34.0 + width;
        };
        entry(svg, 178.0, "a request, in its path's colour", &|svg, x| {
            svg.element(
                "path",
                "dot big p0",
                &[("d", &format!("M{},{}h0", pixel(x + 10.0), pixel(y + 6.0)))],
            );
        });
        entry(svg, 86.0, "met the fault", &|svg, x| {
            let at = format!("M{},{}h0", pixel(x + 10.0), pixel(y + 6.0));
            svg.element("path", "met", &[("d", &at)]);
            svg.element("path", "dot p0", &[("d", &at)]);
        });
        entry(svg, 44.0, "failed", &|svg, x| {
            let cross = format!("M{},{}m-4,-4l8,8m0,-8l-8,8", pixel(x + 10.0), pixel(y + 6.0));
            svg.element("path", "cross", &[("d", &cross)]);
        });
        entry(svg, 58.0, "the fault", &|svg, x| svg.rectangle("fault", (x, y), (18.0, 12.0)));
        entry(svg, 86.0, "predicted worst", &|svg, x| svg.line("bound", (x, y + 6.0), (x + 18.0, y + 6.0)));
        let seen: Vec<&str> = STATE_COLOURS
            .iter()
            .map(|(state, ..)| *state)
            .filter(|state| self.paths.iter().any(|path| path.bands.iter().any(|band| band.state == *state)))
            .collect();
        for state in seen {
            let width = 6.0 * state.len() as f64 + 4.0;
            entry(svg, width, state, &|svg, x| svg.rectangle(&format!("band {state}"), (x, y), (18.0, 12.0)));
        }
    }
}

fn push_axes(svg: &mut Svg, scale: &Scale) {
    for power in scale.lowest..=scale.highest {
        let seconds = 10f64.powi(power);
        let y = scale.y(seconds);
        svg.line("grid", (LEFT, y), (RIGHT, y));
        svg.text((LEFT - 8.0, y + 4.0), "end", "label", &time(seconds));
    }
    let step = scale.step();
    let first = (scale.begins / step).ceil() as i64;
    let last = (scale.ends / step).floor() as i64;
    // A dozen at most.
    for mark in first..=last.min(first.saturating_add(20)) {
        let at = mark as f64 * step;
        let x = scale.x(at);
        svg.line("axis", (x, BOTTOM), (x, BOTTOM + 5.0));
        let decimals = if step < 0.1 { 2 } else { usize::from(step < 1.0) };
        svg.text((x, BOTTOM + 19.0), "middle", "label", &format!("{at:.decimals$}"));
    }
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.line("axis", (LEFT, TOP), (LEFT, BOTTOM));
    let middle = (LEFT + RIGHT) / 2.0;
    svg.text(
        (middle, BOTTOM + 38.0),
        "middle",
        "label",
        "when it was sent, in seconds since the fault began",
    );
    let (x, y) = (22.0, (TOP + BOTTOM) / 2.0);
    svg.turned_text((x, y), "label", "time of a request (logarithmic)");
}

/// The class of a state; an unknown one has no colour of its own.
fn class_of(state: &str) -> &'static str {
    STATE_COLOURS.iter().find(|(known, ..)| *known == state).map_or("unknown", |(known, ..)| known)
}

/// A text without its middle, if it is long.
fn short(text: &str) -> String {
    let count = text.chars().count();
    if count <= ADDRESS_SIGNS_MAX {
        return text.to_owned();
    }
    let half = ADDRESS_SIGNS_MAX / 2 - 1;
    let (head, tail): (String, String) =
        (text.chars().take(half).collect(), text.chars().skip(count - half).collect());
    format!("{head}..{tail}")
}

/// A time with its unit, in three digits or so.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.999_5e-6 => (s * 1e9, "ns"),
        s if s < 0.999_5e-3 => (s * 1e6, "µs"),
        s if s < 0.999_5 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value >= 99.95 || (value - value.round()).abs() < 0.000_5 { 0 } else { 3 };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

fn style() -> String {
    let mut light = String::from(
        ".fault{fill:#f4e3c1}\
         .dot{fill:none;stroke:#666;stroke-width:4;stroke-linecap:round;stroke-opacity:.75}.big{stroke-width:9;stroke-opacity:1}\
         .met{fill:none;stroke:#b00020;stroke-width:11;stroke-linecap:round;stroke-opacity:.35}.cross{fill:none;stroke:#b00020;stroke-width:2}.band{fill:#eee}",
    );
    let mut dark = String::from(
        ".fault{fill:#3d3420}.dot{stroke:#aaa}.met{stroke:#ff6b7d}.cross{stroke:#ff6b7d}.band{fill:#2a2d33}",
    );
    for (place, (on_light, on_dark)) in PATH_COLOURS.iter().enumerate() {
        let _ = write!(light, ".p{place}{{stroke:{on_light}}}");
        let _ = write!(dark, ".p{place}{{stroke:{on_dark}}}");
    }
    for (state, on_light, on_dark) in STATE_COLOURS {
        let _ = write!(light, ".{state}{{fill:{on_light}}}");
        let _ = write!(dark, ".{state}{{fill:{on_dark}}}");
    }
    svg::style(&light, &dark)
}

#[cfg(test)]
mod tests {
    use super::svg::tests::check_nesting;
    use super::*;

    fn chart() -> Chart {
        let point =
            |at: f64, seconds, path| Point { at, seconds, path: Some(path), is_done: true, met_fault: false };
        let mut points: Vec<Point> =
            (0..600u32).map(|n| point(f64::from(n) * 0.01 - 1.0, 0.002, n as usize % 2)).collect();
        points.push(Point { at: 0.5, seconds: 4.0, path: None, is_done: false, met_fault: true });
        points.push(Point { met_fault: true, ..point(0.0, 5.002, 0) });
        let band = |from, to, state: &str| Band { from, to, state: state.to_owned() };
        let path = |place, bands| Path { place, address: format!("file:disks/<{place}>.img"), bands };
        Chart {
            title: "Drill of disk0/1 & more".to_owned(),
            begins: -1.0,
            ends: 13.0,
            fault: "hang".to_owned(),
            fault_path: 1,
            fault_ends: 10.0,
            predicted: Some(5.025),
            worst: Some(5.002),
            points,
            paths: vec![
                path(0, vec![band(-1.0, 13.0, "active")]),
                path(
                    1,
                    vec![band(-1.0, 5.0, "active"), band(5.0, 10.0, "failed"), band(10.0, 13.0, "active")],
                ),
            ],
        }
    }

    #[test]
    fn everything_is_on_the_chart() {
        let text = chart().svg();
        check_nesting(&text);
        for part in [
            "Drill of disk0/1 &amp; more",
            "hang of path 1 for 10 s; 602 requests, 1 failed; the worst that met the fault took 5.002 s, 5.025 s predicted",
            "predicted worst 5.025 s",
            "seconds since the fault began",
            "time of a request",
            ">path 0<",
            ">failed<",
            "file:disks/&lt;1&gt;.img",
            "prefers-color-scheme:dark",
            ">10 ms<",
            ">100 ms<",
            "class=\"cross\"",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(
            text.matches("h0").count(),
            601 + 2 + 2 + 1 + 2,
            "requests, those that met it, paths, and the legend"
        );
        assert!(text.len() < 40_000, "{}", text.len());
        assert_eq!(text, chart().svg());
    }

    #[test]
    fn odd_input_makes_a_chart_all_the_same() {
        let bare = Chart { points: Vec::new(), paths: Vec::new(), predicted: None, worst: None, ..chart() };
        check_nesting(&bare.svg());
        let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300];
        let points = odd.map(|value| Point {
            at: value,
            seconds: value,
            path: Some(usize::MAX),
            is_done: true,
            met_fault: true,
        });
        let text = Chart { points: points.into(), begins: 0.0, ends: 0.0, fault_ends: -3.0, ..bare }.svg();
        check_nesting(&text);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn marks_are_round_and_few() {
        for (ends, step) in [(13.0, 2.0), (0.5, 0.2), (3600.0, 500.0)] {
            assert_eq!(Scale::new(&Chart { ends, ..chart() }).step(), step, "{ends}");
        }
        assert_eq!([1e-7, 1e-5, 0.01, 1.0, 5.0254].map(time), ["100 ns", "10 µs", "10 ms", "1 s", "5.025 s"]);
    }
}
