//! Line charts as SVG, for loss curves and rooflines.

use crate::{Error, Result};
use std::fmt::Write;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (x, y) in drawing order. Values that are not finite (or not positive on a logarithmic axis) leave a gap.
    pub points: Vec<(f64, f64)>,
}

/// A labelled point of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Written beside it.
    pub label: String,
    /// Place on the x axis.
    pub x: f64,
    /// Place on the y axis.
    pub y: f64,
}

/// What [`line_chart_svg`] draws.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Above the chart.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// Whether the x axis is logarithmic.
    pub log_x: bool,
    /// Whether the y axis is logarithmic.
    pub log_y: bool,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The lines.
    pub series: Vec<Series>,
    /// Points by themselves; they stand inside the range of the lines or widen it.
    pub marks: Vec<Mark>,
}

impl LineChart {
    /// An empty 800x480 chart with linear axes.
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            log_x: false,
            log_y: false,
            width: 800,
            height: 480,
            series: Vec::new(),
            marks: Vec::new(),
        }
    }
}

/// Line colours that stay apart for colour-blind readers.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999933",
];
const LEFT: f64 = 72.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;

/// An axis: a data range, drawn linearly or by logarithm.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
        if low > high {
            return None;
        }
        // A flat line gets some room around it.
        if low == high {
            let room = if log {
                low * 0.5
            } else {
                low.abs().max(1.0) * 0.5
            };
            return Some(Self {
                low: low - room,
                high: high + room,
                log,
            });
        }
        Some(Self { low, high, log })
    }

    /// Position of `value` from 0 (low end) to 1 (high end).
    fn position(&self, value: f64) -> f64 {
        if self.log {
            (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// Round values inside the range, about five of them.
    fn ticks(&self) -> Vec<f64> {
        let inside = |v: &f64| {
            *v >= self.low * (1.0 - 1e-9 * self.low.signum())
                && *v <= self.high + self.high.abs() * 1e-9
        };
        if self.log {
            let (first, last) = (
                self.low.log10().floor() as i32,
                self.high.log10().ceil() as i32,
            );
            let every = ((last - first) / 8).max(1);
            let factors: &[f64] = if last - first > 3 {
                &[1.0]
            } else {
                &[1.0, 2.0, 5.0]
            };
            let decades = (first..=last).step_by(every as usize);
            let ticks: Vec<f64> = decades
                .flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)))
                .filter(inside)
                .collect();
            if ticks.len() >= 2 {
                return ticks;
            }
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|f| f * power)
            .into_iter()
            .find(|s| *s >= rough)
            .unwrap_or(rough);
        let first = (self.low / step).ceil();
        (0..12)
            .map(|i| (first + f64::from(i)) * step)
            .take_while(|v| *v <= self.high + step * 1e-9)
            .collect()
    }
}

