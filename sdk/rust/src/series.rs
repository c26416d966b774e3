//! Series on a grid, where NaN means that nothing was sampled.

/// The values that were sampled, in order.
pub fn sampled(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|value| value.is_finite()).collect()
}

/// The newest sampled value.
pub fn last(values: &[f64]) -> Option<f64> {
    values.iter().rev().copied().find(|value| value.is_finite())
}

/// Mean of the values; none of an empty list.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard deviation of the whole population; none of an empty list.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / values.len() as f64;
    Some(variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::{deviation, last, mean, sampled};

    #[test]
    fn gaps_are_not_zeros() {
        let values = [f64::NAN, 2.0, f64::NAN, 4.0, f64::NAN];
        assert_eq!(sampled(&values), [2.0, 4.0]);
        assert_eq!(last(&values), Some(4.0));
        assert_eq!(mean(&sampled(&values)), Some(3.0));
        assert_eq!(deviation(&sampled(&values)), Some(1.0));
        assert_eq!((last(&[f64::NAN]), mean(&[]), deviation(&[])), (None, None, None));
    }
}
