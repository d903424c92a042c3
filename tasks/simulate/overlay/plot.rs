//! Pictures: panels of lines, as SVG that one can put into a paper.

use anyhow::{Result, anyhow};
use chordal_sim::overlay::{Window, histogram};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::run::Done;

/// A panel's size in pixels.
const PANEL: (u32, u32) = (480, 340);

/// Dark enough on white, and told apart by those who see fewer colours (Okabe and Ito 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(120, 120, 120)];

/// The most points of a line that is a distribution: more would not be seen.
const POINTS: usize = 500;

/// Which share of the lookups is shown where a few take far longer than all others: those would squeeze the rest.
const SHOWN: f64 = 0.99;

/// The most points of a line that counts how often each number came.
const BINS: usize = 80;

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Linear,
    /// By factors of two.
    Log2,
    /// By factors of ten.
    Log10,
}

impl Scale {
    fn place(self, x: f64) -> f64 {
        match self {
            Scale::Linear => x,
            Scale::Log2 => x.max(f64::MIN_POSITIVE).log2(),
            Scale::Log10 => x.max(f64::MIN_POSITIVE).log10(),
        }
    }

    fn label(self, at: f64) -> String {
        match self {
            Scale::Linear if at.fract().abs() < 1e-9 => format!("{at:.0}"),
            Scale::Linear => format!("{at:.3}").trim_end_matches('0').to_owned(),
            Scale::Log2 => grouped(2f64.powf(at)),
            Scale::Log10 => grouped(10f64.powf(at)),
        }
    }
}

fn grouped(number: f64) -> String {
    if number < 0.001 {
        format!("{number:.0e}")
    } else if number < 10.0 {
        format!("{number:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{number:.0}")
    }
}

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Points are marked: they were measured, and the line between them is a help for the eye.
    pub(super) marked: bool,
}

/// A picture of its own within the picture.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) x_scale: Scale,
    pub(super) y_scale: Scale,
    /// Where the names of the lines stand, if there are several.
    pub(super) names: SeriesLabelPosition,
    pub(super) lines: Vec<Line>,
}

/// Hops, delay, load and contacts of one network; failures in time instead of load if nodes came and went.
pub(super) fn run(done: &Done) -> Result<String> {
    let all = [done];
    let last = match &done.figures.churn {
        Some(churn) => windows(&churn.windows),
        None => load(&all),
    };
    draw(&panels(&all, last))
}

/// Both in one picture.
pub(super) fn compare(kademlia: &Done, chord: &Done) -> Result<String> {
    let all = [kademlia, chord];
    draw(&panels(&all, if kademlia.figures.churn.is_some() { dead_met(&all) } else { load(&all) }))
}

fn panels(all: &[&Done], last: Panel) -> Vec<Panel> {
    // Where nothing takes time there is nothing to be seen of it.
    let delay = all.iter().any(|done| done.figures.delay_ms.max > 0.0).then(|| delay(all));
    [hops(all), contacted(all)].into_iter().chain(delay).chain([last]).collect()
}

fn hops(all: &[&Done]) -> Panel {
    let hops = |done: &Done| histogram(done.report.rows.iter().filter(|row| row.found).map(|row| row.hops));
    shares("Hops", "nodes asked in sequence", all, 1.0, hops)
}

fn contacted(all: &[&Done]) -> Panel {
    let contacted = |done: &Done| histogram(done.report.rows.iter().map(|row| row.contacted));
    shares("Contacts of 99% of the lookups", "connections", all, SHOWN, contacted)
}

fn shares(title: &str, x: &'static str, all: &[&Done], shown: f64, counts: impl Fn(&Done) -> Vec<u64>) -> Panel {
    let line =
        |done: &&Done| Line { name: done.figures.overlay.to_owned(), points: bins(&counts(done), shown), marked: true };
    panel(title, x, "share of lookups", all.iter().map(line).collect())
}

