//! Ahead-of-time caches of the JVMs: recorded by the first run that ends cleanly, used by every later one, in any checkout.

use std::fs;
use std::path::{Path, PathBuf};

use super::layout::Layout;

fn cache(layout: &Layout, home: &Path) -> PathBuf {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    layout.cache.join("aot").join(format!("{name}.aot"))
}

/// Being recorded by this run folder; two checkouts may record at once.
fn recording(layout: &Layout, home: &Path) -> PathBuf {
    let run = layout.run.file_name().unwrap_or_default().to_string_lossy();
    cache(layout, home).with_extension(format!("{run}.part"))
}

/// The quick compiler alone: beside a development build no server runs hot for long enough to earn back what the other one
/// costs (a third of what a start does). Benchmarks run the release build and get both.
pub fn compiler(layout: &Layout) -> Option<&'static str> {
    (!layout.bin.ends_with("release")).then_some("-XX:TieredStopAtLevel=1")
}

/// The option that uses the cache, or the one that records it. A throwaway stack records nothing: its end must be quick.
pub fn aot(layout: &Layout, home: &Path) -> Option<String> {
    let cache = cache(layout, home);
    if cache.exists() {
        // A cache that does not fit is ignored with a warning, never an error.
        return Some(format!("-XX:AOTCache={}", cache.display()));
    }
    if layout.throwaway || fs::create_dir_all(layout.cache.join("aot")).is_err() {
        return None;
    }
    Some(format!("-XX:AOTCacheOutput={}", recording(layout, home).display()))
}

/// After a clean end: publishes what was recorded.
pub fn keep_recording(layout: &Layout, home: &Path) {
    let part = recording(layout, home);
    if fs::metadata(&part).is_ok_and(|file| file.len() > 1 << 20) {
        // Losing the race against another checkout, or a full disk, only costs a slower start.
        fs::rename(&part, cache(layout, home)).ok();
    }
}

pub fn is_recorded_at_stop(layout: &Layout) -> bool {
    !layout.throwaway && [&layout.kafka_home, &layout.registry_home].iter().any(|home| !cache(layout, home).exists())
}
