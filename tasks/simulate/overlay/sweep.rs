//! One parameter over several values.

use anyhow::{Result, ensure};
use plotters::prelude::SeriesLabelPosition;
use serde_json::{Value, json};

use super::files::{self, Csv};
use super::plot::{self, Line, Panel, Scale};
use super::run::{self, Figures};
use crate::cli::{OverlaySweep, OverlayWork, Parameter, Which};
use crate::output::{self, Report};

/// A value of the parameter, and what came of it.
struct Point {
    at: f64,
    figures: Figures,
}

/// `tasks simulate overlay sweep`.
pub(super) fn sweep(task: &OverlaySweep) -> Result<Report> {
    files::check(&task.files)?;
    // All of them are checked before the first is measured.
    let asked: Vec<(f64, OverlayWork)> =
        task.at.iter().map(|at| Ok((*at, with(&task.work, task.over, *at)?))).collect::<Result<_>>()?;
    for (_, work) in &asked {
        run::check(task.which, work)?;
    }
    let mut points = Vec::with_capacity(asked.len());
    for (at, work) in &asked {
        points.push(Point { at: *at, figures: run::measure(task.which, work)?.figures });
    }
    if let Some(path) = &task.files.csv {
        files::write(path, &csv(task.over, &points))?;
    }
    if let Some(path) = &task.files.plot {
        files::write(path, &plot::draw(&panels(task.which, task.over, &points))?)?;
    }
    let figures: Vec<Value> = points.iter().map(|it| json!({ "at": it.at, "figures": it.figures })).collect();
    let text = format!("{}{}", table(task.over, &points), files::told(&task.files));
    Report::new(json!({ "over": task.over.word(), "points": figures }), text)
}

impl Parameter {
    fn word(self) -> &'static str {
        match self {
            Parameter::Nodes => "nodes",
            Parameter::K => "k",
            Parameter::Alpha => "alpha",
            Parameter::Beta => "beta",
            Parameter::StepsToStop => "steps-to-stop",
            Parameter::FastError => "fast-error",
            Parameter::SlowError => "slow-error",
            Parameter::Gamma => "gamma",
            Parameter::Dead => "dead",
            Parameter::Successors => "successors",
            Parameter::Virtual => "virtual",
        }
    }
}

/// The work with another value of the parameter.
fn with(work: &OverlayWork, over: Parameter, at: f64) -> Result<OverlayWork> {
    let mut work = work.clone();
    let network = &mut work.network;
    let word = over.word();
    let whole = || {
        ensure!(at >= 1.0 && at.fract() == 0.0 && at <= 1e12, "{word} is a whole number from 1, not {at}");
        Ok(at as usize)
    };
    let percent = || {
        ensure!((0.0..=100.0).contains(&at), "{word} is a percentage from 0 to 100, not {at}");
        Ok(at)
    };
    match over {
        Parameter::Nodes => network.nodes = whole()?,
        Parameter::K => network.k = whole()?,
        Parameter::Alpha => network.alpha = whole()?,
        Parameter::Beta => network.beta = Some(whole()?),
        Parameter::StepsToStop => network.steps_to_stop = u32::try_from(whole()?)?,
        Parameter::FastError => network.fast_error = percent()?,
        Parameter::SlowError => network.slow_error = percent()?,
        Parameter::Gamma => {
            ensure!((0.0..=3_600_000.0).contains(&at), "gamma is a number of ms from 0 to an hour, not {at}");
            network.gamma = at;
        }
        Parameter::Dead => work.dead = percent()?,
        Parameter::Successors => network.successors = whole()?,
        Parameter::Virtual => network.virtual_nodes = whole()?,
    }
    Ok(work)
}

fn failed_percent(figures: &Figures) -> f64 {
    100.0 * figures.failures as f64 / figures.lookups as f64
}