/// What share of all each number has, up to where so much of them is shown; several numbers in one where they are many.
fn bins(counts: &[u64], shown: f64) -> Vec<(f64, f64)> {
    let total = counts.iter().sum::<u64>() as f64;
    let mut before = 0.0;
    let seen = counts.iter().take_while(|count| {
        let goes_on = before < shown * total;
        before += **count as f64;
        goes_on
    });
    let seen: Vec<u64> = seen.copied().collect();
    let width = seen.len().div_ceil(BINS).max(1);
    let middle = |bin: usize| (bin * width) as f64 + (width - 1) as f64 / 2.0;
    let share = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / total;
    seen.chunks(width).enumerate().map(|(bin, counts)| (middle(bin), share(counts))).collect()
}

fn delay(all: &[&Done]) -> Panel {
    let line = |done: &&Done| Line {
        name: done.figures.overlay.to_owned(),
        points: shown(cumulative(done.report.rows.iter().map(|row| row.delay_ms).collect())),
        marked: false,
    };
    let panel = panel("Delay of 99% of the lookups", "ms", "share of lookups", all.iter().map(line).collect());
    Panel { names: SeriesLabelPosition::LowerRight, ..panel }
}

fn load(all: &[&Done]) -> Panel {
    let line = |done: &&Done| {
        let asked = &done.report.asked;
        let mean = asked.iter().map(|it| f64::from(*it)).sum::<f64>() / asked.len().max(1) as f64;
        let loads = asked.iter().map(|it| f64::from(*it) / mean.max(f64::MIN_POSITIVE)).collect();
        Line { name: done.figures.overlay.to_owned(), points: cumulative(loads), marked: false }
    };
    let panel = panel("Load", "questions answered, times the mean", "share of nodes", all.iter().map(line).collect());
    Panel { names: SeriesLabelPosition::LowerRight, ..panel }
}

fn windows(windows: &[Window]) -> Panel {
    let line = |name: &str, of: &dyn Fn(&Window) -> f64| Line {
        name: name.to_owned(),
        points: windows.iter().map(|window| (window.until_s, of(window))).collect(),
        marked: false,
    };
    let lines = vec![
        line("failed lookups, %", &|it| 100.0 * it.failures as f64 / it.lookups as f64),
        line("not found of the closest, %", &|it| 100.0 * (1.0 - it.recall)),
        line("dead nodes asked per lookup", &|it| it.dead_met),
    ];
    Panel { names: SeriesLabelPosition::MiddleRight, ..panel("Churn", "seconds", "", lines) }
}

fn dead_met(all: &[&Done]) -> Panel {
    let line = |done: &&Done| Line {
        name: done.figures.overlay.to_owned(),
        points: done.figures.churn.iter().flat_map(|it| &it.windows).map(|it| (it.until_s, it.dead_met)).collect(),
        marked: false,
    };
    panel("Churn", "seconds", "dead nodes asked per lookup", all.iter().map(line).collect())
}

/// A panel with plain axes.
pub(super) fn panel(title: &str, x: &'static str, y: &'static str, lines: Vec<Line>) -> Panel {
    let names = SeriesLabelPosition::UpperRight;
    Panel { title: title.to_owned(), x, y, x_scale: Scale::Linear, y_scale: Scale::Linear, names, lines }
}

/// Which share of these is at most how much.
pub(super) fn cumulative(mut measured: Vec<f64>) -> Vec<(f64, f64)> {
    measured.sort_unstable_by(f64::total_cmp);
    let count = measured.len();
    let step = count.div_ceil(POINTS).max(1);
    let ranks = (1..=count).filter(|rank| *rank == 1 || *rank == count || rank % step == 0);
    let first = measured.first().map(|least| (*least, 0.0));
    first.into_iter().chain(ranks.map(|rank| (measured[rank - 1], rank as f64 / count as f64))).collect()
}

fn shown(mut cumulative: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    cumulative.retain(|(_, share)| *share <= SHOWN);
    cumulative
}

