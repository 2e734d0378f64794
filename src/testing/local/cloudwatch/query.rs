use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::super::protocol::ApiError;
use super::super::time::seconds;
use super::super::wire::{Wire, missing};
use super::invalid_value;
use super::put::dimensions;
use super::sink::{MetricPoint, MetricSink};

const METRICS_PER_PAGE: usize = 500;

/// All points of a metric in one period, aggregated.
#[derive(Debug, Clone)]
struct Bucket {
    sample_count: f64,
    sum: f64,
    minimum: f64,
    maximum: f64,
    unit: Option<String>,
}

pub(super) fn get_metric_statistics(sink: &MetricSink, input: &Wire) -> Result<Wire, ApiError> {
    let statistics = input.texts("Statistics")?;
    if let Some(unknown) = statistics.iter().find(|name| Bucket::EMPTY.statistic(name).is_none()) {
        return Err(invalid_value(format!("{unknown} is not a statistic.")));
    }
    let buckets = buckets(sink, input, input)?;
    let datapoint = |(time, bucket): (SystemTime, Bucket)| {
        let value = |name: &'static str| {
            let wanted = statistics.contains(&name).then(|| bucket.statistic(name)).flatten();
            (name, wanted.into())
        };
        Wire::map([
            ("Timestamp", time.into()),
            value("SampleCount"),
            value("Average"),
            value("Sum"),
            value("Minimum"),
            value("Maximum"),
            ("Unit", bucket.unit.clone().unwrap_or_else(|| "None".to_owned()).into()),
        ])
    };
    Ok(Wire::map([
        ("Label", input.required_text("MetricName")?.into()),
        ("Datapoints", Wire::list(buckets.into_iter().map(datapoint))),
    ]))
}

pub(super) fn get_metric_data(sink: &MetricSink, input: &Wire) -> Result<Wire, ApiError> {
    let result = |query: &Wire| -> Result<Wire, ApiError> {
        let stat = query.get("MetricStat").ok_or_else(|| missing("MetricStat"))?;
        let metric = stat.get("Metric").ok_or_else(|| missing("Metric"))?;
        let name = stat.required_text("Stat")?;
        let unknown = || invalid_value(format!("The local endpoint does not compute the statistic {name}."));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        // Newest first, which is the service's default.
        for (time, bucket) in buckets_of(sink, metric, stat, input)?.into_iter().rev() {
            times.push(time.into());
            values.push(bucket.statistic(name).ok_or_else(unknown)?.into());
        }
        Ok(Wire::map([
            ("Id", query.required_text("Id")?.into()),
            ("Label", metric.required_text("MetricName")?.into()),
            ("Timestamps", Wire::List(times)),
            ("Values", Wire::List(values)),
            ("StatusCode", "Complete".into()),
        ]))
    };
    let results = input.items("MetricDataQueries")?.iter().map(result).collect::<Result<_, _>>()?;
    Ok(Wire::map([("MetricDataResults", Wire::List(results)), ("Messages", Wire::list([]))]))
}

pub(super) fn list_metrics(sink: &MetricSink, input: &Wire) -> Result<Wire, ApiError> {
    let (namespace, name) = (input.text("Namespace")?, input.text("MetricName")?);
    let mut filters = Vec::new();
    for filter in input.items("Dimensions")? {
        filters.push((filter.required_text("Name")?, filter.text("Value")?));
    }
    let start: usize = match input.text("NextToken")? {
        Some(token) => token.parse().map_err(|_| invalid_value("NextToken is invalid."))?,
        None => 0,
    };
    let points = sink.points(|point| {
        namespace.is_none_or(|namespace| namespace == point.namespace)
            && name.is_none_or(|name| name == point.name)
            && filters.iter().all(|(name, value)| {
                point.dimensions.get(*name).is_some_and(|actual| value.is_none_or(|value| value == actual))
            })
    });
    let metrics: BTreeSet<_> =
        points.into_iter().map(|point| (point.namespace, point.name, point.dimensions)).collect();
    let more = start.saturating_add(METRICS_PER_PAGE);
    let next = (metrics.len() > more).then(|| more.to_string());
    let metric = |(namespace, name, dimensions): (String, String, BTreeMap<String, String>)| {
        let dimension =
            |(name, value): (String, String)| Wire::map([("Name", name.into()), ("Value", value.into())]);
        Wire::map([
            ("Namespace", namespace.into()),
            ("MetricName", name.into()),
            ("Dimensions", Wire::list(dimensions.into_iter().map(dimension))),
        ])
    };
    let page = metrics.into_iter().skip(start).take(METRICS_PER_PAGE).map(metric);
    Ok(Wire::map([("Metrics", Wire::list(page)), ("NextToken", next.into())]))
}

/// The buckets of a request that names its metric and period directly.
fn buckets(sink: &MetricSink, metric: &Wire, range: &Wire) -> Result<BTreeMap<SystemTime, Bucket>, ApiError> {
    buckets_of(sink, metric, range, range)
}

/// The points of `metric` within `range`, by the `period` that contains them.
fn buckets_of(
    sink: &MetricSink,
    metric: &Wire,
    period: &Wire,
    range: &Wire,
) -> Result<BTreeMap<SystemTime, Bucket>, ApiError> {
    let (namespace, name) = (metric.required_text("Namespace")?, metric.required_text("MetricName")?);
    let dimensions = dimensions(metric)?;
    let period = period.number::<u32>("Period")?.filter(|period| *period > 0);
    let period = period.ok_or_else(|| invalid_value("Period must be at least 1 second."))?;
    let start = range.time("StartTime")?.ok_or_else(|| missing("StartTime"))?;
    let end = range.time("EndTime")?.ok_or_else(|| missing("EndTime"))?;
    let points = sink.points(|point| {
        point.namespace == namespace
            && point.name == name
            && point.dimensions == dimensions
            && (start..end).contains(&point.timestamp)
    });
    let mut buckets = BTreeMap::new();
    for point in points {
        let time = period_start(point.timestamp, period);
        buckets.entry(time).or_insert(Bucket::EMPTY).add(&point);
    }
    Ok(buckets)
}

fn period_start(time: SystemTime, period: u32) -> SystemTime {
    let period = f64::from(period);
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64((seconds(time) / period).floor() * period)
}

impl Bucket {
    const EMPTY: Self =
        Self { sample_count: 0.0, sum: 0.0, minimum: f64::INFINITY, maximum: f64::NEG_INFINITY, unit: None };

    fn add(&mut self, point: &MetricPoint) {
        self.sample_count += point.sample_count;
        self.sum += point.sum;
        self.minimum = self.minimum.min(point.minimum);
        self.maximum = self.maximum.max(point.maximum);
        self.unit = self.unit.take().or_else(|| point.unit.clone());
    }

    fn statistic(&self, name: &str) -> Option<f64> {
        Some(match name {
            "SampleCount" => self.sample_count,
            "Sum" => self.sum,
            "Average" => self.sum / self.sample_count,
            "Minimum" => self.minimum,
            "Maximum" => self.maximum,
            _ => return None,
        })
    }
}