/// Draws `chart` as an SVG document.
///
/// Errors: no point that can be drawn, more than eight lines, or a size under 200x150 pixels.
pub fn line_chart_svg(chart: &LineChart) -> Result<String> {
    if chart.width < 200 || chart.height < 150 {
        return Err(Error::Argument(format!(
            "a chart of {}x{} pixels; at least 200x150",
            chart.width, chart.height
        )));
    }
    if chart.series.len() > COLOURS.len() {
        return Err(Error::Argument(format!(
            "{} lines in one chart; at most {}",
            chart.series.len(),
            COLOURS.len()
        )));
    }
    // Beyond this, differences overflow.
    let fits = |v: f64| v.abs() < 1e300;
    let drawable = |p: &(f64, f64)| {
        fits(p.0) && fits(p.1) && !(chart.log_x && p.0 <= 0.0) && !(chart.log_y && p.1 <= 0.0)
    };
    let points = || {
        chart
            .series
            .iter()
            .flat_map(|s| s.points.iter().copied())
            .chain(chart.marks.iter().map(|mark| (mark.x, mark.y)))
            .filter(|p| drawable(p))
    };
    let axes = Axis::over(points().map(|p| p.0), chart.log_x)
        .zip(Axis::over(points().map(|p| p.1), chart.log_y));
    let Some((x_axis, y_axis)) = axes else {
        return Err(Error::Argument(format!(
            "the chart {:?} has no point that can be drawn",
            chart.title
        )));
    };
    let (width, height) = (chart.width as f64, chart.height as f64);
    let (right, bottom) = (width - RIGHT, height - BOTTOM);
    let to_x = |v: f64| LEFT + x_axis.position(v) * (right - LEFT);
    let to_y = |v: f64| bottom - y_axis.position(v) * (bottom - TOP);
    let mut svg = String::new();
    let mut put = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    ));
    put(format!(
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
    ));
    put(text(
        width / 2.0,
        24.0,
        "middle",
        " font-size=\"16\"",
        &chart.title,
    ));
    put(text(
        (LEFT + right) / 2.0,
        height - 12.0,
        "middle",
        "",
        &chart.x_label,
    ));
    let middle = (TOP + bottom) / 2.0;
    put(text(
        16.0,
        middle,
        "middle",
        &format!(" transform=\"rotate(-90 16 {middle})\""),
        &chart.y_label,
    ));
    for tick in x_axis.ticks() {
        let x = to_x(tick);
        put(format!(
            "<path d=\"M{x:.2} {TOP}V{bottom}\" stroke=\"#e5e5e5\"/>"
        ));
        put(text(x, bottom + 16.0, "middle", "", &number(tick)));
    }
    for tick in y_axis.ticks() {
        let y = to_y(tick);
        put(format!(
            "<path d=\"M{LEFT} {y:.2}H{right}\" stroke=\"#e5e5e5\"/>"
        ));
        put(text(LEFT - 6.0, y + 4.0, "end", "", &number(tick)));
    }
    put(format!(
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333333\"/>"
    ));
    for (series, colour) in chart.series.iter().zip(COLOURS) {
        let mut path = String::new();
        let mut command = 'M';
        for point in &series.points {
            if drawable(point) {
                // Writing to a String cannot fail.
                let _ = write!(path, "{command}{:.2} {:.2}", to_x(point.0), to_y(point.1));
                command = 'L';
            } else {
                command = 'M';
            }
        }
        put(format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linejoin=\"round\" \
             stroke-linecap=\"round\"/>"
        ));
    }
    let mut labels = Labels::default();
    for mark in &chart.marks {
        if !drawable(&(mark.x, mark.y)) {
            continue;
        }
        let (x, y) = (to_x(mark.x), to_y(mark.y));
        let colour = COLOURS[1];
        put(format!(
            "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"4\" fill=\"{colour}\"/>"
        ));
        // On the side that has room.
        let (side, anchor) = if x > (LEFT + right) / 2.0 {
            (-1.0, "end")
        } else {
            (1.0, "start")
        };
        let line = labels.free_line(x, y, side, &mark.label);
        if line != y {
            put(format!(
                "<path d=\"M{x:.2} {y:.2}L{:.2} {line:.2}\" stroke=\"{colour}\" stroke-width=\"0.5\"/>",
                x + side * 7.0
            ));
        }
        put(text(x + side * 9.0, line + 4.0, anchor, "", &mark.label));
    }
    for (index, (series, colour)) in chart.series.iter().zip(COLOURS).enumerate() {
        let y = TOP + 14.0 + 16.0 * index as f64;
        put(format!(
            "<path d=\"M{:.2} {:.2}h20\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            right - 24.0,
            y - 4.0
        ));
        put(text(right - 30.0, y, "end", "", &series.name));
    }
    put("</svg>".into());
    Ok(svg)
}

/// Where labels stand already, so that the next ones keep clear of them.
#[derive(Default)]
struct Labels(Vec<(f64, f64, f64)>);

impl Labels {
    /// The height nearest to `y` at which a label beside `x` meets no earlier one.
    fn free_line(&mut self, x: f64, y: f64, side: f64, label: &str) -> f64 {
        const LINE: f64 = 13.0;
        const LETTER: f64 = 6.5;
        let end = x + side * (9.0 + LETTER * label.chars().count() as f64);
        let (low, high) = (x.min(end), x.max(end));
        let is_free = |line: &f64| {
            self.0
                .iter()
                .all(|(l, h, other)| *l > high || *h < low || (line - other).abs() >= LINE)
        };
        let steps = (0..40).flat_map(|step| [f64::from(step), -f64::from(step)]);
        let line = steps.map(|step| y + step * LINE / 2.0).find(is_free);
        let line = line.unwrap_or(y);
        self.0.push((low, high, line));
        line
    }
}

fn text(x: f64, y: f64, anchor: &str, extra: &str, content: &str) -> String {
    let mut safe = String::with_capacity(content.len());
    for c in content.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            // XML has no way to write these.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    format!("<text x=\"{x:.2}\" y=\"{y:.2}\" text-anchor=\"{anchor}\"{extra}>{safe}</text>")
}

