use std::collections::BTreeMap;
use std::time::SystemTime;

use super::super::protocol::ApiError;
use super::super::wire::{Wire, missing};
use super::invalid_value;
use super::sink::{MetricPoint, MetricSink};

const DATA_MAX: usize = 1000;
const DIMENSIONS_MAX: usize = 30;
const VALUES_MAX: usize = 150;

pub(super) fn put_metric_data(sink: &MetricSink, now: SystemTime, input: &Wire) -> Result<Wire, ApiError> {
    let namespace = input.required_text("Namespace")?;
    let mut data: Vec<&Wire> = input.items("MetricData")?.iter().collect();
    for entity in input.items("EntityMetricData")? {
        data.extend(entity.items("MetricData")?);
    }
    if data.len() > DATA_MAX {
        let message = format!("The collection MetricData must not have a size greater than {DATA_MAX}.");
        return Err(invalid_value(message));
    }
    let points: Vec<_> =
        data.into_iter().map(|datum| point(namespace, now, datum)).collect::<Result<_, _>>()?;
    sink.put(points);
    Ok(Wire::Null)
}

fn point(namespace: &str, now: SystemTime, datum: &Wire) -> Result<MetricPoint, ApiError> {
    let [sample_count, sum, minimum, maximum] = statistics(datum)?;
    let name = datum.required_text("MetricName")?;
    if [sample_count, sum, minimum, maximum].iter().any(|value| !value.is_finite()) {
        return Err(invalid_value(format!("A value of {name} is not a finite number.")));
    }
    Ok(MetricPoint {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        dimensions: dimensions(datum)?,
        timestamp: datum.time("Timestamp")?.unwrap_or(now),
        unit: datum.text("Unit")?.map(str::to_owned),
        sample_count,
        sum,
        minimum,
        maximum,
    })
}

/// Sample count, sum, minimum and maximum, in whichever form the datum has them.
fn statistics(datum: &Wire) -> Result<[f64; 4], ApiError> {
    if let Some(set) = datum.get("StatisticValues") {
        let value = |name| set.get(name).and_then(Wire::float).ok_or_else(|| missing(name));
        return Ok([value("SampleCount")?, value("Sum")?, value("Minimum")?, value("Maximum")?]);
    }
    let values = floats(datum, "Values")?;
    if values.is_empty() {
        let value = datum.get("Value").and_then(Wire::float).ok_or_else(|| missing("Value"))?;
        return Ok([1.0, value, value, value]);
    }
    let mut counts = floats(datum, "Counts")?;
    if counts.is_empty() {
        counts = vec![1.0; values.len()];
    }
    if values.len() > VALUES_MAX || counts.len() != values.len() {
        let message = format!("Values and Counts must have the same length of at most {VALUES_MAX}.");
        return Err(invalid_value(message));
    }
    let sum = values.iter().zip(&counts).map(|(value, count)| value * count).sum();
    let minimum = values.iter().copied().fold(f64::INFINITY, f64::min);
    let maximum = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok([counts.iter().sum(), sum, minimum, maximum])
}

fn floats(datum: &Wire, name: &str) -> Result<Vec<f64>, ApiError> {
    let float = |value: &Wire| value.float().ok_or_else(|| invalid_value(format!("{name} are not numbers.")));
    datum.items(name)?.iter().map(float).collect()
}

/// The list `Dimensions` of a datum or a query.
pub(super) fn dimensions(of: &Wire) -> Result<BTreeMap<String, String>, ApiError> {
    let items = of.items("Dimensions")?;
    if items.len() > DIMENSIONS_MAX {
        return Err(invalid_value(format!("A metric has at most {DIMENSIONS_MAX} dimensions.")));
    }
    let dimension =
        |item: &Wire| Ok((item.required_text("Name")?.to_owned(), item.required_text("Value")?.to_owned()));
    items.iter().map(dimension).collect()
}