/// Draws panels, two in a row.
pub(super) fn draw(panels: &[Panel]) -> Result<String> {
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = (|| {
            area.fill(&WHITE)?;
            for (area, panel) in area.split_evenly((rows, columns)).iter().zip(panels) {
                draw_panel(area, panel)?;
            }
            area.present()
        })();
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawError = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

fn draw_panel(area: &Drawing<'_>, panel: &Panel) -> Result<(), DrawError> {
    let placed = |line: &Line| -> Vec<(f64, f64)> {
        line.points.iter().map(|(x, y)| (panel.x_scale.place(*x), panel.y_scale.place(*y))).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = panel.lines.iter().map(placed).collect();
    let (x, y) = (extent(&lines, |point| point.0, panel.x_scale), extent(&lines, |point| point.1, panel.y_scale));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(&panel.title, ("sans-serif", 17))
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc(panel.x)
        .y_desc(panel.y)
        .x_labels(7)
        .y_labels(6)
        .x_label_formatter(&|at| panel.x_scale.label(*at))
        .y_label_formatter(&|at| panel.y_scale.label(*at))
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 13))
        .draw()?;
    for (at, (line, points)) in panel.lines.iter().zip(lines).enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        if line.marked {
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    if panel.lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(panel.names.clone())
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}

/// From the least to the greatest value, with zero on plain axes; never empty.
fn extent(lines: &[Vec<(f64, f64)>], of: impl Fn(&(f64, f64)) -> f64, scale: Scale) -> std::ops::Range<f64> {
    let values = || lines.iter().flatten().map(&of).filter(|it| it.is_finite());
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(f64::NEG_INFINITY, f64::max);
    let (least, most) = if least > most { (0.0, 1.0) } else { (least, most) };
    let least = if scale == Scale::Linear { least.min(0.0) } else { least };
    let room = (most - least) * 0.05;
    if room > 0.0 { least..most + room } else { least..least + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_become_svg_whatever_their_values() {
        let lines = |points: Vec<(f64, f64)>| vec![Line { name: "a < b".to_owned(), points, marked: true }];
        let all = [vec![], vec![(0.0, 0.0)], vec![(1.0, 5.0), (2.0, 7.0)], vec![(1e9, 0.0), (1e9, 1.0)]];
        let panels: Vec<Panel> = all.into_iter().map(|it| panel("Title & more", "x", "y", lines(it))).collect();
        let scaled = Panel { x_scale: Scale::Log2, y_scale: Scale::Log10, ..panels[2].clone() };
        let svg = draw(&[panels, vec![scaled]].concat()).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("Title &amp; more") && svg.contains("width=\"960\" height=\"1020\""));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn cumulative_lines_end_at_one_and_are_short() {
        assert_eq!(cumulative(vec![3.0, 1.0]), [(1.0, 0.0), (1.0, 0.5), (3.0, 1.0)]);
        let long = cumulative((0..100_000).map(f64::from).collect());
        assert!(long.len() <= POINTS + 3);
        assert_eq!(long.last(), Some(&(99_999.0, 1.0)));
        assert!(cumulative(Vec::new()).is_empty());
    }

    #[test]
    fn many_numbers_share_a_bin() {
        assert_eq!(bins(&[1, 0, 3], 1.0), [(0.0, 0.25), (1.0, 0.0), (2.0, 0.75)]);
        assert_eq!(bins(&[99, 0, 0, 1], 0.99), [(0.0, 0.99)]);
        let many = bins(&[1; 1000], 1.0);
        assert!(many.len() <= BINS);
        assert_eq!(many[0], (6.0, 0.013));
        assert!((many.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn axes_are_labelled_with_what_was_measured() {
        assert_eq!(Scale::Log2.label(10.0), "1024");
        assert_eq!(Scale::Log10.label(-2.0), "0.01");
        assert_eq!(Scale::Linear.label(0.25), "0.25");
        assert_eq!(Scale::Linear.label(40.0), "40");
    }
}