/// A tick's label: plain digits in the middle range, an exponent outside it.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 || (size > 0.0 && size < 1e-3) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let fixed = format!("{value:.4}");
    let trimmed = fixed.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" {
        "0".into()
    } else {
        trimmed.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resvg::usvg;

    fn chart(points: Vec<(f64, f64)>) -> LineChart {
        let mut chart = LineChart::new("Loss <of> A & B", "step", "loss");
        chart.series.push(Series {
            name: "train".into(),
            points,
        });
        chart
    }

    #[test]
    fn marks_stand_where_both_logarithms_say() {
        let mut chart = chart(vec![(1.0, 1.0), (100.0, 10_000.0)]);
        (chart.log_x, chart.log_y) = (true, true);
        for (label, x, y) in [("middle", 10.0, 100.0), ("nowhere", 0.0, 1.0)] {
            let label = label.to_string();
            chart.marks.push(Mark { label, x, y });
        }
        let svg = line_chart_svg(&chart).unwrap();
        let middle = ((LEFT + 780.0) / 2.0, (TOP + 428.0) / 2.0);
        let circle = format!("<circle cx=\"{:.2}\" cy=\"{:.2}\"", middle.0, middle.1);
        assert!(svg.contains(&circle), "{svg}");
        assert!(svg.contains("middle") && !svg.contains("nowhere"));
    }

    #[test]
    fn labels_of_near_marks_keep_apart() {
        let mut labels = Labels::default();
        let lines = [100.0, 101.0, 99.0, 100.0].map(|y| labels.free_line(50.0, y, 1.0, "a label"));
        for (index, line) in lines.iter().enumerate() {
            assert!((line - 100.0).abs() < 40.0, "{lines:?}");
            let earlier = &lines[..index];
            assert!(
                earlier.iter().all(|e| (e - line).abs() >= 13.0),
                "{lines:?}"
            );
        }
        assert_eq!(labels.free_line(400.0, 100.0, 1.0, "elsewhere"), 100.0);
    }

    #[test]
    fn is_well_formed_and_names_everything() {
        let mut chart = chart(
            (0..100)
                .map(|i| (f64::from(i), 1.0 / (1.0 + f64::from(i))))
                .collect(),
        );
        chart.series.push(Series {
            name: "validation".into(),
            points: vec![(0.0, 1.0), (99.0, 0.1)],
        });
        for log_y in [false, true] {
            chart.log_y = log_y;
            let svg = line_chart_svg(&chart).unwrap();
            let document = usvg::roxmltree::Document::parse(&svg).unwrap();
            let texts: Vec<&str> = document.descendants().filter_map(|n| n.text()).collect();
            for expected in [
                "Loss <of> A & B",
                "step",
                "loss",
                "train",
                "validation",
                "1",
            ] {
                assert!(
                    texts.contains(&expected),
                    "{expected:?} is missing in {texts:?}"
                );
            }
        }
    }

    #[test]
    fn lines_reach_the_corners_of_the_plot() {
        let svg = line_chart_svg(&chart(vec![(0.0, 0.0), (10.0, 5.0)])).unwrap();
        assert!(svg.contains("d=\"M72.00 428.00L780.00 40.00\""), "{svg}");
    }

    #[test]
    fn gaps_for_what_cannot_be_drawn() {
        let svg = line_chart_svg(&chart(vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)])).unwrap();
        assert!(svg.contains("d=\"M72.00 428.00M780.00 40.00\""), "{svg}");
        let mut log = chart(vec![(0.0, 0.0), (1.0, -2.0)]);
        log.log_y = true;
        assert!(line_chart_svg(&log).is_err());
        assert!(line_chart_svg(&chart(vec![])).is_err());
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high, log| Axis { low, high, log }.ticks();
        assert_eq!(ticks(0.0, 10.0, false), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            ticks(0.01, 10.0, true),
            [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
        );
        assert!((2..12).contains(&ticks(0.31, 0.34, true).len()));
        assert!((2..12).contains(&ticks(1e-12, 1e12, true).len()));
        assert_eq!(
            (number(0.30000000000000004), number(2e6), number(-0.0)),
            ("0.3".into(), "2e6".into(), "0".into())
        );
    }

    #[test]
    fn a_flat_line_lies_in_the_middle() {
        let svg = line_chart_svg(&chart(vec![(0.0, 2.0), (1.0, 2.0)])).unwrap();
        assert!(svg.contains("d=\"M72.00 234.00L780.00 234.00\""), "{svg}");
    }
}
