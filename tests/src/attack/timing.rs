//! A14: whether the time of a refused log-in tells a name that exists from one that does not. Statistics over many
//! samples in random order; a machine that does other things too makes noise, so a leak is what shows in each of three
//! series.

use std::time::Instant;

use anyhow::Result;
use rand::seq::SliceRandom as _;

use super::ask::Caller;
use super::ground::{Ground, log_in, unique};
use super::trial::{Trial, Wanted};

const SAMPLES: usize = 1_000;
/// Guesses at one name and from one address: fewer than lock, or are limited.
const GUESSES: usize = 4;
const SERIES: usize = 3;
/// Of the two means.
const DIFFERENCE_MAX: f64 = 0.05;
/// That two series from one distribution lie so far apart.
const P_MIN: f64 = 0.01;

/// A14
pub async fn known_and_unknown_names(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..SERIES {
        let (known, unknown) = series(ground, trial).await?;
        let (difference, p) = (difference(&known, &unknown), p_value(&known, &unknown));
        seen.push(format!("means differ by {:.1} %, p = {p:.3}", difference * 100.0));
        if difference < DIFFERENCE_MAX && p > P_MIN {
            trial.holds("known and unknown names take the same time", seen.join("; "), true);
            return Ok(());
        }
    }
    trial.holds("known and unknown names take the same time", seen.join("; "), false);
    Ok(())
}

/// Seconds of as many wrong guesses at names that exist and at names that do not.
async fn series(ground: &Ground, trial: &mut Trial) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut guesses = Vec::new();
    for _ in 0..SAMPLES / GUESSES {
        let known = ground.person("cashier", Some(ground.here.location_id)).await?.login;
        let unknown = unique("attacked");
        guesses.extend((0..GUESSES).flat_map(|_| [(true, known.clone()), (false, unknown.clone())]));
    }
    guesses.shuffle(&mut rand::rng());
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for some in guesses.chunks(GUESSES) {
        let from = ground.stranger()?;
        // The connection is there before the first guess is timed.
        log_in(&unique("nobody"), "a wrong guess").send(&from).await?;
        for (is_known, login) in some {
            let seconds = guess(&from, login, trial).await?;
            if *is_known { known.push(seconds) } else { unknown.push(seconds) }
        }
    }
    Ok((known, unknown))
}

async fn guess(from: &Caller, login: &str, trial: &mut Trial) -> Result<f64> {
    const WRONG: &[Wanted] = &[(401, "unauthenticated")];
    let begun = Instant::now();
    let answer = log_in(login, "a wrong guess").send(from).await?;
    let seconds = begun.elapsed().as_secs_f64();
    trial.expect("a wrong guess", &answer, WRONG);
    Ok(seconds)
}

/// Of the two means, as a part of the first.
fn difference(one: &[f64], other: &[f64]) -> f64 {
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    (mean(one) - mean(other)).abs() / mean(one)
}

/// Two-sample Kolmogorov-Smirnov: how likely so large a distance is between samples of one distribution.
fn p_value(one: &[f64], other: &[f64]) -> f64 {
    let sorted = |samples: &[f64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (one, other) = (sorted(one), sorted(other));
    let (n, m) = (one.len() as f64, other.len() as f64);
    let share = |sorted: &[f64], at: f64| sorted.partition_point(|sample| *sample <= at) as f64 / sorted.len() as f64;
    let distances = one.iter().chain(&other).map(|at| (share(&one, *at) - share(&other, *at)).abs());
    let distance = distances.fold(0.0, f64::max);
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    // The series below does not converge where samples are as alike as this.
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: i32| f64::from(1 - 2 * (k % 2 == 0) as i32) * (-2.0 * f64::from(k * k) * lambda * lambda).exp();
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn a_shift_shows_and_chance_does_not() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut samples = |shift: f64| -> Vec<f64> { (0..SAMPLES).map(|_| shift + rng.random::<f64>()).collect() };
        let (one, other, later) = (samples(1.0), samples(1.0), samples(1.1));
        assert!(p_value(&one, &other) > P_MIN && difference(&one, &other) < DIFFERENCE_MAX);
        assert!(p_value(&one, &later) < P_MIN && difference(&one, &later) > DIFFERENCE_MAX);
        // Known value: distance 0.5 of two samples of ten.
        let tens = |from: i32| (from..from + 10).map(f64::from).collect::<Vec<_>>();
        let p = p_value(&tens(0), &tens(5));
        assert!((0.10..0.20).contains(&p), "{p}");
        assert!(p_value(&one, &one) > 0.999);
    }
}