fn csv(over: Parameter, points: &[Point]) -> String {
    let mut csv = Csv::new(&format!(
        "{},init_s,lookups_per_s,hops_mean,hops_variance,hops_p99,contacted_mean,delay_ms_mean,delay_ms_p99,recall,\
         failures,bytes_per_lookup,questions_max_over_mean,keys_max_over_mean,\
         range_max_over_mean,peak_rss_bytes",
        over.word()
    ));
    for Point { at, figures: it } in points {
        let load = it.load.as_ref();
        csv.row(&[
            at,
            &it.init_s,
            &it.lookups_per_s,
            &it.hops.mean,
            &it.hops.variance,
            &it.hops.p99,
            &it.contacted.mean,
            &it.delay_ms.mean,
            &it.delay_ms.p99,
            &it.recall,
            &it.failures,
            &it.bytes_per_lookup,
            &cell(load.map(|load| load.questions_max_over_mean)),
            &cell(load.map(|load| load.keys_max_over_mean)),
            &cell(load.and_then(|load| load.range_max_over_mean)),
            &cell(it.peak_rss_bytes),
        ]);
    }
    csv.text().to_owned()
}

/// What was not measured is an empty cell.
fn cell(measured: Option<impl ToString>) -> String {
    measured.map(|it| it.to_string()).unwrap_or_default()
}

fn panels(which: Which, over: Parameter, points: &[Point]) -> Vec<Panel> {
    let line = |name: &str, of: &dyn Fn(&Figures) -> f64| Line {
        name: name.to_owned(),
        points: points.iter().map(|point| (point.at, of(&point.figures))).collect(),
        marked: true,
    };
    let panel = |title: &str, y, lines| Panel {
        x_scale: if over == Parameter::Nodes { Scale::Log2 } else { Scale::Linear },
        names: SeriesLabelPosition::UpperLeft,
        ..plot::panel(title, over.word(), y, lines)
    };
    let mut ways = vec![line("hops", &|it| it.hops.mean)];
    if over == Parameter::Nodes {
        let half = points.iter().map(|point| (point.at, point.at.log2() / 2.0)).collect();
        ways.push(Line { name: "½ log2 N".to_owned(), points: half, marked: false });
    }
    if which == Which::Kademlia {
        ways.push(line("contacted", &|it| it.contacted.mean));
    }
    let mut failed = vec![
        line("failed lookups", &failed_percent),
        line("not found of the closest", &|it| 100.0 * (1.0 - it.recall)),
    ];
    if over == Parameter::Dead {
        let same = points.iter().map(|point| (point.at, point.at)).collect();
        failed.push(Line { name: "as many as died".to_owned(), points: same, marked: false });
    }
    let delays = vec![line("mean", &|it| it.delay_ms.mean), line("p99", &|it| it.delay_ms.p99)];
    let load = |it: &Figures| it.load.as_ref().map_or(0.0, |load| load.questions_max_over_mean);
    let range = |it: &Figures| it.load.as_ref().and_then(|load| load.range_max_over_mean).unwrap_or_default();
    let mut loads = vec![line("questions", &load)];
    if which == Which::Chord {
        loads.push(line("range", &range));
    }
    let mut panels = vec![panel("Way", "mean number of nodes", ways), panel("Failures", "%", failed)];
    if points.iter().any(|point| point.figures.delay_ms.max > 0.0) {
        panels.push(panel("Delay", "ms", delays));
    }
    if points.iter().any(|point| point.figures.load.is_some()) {
        panels.push(panel("Load of the busiest node", "times the mean", loads));
    }
    panels
}

fn table(over: Parameter, points: &[Point]) -> String {
    let head = over.word().to_uppercase();
    let mut table = output::table(&[
        &head,
        "MADE IN",
        "PER SECOND",
        "HOPS",
        "VARIANCE",
        "CONTACTED",
        "DELAY MS",
        "RECALL",
        "FAILED",
        "MEMORY MIB",
    ]);
    for Point { at, figures: it } in points {
        table.add_row(vec![
            at.to_string(),
            format!("{:.2} s", it.init_s),
            format!("{:.0}", it.lookups_per_s),
            format!("{:.2}", it.hops.mean),
            format!("{:.2}", it.hops.variance),
            format!("{:.2}", it.contacted.mean),
            format!("{:.1}", it.delay_ms.mean),
            format!("{:.4}", it.recall),
            format!("{:.2}%", failed_percent(it)),
            it.peak_rss_bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string()),
        ]);
    }
    output::lines(&table)
}
