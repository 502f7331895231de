//! A backtest for people: in a terminal, and in Markdown.

use super::{
    Backtest, Found, Judged, Metric, Scores,
    runs::{ACCEPTED, ENOUGH},
};
use crate::view::{
    render::{Line, Style, Table},
    text::clean,
};

/// A table: its head and its rows.
type Rows = Vec<Vec<String>>;

/// The lines of a report for a terminal of this width.
pub fn lines(backtest: &Backtest, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for paragraph in introduction(backtest) {
        lines.extend(Line::plain(paragraph).wrapped(width, 0));
    }
    lines.push(Line::default());
    lines.extend(table(&judgements(backtest)));
    for metric in &backtest.metrics {
        lines.push(Line::default());
        let title = Line::default().and(Style::Strong, clean(&metric.metric));
        let title = title.and(Style::Plain, format!(": {}", about(metric)));
        lines.extend(title.wrapped(width, 2));
        lines.extend(table(&margins(metric)));
        lines.extend(Line::plain(suggestion(metric)).wrapped(width, 2));
    }
    lines.extend(not_replayed(backtest).map(Line::plain));
    lines
}

/// The report in Markdown.
pub fn markdown(backtest: &Backtest) -> String {
    let mut parts = vec![format!("# Backtest of {}", full_name(backtest))];
    parts.extend(introduction(backtest).into_iter().skip(1));
    parts.push(markdown_table(&judgements(backtest)));
    for metric in &backtest.metrics {
        parts.push(format!("## {}", clean(&metric.metric)));
        parts.push(about(metric));
        parts.push(markdown_table(&margins(metric)));
        parts.push(suggestion(metric));
    }
    parts.extend(not_replayed(backtest));
    parts.join("\n\n") + "\n"
}

fn full_name(backtest: &Backtest) -> String {
    format!("{}/{}", clean(&backtest.namespace), clean(&backtest.name))
}

fn introduction(backtest: &Backtest) -> Vec<String> {
    let runs = backtest.runs();
    let title = format!("Backtest of {}", full_name(backtest));
    let (Some(from), Some(to)) = (&backtest.from, &backtest.to) else {
        let none = "The metric server has no requests of the primary in this time. If the operator has the flag -mesh-provider, name it here, too: \
            -- -mesh-provider=NAME";
        return vec![title, none.to_owned()];
    };
    let weights: Vec<_> = backtest.weights.iter().map(|it| number(*it)).collect();
    let what = format!(
        "{runs} runs between {from} and {to}, of {} steps of {} min with {} % of the requests; rolled back after {} failed checks.",
        weights.len(),
        backtest.step_minutes,
        weights.join(", "),
        backtest.threshold,
    );
    let how = "In each run, half of the primary's pods stood for the canary, so nothing was wrong, and each rollback is a false alarm. Then a \
        part of the canary's good requests was made bad: +1 pp means 1 % of them.";
    let mut all = vec![title, what, how.to_owned()];
    if runs == 0 {
        let none = "No run fits into this time: it needs an hour of requests before it, and requests until its end.";
        all.push(none.to_owned());
    }
    all
}

/// The table of both judges.
fn judgements(backtest: &Backtest) -> Rows {
    let head = [
        "METRIC",
        "JUDGED BY",
        "FALSE ALARMS",
        "WAITS",
        "+1 pp FOUND",
        "+5 pp FOUND",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut add = |name: &str, judged: &Judged| {
        let threshold = judged.threshold.iter().map(|scores| ("threshold", scores));
        for (judge, scores) in threshold.chain([("comparison", &judged.comparison)]) {
            let mut row = vec![name.to_owned(), judge.to_owned()];
            row.extend(cells(scores));
            rows.push(row);
        }
    };
    for metric in &backtest.metrics {
        add(&clean(&metric.metric), &metric.judged);
    }
    if let Some(release) = &backtest.release {
        add("all together", release);
    }
    rows
}

/// The table of other margins.
fn margins(metric: &Metric) -> Rows {
    let head = ["maxIncrease", "FALSE ALARMS", "WAITS", "+1 pp FOUND"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for margin in &metric.margins {
        let mut row = vec![number(margin.max_increase)];
        row.extend(cells(&margin.scores));
        rows.push(row);
    }
    rows
}

fn cells(scores: &Scores) -> Vec<String> {
    if scores.runs == 0 {
        return vec!["-".to_owned(); 2 + scores.found.len()];
    }
    let mut cells = vec![percent(scores.false_alarms), percent(scores.waits)];
    cells.extend(scores.found.iter().map(found));
    cells
}

fn found(found: &Found) -> String {
    let share = percent(found.share);
    match found.median_step {
        Some(step) => format!("{share}, by step {step}"),
        None => share,
    }
}

fn about(metric: &Metric) -> String {
    let drawn =
        "each request was drawn for one of the halves, so differences between pods are not seen";
    let pods = match (metric.per_pod, metric.pods) {
        (false, _) => format!("by the counters of a gateway: {drawn}"),
        (true, 1) => format!("of 1 pod: {drawn}"),
        (true, pods) => format!("of {pods} pods at most"),
    };
    let (requests, bad) = (metric.requests.round(), metric.bad_share * 100.0);
    let dispersion = metric.dispersion;
    format!("{requests} requests, {bad:.3} % of them bad, dispersion {dispersion:.1}, {pods}.")
}

fn suggestion(metric: &Metric) -> String {
    match metric.suggested_max_increase {
        Some(increase) => format!(
            "The least of these margins with at most 1 % false alarms is maxIncrease: {}.",
            number(increase)
        ),
        None if metric.judged.comparison.runs < ENOUGH => {
            format!("A margin is suggested after {ENOUGH} runs.")
        }
        None if { metric.margins.iter() }.any(|it| it.scores.false_alarms <= ACCEPTED) => {
            "With each of these margins, more than 1 % of the runs are false alarms, or more than 10 % wait for requests: a longer interval, or a \
             greater compare.detect, needs fewer."
                .to_owned()
        }
        None => "Each of these margins has more than 1 % false alarms: the primary's pods differ, or failures come in bursts.".to_owned(),
    }
}

fn not_replayed(backtest: &Backtest) -> impl Iterator<Item = String> {
    let of = |it: &super::NotReplayed| {
        format!("{} was not replayed: {}", clean(&it.metric), clean(&it.why))
    };
    backtest.not_replayed.iter().map(of)
}

fn number(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    rounded.to_string()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn table(rows: &Rows) -> Vec<Line> {
    let cell = |style: Style| move |text: &String| (style, text.clone());
    let styled = rows.iter().enumerate().map(|(place, row)| {
        let style = if place == 0 { Style::Dim } else { Style::Plain };
        row.iter().map(cell(style)).collect()
    });
    let styled: Vec<Vec<_>> = styled.collect();
    Table::default().lines(&styled)
}

fn markdown_table(rows: &Rows) -> String {
    // The name of a metric may have a vertical bar.
    let cell = |text: &String| text.replace('|', "\\|");
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().map(cell).collect();
        format!("| {} |", cells.join(" | "))
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    let columns = rows.first().map_or(0, Vec::len);
    lines.insert(1.min(lines.len()), format!("{}|", "| --- ".repeat(columns)));
    lines.join("\n")
}
